//! A MEC host and what is around it, in network namespaces: real kernels, real sockets.
//!
//! ```text
//!  UE ──── access ════ access0 [ MEC host ] core0 ════ network
//! 10.45.0.7      192.0.2.1      app0 │ │ app1     203.0.113.9
//!                                app-a app-b
//! ```
//!
//! Every far end of a port is prepared as it has to be for native XDP on veth, so nothing here
//! depends on what `edgesteer doctor` would complain about.

mod anycast;
mod applications;
mod backends;
mod bench;
mod daemon;
mod iperf;
mod mobile;
mod namespace;
mod peers;
mod program;
mod raw;
mod steering;
mod traffic;

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

pub use anycast::{Anycast, Site};
pub use backends::LONG;
pub use bench::Bench;
pub use daemon::{Daemon, build, wait};
pub use iperf::{Iperf, iperf};
pub use mobile::{Mobile, Ue};
pub use namespace::{Namespace, run};
pub use peers::{Peer, Peers};
pub use raw::RawSocket;
pub use steering::Steering;
pub use traffic::{Server, exchange, http_get, http_post, ping, udp_ask};

use crate::packet::MacAddress;

/// Start of the names of namespaces that belong to a running test, followed by its process id.
const PREFIX: &str = "edgesteer-test-";

/// How the MEC host treats what it does not steer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `access0` and `core0` are two ends of one wire.
    Wire,
    /// The kernel of the host routes.
    Routed,
}

/// The lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    /// The UE.
    pub ue: Namespace,
    /// The router on the N6 side of the UPF.
    pub access: Namespace,
    /// The MEC host, with the ports `access0`, `core0`, `app0` and `app1`.
    pub host: Namespace,
    /// The two applications, behind `app0` and `app1`.
    pub apps: [Namespace; 2],
    /// The data network.
    pub network: Namespace,
}

impl Lab {
    /// IPv4 address of the UE.
    pub const UE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 45, 0, 7));
    /// IPv6 address of the UE.
    pub const UE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x45, 0, 0, 0, 0, 7));
    /// IPv4 address of the service: in the data network, and on the loopback of both applications.
    pub const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    /// IPv6 address of the service.
    pub const SERVICE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x203, 0, 0, 0, 0, 9));
    /// IPv4 addresses of the applications.
    pub const APPS: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(198, 18, 1, 2)),
        IpAddr::V4(Ipv4Addr::new(198, 18, 2, 2)),
    ];
    /// IPv6 addresses of the applications.
    pub const APPS6: [IpAddr; 2] = [
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa1, 0, 0, 0, 0, 2)),
        IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xa2, 0, 0, 0, 0, 2)),
    ];
    /// MAC addresses of the applications.
    pub const APP_MACS: [MacAddress; 2] = [[2, 0, 0, 0, 0xa, 1], [2, 0, 0, 0, 0xa, 2]];
    /// The port of the service.
    pub const PORT: u16 = 80;

    /// A lab under names of its own, beside any other. Removes what crashed runs left behind.
    pub fn new(mode: Mode) -> Result<Self> {
        Self::named(&unique_name()?, mode)
    }

    /// A lab whose namespaces are called `PREFIX-ue` and so on; replaces one of the same name.
    pub fn named(prefix: &str, mode: Mode) -> Result<Self> {
        let namespace = |name: &str| Namespace::create(&format!("{prefix}-{name}"));
        let lab = Self {
            ue: namespace("ue")?,
            access: namespace("access")?,
            host: namespace("host")?,
            apps: [namespace("app-a")?, namespace("app-b")?],
            network: namespace("network")?,
        };
        lab.connect().context("cabling of the lab")?;
        lab.address(mode).context("addresses of the lab")?;
        Ok(lab)
    }

    /// Leaves the lab in place when the value is dropped.
    pub fn keep(&mut self) {
        let [a, b] = &mut self.apps;
        for namespace in [
            &mut self.ue,
            &mut self.access,
            &mut self.host,
            a,
            b,
            &mut self.network,
        ] {
            namespace.keep();
        }
    }

    /// Has the kernel of the first application end a VXLAN tunnel of network 9, with the MAC address
    /// 02:00:00:00:ff:09, by which UEs are reached; `ends` are in the words of `ip link`.
    pub fn end_tunnel(&self, ends: &str) -> Result<()> {
        // Nobody answers for the UEs in the tunnel.
        self.apps[0].ip(&format!(
            "link add tun0 address 02:00:00:00:ff:09 type vxlan id 9 {ends} dstport 4789\n\
             link set tun0 up\n\
             route add 10.45.0.7 dev tun0\n\
             route add 2001:db8:45::7 dev tun0\n\
             neigh add 10.45.0.7 lladdr 02:00:00:00:ff:01 dev tun0 nud permanent\n\
             neigh add 2001:db8:45::7 lladdr 02:00:00:00:ff:01 dev tun0 nud permanent"
        ))
    }

    /// Starts a server on the service address and, for an application, on its own: named
    /// `network`, `app-a` and `app-b`.
    pub fn serve(&self) -> Result<[Server; 3]> {
        applications::serve(&self.network, &self.apps)
    }

    fn connect(&self) -> Result<()> {
        self.ue.link("ue0", (&self.access, "ran0"))?;
        for (port, namespace, far) in [
            ("access0", &self.access, "n6"),
            ("core0", &self.network, "core"),
        ] {
            self.host.link(port, (namespace, far))?;
            namespace.prepare_far_end(far)?;
        }
        applications::connect(&self.host, &self.apps)
    }

    fn address(&self, mode: Mode) -> Result<()> {
        self.ue.ip("addr add 10.45.0.7/24 dev ue0\n\
             addr add 10.45.0.8/24 dev ue0\n\
             addr add 2001:db8:45::7/64 dev ue0 nodad\n\
             route add default via 10.45.0.1\n\
             route add default via 2001:db8:45::1")?;
        self.access.ip("addr add 10.45.0.1/24 dev ran0\n\
             addr add 2001:db8:45::1/64 dev ran0 nodad\n\
             addr add 192.0.2.1/24 dev n6\n\
             addr add 2001:db8:2::1/64 dev n6 nodad\n\
             route add default via 192.0.2.2\n\
             route add default via 2001:db8:2::2")?;
        self.network.ip("addr add 203.0.113.9/32 dev lo\n\
             addr add 203.0.113.10/32 dev lo\n\
             addr add 2001:db8:203::9/128 dev lo nodad")?;
        let far = "addr add 192.0.2.2/24 dev PORT\n\
                   addr add 2001:db8:2::2/64 dev PORT nodad\n\
                   route add 10.45.0.0/16 via 192.0.2.1\n\
                   route add 2001:db8:45::/64 via 2001:db8:2::1";
        match mode {
            Mode::Wire => self.network.ip(&far.replace("PORT", "core"))?,
            Mode::Routed => {
                self.host.ip(&far.replace("PORT", "access0"))?;
                self.host.ip("addr add 198.51.100.1/24 dev core0\n\
                     addr add 2001:db8:51::1/64 dev core0 nodad\n\
                     route add 203.0.113.0/24 via 198.51.100.2\n\
                     route add 2001:db8:203::/64 via 2001:db8:51::2")?;
                self.network.ip("addr add 198.51.100.2/24 dev core\n\
                     addr add 2001:db8:51::2/64 dev core nodad\n\
                     route add default via 198.51.100.1\n\
                     route add default via 2001:db8:51::1")?;
                forward(&self.host)?;
            }
        }
        forward(&self.access)
    }
}

