//! The lab, the servers in it and the daemon; all under fixed names, so that anything that knows
//! the names can remove them.

use std::{
    env, fs,
    net::IpAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{Lab, Mobile, Mode, Namespace};

/// Start of the names of the namespaces.
pub(crate) const PREFIX: &str = "edgesteer-demo";
/// Configuration, rules, socket and log of the daemon.
pub(crate) const DIRECTORY: &str = "/run/edgesteer-demo";
/// Where the daemon answers.
pub(crate) const SERVER: &str = "unix:/run/edgesteer-demo/api.sock";
const CONFIGURATION_FILE: &str = "/run/edgesteer-demo/edgesteer.toml";
const CONFIGURATION: &str = include_str!("edgesteer.toml");
const GTPU_CONFIGURATION: &str = include_str!("edgesteer-gtpu.toml");
const RULES: &str = include_str!("rules.json");
/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything that the acts use. It is removed by [`clean`], not by dropping it.
pub(crate) struct Stage {
    scenery: Scenery,
    daemon: Child,
}

/// What is around the MEC host.
pub(crate) enum Scenery {
    /// The UE's packets come as they are.
    Plain(Lab),
    /// They come in a tunnel.
    Gtpu(Box<Mobile>),
}

impl Stage {
    /// Lays out the lab, starts the servers and the daemon.
    pub(crate) fn set(gtpu: bool) -> Result<Self> {
        fs::create_dir_all(format!("{DIRECTORY}/rules.d"))?;
        set_state("INACTIVE")?;
        let (scenery, daemon) = if gtpu {
            fs::write(CONFIGURATION_FILE, GTPU_CONFIGURATION)?;
            // The signalling of UEs goes through the host too.
            let (mut mobile, daemon) = Mobile::named(PREFIX, start_daemon)?;
            mobile.keep();
            (Scenery::Gtpu(Box::new(mobile)), daemon)
        } else {
            fs::write(CONFIGURATION_FILE, CONFIGURATION)?;
            let mut lab = Lab::named(PREFIX, Mode::Wire)?;
            lab.keep();
            let daemon = start_daemon(&lab.host)?;
            (Scenery::Plain(lab), daemon)
        };
        scenery.serve()?;
        Ok(Self { scenery, daemon })
    }

    /// Whether the UE is behind a tunnel.
    pub(crate) const fn is_gtpu(&self) -> bool {
        matches!(self.scenery, Scenery::Gtpu(_))
    }

    /// The UE's address.
    pub(crate) fn ue_address(&self) -> IpAddr {
        match &self.scenery {
            Scenery::Plain(_) => Lab::UE,
            Scenery::Gtpu(mobile) => mobile.ues[0].address,
        }
    }

    /// Starts the daemon again.
    pub(crate) fn start_daemon(&mut self) -> Result<()> {
        self.daemon = start_daemon(self.scenery.host())?;
        Ok(())
    }

    /// Ends the daemon without a chance to say goodbye.
    pub(crate) fn kill_daemon(&mut self) -> Result<()> {
        self.daemon.kill()?;
        self.daemon.wait()?;
        Ok(())
    }

    /// Runs edgesteer's examination of the host.
    pub(crate) fn doctor(&self) -> Result<String> {
        let mut command = self.scenery.host().command(&program()?);
        said(command.args(["doctor", "--config", CONFIGURATION_FILE]))
    }

    /// Runs the command line of edgesteer on the host.
    pub(crate) fn edgesteer(&self, args: &[&str]) -> Result<String> {
        edgesteer(self.scenery.host(), args)
    }

    /// Runs a program on the UE.
    pub(crate) fn ue(&self, program: &str, args: &[&str]) -> Result<String> {
        said(self.scenery.ue().command(program).args(args))
    }

    /// Runs a program on the MEC host.
    pub(crate) fn host(&self, program: &str, args: &[&str]) -> Result<String> {
        said(self.scenery.host().command(program).args(args))
    }
}

impl Scenery {
    pub(crate) const fn host(&self) -> &Namespace {
        match self {
            Self::Plain(lab) => &lab.host,
            Self::Gtpu(mobile) => &mobile.host,
        }
    }

    pub(crate) const fn ue(&self) -> &Namespace {
        match self {
            Self::Plain(lab) => &lab.ue,
            Self::Gtpu(mobile) => &mobile.ues[0].namespace,
        }
    }

    /// Starts the web servers of the data network and of the applications.
    fn serve(&self) -> Result<()> {
        let (network, apps) = match self {
            Self::Plain(lab) => (&lab.network, &lab.apps),
            Self::Gtpu(mobile) => (&mobile.network, &mobile.apps),
        };
        let itself = env::current_exe().context("cannot tell where the demo is")?;
        let itself = itself.to_str().context("the demo's path is not text")?;
        for (namespace, greeting, addresses) in [
            (
                network,
                "Hello from the data network, far away.",
                &["203.0.113.9:80", "203.0.113.9:8080"],
            ),
            (
                &apps[0],
                "Hello from application A, at the edge.",
                &["198.18.1.2:80", "203.0.113.9:80"],
            ),
            (
                &apps[1],
                "Hello from application B, at the edge.",
                &["198.18.2.2:80", "203.0.113.9:8080"],
            ),
        ] {
            let mut server = namespace.command(itself);
            server.args(["serve", greeting]).args(addresses);
            start(&mut server, "server.log")?;
        }
        Ok(())
    }
}

/// Writes the rule file, as an operator would edit it; the daemon watches it.
pub(crate) fn set_state(state: &str) -> Result<()> {
    // Renamed into place: the daemon never reads half a file.
    let path = format!("{DIRECTORY}/rules.d/video.json");
    let new = format!("{DIRECTORY}/video.json.new");
    fs::write(&new, RULES.replace("\"INACTIVE\"", &format!("\"{state}\"")))?;
    Ok(fs::rename(new, path)?)
}

/// Starts the daemon on the host and waits until it answers.
fn start_daemon(host: &Namespace) -> Result<Child> {
    let mut daemon = host.command(&program()?);
    daemon.args(["run", "--config", CONFIGURATION_FILE]);
    let mut daemon = start(&mut daemon, "edgesteer.log")?;
    let answered = wait("the daemon does not answer", || {
        let answer = edgesteer(host, &["get", "ports"]);
        if answer.is_err() && daemon.try_wait()?.is_some() {
            return Ok(false);
        }
        answer.map(|_| true)
    })?;
    ensure!(answered, "the daemon does not start:\n{}", log()?);
    Ok(daemon)
}

fn edgesteer(host: &Namespace, args: &[&str]) -> Result<String> {
    let mut command = host.command(&program()?);
    said(command.args(args).args(["--server", SERVER]))
}

/// Tries again until it works, or fails as the last try did.
pub(crate) fn wait<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => {
                return Err(error.context(format!("{what}; its log:\n{}", log()?)));
            }
            Err(_) => sleep(Duration::from_millis(50)),
        }
    }
}

