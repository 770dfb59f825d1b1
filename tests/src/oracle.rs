//! What should happen to a packet, worked out the slow and obvious way.
//!
//! A first-match interpreter of ETSI GS MEC 011 traffic rules (clauses 7.1.2.2 and 7.1.5.2) over a
//! sorted list: no compilation, no tables, nothing shared with the data path but the domain types.

mod generate;
mod run;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
};

use dataplane_core::Reason;
use dataplane_user::rule::{
    Action, Destination, Endpoint, EndpointAddress, Filter, FilterType, Rule, RuleId,
};

pub use generate::{Arrival, Case, cases};
pub use run::run;

use crate::{
    packet::{MacAddress, Packet, describe},
    world::{Port, Role, World},
};

/// What should become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule that is counted.
    pub rule: Option<RuleId>,
    /// The reason that is counted.
    pub reason: Reason,
    /// Where the packet goes.
    pub fate: Fate,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nowhere.
    Discarded,
    /// Its original path, unchanged.
    Original,
    /// Its original path, unchanged, and a copy to an application.
    Copied,
    /// Out of a port, looking like this.
    Sent(&'static str, Packet),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "rule {}/{}: ", rule.app, rule.rule)?,
            None => f.write_str("no rule: ")?,
        }
        f.write_str(self.reason.name())?;
        match &self.fate {
            Fate::Discarded => f.write_str(", discarded"),
            Fate::Original => f.write_str(", on its original path"),
            Fate::Copied => f.write_str(", copied"),
            Fate::Sent(port, packet) => write!(f, ", to {port}: {}", describe(&packet.bytes())),
        }
    }
}

/// The interpreter: rules in order, and the flows it has seen.
#[derive(Debug)]
pub struct Oracle<'a> {
    world: &'a World,
    rules: Vec<Rule>,
    keys: HashMap<Key, (usize, Direction)>,
    /// Keys that flows had before the rules changed: answers may still be on their way.
    former: HashSet<Key>,
    /// Keys that flows have since then, until a packet makes the data path notice.
    coming: HashMap<Key, usize>,
    flows: Vec<Flow>,
    lost: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    zone: u16,
    addresses: (IpAddr, IpAddr),
    protocol: u8,
    ports: (u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Upstream,
    Downstream,
}

/// A flow: the place of its rule in the order, its first packet, and the latest upstream one.
#[derive(Debug)]
struct Flow {
    rule: Option<usize>,
    first: Packet,
    latest: Packet,
    port: &'static str,
}

impl<'a> Oracle<'a> {
    /// An interpreter of these rules that has seen nothing yet.
    pub fn new(world: &'a World, rules: &[Rule]) -> Self {
        Self {
            world,
            rules: in_order(rules),
            keys: HashMap::new(),
            former: HashSet::new(),
            coming: HashMap::new(),
            flows: Vec::new(),
            lost: false,
        }
    }

    /// Whether it depends on the order of events that nobody promises what comes next.
    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Puts other rules in force. A flow comes under the one that its first packet would match now.
    pub fn change(&mut self, rules: &[Rule]) {
        self.rules = in_order(rules);
        for index in 0..self.flows.len() {
            let (first, port) = (self.flows[index].first.clone(), self.flows[index].port);
            let port = self.world.port(port);
            let rule =
                self.first_match(port, &first, |_, rule| rule.filter_type == FilterType::Flow);
            self.flows[index].rule = rule;
            let reply = match rule.and_then(|rule| self.rules.get(rule)) {
                Some(rule) => self.reply_key(&Key::of(port.zone, &first), rule),
                None => None,
            };
            if let Some(reply) = reply {
                self.move_reply_key(index, reply);
            }
        }
    }

    fn move_reply_key(&mut self, flow: usize, new: Key) {
        let own = (flow, Direction::Downstream);
        let Some(old) = self
            .keys
            .iter()
            .find(|(_, of)| **of == own)
            .map(|(key, _)| key.clone())
        else {
            return;
        };
        if old == new {
            return;
        }
        self.lost |= self.keys.contains_key(&new) || self.is_moving(&new);
        self.keys.remove(&old);
        self.keys.insert(new.clone(), own);
        self.former.insert(old);
        self.coming.insert(new, flow);
    }

    fn is_moving(&self, key: &Key) -> bool {
        self.former.contains(key) || self.coming.contains_key(key)
    }

