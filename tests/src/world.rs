//! The MEC host that oracle and scenarios are about: its ports and its neighbors.

use std::net::IpAddr;

use dataplane_user::{
    Gtpu,
    rule::{Encapsulation, Endpoint, EndpointAddress, Target},
};

use crate::packet::MacAddress;

/// What a port faces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// UEs.
    Access,
    /// The data network.
    Core,
    /// An application.
    App,
}

/// A port.
#[derive(Clone, Copy, Debug)]
pub struct Port {
    /// Its name, also that of its interface.
    pub name: &'static str,
    /// What it faces.
    pub role: Role,
    /// The other end of its wire, if it has one.
    pub pair: Option<&'static str>,
    /// Its address space.
    pub zone: u16,
    /// Its MAC address.
    pub mac: MacAddress,
    /// The longest IP packet that fits.
    pub mtu: u16,
    /// Whether the MSS of TCP connections in tunnels is lowered.
    pub mss_clamp: bool,
}

/// Addresses of the host itself, one of each IP version.
pub const OWN: [&str; 2] = ["198.18.0.1", "2001:db8:a0::1"];

/// Where the endpoints of tunnels are.
pub fn gtpu() -> Gtpu {
    let ranges = |ranges: &[&str]| {
        let read = ranges.iter().map(|range| range.parse().expect("a range"));
        read.collect()
    };
    Gtpu {
        ran: ranges(&["192.0.2.0/24", "2001:db8:2::/64"]),
        core: ranges(&[
            "198.51.100.1",
            "198.51.100.2",
            "2001:db8:51::1",
            "2001:db8:51::2",
        ]),
    }
}

/// Other hosts that send what UEs have sent.
pub fn peers() -> Vec<Endpoint> {
    let peer = |(target, port): (Target, &str)| Endpoint {
        address: EndpointAddress::Tunnel(target),
        port: Some(port.to_owned()),
    };
    let all = [(PEER, "app1"), (PEER_AT_ACCESS, "access0")];
    all.map(|(address, port)| peer((peer_at(address), port)))
        .into()
}

/// The tunnel to the peer with this address.
pub fn peer_at(peer: &str) -> Target {
    let address = |text: &str| text.parse().expect("an address");
    Target {
        encapsulation: Encapsulation::Gre {
            key: Some(PEER_KEY),
        },
        destination: address(peer),
        source: Some(address(OWN[0])),
    }
}

/// The address of a peer.
pub const PEER: &str = "198.18.2.2";

/// That of one behind the port that UEs are behind.
pub const PEER_AT_ACCESS: &str = FAR[0];

/// Who is behind the same port as UEs, and ends tunnels: an address of each IP version.
pub const FAR: [&str; 2] = ["198.18.3.2", "2001:db8:a3::2"];

/// The key of GRE that peers use.
pub const PEER_KEY: u32 = 77;

/// A host.
#[derive(Clone, Debug)]
pub struct World {
    /// Its ports.
    pub ports: Vec<Port>,
    /// Whom it knows: address, port and MAC address.
    pub neighbors: Vec<(IpAddr, &'static str, MacAddress)>,
}

impl World {
    /// A wire between `access0` and `core0`, a routed `access1` and `core1` in zone 2 and `access2` in zone 0, the
    /// applications behind `app0` and, where less fits, `app1`, ends of tunnels behind `access0`, and nobody at 198.18.1.9. At `access2` no MSS is
    /// lowered.
    pub fn new() -> Self {
        let port = |name, role, pair, zone, last| Port {
            name,
            role,
            pair,
            zone,
            mac: [2, 0, 0, 0, 0xe, last],
            mtu: if name == "app1" { 1400 } else { 1500 },
            mss_clamp: name != "access2",
        };
        let neighbor = |address: &str, port, last| {
            let address = address.parse().expect("an address");
            (address, port, [2, 0, 0, 0, 0xa, last])
        };
        Self {
            ports: vec![
                port("access0", Role::Access, Some("core0"), 0, 1),
                port("core0", Role::Core, Some("access0"), 0, 2),
                port("access1", Role::Access, None, 2, 3),
                port("app0", Role::App, None, 0, 4),
                port("app1", Role::App, None, 0, 5),
                port("access2", Role::Access, None, 0, 6),
                port("core1", Role::Core, None, 2, 7),
            ],
            neighbors: vec![
                neighbor("198.18.1.2", "app0", 1),
                neighbor("2001:db8:a1::2", "app0", 1),
                neighbor("198.18.2.2", "app1", 2),
                neighbor("2001:db8:a2::2", "app1", 2),
                neighbor(FAR[0], "access0", 3),
                neighbor(FAR[1], "access0", 3),
            ],
        }
    }

    /// A port by its name.
    pub fn port(&self, name: &str) -> &Port {
        let found = self.ports.iter().find(|port| port.name == name);
        found.unwrap_or_else(|| panic!("there is no port {name}"))
    }

    fn neighbor(&self, address: IpAddr) -> Option<(&'static str, MacAddress)> {
        let known = self.neighbors.iter().find(|neighbor| neighbor.0 == address);
        known.map(|&(_, port, mac)| (port, mac))
    }

    /// Where a destination is: its port and its MAC address. A MAC address needs the port said.
    pub fn resolve(&self, endpoint: &Endpoint) -> Option<(&'static str, MacAddress)> {
        let said = endpoint.port.as_deref().map(|name| self.port(name).name);
        match endpoint.address {
            EndpointAddress::Mac(mac) => said.map(|port| (port, mac.octets())),
            EndpointAddress::Ip { address, .. } => {
                let known = self.neighbor(address);
                known.map(|(port, mac)| (said.unwrap_or(port), mac))
            }
            EndpointAddress::Tunnel(target) => {
                let known = self.neighbor(target.destination);
                known.map(|(port, mac)| (said.unwrap_or(port), mac))
            }
        }
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}
