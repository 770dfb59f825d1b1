//! Two MEC hosts that serve one VIP, each the fallback of the other, and UEs at both.
//!
//! ```text
//!  ues ──── access0 [ west ] peer0 ══ GRE ══ peer0 [ east ] access0 ──── ues
//!                app0 │ │ app1                 app0 │ │ app1
//! ```
//!
//! Or with one port to a router, which UEs and the other host are behind:
//!
//! ```text
//!           ues ─┬─ router ─┬─ ues
//!         uplink0│          │uplink0
//!            [ west ]    [ east ]
//!         app0 │ │ app1   app0 │ │ app1
//! ```

use std::{fs, io, net::TcpStream, path::PathBuf, time::Duration};

use anyhow::Result;
use serde_json::{Value, json};

use super::{
    Daemon, Namespace,
    backends::{self, Backends, VIP},
    forward, unique_name, wait,
};

/// The lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Peers {
    /// West, and east.
    pub hosts: [Peer; 2],
    _router: Option<Namespace>,
}

/// A MEC host with UEs and applications.
#[derive(Debug)]
pub struct Peer {
    /// The UEs, with the addresses 10.45.0.7 to 10.45.0.22 at the first host, and of 10.46.0.0/24 at the second.
    pub ues: Namespace,
    /// The host.
    pub host: Namespace,
    /// edgesteer on it.
    pub daemon: Daemon,
    number: usize,
    backends: Backends,
    directory: PathBuf,
}

impl Peers {
    /// Both hosts, without a server anywhere.
    pub fn start() -> Result<Self> {
        let prefix = unique_name()?;
        let ports = [("access0", "access"), ("peer0", "peer")];
        let mut hosts = [
            Peer::new(&prefix, 0, &ports)?,
            Peer::new(&prefix, 1, &ports)?,
        ];
        hosts[0].host.link("peer0", (&hosts[1].host, "peer0"))?;
        for peer in &mut hosts {
            peer.host.link("access0", (&peer.ues, "ues0"))?;
            peer.dress_ues(&peer.host, "access0")?;
            // Frames that the other program has redirected are taken by NAPI.
            peer.host.prepare_far_end("peer0")?;
            let address = format!("addr add {}/24 dev peer0", Peer::address(peer.number));
            peer.host.ip(&address)?;
            peer.daemon.start(&peer.host)?;
        }
        Ok(Self {
            hosts,
            _router: None,
        })
    }

    /// The same, where each host has one port to a router.
    pub fn start_behind_a_router() -> Result<Self> {
        let prefix = unique_name()?;
        let router = Namespace::create(&format!("{prefix}-router"))?;
        forward(&router)?;
        let ports = [("uplink0", "access")];
        let mut hosts = [
            Peer::new(&prefix, 0, &ports)?,
            Peer::new(&prefix, 1, &ports)?,
        ];
        for peer in &mut hosts {
            let number = peer.number;
            let (to_host, to_ues) = (format!("host{number}"), format!("ues{number}"));
            router.link(&to_host, (&peer.host, "uplink0"))?;
            router.link(&to_ues, (&peer.ues, "ues0"))?;
            peer.dress_ues(&router, &to_ues)?;
            router.prepare_far_end(&to_host)?;
            let (own, gateway) = (Peer::address(number), "198.51.100.254");
            peer.host.ip(&format!(
                "addr add {own} dev uplink0\nroute add {gateway} dev uplink0\nroute add default via {gateway}"
            ))?;
            // Who asks from here is served here.
            router.ip(&format!(
                "addr add {gateway} dev {to_host}\nroute add {own} dev {to_host}\n\
                 route add {} via {own} table {to}\nrule add iif {to_ues} lookup {to}",
                VIP.ip(),
                to = 100 + number
            ))?;
            peer.daemon.start(&peer.host)?;
        }
        Ok(Self {
            hosts,
            _router: Some(router),
        })
    }
}

impl Peer {
    /// UEs at each host.
    pub const UES: u8 = 16;

