//! The flows that the oracle has seen, and what tells them apart.

use std::{collections::HashMap, net::IpAddr};

use dataplane_user::rule::{Action, FilterType};

use super::{
    Frame,
    balance::{Affinities, Chosen},
    frame::is_icmp,
    mobile::Lesson,
    outside::Outside,
    rules::Rules,
    sessions::{Came, Sessions},
};
use crate::{packet::Packet, world::Port};

/// All flows.
#[derive(Debug, Default)]
pub(super) struct Flows {
    pub(super) all: Vec<Flow>,
    keys: HashMap<Key, (usize, Direction)>,
    /// What UEs were given before.
    pub(super) affinities: Affinities,
    lost: bool,
}

/// A flow: the place of its rule in the order, its first packet, and the latest upstream one.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) rule: Option<usize>,
    /// What was chosen for it last, if it came under a rule that balances, and that is there still.
    pub(super) chosen: Option<Chosen>,
    pub(super) first: Packet,
    pub(super) latest: Packet,
    pub(super) port: &'static str,
    /// How that came.
    pub(super) came: Came,
    /// The tunnel of the peer that has it from the UE.
    pub(super) peer: Option<Outside>,
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
    pub(super) ports: (u16, u16),
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

    /// From here on, nobody promises what becomes of packets.
    pub(super) fn lose(&mut self) {
        self.lost = true;
    }

    /// The flow of packets with this key.
    pub(super) fn find(&self, key: &Key) -> Option<(usize, Direction)> {
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
        if self.keys.contains_key(&reply) {
            return false;
        }
        let flow = self.all.len();
        self.all.push(Flow {
            rule: Some(rule),
            chosen: None,
            first: first.clone(),
            latest: first.clone(),
            port: port.name,
            came: Came::Plainly,
            peer: None,
            ports: (0, 0),
            stale: false,
            left: false,
            forwarded: false,
        });
        self.keys.insert(key, (flow, Direction::Upstream));
        self.keys.insert(reply, (flow, Direction::Downstream));
        true
    }

    /// Other rules are in force. Nothing is followed before a packet of the flow comes by.
    pub(super) fn change(&mut self, rules: &Rules<'_>) {
        for flow in &mut self.all {
            flow.chosen.take_if(|chosen| rules.place(chosen).is_none());
            flow.stale = true;
        }
        self.affinities.forget(rules);
    }

    /// Finds the rule of a flow anew if it may be another now. Answers the key that its answers have by that, if it has
    /// one.
    pub(super) fn renew(
        &mut self,
        flow: usize,
        rules: &Rules<'_>,
        sessions: &Sessions,
    ) -> Option<Key> {
        let flow = self.all.get_mut(flow).filter(|flow| flow.stale)?;
        let port = rules.world.port(flow.port);
        let tunnel = sessions.tunnel_of(flow);
        let around = (tunnel.as_ref(), flow.peer.as_ref());
        flow.rule = rules.first_match(port, &flow.first, around, |_, rule| {
            rule.filter_type == FilterType::Flow
        });
        if let Some(vip) = flow.rule.filter(|it| rules.balance(*it).is_some()) {
            let kept = flow.chosen.as_ref();
            // A VIP sends no ICMP to backends.
            let choose = || rules.choose(vip, port.zone, &flow.first, kept, &mut self.affinities);
            flow.rule = (!is_icmp(&flow.first)).then(choose);
        }
        let rule = rules.at(flow.rule?)?;
        let stays = flow.left && matches!(rule.action, Action::Forward { .. });
        let key = Key::of(port.zone, &flow.first);
        (!stays).then(|| rules.reply_key(&key, rule))?
    }

    /// Answers to a flow have another key. `false`: they would look like those to another.
    pub(super) fn rekey(&mut self, flow: usize, new: &Key) -> bool {
        let own = (flow, Direction::Downstream);
        if self.keys.get(new).is_some_and(|of| *of != own) {
            return false;
        }
        self.keys.retain(|_, of| *of != own);
        self.keys.insert(new.clone(), own);
        true
    }

    /// The same after a change of rules, when a packet of the flow comes by, or is quoted.
    pub(super) fn follow(&mut self, flow: usize, new: &Key, quoted: bool) {
        let own = (flow, Direction::Downstream);
        let moves = self.keys.get(new) != Some(&own);
        self.lost |= !self.rekey(flow, new) || moves && quoted;
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
        self.peer = frame.of_peer().cloned();
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