    /// What should become of a packet that comes in by `port`. `None`: the standard and the design
    /// leave it open.
    pub fn see(&mut self, port: &Port, packet: &Packet) -> Option<Outcome> {
        let key = Key::of(port.zone, packet);
        self.lost |= self.is_moving(&key);
        match self.keys.get(&key) {
            Some(&(flow, direction)) => self.known(port, packet, flow, direction),
            None => self.unknown(port, packet, key),
        }
    }

    fn known(
        &mut self,
        port: &Port,
        packet: &Packet,
        flow: usize,
        direction: Direction,
    ) -> Option<Outcome> {
        self.coming.retain(|_, coming| *coming != flow);
        let own = self.flows.get(flow)?.rule;
        let before = self.first_match(port, packet, |at, rule| {
            own.is_none_or(|own| at < own) && rule.filter_type == FilterType::Packet
        });
        if let Some(index) = before {
            return self.apply(port, packet, index);
        }
        let Some(own) = own else {
            return Some(original(Reason::NoRule));
        };
        let rule = self.rules.get(own)?.clone();
        match direction {
            Direction::Upstream if port.role == Role::Access => {
                let flow = self.flows.get_mut(flow)?;
                (flow.latest, flow.port) = (packet.clone(), port.name);
                self.apply(port, packet, own)
            }
            Direction::Upstream => None,
            Direction::Downstream => self.reply(port, packet, &rule, flow),
        }
    }

    /// A packet towards the UE, of a flow whose rule is not overruled.
    fn reply(&self, port: &Port, packet: &Packet, rule: &Rule, flow: usize) -> Option<Outcome> {
        let flow = self.flows.get(flow)?;
        let (to, _) = self.target(rule)?;
        match &rule.action {
            Action::Forward {
                destination: Destination::One(endpoint),
                ..
            } if port.name == to => {
                let mut sent = packet.clone();
                sent.source = flow.latest.destination;
                sent.ttl -= u8::from(is_routed(endpoint));
                sent.tags = flow.latest.tags.clone();
                sent.source_mac = flow.latest.destination_mac;
                sent.destination_mac = flow.latest.source_mac;
                Some(Outcome {
                    rule: Some(rule.id.clone()),
                    reason: Reason::Replied,
                    fate: Fate::Sent(flow.port, sent),
                })
            }
            Action::Drop
            | Action::Passthrough
            | Action::Forward { .. }
            | Action::Duplicate { .. } => None,
        }
    }

    fn unknown(&mut self, port: &Port, packet: &Packet, key: Key) -> Option<Outcome> {
        if port.role == Role::App && self.may_answer_a_copy(port) {
            return None;
        }
        let upstream = port.role == Role::Access;
        let found = self.first_match(port, packet, |_, rule| {
            upstream || rule.filter_type == FilterType::Packet
        });
        let Some(index) = found else {
            return Some(original(Reason::NoRule));
        };
        let rule = self.rules.get(index)?;
        if rule.filter_type == FilterType::Flow && rule.action != Action::Drop {
            let Some(reply) = self.reply_key(&key, rule) else {
                return Some(original(Reason::NextHopUnresolved));
            };
            self.lost |= self.is_moving(&reply);
            if self.keys.contains_key(&reply) {
                return Some(original(Reason::ReplyConflict));
            }
            let flow = self.flows.len();
            self.flows.push(Flow {
                rule: Some(index),
                first: packet.clone(),
                latest: packet.clone(),
                port: port.name,
            });
            self.keys.insert(key, (flow, Direction::Upstream));
            self.keys.insert(reply, (flow, Direction::Downstream));
        }
        self.apply(port, packet, index)
    }

    /// The key of answers to a flow under this rule, if its next hop is resolved.
    fn reply_key(&self, key: &Key, rule: &Rule) -> Option<Key> {
        let mut reply = key.reversed();
        if let Some(endpoint) = forwarded(&rule.action) {
            let (to, _) = self.target(rule)?;
            reply.zone = self.world.port(to).zone;
            if let EndpointAddress::Ip { address, nat: true } = endpoint.address {
                reply.addresses.0 = address;
            }
        }
        Some(reply)
    }

