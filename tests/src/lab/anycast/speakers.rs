//! BGP speakers: BIRD and FRR.

use std::{fs, path::Path};

use anyhow::Result;

use super::Site;
use crate::lab::{Namespace, program::Program};

impl Site {
    /// Starts the BGP speaker.
    pub fn speak(&mut self) -> Result<()> {
        let (own, router) = (self.address(2), self.address(1));
        let number = 65000 + self.number;
        if self.number < 3 {
            let text = format!(
                "router id {own};\nlog stderr all;\nprotocol device {{}}\nprotocol direct {{ interface \"lo\"; ipv4; }}
                 protocol bgp uplink {{ local as {number}; neighbor {router} as 65000; hold time 3; keepalive time 1;
                 connect delay time 1; connect retry time 1; error wait time 1, 2;
                 ipv4 {{ import none; export where source = RTS_DEVICE; }}; }}"
            );
            self.speakers
                .push(bird(&self.host, &self.directory, &text)?);
            return Ok(());
        }
        let text = format!(
            "router bgp {number}\n bgp router-id {own}\n no bgp ebgp-requires-policy\n timers bgp 1 3\n \
             neighbor {router} remote-as 65000\n neighbor {router} timers connect 1\n \
             address-family ipv4 unicast\n  redistribute connected\n"
        );
        for (name, text) in [("zebra", "hostname site\n"), ("bgpd", &*text)] {
            let configuration = self.directory.join(format!("{name}.conf"));
            fs::write(&configuration, text)?;
            let mut command = self.host.command(&format!("/usr/local/lib/frr/{name}"));
            command.args([
                "-u",
                "frr",
                "-g",
                "frr",
                "-A",
                "127.0.0.1",
                "-P",
                "0",
                "--log",
                "stdout",
                "-f",
            ]);
            command
                .arg(configuration)
                .arg("-z")
                .arg(self.directory.join("zserv.api"));
            command.arg("--vty_socket").arg(&self.directory);
            command
                .arg("-i")
                .arg(self.directory.join(format!("{name}.pid")));
            self.speakers
                .push(Program::start(command, &self.directory, name)?);
        }
        Ok(())
    }
}

/// BIRD in a namespace with this configuration.
pub(super) fn bird(namespace: &Namespace, directory: &Path, text: &str) -> Result<Program> {
    let configuration = directory.join("bird.conf");
    fs::write(&configuration, text)?;
    let mut command = namespace.command("bird");
    command.arg("-f").arg("-c").arg(configuration);
    command.arg("-s").arg(directory.join("bird.ctl"));
    Program::start(command, directory, "bird")
}
