//! What should happen to a packet, worked out the slow and obvious way.
//!
//! A first-match interpreter of ETSI GS MEC 011 traffic rules (clauses 7.1.2.2 and 7.1.5.2) over a
//! sorted list: no compilation, no tables, nothing shared with the data path but the domain types. UEs may be
//! behind tunnels; what must never happen to them is watched for besides, without any of that.

mod balance;
mod envelope;
mod flows;
mod frame;
mod generate;
mod mobile;
mod outcome;
mod outside;
mod returning;
mod rules;
mod run;
mod sessions;
mod watch;

use std::net::IpAddr;

use dataplane_core::Reason;
use dataplane_user::{
    Binding,
    rule::{Action, Destination, Endpoint, EndpointAddress, FilterType},
};

use balance::Chosen;
use envelope::Way;
use flows::{Direction, Flows, Key};
pub use frame::Frame;
use frame::is_icmp;
pub use generate::{Arrival, Case, cases, mobile_cases};
use mobile::{Lesson, is_beyond, keeps_tunnel};
pub use outcome::{Fate, Outcome};
use outcome::{copy_reply, original};
use outside::Outside;
use rules::{InTunnel, Rules};
pub use run::run;
use sessions::{Bearing, Came, Sessions};

use crate::world::{Port, Role, World};

/// The interpreter: rules in order, and the flows it has seen.
#[derive(Debug)]
pub struct Oracle<'a> {
    rules: Rules<'a>,
    flows: Flows,
    sessions: Sessions,
    /// Identifications of the datagrams whose first fragment came by.
    begun: Vec<u32>,
}

impl<'a> Oracle<'a> {
    /// An interpreter of these rules that has seen nothing yet.
    pub fn new(world: &'a World, rules: &[dataplane_user::rule::Rule]) -> Self {
        Self {
            rules: Rules::new(world, rules),
            flows: Flows::default(),
            sessions: Sessions::default(),
            begun: Vec::new(),
        }
    }

    /// Whether it depends on the order of events that nobody promises what comes next.
    pub fn is_lost(&self) -> bool {
        self.flows.is_lost()
    }

    /// Puts other rules in force. A flow comes under the one that its first packet would match now.
    pub fn change(&mut self, rules: &[dataplane_user::rule::Rule]) {
        let rules = Rules::new(self.rules.world, rules);
        if rules.are(&self.rules) {
            return;
        }
        let restated = rules.are_but_states(&self.rules);
        self.rules = rules;
        if !restated {
            self.flows.change(&self.rules);
        }
    }

    /// Seconds pass.
    pub fn wait(&mut self, seconds: u32) {
        self.flows.affinities.wait(seconds);
    }

    /// These are the tunnels of a UE.
    pub fn provision(&mut self, binding: &Binding) {
        self.sessions.provision(binding);
    }

    /// Nothing is said of the tunnels of a UE any more. `false`: nothing was.
    pub fn withdraw(&mut self, zone: u16, ue: IpAddr) -> bool {
        self.sessions.withdraw(zone, ue)
    }

    /// What should become of a frame that comes in by `port`. `None`: the standard and the design
    /// leave it open.
    pub fn see(&mut self, port: &Port, frame: &Frame) -> Option<Outcome> {
        let unopened = |outside: &&Outside| !self.rules.open(outside);
        if frame.outside.as_ref().is_some_and(|it| unopened(&it)) {
            return self.look(port, &frame.outermost());
        }
        self.look(port, frame)
    }