    /// What a rule does with a packet on its way in.
    fn apply(&self, port: &Port, packet: &Packet, index: usize) -> Option<Outcome> {
        let rule = self.rules.get(index)?;
        let outcome = |reason, fate| {
            Some(Outcome {
                rule: Some(rule.id.clone()),
                reason,
                fate,
            })
        };
        match &rule.action {
            Action::Drop => outcome(Reason::RuleDrop, Fate::Discarded),
            Action::Passthrough => outcome(Reason::Passthrough, Fate::Original),
            Action::Duplicate { .. } => outcome(Reason::Duplicated, Fate::Copied),
            Action::Forward { .. } => {
                let endpoint = forwarded(&rule.action)?;
                let Some((to, mac)) = self.target(rule) else {
                    return outcome(Reason::NextHopUnresolved, Fate::Original);
                };
                debug_assert_ne!(to, port.name, "a rule does not apply to its own output");
                let mut sent = packet.clone().untagged();
                sent.source_mac = self.world.port(to).mac;
                sent.destination_mac = mac;
                sent.ttl -= u8::from(is_routed(endpoint));
                if let EndpointAddress::Ip { address, nat: true } = endpoint.address {
                    sent.destination = address;
                }
                outcome(Reason::Steered, Fate::Sent(to, sent))
            }
        }
    }

    /// The first rule, among those wanted, of which a filter matches.
    fn first_match(
        &self,
        port: &Port,
        packet: &Packet,
        wanted: impl Fn(usize, &Rule) -> bool,
    ) -> Option<usize> {
        self.rules.iter().enumerate().position(|(index, rule)| {
            wanted(index, rule)
                && self.target(rule).is_none_or(|(to, _)| to != port.name)
                && rule
                    .filters
                    .iter()
                    .any(|filter| matches(filter, port.zone, packet))
        })
    }

    /// The port and the MAC address that a rule leads to, if its next hop is resolved.
    fn target(&self, rule: &Rule) -> Option<(&'static str, MacAddress)> {
        match &rule.action {
            Action::Drop | Action::Passthrough => None,
            Action::Forward { destination, .. } | Action::Duplicate { destination, .. } => {
                match destination {
                    Destination::One(endpoint) => self.world.resolve(endpoint),
                    Destination::Inline { ue, .. } => self.world.resolve(ue),
                }
            }
        }
    }

    fn may_answer_a_copy(&self, port: &Port) -> bool {
        self.rules.iter().any(|rule| {
            matches!(rule.action, Action::Duplicate { .. })
                && self.target(rule).is_some_and(|(to, _)| to == port.name)
        })
    }
}

/// Whether a filter matches: values of an attribute are OR, attributes are AND, none matches all.
fn matches(filter: &Filter, zone: u16, packet: &Packet) -> bool {
    let address = |ranges: &[dataplane_user::rule::AddressRange], address: IpAddr| {
        ranges.is_empty()
            || ranges.iter().any(|range| {
                // Comparing addresses of different families would order them by family.
                range.first().is_ipv4() == address.is_ipv4()
                    && range.first() <= address
                    && address <= range.last()
            })
    };
    let port = |ranges: &[dataplane_user::rule::PortRange], port: Option<u16>| {
        ranges.is_empty()
            || port.is_some_and(|port| {
                ranges
                    .iter()
                    .any(|range| range.first() <= port && port <= range.last())
            })
    };
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

impl Key {
    fn of(zone: u16, packet: &Packet) -> Self {
        Self {
            zone,
            addresses: (packet.source, packet.destination),
            protocol: packet.protocol(),
            ports: packet.flow_ports(),
        }
    }

    fn reversed(&self) -> Self {
        Self {
            addresses: (self.addresses.1, self.addresses.0),
            ports: (self.ports.1, self.ports.0),
            ..self.clone()
        }
    }
}

fn in_order(rules: &[Rule]) -> Vec<Rule> {
    let mut rules = rules.to_vec();
    rules.sort_by(|a, b| (a.priority, &a.id).cmp(&(b.priority, &b.id)));
    rules
}

fn forwarded(action: &Action) -> Option<&Endpoint> {
    match action {
        Action::Forward {
            destination: Destination::One(endpoint) | Destination::Inline { ue: endpoint, .. },
            ..
        } => Some(endpoint),
        Action::Drop | Action::Passthrough | Action::Duplicate { .. } => None,
    }
}

fn is_routed(endpoint: &Endpoint) -> bool {
    matches!(endpoint.address, EndpointAddress::Ip { .. })
}

fn original(reason: Reason) -> Outcome {
    Outcome {
        rule: None,
        reason,
        fate: Fate::Original,
    }
}
