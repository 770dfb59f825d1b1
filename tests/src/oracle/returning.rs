//! What comes back from applications, or is on its way to a UE.

use std::collections::BTreeSet;

use dataplane_core::Reason;
use dataplane_user::rule::{Action, Destination, FilterType};

use super::{
    Direction, Fate, Frame, Oracle, Outcome, copy_reply,
    envelope::Way,
    flows::Key,
    forwards_to_one,
    mobile::{keeps_tunnel, pending},
    original,
};
use crate::world::{Port, Role};

impl Oracle<'_> {
    /// A packet of the UE's that does not come from the UE: an application may give it back.
    pub(super) fn given_back(
        &self,
        port: &Port,
        frame: &Frame,
        own: usize,
        flow: usize,
    ) -> Option<Outcome> {
        let flow = self.flows.all.get(flow)?;
        let action = &self.rules.at(own)?.action;
        if frame.outside.is_some() {
            return Some(original(Reason::WrongSide));
        }
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
        let Some(mut sent) = self.through_tunnel(frame, flow, Way::Uplink) else {
            return Some(pending(None));
        };
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
    pub(super) fn reply(
        &self,
        port: &Port,
        frame: &Frame,
        own: usize,
        flow: usize,
    ) -> Option<Outcome> {
        let flow = self.flows.all.get(flow)?;
        let rule = self.rules.at(own)?;
        let leads_here = self.rules.leads_to(&rule.action, port);
        // The way back depends on what it was before the rule.
        if forwards_to_one(&rule.action) && self.rules.targets(&rule.action)[0].is_none() {
            return None;
        }
        if let Some(outside) = &frame.outside {
            let kept = frame.envelope.is_some();
            if !outside.is_from(&rule.action) || kept && !keeps_tunnel(&rule.action) {
                return Some(original(Reason::WrongSide));
            }
        }
        let from_app = port.role == Role::App || frame.outside.is_some();
        match &rule.action {
            Action::Drop | Action::Passthrough => self.apply(port, frame, own),
            Action::Balance(_) => None,
            Action::Duplicate { .. } if !from_app => self.apply(port, frame, own),
            Action::Duplicate { .. } => leads_here.then(copy_reply),
            Action::Forward { destination, .. } => {
                match (destination, self.rules.targets(&rule.action)) {
                    (Destination::Inline { .. }, _) if !from_app => {
                        self.forward(port, frame, own, true)
                    }
                    (Destination::Inline { .. }, [ue, _]) => Some(match ue {
                        Some((ue, _)) if ue == port.name => self.to_ue(frame, flow, None, None),
                        _ if leads_here => original(Reason::OwnOutput),
                        _ => original(Reason::WrongSide),
                    }),
                    (Destination::One(_), _) if !from_app => Some(original(Reason::WrongSide)),
                    // An answer in a tunnel, to a question that came in none.
                    (Destination::One(_), _)
                        if frame.envelope.is_some() && !keeps_tunnel(&rule.action) =>
                    {
                        None
                    }
                    // Applications of a zone may answer for one another.
                    (Destination::One(endpoint), _) => {
                        Some(self.to_ue(frame, flow, Some(rule.id.clone()), Some(endpoint)))
                    }
                }
            }
        }
    }

    /// Whether a packet towards the UE may be known as one of the flow or not: rules have changed, none translates to the
    /// address that it is from any more, and no application sends it. For how long such an address is known is nobody's
    /// promise; of fragments, and other than TCP and UDP, all are looked at.
    pub(super) fn is_forgotten(&self, port: &Port, frame: &Frame, flow: usize) -> bool {
        let flow = &self.flows.all[flow];
        let from = frame.packet.source;
        let usual = matches!(frame.packet.protocol(), 6 | 17) && frame.is_plain();
        let mut endpoints = self.rules.all().flat_map(|rule| rule.action.endpoints());
        usual
            && frame.envelope.is_none()
            && frame.outside.is_none()
            && port.role != Role::App
            && flow.stale
            && from != flow.first.destination
            && !endpoints.any(|it| it.translates_to() == Some(from))
    }

    /// Whether a copy of what `frame` answers went to the application behind `port`, from UEs of whatever zone.
    pub(super) fn answers_a_copy(&self, port: &Port, frame: &Frame) -> bool {
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
                    let tunnel = self.sessions.tunnel_of(flow);
                    let around = (tunnel.as_ref(), flow.peer.as_ref());
                    let first = rules.first_match(from, &flow.first, around, |_, _| true);
                    first.and_then(|first| rules.at(first))
                }
                _ => {
                    let question = frame.packet.reversed();
                    let tunnel = self.sessions.tunnel_to(zone, question.source);
                    let rules = &self.rules;
                    rules.first_anywhere(zone, &question, tunnel.as_ref(), |rule| {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet::Packet, world::World};

    #[test]
    fn an_address_that_no_rule_has_any_more_is_an_application_s() {
        const VIP: &str = "@vip/1 prio 1 flow to 203.0.113.7 proto udp balance";
        const BACKEND: &str = "backend a weight 1 up ip 198.18.1.2 nat via app0";
        const OTHER: &str = "a/1 prio 2 flow to 203.0.113.8 forward ip 198.18.1.2 nat via app0";
        let world = World::new();
        let up = Packet::udp("10.45.0.2:5000", "203.0.113.7:80");
        let back = Packet::udp("198.18.1.2:80", "10.45.0.2:5000");
        for (rules, port, promised) in [
            (&[VIP][..], "app0", true),
            (&[VIP], "core0", false),
            (&[VIP], "access2", false),
            (&[VIP, OTHER], "core0", true),
            (&[OTHER], "core0", true),
            (&[], "core0", true),
        ] {
            let read = |rules: &[&str]| rules.iter().map(|it| it.parse().unwrap()).collect();
            let rules: Vec<_> = read(rules);
            let mut oracle = Oracle::new(&world, &read(&[&format!("{VIP} {BACKEND}")]));
            let see = |oracle: &mut Oracle<'_>, port, packet: &Packet| {
                oracle.see(world.port(port), &packet.clone().into())
            };
            see(&mut oracle, "access0", &up);
            oracle.change(&rules);
            assert_eq!(
                see(&mut oracle, port, &back).is_some(),
                promised,
                "{rules:?}, {port}"
            );
            assert_eq!(oracle.is_lost(), !promised, "{rules:?}, {port}");
        }
    }
}
