//! ExaBGP, told by its command pipe, which a process of its configuration reads.
//!
//! The pipe is held open while the daemon runs, so that process (`packaging/exabgp-vips`) knows when the daemon was killed.
//! ExaBGP's own pipe `exabgp.in` will do as well, without that.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use super::{Errors, Speaker, Wanted};

/// So often a withdrawal is said: what is read by the process of an ExaBGP that was killed is lost, and it ends thereby.
const WITHDRAWALS: u8 = 3;

pub(super) struct Exabgp {
    path: PathBuf,
    /// It stays open: many a reader ends with its writer.
    pipe: Option<File>,
    /// Whether it is announced, and how often that it is not was said.
    told: BTreeMap<IpAddr, (bool, u8)>,
}

impl Exabgp {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            pipe: None,
            told: BTreeMap::new(),
        }
    }

    /// A command is shorter than what a pipe takes as a whole or not at all.
    fn command(&mut self, announced: bool, address: IpAddr) -> Result<(), String> {
        let verb = if announced { "announce" } else { "withdraw" };
        let length = if address.is_ipv4() { 32 } else { 128 };
        let line = format!("{verb} route {address}/{length} next-hop self\n");
        self.write(line.as_bytes()).map_err(|error| {
            self.pipe = None;
            let path = self.path.display();
            match error.raw_os_error() {
                Some(libc::ENXIO | libc::EPIPE) => {
                    format!("nobody reads {path}: is ExaBGP running?")
                }
                Some(libc::EAGAIN) => format!("ExaBGP does not read {path}: it is full"),
                _ => format!("{path}: {error}"),
            }
        })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let pipe = match &mut self.pipe {
            Some(pipe) => pipe,
            None => {
                // Without waiting for a reader.
                let open = OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_NONBLOCK)
                    .open(&self.path)?;
                if !open.metadata()?.file_type().is_fifo() {
                    return Err(io::Error::other("it is no named pipe"));
                }
                self.pipe.insert(open)
            }
        };
        pipe.write_all(line)
    }
}

impl Speaker for Exabgp {
    fn adopt(&mut self) -> Result<Vec<IpAddr>, String> {
        // It cannot be asked. What is not healthy is withdrawn, known or not.
        Ok(Vec::new())
    }

    fn say(&mut self, wanted: &Wanted) -> Errors {
        let forgotten = self
            .told
            .keys()
            .filter(|address| !wanted.contains_key(address));
        let forgotten: Vec<_> = forgotten.map(|address| (*address, false)).collect();
        let all = wanted
            .iter()
            .map(|(address, announced)| (*address, *announced));
        let mut errors = Errors::new();
        for (address, announced) in all.chain(forgotten) {
            // One that was started anew has been told nothing; what it knows already changes nothing.
            let said = match self.told.get(&address) {
                Some((false, said)) if !announced => *said,
                _ => 0,
            };
            if said == WITHDRAWALS {
                continue;
            }
            let count = if announced { 0 } else { said + 1 };
            match self.command(announced, address) {
                Ok(()) => _ = self.told.insert(address, (announced, count)),
                Err(error) => _ = errors.insert(address, error),
            }
        }
        self.told.retain(|address, (announced, said)| {
            *announced || *said < WITHDRAWALS || wanted.contains_key(address)
        });
        errors
    }
}