fn forward(namespace: &Namespace) -> Result<()> {
    namespace.sysctl("net/ipv4/ip_forward", "1")?;
    namespace.sysctl("net/ipv6/conf/all/forwarding", "1")
}

fn unique_name() -> Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    namespace::remove_leftovers(PREFIX)?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Ok(format!("{PREFIX}{}-{number}", process::id()))
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::Duration};

    use super::*;

    #[test]
    fn unsteered_traffic_of_a_routed_host_reaches_the_data_network() {
        let lab = Lab::new(Mode::Routed).unwrap();
        let _servers = lab.serve().unwrap();
        for address in [Lab::SERVICE, Lab::SERVICE6] {
            let server = SocketAddr::new(address, Lab::PORT);
            assert_eq!(
                http_get(&lab.ue, server, "/hello").unwrap(),
                "network: GET /hello"
            );
            let answer = udp_ask(&lab.ue, server, "hello", Duration::from_secs(2)).unwrap();
            assert_eq!(answer.as_deref(), Some("network: hello"));
        }
    }

    #[test]
    fn nothing_is_left_behind() {
        let lab = Lab::new(Mode::Wire).unwrap();
        let path = format!("/run/netns/{}", lab.host.name());
        assert!(std::fs::exists(&path).unwrap());
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
            let _held = lab;
            panic!("on purpose");
        }));
        result.unwrap_err();
        assert!(!std::fs::exists(&path).unwrap());
    }

    #[test]
    fn leftovers_of_a_dead_process_are_removed() {
        // A prefix that no other test cleans up. No process id is that high, so its maker is dead.
        let prefix = format!("edgesteer-left-{}-", process::id());
        let name = format!("{prefix}99999999-0-ue");
        let mut left = Namespace::create(&name).unwrap();
        left.keep();
        let mut sleeper = left.command("sleep").arg("1000").spawn().unwrap();
        drop(left);
        let directory = format!("/run/{name}");
        std::fs::create_dir_all(&directory).unwrap();
        namespace::remove_leftovers(&prefix).unwrap();
        assert!(!std::fs::exists(format!("/run/netns/{name}")).unwrap());
        assert!(!std::fs::exists(directory).unwrap());
        assert!(!sleeper.wait().unwrap().success());
    }
}
