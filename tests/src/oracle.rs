//! What should happen to a packet, worked out the slow and obvious way.
//!
//! A first-match interpreter of ETSI GS MEC 011 traffic rules (clauses 7.1.2.2 and 7.1.5.2) over a
//! sorted list: no compilation, no tables, nothing shared with the data path but the domain types.

mod flows;
mod frame;
mod generate;
mod rules;
mod run;

use std::{collections::BTreeSet, fmt};

use dataplane_core::Reason;
use dataplane_user::rule::{Action, Destination, Endpoint, EndpointAddress, FilterType, RuleId};

use flows::{Direction, Flows, Key};
pub use frame::Frame;
use frame::is_icmp;
pub use generate::{Arrival, Case, cases};
use rules::Rules;
pub use run::run;

use crate::world::{Port, Role, World};

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
    Sent(&'static str, Frame),
    /// To the kernel, which routes it, looking like this.
    Routed(Frame),
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
            Fate::Sent(port, frame) => write!(f, ", to {port}: {frame}"),
            Fate::Routed(frame) => write!(f, ", to the kernel: {frame}"),
        }
    }
}

/// The interpreter: rules in order, and the flows it has seen.
#[derive(Debug)]
pub struct Oracle<'a> {
    rules: Rules<'a>,
    flows: Flows,
    /// Identifications of the datagrams whose first fragment came by.
    begun: Vec<u32>,
}

impl<'a> Oracle<'a> {
    /// An interpreter of these rules that has seen nothing yet.
    pub fn new(world: &'a World, rules: &[dataplane_user::rule::Rule]) -> Self {
        Self {
            rules: Rules::new(world, rules),
            flows: Flows::default(),
            begun: Vec::new(),
        }
    }

    /// Whether it depends on the order of events that nobody promises what comes next.
    pub fn is_lost(&self) -> bool {
        self.flows.is_lost()
    }

    /// Puts other rules in force. A flow comes under the one that its first packet would match now.
    pub fn change(&mut self, rules: &[dataplane_user::rule::Rule]) {
        self.rules = Rules::new(self.rules.world, rules);
        self.flows.change(&self.rules);
    }

