//! Which rule a packet comes under.

use std::net::IpAddr;

use dataplane_user::rule::{
    Action, AddressRange, Destination, EndpointAddress, Filter, PortRange, Rule,
};

use super::{endpoint, flows::Key};
use crate::{
    packet::{MacAddress, Packet},
    world::{Port, World},
};

/// Rules in order, and the world they are about.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) world: &'a World,
    rules: Vec<Rule>,
}

impl<'a> Rules<'a> {
    pub(super) fn new(world: &'a World, rules: &[Rule]) -> Self {
        let mut rules = rules.to_vec();
        rules.sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
        Self { world, rules }
    }

    /// The rule at this place in the order.
    pub(super) fn at(&self, index: usize) -> Option<&Rule> {
        self.rules.get(index)
    }

    /// The first rule, among those wanted, of which a filter matches.
    pub(super) fn first_match(
        &self,
        port: &Port,
        packet: &Packet,
        wanted: impl Fn(usize, &Rule) -> bool,
    ) -> Option<usize> {
        self.rules.iter().enumerate().position(|(index, rule)| {
            wanted(index, rule)
                && !self.leads_to(&rule.action, port)
                && rule_matches(rule, port.zone, packet)
        })
    }

    /// The same, wherever a packet of the zone comes from.
    pub(super) fn first_anywhere(
        &self,
        zone: u16,
        packet: &Packet,
        wanted: impl Fn(&Rule) -> bool,
    ) -> Option<&Rule> {
        let mut rules = self.rules.iter();
        rules.find(|rule| wanted(rule) && rule_matches(rule, zone, packet))
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
                matches!(endpoint.address, EndpointAddress::Ip { .. })
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
            if let EndpointAddress::Ip { address, nat: true } = endpoint.address {
                reply.addresses.0 = address;
            }
        }
        Some(reply)
    }
}

/// A rule that translates addresses is for packets of the IP version that it translates to.
fn rule_matches(rule: &Rule, zone: u16, packet: &Packet) -> bool {
    let version = rule.action.translates_to().map(|to| to.is_ipv4());
    let mut filters = rule.filters.iter();
    version.is_none_or(|v4| v4 == packet.source.is_ipv4())
        && filters.any(|filter| matches(filter, zone, packet))
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
