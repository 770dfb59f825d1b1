//! As much traffic as goes through, or as is asked for: iperf3.

use std::{fs, net::IpAddr, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::{Namespace, program::Program};

/// A server of iperf3, for one client at a time.
#[derive(Debug)]
pub struct Iperf {
    directory: PathBuf,
    _server: Program,
}

impl Iperf {
    /// Listens at all addresses of the namespace.
    pub fn serve(namespace: &Namespace, port: u16) -> Result<Self> {
        let name = format!("iperf3-{port}");
        let directory = PathBuf::from(format!("/run/{}-{name}", namespace.name()));
        fs::create_dir_all(&directory)?;
        let mut command = namespace.command("iperf3");
        command.args(["--server", "--forceflush", "--port", &port.to_string()]);
        let server = Program::start(command, &directory, &name)?;
        let log = directory.join(format!("{name}.log"));
        server.wait(|| {
            fs::read_to_string(&log)
                .ok()?
                .contains("listening")
                .then_some(())
        })?;
        Ok(Self {
            directory,
            _server: server,
        })
    }
}

impl Drop for Iperf {
    fn drop(&mut self) {
        // What it wrote is of no interest.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Sends octets over TCP to a server, or from it with `--reverse` in the arguments. Answers how many arrived.
pub fn iperf(namespace: &Namespace, server: IpAddr, port: u16, args: &[&str]) -> Result<u64> {
    let mut command = namespace.command("iperf3");
    command.args(["--json", "--port", &port.to_string()]);
    command.args(["--client", &server.to_string()]).args(args);
    let output = command
        .output()
        .context("cannot start iperf3: run `cargo xtask setup`")?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    if let Some(error) = answer["error"].as_str() {
        bail!("iperf3: {error}");
    }
    let received = answer["end"]["sum_received"]["bytes"].as_u64();
    received.with_context(|| format!("iperf3 counted nothing: {answer}"))
}
