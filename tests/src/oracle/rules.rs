//! Which rule a packet comes under.

use std::net::IpAddr;

use dataplane_user::rule::{
    Action, AddressRange, Destination, Endpoint, EndpointAddress, Filter, PortRange, Rule,
};

use super::{Frame, balance::Listed, endpoint, flows::Key, outside::Outside};
use crate::{
    packet::{MacAddress, Packet},
    world::{Port, Role, World},
};

/// The tunnel that a packet is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct InTunnel {
    /// Addresses of the outer header: source and destination.
    pub(super) addresses: (IpAddr, IpAddr),
    /// Its UDP ports.
    pub(super) ports: (u16, u16),
    /// What the session says of the packet's bearer or QoS flow.
    pub(super) qci: Option<u8>,
}

/// Rules in order, and the world they are about.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) world: &'a World,
    /// In order, each that balances followed by what its flows come under.
    pub(super) list: Vec<Listed>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(world: &'a World, rules: &[Rule]) -> Self {
        let mut rules = rules.to_vec();
        rules.sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
        let list = rules.iter().flat_map(Listed::all).collect();
        Self { world, list }
    }

    /// Whether these are the same rules.
    pub(super) fn are(&self, other: &Self) -> bool {
        self.list == other.list
    }

    /// All rules.
    pub(super) fn all(&self) -> impl Iterator<Item = &Rule> {
        self.list.iter().map(|it| &it.rule)
    }

    /// The rule at this place in the order.
    pub(super) fn at(&self, index: usize) -> Option<&Rule> {
        self.list.get(index).map(|it| &it.rule)
    }

    /// The first rule, among those wanted, of which a filter matches.
    pub(super) fn first_match(
        &self,
        port: &Port,
        packet: &Packet,
        (tunnel, outside): (Option<&InTunnel>, Option<&Outside>),
        wanted: impl Fn(usize, &Rule) -> bool,
    ) -> Option<usize> {
        self.list.iter().enumerate().position(|(index, listed)| {
            listed.chosen.is_none()
                && wanted(index, &listed.rule)
                && !self.leads_back(&listed.rule.action, port, outside)
                && rule_matches(&listed.rule, port.zone, packet, tunnel)
        })
    }

    /// Whether an action leads where a packet comes from: by the same port, or into the same tunnel.
    fn leads_back(&self, action: &Action, port: &Port, outside: Option<&Outside>) -> bool {
        if leads_into_tunnel(action) {
            outside.is_some_and(|it| it.is_from(action))
        } else {
            self.leads_to(action, port)
        }
    }

    /// Whether a packet that comes by `port` may leave by it: routed into a tunnel, unless it is from one of its ends or to it,
    /// or out of one and to an application.
    pub(super) fn turns_round(&self, action: &Action, port: &Port, frame: &Frame) -> bool {
        let Some(EndpointAddress::Tunnel(target)) =
            endpoint(action, false).map(|endpoint| endpoint.address)
        else {
            return self.is_routed(action) && port.role == Role::App && frame.outside.is_some();
        };
        let ends = [Some(target.destination), target.source];
        let Packet {
            source,
            destination,
            ..
        } = frame.packet;
        !ends.contains(&Some(source)) && !ends.contains(&Some(destination))
    }

    /// The same, wherever a packet of the zone comes from.
    pub(super) fn first_anywhere(
        &self,
        zone: u16,
        packet: &Packet,
        tunnel: Option<&InTunnel>,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Option<&Rule> {
        let rules = self.list.iter().filter(|it| it.chosen.is_none());
        let mut rules = rules.map(|it| &it.rule);
        rules.find(|rule| wanted(rule) && rule_matches(rule, zone, packet, tunnel))
    }

    /// The ports and MAC addresses that an action leads to, if they are resolved: where packets of
    /// UEs enter the application, and where others do.
    pub(super) fn targets(&self, action: &Action) -> [Option<(&'static str, MacAddress)>; 2] {
        [false, true].map(|core| self.world.resolve(endpoint(action, core)?))
    }

    /// Whether an application that an action leads to is behind `port`.
    pub(super) fn leads_to(&self, action: &Action, port: &Port) -> bool {
        let targets = self.targets(action);
        targets.into_iter().flatten().any(|(to, _)| to == port.name)
    }

    /// Whether the host is a router on the way to the application; in line it is none.
    pub(super) fn is_routed(&self, action: &Action) -> bool {
        match action.destination() {
            Some(Destination::One(endpoint)) => {
                !matches!(endpoint.address, EndpointAddress::Mac(_))
            }
            Some(Destination::Inline { .. }) | None => false,
        }
    }

    /// The key of answers to a flow under this rule, if its next hop is resolved.
    pub(super) fn reply_key(&self, key: &Key, rule: &Rule) -> Option<Key> {
        let mut reply = key.reversed();
        if let Action::Forward {
            destination: Destination::One(endpoint),
            ..
        } = &rule.action
        {
            let (to, _) = self.world.resolve(endpoint)?;
            reply.zone = self.world.port(to).zone;
            if let EndpointAddress::Ip {
                address,
                nat: true,
                nat_port,
            } = endpoint.address
            {
                reply.addresses.0 = address;
                reply.ports.0 = nat_port.unwrap_or(reply.ports.0);
            }
        }
        Some(reply)
    }
}

fn leads_into_tunnel(action: &Action) -> bool {
    let mut endpoints = action.endpoints();
    endpoints.any(|it| matches!(it.address, EndpointAddress::Tunnel(_)))
}

/// A rule that translates addresses is for packets of the IP version that it translates to, and one that translates
/// ports not for those to port 0.
fn rule_matches(rule: &Rule, zone: u16, packet: &Packet, tunnel: Option<&InTunnel>) -> bool {
    let version = rule.action.translates_to().map(|to| to.is_ipv4());
    let to_port_0 = packet.ports().is_some_and(|(_, to)| to == 0);
    if to_port_0 && rule.action.endpoints().any(|it| nat_port(it).is_some()) {
        return false;
    }
    let echoes = echoes(rule, packet);
    let own = if packet.source.is_ipv4() { 1 } else { 58 };
    if matches!(&rule.action, Action::Balance(it) if it.silent) && packet.protocol() == own {
        return false;
    }
    let mut filters = rule.filters.iter().chain(&echoes);
    version.is_none_or(|v4| v4 == packet.source.is_ipv4())
        && filters.any(|filter| matches(filter, zone, packet) && comes_by(filter, tunnel))
}

/// The port that packets are translated to on the way to an endpoint.
fn nat_port(endpoint: &Endpoint) -> Option<u16> {
    match endpoint.address {
        EndpointAddress::Ip { nat_port, .. } => nat_port,
        EndpointAddress::Mac(_) | EndpointAddress::Tunnel(_) => None,
    }
}

/// What a rule that balances matches besides, of the IP version of the packet: what asks its addresses for an echo.
fn echoes(rule: &Rule, packet: &Packet) -> Vec<Filter> {
    let balances = matches!(rule.action, Action::Balance(_));
    let filters = rule.filters.iter().filter(|_| balances);
    let filters = filters.filter(|filter| !filter.protocol.is_empty());
    let echo = |filter: &Filter| Filter {
        protocol: vec![if packet.source.is_ipv4() { 1 } else { 58 }],
        src_port: vec![],
        dst_port: vec![],
        ..filter.clone()
    };
    filters.map(echo).collect()
}

/// Whether a filter matches: values of an attribute are OR, attributes are AND, none matches all.
fn matches(filter: &Filter, zone: u16, packet: &Packet) -> bool {
    let class = match (filter.dscp, filter.traffic_class) {
        (None, None) => true,
        (dscp, _) if packet.source.is_ipv4() => dscp == Some(packet.class >> 2),
        (_, traffic_class) => traffic_class == Some(packet.class),
    };
    address(&filter.src, packet.source)
        && address(&filter.dst, packet.destination)
        && port(&filter.src_port, packet.ports().map(|ports| ports.0))
        && port(&filter.dst_port, packet.ports().map(|ports| ports.1))
        && (filter.protocol.is_empty() || filter.protocol.contains(&packet.protocol()))
        && class
        && filter.zone.is_none_or(|wanted| wanted == zone)
}

/// Whether the packet comes by a tunnel that the filter wants; out of any only if it wants none.
fn comes_by(filter: &Filter, tunnel: Option<&InTunnel>) -> bool {
    let Some(InTunnel {
        addresses,
        ports,
        qci,
    }) = tunnel
    else {
        return filter.tunnel_src.is_empty()
            && filter.tunnel_dst.is_empty()
            && filter.tunnel_src_port.is_empty()
            && filter.tunnel_dst_port.is_empty()
            && filter.qci.is_none();
    };
    address(&filter.tunnel_src, addresses.0)
        && address(&filter.tunnel_dst, addresses.1)
        && port(&filter.tunnel_src_port, Some(ports.0))
        && port(&filter.tunnel_dst_port, Some(ports.1))
        && (filter.qci.is_none() || filter.qci == *qci)
}

fn address(ranges: &[AddressRange], address: IpAddr) -> bool {
    let within = |range: &AddressRange| {
        // Comparing addresses of different families would order them by family.
        range.first().is_ipv4() == address.is_ipv4()
            && range.first() <= address
            && address <= range.last()
    };
    ranges.is_empty() || ranges.iter().any(within)
}

fn port(ranges: &[PortRange], port: Option<u16>) -> bool {
    let within = |port| {
        let mut ranges = ranges.iter();
        ranges.any(|range| range.first() <= port && port <= range.last())
    };
    ranges.is_empty() || port.is_some_and(within)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_tunnel() {
        let tunnel = |from: &str, to: &str, qci| InTunnel {
            addresses: (from.parse().unwrap(), to.parse().unwrap()),
            ports: (2153, 2152),
            qci,
        };
        let packet = Packet::udp("10.45.0.7:5000", "203.0.113.9:443");
        let n3 = tunnel("192.0.2.1", "198.51.100.1", Some(5));
        let unknown = tunnel("192.0.2.1", "198.51.100.1", None);
        let over_v6 = tunnel("2001:db8:2::1", "2001:db8:51::1", Some(5));
        // Which of these packets match: in the tunnels, and in none.
        for (filter, matching) in [
            ("any", [true, true, true, true]),
            ("tunnel-from 192.0.2.0/24", [true, true, false, false]),
            (
                "tunnel-from 192.0.2.2,192.0.2.1 qci 5",
                [true, false, false, false],
            ),
            ("tunnel-from 198.51.100.1", [false; 4]),
            (
                "tunnel-to 198.51.100.1,2001:db8:51::1",
                [true, true, true, false],
            ),
            ("tunnel-from ::/0", [false, false, true, false]),
            (
                "tunnel-sport 2153 tunnel-dport 2152",
                [true, true, true, false],
            ),
            ("tunnel-sport 2152", [false; 4]),
            ("qci 5", [true, false, true, false]),
            ("qci 6", [false; 4]),
            ("to 203.0.113.10 qci 5", [false; 4]),
            ("tunnel-sport 1 or proto udp", [true; 4]),
        ] {
            let rule = format!("a/1 prio 1 packet {filter} drop").parse().unwrap();
            let found = [Some(&n3), Some(&unknown), Some(&over_v6), None]
                .map(|tunnel| rule_matches(&rule, 0, &packet, tunnel));
            assert_eq!(found, matching, "{filter}");
        }
    }
}
