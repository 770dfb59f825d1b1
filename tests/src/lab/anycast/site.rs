//! A MEC host of an anycast lab: two backends, edgesteer, and a BGP speaker beside it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::Result;
use serde_json::{Value, json};

use crate::lab::{Daemon, Namespace, backends::Backends, forward, program::Program, wait};

/// A MEC host with its applications.
#[derive(Debug)]
pub struct Site {
    /// The host.
    pub host: Namespace,
    /// edgesteer on it.
    pub daemon: Daemon,
    pub(super) number: usize,
    pub(super) backends: Backends,
    pub(super) speakers: Vec<Program>,
    pub(super) directory: PathBuf,
    keep: bool,
}

impl Site {
    pub(super) fn new(
        number: usize,
        host: Namespace,
        apps: [Namespace; 2],
        router: &Namespace,
    ) -> Result<Self> {
        let directory = PathBuf::from(format!("/run/{}-programs", host.name()));
        fs::create_dir_all(&directory)?;
        // FRR works as another user.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
        let far = format!("site{number}");
        host.link("access0", (router, &far))?;
        router.prepare_far_end(&far)?;
        let link = |end| format!("192.0.2.{}", 16 * number + end);
        router.ip(&format!("addr add {}/28 dev {far}", link(1)))?;
        host.ip(&format!(
            "link set lo up\naddr add {}/28 dev access0\nroute add default via {}",
            link(2),
            link(1)
        ))?;
        forward(&host)?;
        let name = format!("site{number}");
        let backends = Backends::new(&name, 10 * number, apps, &host, directory.clone())?;
        let port = |name: &str, role: &str| {
            format!("[[port]]\nname = '{name}'\ninterface = '{name}'\nrole = '{role}'\n")
        };
        let ports = [
            port("access0", "access"),
            port("app0", "app"),
            port("app1", "app"),
        ];
        let vip = "[vip]\nhold_down = 2\n";
        let daemon = Daemon::configured(&host, &(ports.concat() + vip), "{\"vips\": []}")?;
        let site = Self {
            host,
            daemon,
            number,
            backends,
            speakers: Vec::new(),
            directory,
            keep: false,
        };
        site.say(["UP", "UP"])?;
        Ok(site)
    }

    pub(super) fn address(&self, end: usize) -> String {
        format!("192.0.2.{}", 16 * self.number + end)
    }

    pub(super) fn keep(&mut self) {
        self.keep = true;
        self.host.keep();
        self.daemon.keep();
        self.backends.keep();
        self.speakers.iter_mut().for_each(Program::keep);
    }

    /// Says which backends should serve, and in which state.
    pub fn say(&self, states: [&str; 2]) -> Result<()> {
        let vip = json!({"vips": [{
            "vipId": "web", "address": "203.0.113.80", "protocol": "TCP", "port": 80, "mode": "DNAT",
            "backends": self.backends.say(states), "announce": true, "fallback": {"action": "PASS"},
            "healthCheck": {"type": "TCP", "port": 8080, "intervalSeconds": 1, "timeoutSeconds": 1, "rise": 1, "fall": 1}
        }]});
        self.daemon.write_rules(&vip.to_string())
    }

    /// Starts a backend's server.
    pub fn serve(&self, place: usize) -> Result<()> {
        self.backends.serve(place)
    }

    /// Kills a backend's server. Its kernel refuses what comes.
    pub fn kill(&self, place: usize) {
        self.backends.kill(place);
    }

    /// What edgesteer says of the VIP.
    pub fn status(&self) -> Result<Value> {
        self.daemon.vip(&self.host)
    }

    /// Packets that ended for a reason, on all ports.
    pub fn reason(&self, name: &str) -> Result<u64> {
        self.daemon.reason(&self.host, name)
    }

    /// Returns when the VIP is announced, or not.
    pub fn wait_announced(&self, announced: bool) -> Result<()> {
        wait("the announcement", || {
            let status = self.status()?;
            anyhow::ensure!(status["announced"] == announced, "{status}");
            Ok(())
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
