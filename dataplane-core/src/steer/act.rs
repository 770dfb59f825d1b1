//! Where a packet goes by the action that was found for it.

use super::{Plan, Send, Steering};
use crate::{
    flow::Record,
    table::{Direction, NO_PORT, RuleAction, Tables, flag, verb},
    tunnel::Way,
    verdict::{Reason, Verdict},
};

impl<T: Tables> Steering<'_, T> {
    /// What `action` says of a packet on its way in.
    #[inline(always)]
    pub(super) fn act(&self, action: &RuleAction, reason: Reason) -> Plan {
        if T::TUNNELS && self.is_beyond(action) {
            return self.leave(Reason::TunnelUnsupported);
        }
        if action.flags & flag::FALLBACK != 0 {
            return self.without_backend(action);
        }
        match action.verb {
            verb::DROP => Self::end(Verdict::discard(Reason::RuleDrop)),
            verb::PASSTHROUGH => self.leave(Reason::Passthrough),
            // The kernel's traffic control copies it, and sends it on where it would have gone.
            verb::DUPLICATE => Self::end(Verdict::pass(Reason::Duplicated)),
            _ => self.forward(action, action.first, reason),
        }
    }

    /// A packet to a VIP of which no backend takes flows.
    #[inline(never)]
    fn without_backend(&self, action: &RuleAction) -> Plan {
        if self.is_from_peer() {
            return Self::end(Verdict::discard(Reason::VipLoop));
        }
        if action.verb == verb::PASSTHROUGH {
            return self.leave(Reason::NoBackend);
        }
        self.forward(action, action.first, Reason::VipPeer)
    }

    /// A packet of the UE's that is not from the UE's side: one that an inline application gives back.
    pub(super) fn given_back(&self, action: &RuleAction, record: &Record) -> Plan {
        if !self.port.is_app() || self.is_from_target() {
            return self.leave(Reason::WrongSide);
        }
        let from_core_side = action.flags & flag::INLINE != 0 && self.is_from(action.second);
        if action.verb != verb::FORWARD || !from_core_side {
            return self.leave(if from_core_side || self.is_from(action.first) {
                Reason::OwnOutput
            } else {
                Reason::WrongSide
            });
        }
        let path = record.way_back();
        let ue = path.ue.get();
        let Some(access) = self.tables.port_in(ue as u16) else {
            return self.leave(Reason::PortDown);
        };
        let Some(overhead) = self.tunnel(record, Way::Uplink) else {
            return Self::end(Verdict::discard(Reason::DownlinkPending));
        };
        let send = Send {
            verdict: Verdict::redirect(access.pair, Reason::Continued),
            flags: flag::ENCAPSULATED.into(),
            address: [0; 2],
            port: 0,
            destination: path.core.get(),
            source: ue >> 16,
            tags: path.tags.get(),
            mtu: u32::MAX,
        }
        .into_tunnel(overhead);
        if access.pair == NO_PORT {
            // The kernel routes it, if it is addressed to the port that it comes from.
            return self.plan(Send {
                verdict: Verdict::pass(Reason::Continued),
                destination: self.port.mac,
                tags: 0,
                ..send
            });
        }
        let Some(core) = self.tables.port_in(access.pair) else {
            return self.leave(Reason::PortDown);
        };
        self.plan(Send {
            mtu: core.mtu.saturating_sub(overhead),
            ..send
        })
    }

    /// A packet towards the UE.
    #[inline(always)]
    pub(super) fn downstream(&self, action: &RuleAction, record: &Record) -> Plan {
        if self.is_from_target() && !self.answers(action) {
            return self.leave(Reason::WrongSide);
        }
        let from_app = self.port.is_app() || self.is_from_target();
        let inline = action.flags & flag::INLINE != 0;
        match (action.verb, from_app) {
            (verb::DUPLICATE, true) => return Self::end(Verdict::discard(Reason::CopyReply)),
            (verb::FORWARD, false) if !inline => return self.leave(Reason::WrongSide),
            (verb::FORWARD, true) if inline => return self.passed_on(action, record),
            _ => {}
        }
        self.account(record, Direction::Downstream);
        self.account_rule(action);
        match (action.verb, from_app) {
            (verb::FORWARD, true) => self.back(action, record),
            (verb::FORWARD, false) => self.forward(action, action.second, Reason::Steered),
            _ => self.act(action, Reason::Steered),
        }
    }

    /// A packet towards the UE that an inline application gives back. It was counted when it came from
    /// the core.
    fn passed_on(&self, action: &RuleAction, record: &Record) -> Plan {
        if self.is_from(action.first) {
            self.back(action, record)
        } else if self.is_from(action.second) {
            self.leave(Reason::OwnOutput)
        } else {
            self.leave(Reason::WrongSide)
        }
    }

    /// Whether the packet comes from where `hop` leads.
    pub(crate) fn is_from(&self, hop: u32) -> bool {
        let hop = self.tables.hop(hop);
        hop.is_some_and(|hop| hop.slot == self.port.slot)
    }

    /// To the UE, by the way that the flow came in.
    #[inline(always)]
    fn back(&self, action: &RuleAction, record: &Record) -> Plan {
        let path = record.way_back();
        let ue = path.ue.get();
        let Some(access) = self.tables.port_in(ue as u16) else {
            return self.leave(Reason::PortDown);
        };
        let Some(overhead) = self.tunnel(record, Way::Downlink) else {
            return Self::end(Verdict::discard(Reason::DownlinkPending));
        };
        let send = Send {
            verdict: Verdict::redirect(access.slot, Reason::Replied),
            flags: u32::from(action.flags | flag::ENCAPSULATED),
            address: record.key.destination(),
            port: match action.nat_port {
                0 => 0,
                _ => record.key.get().rest.destination_port().into(),
            },
            destination: ue >> 16,
            source: path.core.get(),
            tags: path.tags.get(),
            mtu: access.mtu,
        };
        self.plan(send.into_tunnel(overhead))
    }

    /// To a next hop.
    #[inline(always)]
    fn forward(&self, action: &RuleAction, hop: u32, reason: Reason) -> Plan {
        let Some(hop) = self.tables.hop(hop) else {
            return self.leave(Reason::NextHopUnresolved);
        };
        if hop.slot == self.port.slot && !(T::TUNNELS && self.turns_round(action)) {
            return self.leave(Reason::OwnOutput);
        }
        let Some(port) = self.tables.port_in(hop.slot) else {
            return self.leave(Reason::PortDown);
        };
        let plan = self.plan(Send {
            verdict: Verdict::redirect(hop.slot, reason),
            flags: action.flags.into(),
            address: action.nat,
            port: action.nat_port.into(),
            destination: hop.mac,
            source: port.mac,
            tags: 0,
            mtu: port.mtu,
        });
        if T::TUNNELS && action.flags & flag::TUNNEL != 0 {
            return self.enter_target(action);
        }
        plan
    }
}
