//! A packet's way: find its flow, find its rule, do what it says.
//!
//! The first half looks and decides, and ends in a [`Plan`]; the second half carries it out.
//! Functions that packets of known flows have no need for are kept out of line: the kernel's verifier
//! then looks at them once, and they do not share the little stack there is.

mod act;
mod duplicate;
mod send;

use core::cell::Cell;

pub use duplicate::{Duplicate, duplicate};

use crate::{
    classify::{InTunnel, Query, Walk},
    fast,
    flow::{self, Found, Record, SharedKey},
    packet::Packet,
    parse::{self, Facts, is_icmp},
    session::{self, Exit},
    table::{
        DOWN, Direction, FlowRef, Image, NO_PORT, Port, RuleAction, Tables, Trace, flag, kind, verb,
    },
    tunnel::Way,
    verdict::{Reason, Verdict},
    wire::transport::TCP,
};

/// Where the facts of a packet are kept while it is on its way.
///
/// In the kernel it is in a map. The verifier knows nothing of what is in there, so whatever was found
/// out about a packet, the code that follows is looked at once and not again for each case.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Scratch {
    pub(crate) facts: Facts,
    pub(crate) notes: Notes,
}

/// What functions on the way tell each other.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Notes {
    pub(crate) query: Cell<Query>,
    /// The tunnel that goes with the query.
    pub(crate) tunnel: Cell<InTunnel>,
    /// How far the walk with the query has come.
    pub(crate) walk: Walk,
    pub(crate) send: Cell<Send>,
    /// The tunnel to leave by.
    pub(crate) exit: Exit,
    /// The session of the packet, by the bearer and with the QFI that it came by; or 0.
    pub(crate) session: Cell<u64>,
    /// Room for a key, and for the one before.
    pub(crate) key: SharedKey,
    pub(crate) old: SharedKey,
    /// Why no flow was made, or there is no action for one.
    pub(crate) refusal: Cell<Reason>,
}

impl Scratch {
    fn parse<'a, P: Packet, T: Tables>(
        &'a mut self,
        packet: &P,
        port: &'a Port,
        tables: &'a T,
    ) -> Result<Steering<'a, T>, Reason> {
        parse::frame(packet, port, tables, &mut self.facts)?;
        Ok(Steering {
            tables,
            port,
            facts: &self.facts,
            notes: &self.notes,
            image: tables.image(),
        })
    }
}

/// Takes a packet that came from the interface `ifindex` to its verdict, and counts it.
///
/// Most packets have no need for the scratch; it is asked for when one has. Without one, the packet is passed.
#[inline(always)]
pub fn packet<'a, P: Packet, T: Tables>(
    packet: &mut P,
    ifindex: u32,
    tables: &T,
    scratch: impl FnOnce() -> Option<&'a mut Scratch>,
) -> Verdict {
    tables.explain(Trace::default());
    match fast::packet(packet, ifindex, tables) {
        Some(verdict) => verdict,
        None => long(packet, ifindex, tables, scratch),
    }
}

/// The same for those packets only that take the short way; others are to go the [`long`] one, from which what
/// the short one needs is apart: each has the whole stack there is.
#[inline(always)]
pub fn short<P: Packet, T: Tables>(packet: &mut P, ifindex: u32, tables: &T) -> Option<Verdict> {
    fast::packet(packet, ifindex, tables)
}

/// The same as [`packet`] without the short way.
#[inline(always)]
pub fn long<'a, P: Packet, T: Tables>(
    packet: &mut P,
    ifindex: u32,
    tables: &T,
    scratch: impl FnOnce() -> Option<&'a mut Scratch>,
) -> Verdict {
    let Some(port) = tables.port(ifindex) else {
        return Verdict::pass(Reason::UnknownPort);
    };
    rest(packet, port, tables, scratch)
}

#[inline(always)]
fn rest<'a, P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    scratch: impl FnOnce() -> Option<&'a mut Scratch>,
) -> Verdict {
    let Some(scratch) = scratch() else {
        return Verdict::pass(Reason::UnknownPort);
    };
    let (verdict, bytes) = match scratch.parse(packet, port, tables) {
        Ok(steering) => (steering.packet(packet), steering.facts.wire_len()),
        Err(reason) if reason.is_malformed() => (Verdict::discard(reason), packet.len() as u64),
        Err(reason) => {
            if T::TUNNELS {
                let tunnel = &scratch.facts.tunnel;
                let ended = tunnel.ended_by(reason, port);
                if ended != Way::None {
                    session::end(tables, &scratch.notes.key, tunnel, port.zone, ended);
                }
            }
            (unsteered(port, reason), packet.len() as u64)
        }
    };
    tables.count(port.slot, verdict, bytes);
    verdict
}

