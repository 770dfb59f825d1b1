//! Ports: which interface each is, where its program runs, and where next hops are found.

use std::net::IpAddr;

use dataplane_core::table::{DOWN, Hop, INTERFACES, NO_PORT, PORTS, Port, port};

use crate::{
    Error, Mode, PortConfig,
    install::{HopAddress, HopKey, Place, Surroundings},
    netlink::{self, Link},
    rule::{Endpoint, EndpointAddress, Mac, Rule, Target},
    tunnels, zones,
};

/// A port as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortStatus {
    /// As configured.
    pub config: PortConfig,
    /// Its place in the tables.
    pub slot: u16,
    /// The interface's index, while it exists.
    pub ifindex: Option<u32>,
    /// Where the program runs.
    pub mode: Mode,
    /// The interface's address.
    pub mac: Option<Mac>,
    /// The interface's MTU.
    pub mtu: u32,
    /// Whether the interface is switched on.
    pub up: bool,
    /// Why the program does not run.
    pub reason: Option<String>,
}

impl PortStatus {
    fn flags(&self) -> u8 {
        let PortConfig {
            gtpu, mss_clamp, ..
        } = self.config;
        let flag = |set, flag| if set { flag } else { 0 };
        match self.mode {
            Mode::Down => 0,
            Mode::Native | Mode::Generic => {
                port::PRESENT | flag(gtpu, port::GTPU) | flag(mss_clamp, port::MSS_CLAMP)
            }
        }
    }

    /// Whether packets can be sent out here.
    pub(crate) fn takes_packets(&self) -> bool {
        self.up && self.mode != Mode::Down
    }

    /// Looks at its interface again. Where the program does not run yet, it is expected to: a wire that is
    /// taken over must not be parted meanwhile.
    pub(crate) fn see(&mut self, link: Option<&Link>) {
        self.reason = refuse(link, &self.config.interface);
        self.mode = match (&self.reason, self.mode) {
            (Some(_), _) => Mode::Down,
            (None, Mode::Down) => Mode::Native,
            (None, mode) => mode,
        };
        self.ifindex = link.map(|link| link.index);
        self.mac = link.and_then(|link| link.mac).map(Mac::from);
        self.mtu = link.map_or(0, |link| link.mtu);
        self.up = link.is_some_and(|link| link.up);
    }

    /// The entry in the table of ports; `pair` is the other end of its wire.
    pub(crate) fn entry(&self, pair: Option<&Self>) -> Port {
        Port {
            mac: self.mac.map_or(0, mac_bits),
            mtu: self.mtu,
            slot: self.slot,
            pair: match pair {
                Some(pair) if pair.takes_packets() => pair.slot,
                Some(_) => DOWN,
                None => NO_PORT,
            },
            zone: self.config.zone,
            role: self.config.role as u8,
            flags: self.flags(),
            ifindex: self.ifindex.unwrap_or(0),
        }
    }
}

/// Whether the configuration of the ports makes sense.
pub(crate) fn check(configured: &[PortConfig]) -> Result<(), Error> {
    if configured.len() > PORTS as usize {
        return Err(Error::Options(format!(
            "{} ports are too many: there can be {PORTS}",
            configured.len()
        )));
    }
    for (place, port) in configured.iter().enumerate() {
        if configured[..place]
            .iter()
            .any(|other| other.name == port.name || other.interface == port.interface)
        {
            return Err(Error::Options(format!(
                "port {:?} is there twice, by its name or its interface {:?}",
                port.name, port.interface
            )));
        }
        let other = configured
            .iter()
            .find(|it| Some(&it.name) == port.pair.as_ref());
        if other.is_some_and(|other| other.zone != port.zone) {
            return Err(Error::Options(format!(
                "port {:?} and its pair are in different zones: a wire is in one",
                port.name
            )));
        }
        if let Some(pair) = &port.pair
            && !configured
                .iter()
                .any(|other| other.name == *pair && other.pair.as_ref() == Some(&port.name))
        {
            return Err(Error::Options(format!(
                "port {:?} is paired with {pair:?}, which is not there or not paired with it",
                port.name
            )));
        }
    }
    Ok(())
}

/// The configured ports, each with the slot that is its own.
pub(crate) fn new(configured: &[PortConfig], slots: &[u16]) -> Vec<PortStatus> {
    slots
        .iter()
        .zip(configured)
        .map(|(slot, config)| PortStatus {
            config: config.clone(),
            slot: *slot,
            ifindex: None,
            mode: Mode::Down,
            mac: None,
            mtu: 0,
            up: false,
            reason: None,
        })
        .collect()
}

/// Why an interface cannot be a port.
fn refuse(link: Option<&Link>, interface: &str) -> Option<String> {
    let Some(link) = link else {
        return Some(format!("there is no interface {interface}"));
    };
    if link.index >= INTERFACES {
        return Some(format!(
            "{interface} has the index {}; ports have indexes below {INTERFACES}",
            link.index
        ));
    }
    if !link.ethernet {
        return Some(format!("{interface} does not carry Ethernet frames"));
    }
    None
}

/// Ports and neighbors at one time.
pub(crate) struct View<'a> {
    pub(crate) ports: &'a [PortStatus],
    pub(crate) neighbors: &'a [netlink::Neighbor],
    /// The port and gateway by which each address is reached.
    pub(crate) routes: &'a std::collections::BTreeMap<IpAddr, netlink::Route>,
}

