//! The flows that the oracle has seen, and what tells them apart.

use std::{collections::HashMap, net::IpAddr};

use dataplane_user::rule::{Action, FilterType};

use super::{rules::Rules, sessions::Came};
use crate::{packet::Packet, world::Port};

/// All flows.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) all: Vec<Flow>,
    keys: HashMap<Key, (usize, Direction)>,
    /// Keys that flows had before the rules changed, and those they have since then, until a packet
    /// makes the data path notice.
    moving: HashMap<Key, usize>,
    lost: bool,
}

/// A flow: the place of its rule in the order, its first packet, and the latest upstream one.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) rule: Option<usize>,
    pub(super) first: Packet,
    pub(super) latest: Packet,
    pub(super) port: &'static str,
    /// How that came.
    pub(super) came: Came,
    /// Whether it began with the data network, where a rule would have forwarded it had answers arrived.
    pub(super) left: bool,
}

/// What tells one flow from another, as seen in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) zone: u16,
    pub(super) addresses: (IpAddr, IpAddr),
    protocol: u8,
    ports: (u16, u16),
}

/// A direction of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Upstream,
    Downstream,
}

impl Flows {
    pub(super) fn is_lost(&self) -> bool {
        self.lost
    }

    /// The flow of packets with this key.
    pub(super) fn find(&mut self, key: &Key) -> Option<(usize, Direction)> {
        self.lost |= self.is_moving(key);
        self.keys.get(key).copied()
    }

    /// Makes a flow, unless answers to it would look like those of another.
    pub(super) fn begin(
        &mut self,
        key: Key,
        reply: Key,
        rule: usize,
        first: &Packet,
        port: &Port,
    ) -> bool {
        self.lost |= self.is_moving(&reply);
        if self.keys.contains_key(&reply) {
            return false;
        }
        let flow = self.all.len();
        self.all.push(Flow {
            rule: Some(rule),
            first: first.clone(),
            latest: first.clone(),
            port: port.name,
            came: Came::Plainly,
            left: false,
        });
        self.keys.insert(key, (flow, Direction::Upstream));
        self.keys.insert(reply, (flow, Direction::Downstream));
        true
    }

    /// Other rules are in force.
    pub(super) fn change(&mut self, rules: &Rules<'_>) {
        for index in 0..self.all.len() {
            let flow = &mut self.all[index];
            let port = rules.world.port(flow.port);
            flow.rule = rules.first_match(port, &flow.first, None, |_, rule| {
                rule.filter_type == FilterType::Flow
            });
            let rule = flow.rule.and_then(|rule| rules.at(rule));
            let rule =
                rule.filter(|rule| !(flow.left && matches!(rule.action, Action::Forward { .. })));
            let key = Key::of(port.zone, &flow.first);
            if let Some(reply) = rule.and_then(|rule| rules.reply_key(&key, rule)) {
                self.move_reply_key(index, reply);
            }
        }
    }

    /// A packet of the flow came by: the data path has followed a change of its key.
    pub(super) fn settle(&mut self, flow: usize) {
        self.moving.retain(|_, moving| *moving != flow);
    }

    fn move_reply_key(&mut self, flow: usize, new: Key) {
        let own = (flow, Direction::Downstream);
        let found = self.keys.iter().find(|(_, of)| **of == own);
        let Some(old) = found.map(|(key, _)| key.clone()) else {
            return;
        };
        if old == new {
            return;
        }
        self.lost |= self.keys.contains_key(&new) || self.is_moving(&new);
        self.keys.remove(&old);
        self.keys.insert(new.clone(), own);
        self.moving.insert(old, flow);
        self.moving.insert(new, flow);
    }

    fn is_moving(&self, key: &Key) -> bool {
        self.moving.contains_key(key)
    }
}

impl Key {
    pub(super) fn of(zone: u16, packet: &Packet) -> Self {
        Self {
            zone,
            addresses: (packet.source, packet.destination),
            protocol: packet.protocol(),
            ports: packet.flow_ports(),
        }
    }

    pub(super) fn reversed(&self) -> Self {
        Self {
            addresses: (self.addresses.1, self.addresses.0),
            ports: (self.ports.1, self.ports.0),
            ..self.clone()
        }
    }
}