    fn look(&mut self, port: &Port, frame: &Frame) -> Option<Outcome> {
        if let Some(reason) = self.message(port, frame) {
            return Some(original(reason));
        }
        if let Some(outcome) = self.fragment(frame) {
            return Some(outcome);
        }
        if let Some(quoted) = frame.quoted()
            && let Some((flow, direction)) = self.flows.find(&Key::of(port.zone, quoted).reversed())
        {
            let lesson = self.learn(port, frame, Some((flow, direction)), true);
            if lesson.is_conflict() && direction == Direction::Upstream {
                return Some(original(Reason::SessionConflict));
            }
            let tunnel = self.tunnel(frame, lesson);
            return self.known(port, frame, tunnel, flow, direction);
        }
        // An error about nothing known is a packet like any other.
        let plain = Frame {
            error: None,
            ..frame.clone()
        };
        let key = Key::of(port.zone, &frame.packet);
        let found = self.flows.find(&key);
        let lesson = self.learn(port, frame, found, false);
        let tunnel = self.tunnel(frame, lesson);
        let mut outcome = match found {
            Some((_, Direction::Upstream)) if lesson.is_conflict() => {
                Some(original(Reason::SessionConflict))
            }
            Some((flow, direction)) => self.known(port, &plain, tunnel, flow, direction),
            None => self.unknown(port, &plain, key, lesson),
        };
        if let Some(Fate::Sent(_, sent) | Fate::Routed(sent)) =
            outcome.as_mut().map(|outcome| &mut outcome.fate)
        {
            sent.error.clone_from(&frame.error);
        }
        outcome
    }

    /// What becomes of a fragment that cannot be told the flow of.
    fn fragment(&mut self, frame: &Frame) -> Option<Outcome> {
        let piece = frame.piece?;
        let identification = frame.packet.identification;
        if piece.index == 0 {
            self.begun.push(identification);
            return None;
        }
        // Without ports or an identifier in the first fragment, each one tells as much as the first.
        let known = match frame.packet.ports() {
            Some(_) => self.begun.contains(&identification),
            None => !is_icmp(&frame.packet),
        };
        (!known).then(|| original(Reason::FragmentUnknown))
    }

    fn known(
        &mut self,
        port: &Port,
        frame: &Frame,
        tunnel: Option<InTunnel>,
        flow: usize,
        direction: Direction,
    ) -> Option<Outcome> {
        let forgotten = direction == Direction::Downstream && self.is_forgotten(port, frame, flow);
        let refused = self.settle(flow, frame.quoted().is_some());
        if self.is_lost() {
            return None;
        }
        let own = self.flows.all.get(flow)?.rule;
        let around = (tunnel.as_ref(), frame.outside.as_ref());
        let before = self
            .rules
            .first_match(port, &frame.packet, around, |at, rule| {
                own.is_none_or(|own| at < own) && rule.filter_type == FilterType::Packet
            });
        if let Some(index) = before {
            return self.apply(port, frame, index);
        }
        if forgotten && own.is_some() {
            self.flows.lose();
            return None;
        }
        if self.flows.all.get(flow)?.left {
            return Some(original(match direction {
                _ if frame.quoted().is_some() => Reason::NoRule,
                Direction::Upstream => Reason::NoDownlinkTunnel,
                Direction::Downstream => Reason::NoRule,
            }));
        }
        if refused {
            return Some(original(Reason::NoDownlinkTunnel));
        }
        if self.flows.all.get(flow)?.stale {
            return Some(original(Reason::NextHopUnresolved));
        }
        let Some(own) = own else {
            return Some(original(Reason::NoRule));
        };
        match direction {
            Direction::Upstream if is_upstream(port, frame) => {
                let mut own = own;
                if frame.quoted().is_none() {
                    let Some(chosen) = self.rebalance(frame, flow, own) else {
                        return Some(original(Reason::NoBackend));
                    };
                    own = chosen;
                    let flow = self.flows.all.get_mut(flow)?;
                    (flow.latest, flow.port) = (frame.packet.clone(), port.name);
                }
                self.apply(port, frame, own)
            }
            Direction::Upstream => self.given_back(port, frame, own, flow),
            Direction::Downstream => self.reply(port, frame, own, flow),
        }
    }