impl View<'_> {
    fn named(&self, name: &str) -> Option<&PortStatus> {
        self.ports.iter().find(|port| port.config.name == name)
    }

    /// The only port that leads to applications.
    fn only_app(&self) -> Option<&PortStatus> {
        let mut apps = self
            .ports
            .iter()
            .filter(|port| port.config.role == crate::Role::App);
        apps.next().filter(|_| apps.next().is_none())
    }

    /// Whom packets for an address are sent to.
    fn neighbor(&self, port: Option<&PortStatus>, address: IpAddr) -> Option<(Mac, &PortStatus)> {
        let (ifindex, address) = next_hop(port, address, self.routes)?;
        let port = self
            .ports
            .iter()
            .find(|port| port.ifindex == Some(ifindex))?;
        let neighbor = self
            .neighbors
            .iter()
            .find(|entry| entry.ifindex == ifindex && entry.address == address)?;
        Some((Mac::from(neighbor.resolved()?), port))
    }

    /// The address of this host that a tunnel begins at: the one that is said, while the host has it, or that
    /// of the route.
    fn source(&self, target: &Target) -> Option<IpAddr> {
        match target.source {
            Some(said) => self
                .routes
                .get(&said)
                .is_some_and(|it| it.local)
                .then_some(said),
            None => self.routes.get(&target.destination)?.preferred_source,
        }
    }

    /// Why packets cannot be sent to `hop`, ever.
    fn refuse_hop(&self, hop: &HopKey) -> Option<String> {
        let mac = match hop.address {
            HopAddress::Mac(mac) => Some(mac),
            HopAddress::Ip(_) | HopAddress::Tunnel(_) => None,
        };
        let ports: Vec<_> = self.ports.iter().map(|port| &port.config).collect();
        refuse_way(hop.port.as_deref(), mac, &ports)
    }
}

/// Why packets cannot be sent there, ever, if these are all ports.
pub fn refuse_endpoint(endpoint: &Endpoint, ports: &[PortConfig]) -> Option<String> {
    let mac = match endpoint.address {
        EndpointAddress::Mac(mac) => Some(mac),
        EndpointAddress::Ip { .. } | EndpointAddress::Tunnel(_) => None,
    };
    let ports: Vec<_> = ports.iter().collect();
    refuse_way(endpoint.port.as_deref(), mac, &ports)
}

fn refuse_way(named: Option<&str>, mac: Option<Mac>, ports: &[&PortConfig]) -> Option<String> {
    let apps = ports.iter().filter(|port| port.role == crate::Role::App);
    match (named, mac) {
        (Some(name), _) if !ports.iter().any(|port| port.name == name) => {
            let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
            Some(format!(
                "there is no port {name:?}; there are {}",
                names.join(", ")
            ))
        }
        (None, Some(mac)) if apps.count() != 1 => Some(format!(
            "which port {mac} is behind is not said (x-port, or interface.port of the application), \
             and there is not just one with the role app"
        )),
        _ => None,
    }
}

impl Surroundings for View<'_> {
    fn refuse(&self, rule: &Rule, hops: &[HopKey]) -> Option<String> {
        let unreachable = hops.iter().find_map(|hop| self.refuse_hop(hop));
        unreachable
            .or_else(|| zones::refuse(rule, self.ports))
            .or_else(|| tunnels::refuse(rule, self.ports))
    }

    fn resolve(&self, hop: &HopKey) -> Option<Place> {
        let named = hop.port.as_ref().map(|name| self.named(name));
        let (mac, port) = match hop.address {
            HopAddress::Mac(mac) => (mac, named.unwrap_or_else(|| self.only_app())?),
            HopAddress::Ip(address) => self.neighbor(named.flatten(), address)?,
            HopAddress::Tunnel(target) => self.neighbor(named.flatten(), target.destination)?,
        };
        let source = match hop.address {
            HopAddress::Mac(_) | HopAddress::Ip(_) => None,
            HopAddress::Tunnel(target) => Some(self.source(&target)?),
        };
        let hop = Hop {
            mac: mac_bits(mac),
            slot: port.slot,
        };
        port.takes_packets().then_some(Place { hop, source })
    }
}

/// The interface and the address of the neighbor that packets for `address` are sent to.
pub(crate) fn next_hop(
    port: Option<&PortStatus>,
    address: IpAddr,
    routes: &std::collections::BTreeMap<IpAddr, netlink::Route>,
) -> Option<(u32, IpAddr)> {
    let route = routes.get(&address).filter(|route| !route.local);
    match port {
        // The rule says where it is; a route by the same port may still name a gateway.
        Some(port) => {
            let ifindex = port.ifindex?;
            let gateway = route
                .filter(|route| route.ifindex == ifindex)
                .and_then(|route| route.gateway);
            Some((ifindex, gateway.unwrap_or(address)))
        }
        None => route.map(|route| (route.ifindex, route.gateway.unwrap_or(address))),
    }
}

/// A MAC address in the lower 48 bits.
pub(crate) fn mac_bits(mac: Mac) -> u64 {
    mac.octets()
        .into_iter()
        .fold(0, |bits, octet| bits << 8 | u64::from(octet))
}

/// The MAC address in the lower 48 bits.
pub(crate) fn mac_of(bits: u64) -> Mac {
    let [_, _, octets @ ..] = bits.to_be_bytes();
    Mac::from(octets)
}