/// The original path: the other end of the wire, or the kernel.
pub(crate) fn unsteered(port: &Port, reason: Reason) -> Verdict {
    match port.pair {
        NO_PORT => Verdict::pass(reason),
        DOWN => Verdict::pass(Reason::PortDown),
        pair => Verdict::redirect(pair, reason),
    }
}

/// What to do with a packet: a [`Verdict`] when nothing is changed, or to send it as noted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan(u32);

impl Plan {
    /// No action of a verdict. (Below 2^31: what sign it is returned with is not agreed on everywhere.)
    const SEND: Self = Self(1 << 30);
    /// To be answered, if it is an echo request.
    const ECHO: Self = Self(1 << 29);
}

/// How a packet leaves: by a port, with a link-layer header of its own. In few fields, each read as it was
/// written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) destination: u64,
    pub(crate) source: u64,
    pub(crate) tags: u64,
    /// The address that takes the place of another, with [`flag::NAT`].
    pub(crate) address: [u64; 2],
    /// Those of the action, and [`Self::TUNNELLED`].
    pub(crate) flags: u32,
    /// Largest L3 packet that may leave.
    pub(crate) mtu: u32,
    /// The port that takes the place of another with the address, or 0.
    pub(crate) port: u32,
    pub(crate) verdict: Verdict,
}

impl Send {
    /// The packet goes into the tunnel that is noted as its exit.
    pub(crate) const TUNNELLED: u32 = 1 << 8;

    /// The same into a tunnel that adds this many octets, if any.
    pub(crate) const fn into_tunnel(self, overhead: u32) -> Self {
        Self {
            flags: self.flags | if overhead == 0 { 0 } else { Self::TUNNELLED },
            mtu: self.mtu.saturating_sub(overhead),
            ..self
        }
    }
}

/// One packet on its way.
pub(crate) struct Steering<'a, T> {
    pub(crate) tables: &'a T,
    pub(crate) port: &'a Port,
    pub(crate) facts: &'a Facts,
    pub(crate) notes: &'a Notes,
    pub(crate) image: Image,
}

impl<'a, T: Tables> Steering<'a, T> {
    /// The packet's flow, and whether it is that of a packet which an ICMP error quotes.
    #[inline(always)]
    fn find(&self) -> (Option<Found<'a>>, bool) {
        // The quoted flow first: an error about nothing known may have made a flow of its own.
        if self.facts.quotes {
            let found = self.quoted_flow();
            if found.is_some() {
                return (found, true);
            }
        }
        (flow::find(self.tables, &self.facts.key), false)
    }

    #[inline(always)]
    fn packet<P: Packet>(&self, packet: &mut P) -> Verdict {
        let (found, quoted) = self.find();
        if let Some(found) = &found
            && !quoted
        {
            self.note(packet, found.flow);
        }
        let another = T::TUNNELS && self.learn(found.as_ref(), quoted);
        let plan = match found {
            _ if another => self.leave(Reason::SessionConflict),
            Some(found) => self.known(&found, quoted),
            // Not asked in `unknown`: the chain of calls would be too long for the stack of Linux 6.1.
            None if self.port.is_app() && self.answers_copy() => {
                Self::end(Verdict::discard(Reason::CopyReply))
            }
            None => self.unknown(),
        };
        if plan == Plan::SEND {
            self.send(packet, quoted)
        } else if plan == Plan::ECHO {
            self.echo(packet)
        } else {
            Verdict::from_word(plan.0)
        }
    }