/// Removes everything a demo makes, wherever it ended.
pub(crate) fn clean() -> Result<()> {
    for name in left("/run/netns")? {
        Namespace::remove(&name)?;
    }
    for parent in ["/sys/fs/bpf", "/run"] {
        for name in left(parent)? {
            let directory = format!("{parent}/{name}");
            fs::remove_dir_all(&directory).with_context(|| format!("cannot remove {directory}"))?;
        }
    }
    Ok(())
}

/// What a demo left in a directory.
fn left(directory: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let rest = name.strip_prefix(PREFIX);
        if rest.is_some_and(|it| it.is_empty() || it.starts_with('-')) {
            left.push(name);
        }
    }
    Ok(left)
}

/// What the daemon wrote.
fn log() -> Result<String> {
    Ok(fs::read_to_string(format!("{DIRECTORY}/edgesteer.log"))?)
}

/// Starts a program that outlives the demo and does not hear its Ctrl-C.
fn start(command: &mut Command, log: &str) -> Result<Child> {
    fs::create_dir_all(DIRECTORY)?;
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(Path::new(DIRECTORY).join(log))?;
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))
}

/// Runs a program to its end and returns what it printed.
fn said(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if !status.success() {
        bail!(
            "{command:?}: {status}: {}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

/// The `edgesteer` that was built beside the demo.
pub(crate) fn program() -> Result<String> {
    let itself = env::current_exe().context("cannot tell where the demo is")?;
    let program: PathBuf = itself.with_file_name("edgesteer");
    ensure!(program.exists(), "{} is not built", program.display());
    Ok(program.to_string_lossy().into_owned())
}
