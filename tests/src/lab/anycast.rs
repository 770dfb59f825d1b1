//! Several MEC hosts that announce one VIP to a router, each with two backends.
//!
//! ```text
//!                           ┌── access0 [ site 1 ] app0, app1: backends a and b
//!  client ──── router (BIRD)├── access0 [ site 2 ] app0, app1
//! 10.45.0.7                 └── access0 [ site 3 ] app0, app1
//! ```
//!
//! The router takes the first site that announces. Sites run BIRD, and the third one FRR.

mod site;
mod speakers;

use std::{fs, io, net::TcpStream, path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

pub use site::Site;
use speakers::bird;

use super::{Namespace, backends, forward, program::Program, unique_name};

/// The lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Anycast {
    /// Who asks.
    pub client: Namespace,
    router: Namespace,
    /// The hosts, in the order of the router's preference.
    pub sites: Vec<Site>,
    directory: PathBuf,
    programs: Vec<Program>,
    keep: bool,
}

impl Anycast {
    /// So many sites, all running and announcing.
    pub fn start(sites: usize) -> Result<Self> {
        Self::named(&unique_name()?, sites)
    }

    /// The same with namespaces that are called `PREFIX-client` and so on; replaces one of the same name.
    pub fn named(prefix: &str, sites: usize) -> Result<Self> {
        let namespace = |name: &str| Namespace::create(&format!("{prefix}-{name}"));
        let directory = PathBuf::from(format!("/run/{prefix}-router"));
        fs::create_dir_all(&directory)?;
        let mut lab = Self {
            client: namespace("client")?,
            router: namespace("router")?,
            sites: Vec::new(),
            directory,
            programs: Vec::new(),
            keep: false,
        };
        lab.client.link("client0", (&lab.router, "clients"))?;
        lab.client
            .ip("addr add 10.45.0.7/24 dev client0\nroute add default via 10.45.0.1")?;
        lab.router
            .ip("link set lo up\naddr add 10.45.0.1/24 dev clients")?;
        forward(&lab.router)?;
        for number in 1..=sites {
            let host = namespace(&format!("site{number}"))?;
            let apps = [
                namespace(&format!("site{number}-a"))?,
                namespace(&format!("site{number}-b"))?,
            ];
            lab.sites.push(Site::new(number, host, apps, &lab.router)?);
        }
        lab.route()?;
        for site in &mut lab.sites {
            site.speak()?;
            site.serve(0)?;
            site.serve(1)?;
            site.daemon.start(&site.host)?;
        }
        for site in &lab.sites {
            site.wait_announced(true)?;
        }
        Ok(lab)
    }

    /// Leaves the lab in place, and what runs in it running, when the value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        self.client.keep();
        self.router.keep();
        self.programs.iter_mut().for_each(Program::keep);
        self.sites.iter_mut().for_each(Site::keep);
    }

    /// BIRD on the router.
    fn route(&mut self) -> Result<()> {
        let sites = self.sites.iter().map(|site| {
            let (number, preference) = (site.number, 400 - 100 * site.number);
            format!(
                "protocol bgp site{number} from site {{ neighbor {} as {};
                 ipv4 {{ import filter {{ if net != 203.0.113.80/32 then reject; bgp_local_pref = {preference}; accept; }};
                         export none; }}; }}\n",
                site.address(2),
                65000 + number
            )
        });
        let text = format!(
            "router id 10.45.0.1;\nlog stderr all;\nprotocol device {{ scan time 1; }}
             protocol kernel {{ ipv4 {{ import none; export all; }}; }}
             template bgp site {{ local as 65000; hold time 3; keepalive time 1; connect delay time 1;
                                  connect retry time 1; error wait time 1, 2; }}\n{}",
            sites.collect::<String>()
        );
        self.programs
            .push(bird(&self.router, &self.directory, &text)?);
        Ok(())
    }

    /// Asks the VIP who serves. `None`: nobody answered in this time.
    pub fn ask(&self, patience: Duration) -> Option<String> {
        self.client.enter(|| backends::ask(patience)).ok()
    }

    /// Sends so many octets to the VIP, and answers how many came back.
    pub fn echo(&self, octets: usize) -> io::Result<usize> {
        self.client.enter(|| backends::echo(octets))
    }

    /// Has the router send no more than this to the client at once, of which nobody else knows.
    pub fn narrow_to_client(&self, mtu: u16) -> Result<()> {
        let batch = format!("route change 10.45.0.0/24 dev clients mtu lock {mtu}");
        self.router.ip(&batch)
    }

    /// Makes the ports of the first site's backends narrow. They know, but tell the client that they take long segments.
    pub fn narrow_to_backends(&self, mtu: u16) -> Result<()> {
        let site = &self.sites[0];
        site.backends.narrow(&site.host, mtu)
    }

    /// Begins a long download. It goes on as the caller reads it.
    pub fn download(&self) -> Result<TcpStream> {
        let begun = self.client.enter(backends::download);
        begun.context("cannot begin a download")
    }

    /// Cuts the cable of a site, at the router, or puts it back.
    pub fn cut(&self, site: usize, cut: bool) -> Result<()> {
        let state = if cut { "down" } else { "up" };
        self.router
            .ip(&format!("link set site{} {state}", site + 1))
    }

    /// The site that the router sends to, from 1.
    pub fn preferred(&self) -> Option<usize> {
        let mut command = self.router.command("ip");
        let output = command
            .args(["route", "get", "203.0.113.80"])
            .output()
            .ok()?;
        let words = String::from_utf8_lossy(&output.stdout);
        let device = words.split("dev site").nth(1)?;
        device.split(' ').next()?.parse().ok()
    }
}

impl Drop for Anycast {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
