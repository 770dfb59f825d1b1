//! GoBGP, told by its command line: its API is gRPC, which would be a large dependency for two calls.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    panic::resume_unwind,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Errors, Speaker, Wanted};

/// A command that takes longer is ended.
const PATIENCE: Duration = Duration::from_secs(3);
/// So many commands run at a time.
const AT_ONCE: usize = 8;
const STEP: Duration = Duration::from_millis(5);

pub(super) struct Gobgp {
    api: SocketAddr,
    /// What was announced by us and may have to be withdrawn.
    ours: BTreeSet<IpAddr>,
}

impl Gobgp {
    pub(super) const fn new(api: SocketAddr) -> Self {
        Self {
            api,
            ours: BTreeSet::new(),
        }
    }

    /// The routes of whole addresses that `gobgpd` has of itself.
    fn known(&self) -> Result<BTreeSet<IpAddr>, String> {
        let mut known = BTreeSet::new();
        for family in ["ipv4", "ipv6"] {
            let text = self.run(&["--json", "global", "rib", "--address-family", family])?;
            let table: Value = serde_json::from_str(&text)
                .map_err(|error| format!("gobgp says what is no JSON: {error}"))?;
            known.extend(
                table
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter_map(own_route),
            );
        }
        Ok(known)
    }

    /// Announces or withdraws addresses, several at a time; what was wrong with which.
    fn change_all(&self, due: Vec<(IpAddr, bool)>) -> Errors {
        let change = |&(address, announced): &(IpAddr, bool)| {
            let verb = if announced { "add" } else { "del" };
            Some((address, self.change(verb, address).err()?))
        };
        thread::scope(|scope| {
            let shares = due.chunks(due.len().div_ceil(AT_ONCE).max(1));
            let running: Vec<_> = shares
                .map(|share| {
                    scope.spawn(move || share.iter().filter_map(&change).collect::<Vec<_>>())
                })
                .collect();
            let ended = running.into_iter().map(|it| it.join());
            let ended = ended.map(|it| it.unwrap_or_else(|panic| resume_unwind(panic)));
            ended.flatten().collect()
        })
    }

    fn change(&self, verb: &str, address: IpAddr) -> Result<String, String> {
        let (family, length) = match address {
            IpAddr::V4(_) => ("ipv4", 32),
            IpAddr::V6(_) => ("ipv6", 128),
        };
        let prefix = format!("{address}/{length}");
        self.run(&["global", "rib", verb, &prefix, "--address-family", family])
    }

    /// Runs `gobgp` and returns what it prints.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let (host, port) = (self.api.ip().to_string(), self.api.port().to_string());
        let mut command = Command::new("gobgp");
        command
            .args(["--host", &host, "--port", &port])
            .args(arguments);
        let (good, text) = output(&mut command).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return "the program `gobgp` is not found: install GoBGP's command line".to_owned();
            }
            format!("gobgp: {error}")
        })?;
        match good {
            true => Ok(text),
            false => Err(format!("gobgp: {}", text.trim())),
        }
    }
}

impl Speaker for Gobgp {
    fn adopt(&mut self) -> Result<Vec<IpAddr>, String> {
        // Whose its routes are cannot be seen. What is not healthy is withdrawn, whoever announced it.
        Ok(Vec::new())
    }

    fn say(&mut self, wanted: &Wanted) -> Errors {
        if wanted.is_empty() && self.ours.is_empty() {
            return Errors::new();
        }
        let known = match self.known() {
            Ok(known) => known,
            Err(error) => return wanted.keys().map(|it| (*it, error.clone())).collect(),
        };
        let all: BTreeSet<_> = wanted.keys().chain(&self.ours).copied().collect();
        let is_wanted = |address: &IpAddr| wanted.get(address) == Some(&true);
        let due = all.iter().copied();
        let due = due.filter(|it| is_wanted(it) != known.contains(it));
        let errors = self.change_all(due.map(|it| (it, is_wanted(&it))).collect());
        for address in all.difference(&errors.keys().copied().collect()) {
            match is_wanted(address) {
                true => self.ours.insert(*address),
                false => self.ours.remove(address),
            };
        }
        errors
    }
}

/// The address of a route if it is one of a whole address that was not learned from a peer.
fn own_route((prefix, paths): (&String, &Value)) -> Option<IpAddr> {
    let (address, length) = prefix.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    let local = |path: &Value| {
        path["source-id"]
            .as_str()
            .is_none_or(|id| id.is_empty() || id == "<nil>")
    };
    let own = length == whole && paths.as_array()?.iter().any(local);
    own.then_some(address)
}

/// Runs a command to its end, or ends it; whether it went well and what it printed.
fn output(command: &mut Command) -> io::Result<(bool, String)> {
    let piped = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut process = piped.spawn()?;
    let (mut out, mut err) = (process.stdout.take(), process.stderr.take());
    // They are read while it runs, since a pipe holds only so much.
    thread::scope(|scope| {
        let text = scope.spawn(move || read(&mut out));
        let words = scope.spawn(move || read(&mut err));
        let end = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = process.try_wait()? {
                break status;
            }
            if Instant::now() >= end {
                process.kill()?;
                process.wait()?;
                return Err(io::Error::other(format!("no answer in {PATIENCE:?}")));
            }
            thread::sleep(STEP);
        };
        let gone = |_| io::Error::other("its output was not read");
        let (text, words) = (text.join().map_err(gone)?, words.join().map_err(gone)?);
        Ok(if status.success() {
            (true, text)
        } else {
            (false, text + &words)
        })
    })
}

fn read(from: &mut Option<impl io::Read>) -> String {
    let mut bytes = Vec::new();
    // What there is of it is enough to say what was wrong.
    let _ = from.as_mut().map(|from| from.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}