    /// Finds out what a flow comes under, of which a packet comes by or is quoted. Answers whether that would forward it
    /// if its answers arrived; what an application has already, it keeps.
    fn settle(&mut self, flow: usize, quoted: bool) -> bool {
        let reply = self.flows.renew(flow, &self.rules, &self.sessions);
        let Some(known) = self.flows.all.get(flow) else {
            return false;
        };
        let rule = known.rule.and_then(|own| self.rules.at(own));
        let forwards = rule.is_some_and(|it| matches!(it.action, Action::Forward { .. }));
        // Another rule takes it back, but none does not.
        let left = known.left && (forwards || rule.is_none());
        let refused = forwards && !left && !known.forwarded && !self.reaches_ue(known);
        let key = Key::of(self.rules.world.port(known.port).zone, &known.first);
        let resolved = rule.is_some_and(|it| self.rules.reply_key(&key, it).is_some());
        if let Some(reply) = reply.filter(|_| !refused) {
            self.flows.follow(flow, &reply, quoted);
        }
        if let Some(flow) = self.flows.all.get_mut(flow) {
            flow.left = left || refused && flow.first.protocol() == 6;
            flow.forwarded = forwards && !flow.left && (flow.forwarded || !refused && resolved);
            // What cannot be done now is tried again with the next packet, by the tunnel as it is then.
            flow.stale = forwards && !flow.left && (refused || !resolved);
            if let Some(own) = flow.rule.filter(|_| !flow.left && !refused && resolved) {
                flow.chosen = self.rules.chosen(own).cloned();
            }
        }
        refused
    }

    fn unknown(&mut self, port: &Port, frame: &Frame, key: Key, lesson: Lesson) -> Option<Outcome> {
        if port.role == Role::App && self.answers_a_copy(port, frame) {
            return Some(copy_reply());
        }
        let upstream = is_upstream(port, frame);
        let tunnel = self.tunnel(frame, lesson);
        let around = (tunnel.as_ref(), frame.outside.as_ref());
        let found = self
            .rules
            .first_match(port, &frame.packet, around, |_, rule| {
                upstream || rule.filter_type == FilterType::Packet
            });
        let Some(mut index) = found else {
            return Some(self.initiated(port, frame));
        };
        if self.rules.balance(index).is_some() {
            if is_icmp(&frame.packet) {
                return Some(self.asked(port, frame, index));
            }
            index = self.choose(index, port, &frame.packet);
        }
        let rule = self.rules.at(index)?;
        if rule.filter_type == FilterType::Flow
            && matches!(rule.action, Action::Forward { .. })
            && let Err(reason) = self.answers_arrive(lesson)
        {
            if frame.packet.protocol() == 6 {
                // The connection begins with the data network, and stays there.
                let reply = key.reversed();
                let begun = self.flows.begin(key, reply, index, &frame.packet, port);
                if let (true, Some(flow)) = (begun, self.flows.all.last_mut()) {
                    flow.left = true;
                    flow.follow(frame, lesson);
                }
            }
            return Some(original(reason));
        }
        if rule.filter_type == FilterType::Flow && rule.action != Action::Drop {
            let Some(reply) = self.rules.reply_key(&key, rule) else {
                return Some(original(Reason::NextHopUnresolved));
            };
            if !self.flows.begin(key, reply, index, &frame.packet, port) {
                return Some(original(Reason::ReplyConflict));
            }
            let flow = self.flows.all.last_mut()?;
            flow.follow(frame, lesson);
            flow.chosen = self.rules.chosen(index).cloned();
            flow.forwarded = matches!(rule.action, Action::Forward { .. });
        }
        self.apply(port, frame, index)
    }