    /// The flow of the packet that an ICMP error quotes: that of the packets it answers.
    #[inline(never)]
    fn quoted_flow(&self) -> Option<Found<'a>> {
        let key = self.facts.quote.key.reversed();
        flow::find(self.tables, &key)
    }

    /// A packet of a flow that has a record.
    #[inline(always)]
    fn known(&self, found: &Found<'_>, quoted: bool) -> Plan {
        let Found { record, flow, .. } = *found;
        let decision = self.decision(found, quoted);
        self.explain(decision.ok(), Some(flow));
        let cell = match decision {
            Ok(cell) => cell,
            Err(_) if T::TUNNELS && record.rule.get() == Record::LEFT && !quoted => {
                return self.left(record, flow.direction());
            }
            Err(reason) => return self.leave(reason),
        };
        let Some(mut action) = self.tables.action(cell) else {
            return self.leave(Reason::RuleSetBroken);
        };
        let upstream = flow.direction() == Direction::Upstream;
        if action.flags & flag::BACKEND != 0 && upstream && !quoted {
            let chosen = self.rebalance(found, cell) as u32;
            let Some(of_backend) = self.tables.action(chosen.wrapping_sub(1)) else {
                return self.leave(Reason::NoBackend);
            };
            action = of_backend;
        }
        if action.kind == kind::PACKET {
            self.account_rule(action);
            return self.act(action, Reason::Steered);
        }
        match flow.direction() {
            Direction::Upstream if self.is_upstream() => {
                if !quoted {
                    self.follow(record);
                }
                self.account(record, flow.direction());
                self.account_rule(action);
                self.act(action, Reason::Steered)
            }
            Direction::Upstream => self.given_back(action, record),
            Direction::Downstream => self.downstream(action, record),
        }
    }

    /// A packet of a connection that was left to the data network.
    #[inline(never)]
    fn left(&self, record: &Record, direction: Direction) -> Plan {
        self.account(record, direction);
        self.leave(match direction {
            Direction::Upstream => Reason::NoDownlinkTunnel,
            Direction::Downstream => Reason::NoRule,
        })
    }

    /// A packet of no known flow.
    #[inline(never)]
    fn unknown(&self) -> Plan {
        let kinds = if self.is_upstream() {
            kind::FLOW | kind::PACKET
        } else {
            kind::PACKET
        };
        let answer = self.classify(kinds);
        if answer.is_broken() {
            return self.leave(Reason::RuleSetBroken);
        }
        let Some(mut cell) = answer.action() else {
            self.explain(None, None);
            return self.of_no_rule();
        };
        let Some(mut action) = self.tables.action(cell) else {
            return self.leave(Reason::RuleSetBroken);
        };
        if action.verb == verb::BALANCE {
            let vip = action;
            self.notes.key.set(&self.facts.key);
            cell = (self.choose(vip, 0) as u32).wrapping_sub(1);
            let Some(of_backend) = self.tables.action(cell) else {
                return self.leave(Reason::NoBackend);
            };
            action = of_backend;
            self.explain(Some(cell), None);
            if is_icmp(self.facts.ip.protocol) {
                return self.asked(vip, action);
            }
        } else {
            self.explain(Some(cell), None);
        }
        if T::TUNNELS
            && action.kind == kind::FLOW
            && action.verb == verb::FORWARD
            && let Err(reason) = self.answers_arrive()
        {
            if self.facts.ip.protocol == TCP
                && !self.tables.read_only()
                && let Some(record) = self.remember(action, cell, answer.is_sensitive(), true)
            {
                // What begins with the data network goes on with it: nobody else knows the connection.
                self.account(record, Direction::Upstream);
            }
            return self.leave(reason);
        }
        let mut reason = Reason::Steered;
        if action.kind == kind::FLOW && action.verb != verb::DROP && !self.tables.read_only() {
            match self.remember(action, cell, answer.is_sensitive(), false) {
                Some(record) => self.account(record, Direction::Upstream),
                None if self.works_without_flow(action) => reason = Reason::SteeredStateless,
                None => return self.leave(self.notes.refusal.get()),
            }
        }
        self.account_rule(action);
        self.act(action, reason)
    }

    /// An ICMP message to a VIP, of no known flow, for which the backend with `action` was chosen.
    fn asked(&self, vip: &RuleAction, action: &RuleAction) -> Plan {
        if action.flags & flag::FALLBACK != 0 {
            return self.leave(Reason::NoBackend);
        }
        self.account_rule(vip);
        Plan::ECHO
    }

    #[inline(always)]
    pub(crate) fn plan(&self, send: Send) -> Plan {
        self.notes.send.set(send);
        Plan::SEND
    }

    const fn end(verdict: Verdict) -> Plan {
        Plan(verdict.word())
    }

    pub(crate) fn leave(&self, reason: Reason) -> Plan {
        Self::end(unsteered(self.port, reason))
    }

    fn follow(&self, record: &Record) {
        if !self.tables.read_only() {
            record.follow(self.tables, &self.facts.link, self.port.slot);
        }
    }

    /// Counts the packet in its flow.
    #[inline(always)]
    fn account(&self, record: &Record, direction: Direction) {
        if self.tables.read_only() {
            return;
        }
        record.count(
            self.tables,
            direction,
            self.facts.ip.length.into(),
            self.facts.wire_len(),
            self.facts.tcp_flags,
        );
        self.tables.missed();
    }

    /// Counts the packet for its rule.
    #[inline(always)]
    fn account_rule(&self, action: &RuleAction) {
        if self.tables.read_only() {
            return;
        }
        if let Some(rule) = self.tables.rule(action.rule) {
            rule.add(self.tables, self.facts.ip.length.into());
        }
    }

    fn explain(&self, action: Option<u32>, flow: Option<FlowRef>) {
        self.tables.explain(Trace {
            action: action.map_or(0, |cell| cell + 1),
            flow: flow.map_or(0, |flow| u64::from(u32::from(flow)) + 1),
        });
    }
}
