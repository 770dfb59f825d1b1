//! The flows that the oracle has seen, and what tells them apart.

use std::{collections::HashMap, net::IpAddr};

use dataplane_user::rule::{Action, FilterType};

use super::{
    Frame,
    mobile::Lesson,
    rules::Rules,
    sessions::{Came, Sessions},
};
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
    /// UDP ports of the tunnel that something was learned from last.
    pub(super) ports: (u16, u16),
    /// Whether the rules have changed since a packet of it came by, or could not be followed then.
    pub(super) stale: bool,
    /// Whether it began with the data network, where a rule would have forwarded it had answers arrived.
    pub(super) left: bool,
    /// Whether an application has it.
    pub(super) forwarded: bool,
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
            ports: (0, 0),
            stale: false,
            left: false,
            forwarded: false,
        });
        self.keys.insert(key, (flow, Direction::Upstream));
        self.keys.insert(reply, (flow, Direction::Downstream));
        true
    }

    /// Other rules are in force.
    pub(super) fn change(&mut self, rules: &Rules<'_>, sessions: &Sessions) {
        for index in 0..self.all.len() {
            if let Some(reply) = self.renew(index, rules, sessions) {
                self.move_reply_key(index, reply);
            }
            self.all[index].stale = true;
        }
    }

    /// A packet of the flow came by: the data path has followed a change of its key, by the tunnel as it is now.
    pub(super) fn settle(
        &mut self,
        flow: usize,
        direction: Direction,
        rules: &Rules<'_>,
        sessions: &Sessions,
    ) {
        if self.all[flow].stale
            && let Some(reply) = self.renew(flow, rules, sessions)
            && self.move_reply_key(flow, reply)
        {
            // Which key this packet was found by, is not told.
            self.lost |= direction == Direction::Downstream;
        }
        self.all[flow].stale = false;
        self.moving.retain(|_, moving| *moving != flow);
    }

    /// Finds the rule of a flow anew. Answers the key that its answers have by that, if it has one.
    fn renew(&mut self, index: usize, rules: &Rules<'_>, sessions: &Sessions) -> Option<Key> {
        let flow = &mut self.all[index];
        let port = rules.world.port(flow.port);
        let tunnel = sessions.tunnel_of(flow);
        flow.rule = rules.first_match(port, &flow.first, tunnel.as_ref(), |_, rule| {
            rule.filter_type == FilterType::Flow
        });
        let rule = rules.at(flow.rule?)?;
        let stays = flow.left && matches!(rule.action, Action::Forward { .. });
        let key = Key::of(port.zone, &flow.first);
        (!stays).then(|| rules.reply_key(&key, rule))?
    }

    /// Answers whether it moves.
    fn move_reply_key(&mut self, flow: usize, new: Key) -> bool {
        let own = (flow, Direction::Downstream);
        let found = self.keys.iter().find(|(_, of)| **of == own);
        let Some(old) = found.map(|(key, _)| key.clone()).filter(|old| *old != new) else {
            return false;
        };
        self.lost |= self.keys.contains_key(&new) || self.is_moving(&new);
        self.keys.remove(&old);
        self.keys.insert(new.clone(), own);
        self.moving.insert(old, flow);
        self.moving.insert(new, flow);
        true
    }

    fn is_moving(&self, key: &Key) -> bool {
        self.moving.contains_key(key)
    }
}

impl Flow {
    /// Whether the latest upstream packet came by this port with the link layer of this one.
    pub(super) fn came_by(&self, port: &Port, packet: &Packet) -> bool {
        let link = |it: &Packet| (it.source_mac, it.destination_mac, it.tags.clone());
        self.port == port.name && link(&self.latest) == link(packet)
    }

    /// A packet of it taught how it comes.
    pub(super) fn follow(&mut self, frame: &Frame, lesson: Lesson) {
        self.came = lesson.came();
        if let Some(envelope) = &frame.envelope {
            self.ports = envelope.outer.ports().unwrap_or_default();
        }
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