    /// What a rule does with a packet on its way in.
    fn apply(&self, port: &Port, frame: &Frame, index: usize) -> Option<Outcome> {
        let rule = self.rules.at(index)?;
        let outcome = |reason, fate| {
            Some(Outcome {
                rule: Some(rule.id.clone()),
                reason,
                fate,
            })
        };
        let without = |it: &Chosen| it.backend.is_none();
        if frame.of_peer().is_some() && self.rules.chosen(index).is_some_and(without) {
            return outcome(Reason::VipLoop, Fate::Discarded);
        }
        if frame.envelope.is_some() && is_beyond(&rule.action) {
            let resolved = self.rules.targets(&rule.action)[0].is_some();
            return Some(original(if resolved {
                Reason::TunnelUnsupported
            } else {
                Reason::NextHopUnresolved
            }));
        }
        match &rule.action {
            Action::Drop => outcome(Reason::RuleDrop, Fate::Discarded),
            Action::Passthrough => {
                let balanced = self.rules.chosen(index).is_some();
                let reasons = [Reason::Passthrough, Reason::NoBackend];
                outcome(reasons[usize::from(balanced)], Fate::Original)
            }
            Action::Balance(_) => None,
            Action::Duplicate { .. } => outcome(Reason::Duplicated, Fate::Copied),
            Action::Forward { .. } => self.forward(port, frame, index, false),
        }
    }

    /// To the application, if it has two interfaces to that of the UE's side or the core's.
    fn forward(&self, port: &Port, frame: &Frame, index: usize, core: bool) -> Option<Outcome> {
        let rule = self.rules.at(index)?;
        let endpoint = endpoint(&rule.action, core)?;
        let Some((to, mac)) = self.rules.world.resolve(endpoint) else {
            return Some(original(Reason::NextHopUnresolved));
        };
        // A rule does not apply to its own output; of a VIP, it may be that of a peer, which does not go back there.
        let outside = frame.outside.as_ref();
        let back = outside.is_some_and(|it| it.is_from(&rule.action));
        let round = to == port.name && !self.rules.turns_round(&rule.action, port, frame);
        if back || round {
            return Some(original(Reason::OwnOutput));
        }
        let mut sent = frame.clone().through(None);
        sent.packet.tags.clear();
        sent.packet.source_mac = self.rules.world.port(to).mac;
        sent.packet.destination_mac = mac;
        if !keeps_tunnel(&rule.action) {
            sent.envelope = None;
        }
        if self.rules.is_routed(&rule.action) && !sent.hop() {
            return Some(original(Reason::TtlExpired));
        }
        if let EndpointAddress::Ip {
            address,
            nat: true,
            nat_port,
        } = endpoint.address
        {
            sent.translate_destination(address, nat_port);
        }
        if let EndpointAddress::Tunnel(target) = endpoint.address {
            let built = Outside::built(target, &sent, sent.packet.source_mac);
            sent.outside = Some(built);
        }
        Some(Outcome {
            rule: Some(rule.id.clone()),
            reason: match self.rules.chosen(index) {
                Some(Chosen { backend: None, .. }) => Reason::VipPeer,
                Some(_) | None => Reason::Steered,
            },
            fate: Fate::Sent(to, sent),
        })
    }
}

/// Where a packet enters the application that an action leads to.
fn endpoint(action: &Action, core: bool) -> Option<&Endpoint> {
    match action.destination()? {
        Destination::Inline { core: endpoint, .. } if core => Some(endpoint),
        Destination::One(endpoint) | Destination::Inline { ue: endpoint, .. } => Some(endpoint),
    }
}

fn forwards_to_one(action: &Action) -> bool {
    matches!(
        action,
        Action::Forward {
            destination: Destination::One(_),
            ..
        }
    )
}

/// Whether the packet comes from where UEs are, or from a peer, and is not on its way to a UE.
fn is_upstream(port: &Port, frame: &Frame) -> bool {
    let way = frame.envelope.as_ref().map(|envelope| envelope.way);
    let from_ue =
        port.role == Role::Access && way != Some(Way::Downlink) && frame.outside.is_none();
    from_ue || frame.of_peer().is_some()
}