    /// A host with these ports to the outside, the last of which leads to the other host.
    fn new(prefix: &str, number: usize, ports: &[(&str, &str)]) -> Result<Self> {
        let name = ["west", "east"][number];
        let namespace = |of: &str| Namespace::create(&format!("{prefix}-{name}-{of}"));
        let (ues, host) = (namespace("ues")?, namespace("host")?);
        let directory = PathBuf::from(format!("/run/{}-programs", host.name()));
        fs::create_dir_all(&directory)?;
        forward(&host)?;
        let apps = [namespace("a")?, namespace("b")?];
        let backends = Backends::new(name, 20 + 10 * number, apps, &host, directory.clone())?;
        let to_peer = ports.last().map_or("", |(name, _)| name);
        let all = ports.iter().chain(&[("app0", "app"), ("app1", "app")]);
        let ports = all.map(|(name, role)| {
            format!("[[port]]\nname = '{name}'\ninterface = '{name}'\nrole = '{role}'\n")
        });
        let peer = format!(
            "[[peer]]\nname = 'other'\naddress = '{}'\nencapsulation = 'gre'\nkey = 77\nsource = '{}'\nport = '{to_peer}'\n",
            Self::address(1 - number),
            Self::address(number)
        );
        let daemon = Daemon::configured(
            &host,
            &(ports.collect::<String>() + &peer),
            "{\"vips\": []}",
        )?;
        let peer = Self {
            ues,
            host,
            daemon,
            number,
            backends,
            directory,
        };
        peer.say("FLOW")?;
        Ok(peer)
    }

    /// Gives the UEs their addresses, and their router its own on this interface.
    fn dress_ues(&self, router: &Namespace, interface: &str) -> Result<()> {
        self.ues.prepare_far_end("ues0")?;
        let network = format!("10.{}.0", 45 + self.number);
        router.ip(&format!("addr add {network}.1/24 dev {interface}"))?;
        let all = (0..Self::UES).map(|ue| format!("addr add {network}.{}/24 dev ues0\n", 7 + ue));
        self.ues
            .ip(&(all.collect::<String>() + &format!("route add default via {network}.1")))
    }

    fn address(number: usize) -> String {
        format!("198.51.100.{}", 1 + number)
    }

    /// Says what keeps a backend.
    pub fn say(&self, affinity: &str) -> Result<()> {
        let vip = json!({"vips": [{
            "vipId": "web", "address": "203.0.113.80", "protocol": "TCP", "port": 80, "mode": "DNAT", "affinity": affinity,
            "backends": self.backends.say(["UP", "UP"]), "fallback": {"action": "PEER", "peer": "other"},
            "healthCheck": {"type": "TCP", "port": 8080, "intervalSeconds": 1, "timeoutSeconds": 1, "rise": 1, "fall": 1}
        }]});
        self.daemon.write_rules(&vip.to_string())
    }

    /// Starts both servers, or ends them, and waits until that is known.
    pub fn serve(&self, serve: bool) -> Result<()> {
        for place in 0..2 {
            if serve {
                self.backends.serve(place)?;
            } else {
                self.backends.kill(place);
            }
        }
        let state = if serve { "UP" } else { "DOWN" };
        wait("the backends", || {
            let status = self.status()?;
            let is = |place: usize| status["backends"][place]["state"] == state;
            anyhow::ensure!(is(0) && is(1), "{status}");
            Ok(())
        })
    }

    /// What edgesteer says of the VIP.
    pub fn status(&self) -> Result<Value> {
        self.daemon.vip(&self.host)
    }

    /// Packets that ended for a reason.
    pub fn reason(&self, name: &str) -> Result<u64> {
        self.daemon.reason(&self.host, name)
    }

    /// Asks the VIP who serves, as the UE with this number.
    pub fn ask(&self, ue: u8) -> io::Result<String> {
        self.prefer(ue)?;
        self.ues
            .enter(|| backends::ask(Duration::from_millis(1000)))
    }

    /// Sends so many octets to the VIP, and answers how many came back.
    pub fn echo(&self, octets: usize) -> io::Result<usize> {
        self.ues.enter(|| backends::echo(octets))
    }

    /// Begins a long download. It goes on as the caller reads it.
    pub fn download(&self) -> io::Result<TcpStream> {
        self.ues.enter(backends::download)
    }

    /// Has the next connection be that of a UE.
    fn prefer(&self, ue: u8) -> io::Result<()> {
        let (network, ue) = (45 + self.number, 7 + ue);
        let route = format!("route replace default via 10.{network}.0.1 src 10.{network}.0.{ue}");
        self.ues.ip(&route).map_err(io::Error::other)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