    /// What should become of a frame that comes in by `port`. `None`: the standard and the design
    /// leave it open.
    pub fn see(&mut self, port: &Port, frame: &Frame) -> Option<Outcome> {
        if let Some(outcome) = self.fragment(frame) {
            return Some(outcome);
        }
        if let Some(quoted) = frame.quoted()
            && let Some((flow, direction)) = self.flows.find(&Key::of(port.zone, quoted).reversed())
        {
            return self.known(port, frame, flow, direction);
        }
        // An error about nothing known is a packet like any other.
        let plain = Frame {
            error: None,
            ..frame.clone()
        };
        let key = Key::of(port.zone, &frame.packet);
        let mut outcome = match self.flows.find(&key) {
            Some((flow, direction)) => self.known(port, &plain, flow, direction),
            None => self.unknown(port, &plain, key),
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
        flow: usize,
        direction: Direction,
    ) -> Option<Outcome> {
        self.flows.settle(flow);
        let own = self.flows.all.get(flow)?.rule;
        let before = self
            .rules
            .first_match(port, &frame.packet, None, |at, rule| {
                own.is_none_or(|own| at < own) && rule.filter_type == FilterType::Packet
            });
        if let Some(index) = before {
            return self.apply(port, frame, index);
        }
        let Some(own) = own else {
            return Some(original(Reason::NoRule));
        };
        match direction {
            Direction::Upstream if port.role == Role::Access => {
                if frame.quoted().is_none() {
                    let flow = self.flows.all.get_mut(flow)?;
                    (flow.latest, flow.port) = (frame.packet.clone(), port.name);
                }
                self.apply(port, frame, own)
            }
            Direction::Upstream => self.given_back(port, frame, own, flow),
            Direction::Downstream => self.reply(port, frame, own, flow),
        }
    }

    /// A packet of the UE's that does not come from the UE: an application may give it back.
    fn given_back(&self, port: &Port, frame: &Frame, own: usize, flow: usize) -> Option<Outcome> {
        let flow = self.flows.all.get(flow)?;
        let action = &self.rules.at(own)?.action;
        let inline = matches!(
            action,
            Action::Forward {
                destination: Destination::Inline { .. },
                ..
            }
        );
        let [ue, core] = self.rules.targets(action);
        if forwards_to_one(action) && ue.is_none() {
            return None;
        }
        if !inline || core.is_none_or(|(core, _)| core != port.name) {
            return Some(original(if self.rules.leads_to(action, port) {
                Reason::OwnOutput
            } else {
                Reason::WrongSide
            }));
        }
        let mut sent = frame.clone();
        sent.packet.source_mac = flow.latest.source_mac;
        let fate = match self.rules.world.port(flow.port).pair {
            Some(pair) => {
                sent.packet.destination_mac = flow.latest.destination_mac;
                sent.packet.tags = flow.latest.tags.clone();
                Fate::Sent(pair, sent)
            }
            None => {
                sent.packet.destination_mac = port.mac;
                sent.packet.tags.clear();
                Fate::Routed(sent)
            }
        };
        Some(Outcome {
            rule: None,
            reason: Reason::Continued,
            fate,
        })
    }

    /// A packet towards the UE, of a flow whose rule is not overruled.
    fn reply(&self, port: &Port, frame: &Frame, own: usize, flow: usize) -> Option<Outcome> {
        let flow = self.flows.all.get(flow)?;
        let rule = self.rules.at(own)?;
        let leads_here = self.rules.leads_to(&rule.action, port);
        let from_app = port.role == Role::App;
        match &rule.action {
            Action::Drop | Action::Passthrough => self.apply(port, frame, own),
            Action::Duplicate { .. } if !from_app => self.apply(port, frame, own),
            Action::Duplicate { .. } => leads_here.then(copy_reply),
            Action::Forward { destination, .. } => {
                match (destination, self.rules.targets(&rule.action)) {
                    (Destination::Inline { .. }, _) if !from_app => {
                        self.forward(port, frame, own, true)
                    }
                    (Destination::Inline { .. }, [ue, _]) => Some(match ue {
                        Some((ue, _)) if ue == port.name => to_ue(frame, flow, None, None),
                        _ if leads_here => original(Reason::OwnOutput),
                        _ => original(Reason::WrongSide),
                    }),
                    (Destination::One(_), [None, _]) => None,
                    (Destination::One(_), _) if !from_app => Some(original(Reason::WrongSide)),
                    // Applications of a zone may answer for one another.
                    (Destination::One(endpoint), _) => {
                        Some(to_ue(frame, flow, Some(rule.id.clone()), Some(endpoint)))
                    }
                }
            }
        }
    }

    fn unknown(&mut self, port: &Port, frame: &Frame, key: Key) -> Option<Outcome> {
        if port.role == Role::App && self.answers_a_copy(port, frame) {
            return Some(copy_reply());
        }
        let upstream = port.role == Role::Access;
        let found = self
            .rules
            .first_match(port, &frame.packet, None, |_, rule| {
                upstream || rule.filter_type == FilterType::Packet
            });
        let Some(index) = found else {
            return Some(original(Reason::NoRule));
        };
        let rule = self.rules.at(index)?;
        if rule.filter_type == FilterType::Flow && rule.action != Action::Drop {
            let Some(reply) = self.rules.reply_key(&key, rule) else {
                return Some(original(Reason::NextHopUnresolved));
            };
            if !self.flows.begin(key, reply, index, &frame.packet, port) {
                return Some(original(Reason::ReplyConflict));
            }
        }
        self.apply(port, frame, index)
    }

    /// Whether a copy of what `frame` answers went to the application behind `port`, from UEs of whatever zone.
    fn answers_a_copy(&mut self, port: &Port, frame: &Frame) -> bool {
        let world = self.rules.world;
        let access = world.ports.iter().filter(|it| it.role == Role::Access);
        let zones: BTreeSet<u16> = access.map(|it| it.zone).collect();
        zones.into_iter().any(|zone| {
            let key = Key::of(zone, &frame.packet);
            let rule = match self.flows.find(&key) {
                Some((flow, Direction::Downstream)) => {
                    let flow = &self.flows.all[flow];
                    let from = world.port(flow.port);
                    let rules = &self.rules;
                    let first = rules.first_match(from, &flow.first, None, |_, _| true);
                    first.and_then(|first| rules.at(first))
                }
                _ => {
                    let question = frame.packet.reversed();
                    self.rules.first_anywhere(zone, &question, None, |rule| {
                        rule.filter_type == FilterType::Packet
                    })
                }
            };
            rule.is_some_and(|rule| {
                matches!(rule.action, Action::Duplicate { .. })
                    && self.rules.leads_to(&rule.action, port)
            })
        })
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
        match &rule.action {
            Action::Drop => outcome(Reason::RuleDrop, Fate::Discarded),
            Action::Passthrough => outcome(Reason::Passthrough, Fate::Original),
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
        debug_assert_ne!(to, port.name, "a rule does not apply to its own output");
        let mut sent = frame.clone();
        sent.packet.tags.clear();
        sent.packet.source_mac = self.rules.world.port(to).mac;
        sent.packet.destination_mac = mac;
        if self.rules.is_routed(&rule.action) {
            if sent.packet.ttl <= 1 {
                return Some(original(Reason::TtlExpired));
            }
            sent.packet.ttl -= 1;
        }
        if let EndpointAddress::Ip { address, nat: true } = endpoint.address {
            sent.translate_destination(address);
        }
        Some(Outcome {
            rule: Some(rule.id.clone()),
            reason: Reason::Steered,
            fate: Fate::Sent(to, sent),
        })
    }
}

/// An answer on the way that the flow came in; `routed` to the UE by the host if it was to `endpoint`.
fn to_ue(
    frame: &Frame,
    flow: &flows::Flow,
    rule: Option<RuleId>,
    endpoint: Option<&Endpoint>,
) -> Outcome {
    let mut sent = frame.clone();
    if let Some(EndpointAddress::Ip { address, nat }) = endpoint.map(|endpoint| endpoint.address) {
        if sent.packet.ttl <= 1 {
            return original(Reason::TtlExpired);
        }
        sent.packet.ttl -= 1;
        if nat {
            sent.translate_source(address, flow.latest.destination);
        }
    }
    sent.packet.tags = flow.latest.tags.clone();
    sent.packet.source_mac = flow.latest.destination_mac;
    sent.packet.destination_mac = flow.latest.source_mac;
    Outcome {
        rule,
        reason: Reason::Replied,
        fate: Fate::Sent(flow.port, sent),
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

fn copy_reply() -> Outcome {
    Outcome {
        rule: None,
        reason: Reason::CopyReply,
        fate: Fate::Discarded,
    }
}

fn original(reason: Reason) -> Outcome {
    Outcome {
        rule: None,
        reason,
        fate: Fate::Original,
    }
}
