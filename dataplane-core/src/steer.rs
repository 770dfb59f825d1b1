//! A packet's way: find its flow, find its rule, do what it says.

use core::sync::atomic::Ordering::Relaxed;

use crate::{
    flow::{self, Record},
    icmp,
    packet::Packet,
    parse::{self, Facts, Ip},
    rewrite::{self, Address},
    table::{Action, Direction, FlowRef, Image, NO_PORT, Port, Tables, Trace, flag, kind, verb},
    verdict::{self, Reason, Verdict},
    wire::transport::TCP,
};

/// Takes a packet that came from the interface `ifindex` to its verdict, and counts it.
pub fn packet<P: Packet, T: Tables>(packet: &mut P, ifindex: u32, tables: &T) -> Verdict {
    let Some(port) = tables.port(ifindex) else {
        return Verdict::pass(Reason::UnknownPort);
    };
    let (verdict, bytes) = match parse::frame(packet, port.zone, tables) {
        Ok(facts) => (
            Steering {
                tables,
                port,
                facts: &facts,
                image: tables.image(),
            }
            .packet(packet),
            facts.wire_len(),
        ),
        Err(reason) if reason.is_malformed() => (Verdict::discard(reason), packet.len() as u64),
        Err(reason) => (unsteered(port, reason), packet.len() as u64),
    };
    tables.count(port.slot, verdict.reason, bytes);
    if let verdict::Action::Redirect(slot) = verdict.action {
        tables.count_sent(slot, bytes);
    }
    verdict
}

/// The original path: the other end of the wire, or the kernel.
fn unsteered(port: &Port, reason: Reason) -> Verdict {
    if port.pair == NO_PORT {
        Verdict::pass(reason)
    } else {
        Verdict::redirect(port.pair, reason)
    }
}

/// One packet on its way.
pub(crate) struct Steering<'a, T> {
    pub(crate) tables: &'a T,
    pub(crate) port: &'a Port,
    pub(crate) facts: &'a Facts,
    pub(crate) image: Image,
}

/// How a packet leaves.
struct Exit {
    slot: u16,
    destination: u64,
    source: u64,
    tags: u64,
}

/// The address that a packet's NAT changes: from the one that the UE knows to the application's, or back.
struct Nat {
    which: Address,
    old: [u64; 2],
    new: [u64; 2],
}

impl<'a, T: Tables> Steering<'a, T> {
    fn packet<P: Packet>(&self, packet: &mut P) -> Verdict {
        if let Some((record, flow)) = flow::find(self.tables, &self.facts.key) {
            return self.known(packet, record, flow, None);
        }
        if self.facts.icmp_error
            && let Some((quoted, ip)) = parse::quoted(packet, self.facts)
            && let Some((record, flow)) = flow::find(self.tables, &quoted.reversed())
        {
            return self.known(packet, record, flow, Some(&ip));
        }
        self.unknown(packet)
    }

    /// A packet of a flow that has a record; an ICMP error when there is a quoted header.
    fn known<P: Packet>(
        &self,
        packet: &mut P,
        record: &Record,
        flow: FlowRef,
        quoted: Option<&Ip>,
    ) -> Verdict {
        let decision = self.decision(record, flow.direction, quoted.is_some());
        self.explain(decision.ok().flatten(), Some(flow));
        let action = match decision {
            Ok(Some(cell)) => self.tables.action(cell),
            Ok(None) => return unsteered(self.port, Reason::NoRule),
            Err(reason) => return unsteered(self.port, reason),
        };
        let Some(action) = action else {
            return unsteered(self.port, Reason::RuleSetBroken);
        };
        if action.kind == kind::PACKET {
            self.account_rule(action);
            return self.act(packet, action, None, None, Reason::Steered);
        }
        match flow.direction {
            Direction::Upstream if self.port.is_upstream() => {
                if quoted.is_none() {
                    self.follow(record);
                }
                self.account(record, flow.direction);
                self.account_rule(action);
                self.act(packet, action, Some(record), quoted, Reason::Steered)
            }
            Direction::Upstream => self.given_back(packet, action, record),
            Direction::Downstream => self.downstream(packet, action, record, quoted),
        }
    }

    /// A packet of no known flow.
    fn unknown<P: Packet>(&self, packet: &mut P) -> Verdict {
        if self.port.is_app() && self.answers_copy() {
            return Verdict::discard(Reason::CopyReply);
        }
        let kinds = if self.port.is_upstream() {
            kind::FLOW | kind::PACKET
        } else {
            kind::PACKET
        };
        let Some(answer) = self.classify(kinds) else {
            return unsteered(self.port, Reason::RuleSetBroken);
        };
        self.explain(answer.action, None);
        let Some(cell) = answer.action else {
            return unsteered(self.port, Reason::NoRule);
        };
        let Some(action) = self.tables.action(cell) else {
            return unsteered(self.port, Reason::RuleSetBroken);
        };
        let mut reason = Reason::Steered;
        if action.kind == kind::FLOW && action.verb != verb::DROP && !self.tables.read_only() {
            match self.remember(action, cell, answer.sensitive) {
                Ok(record) => self.account(record, Direction::Upstream),
                Err(Reason::FlowTableFull) if self.works_without_flow(action) => {
                    reason = Reason::SteeredStateless;
                }
                Err(reason) => return unsteered(self.port, reason),
            }
        }
        self.account_rule(action);
        self.act(packet, action, None, None, reason)
    }

    /// Does what `action` says with a packet on its way in.
    fn act<P: Packet>(
        &self,
        packet: &mut P,
        action: &Action,
        record: Option<&Record>,
        quoted: Option<&Ip>,
        reason: Reason,
    ) -> Verdict {
        match action.verb {
            verb::DROP => Verdict::discard(Reason::RuleDrop),
            verb::PASSTHROUGH => unsteered(self.port, Reason::Passthrough),
            // The kernel's traffic control copies it, and sends it on where it would have gone.
            verb::DUPLICATE => Verdict::pass(Reason::Duplicated),
            _ => {
                let nat = (action.flags & flag::NAT != 0).then(|| Nat {
                    which: Address::Destination,
                    old: record.map_or(self.facts.ip.destination, |record| {
                        record.upstream_key().destination
                    }),
                    new: action.nat,
                });
                self.forward(packet, action, action.first, nat, quoted, reason)
            }
        }
    }

    /// A packet of the UE's that an application sends: one that an inline application gives back.
    fn given_back<P: Packet>(&self, packet: &mut P, action: &Action, record: &Record) -> Verdict {
        if !self.port.is_app() {
            return unsteered(self.port, Reason::WrongSide);
        }
        let inline = action.flags & flag::INLINE != 0
            && self.tables.hop(action.second).is_some_and(|hop| hop.slot == self.port.slot);
        if !inline {
            return unsteered(self.port, Reason::OwnOutput);
        }
        let path = record.way_back();
        let ue = path.ue.load(Relaxed);
        let Some(access) = self.tables.port_in(ue as u16) else {
            return unsteered(self.port, Reason::PortDown);
        };
        if access.pair == NO_PORT {
            // The kernel routes what is addressed to the port it came from.
            let (link, mac) = (self.facts.link, self.port.mac);
            return if rewrite::link(packet, link.len, mac, link.source, 0, link.ethertype) {
                Verdict::pass(Reason::Continued)
            } else {
                Verdict::discard(Reason::NoHeadroom)
            };
        }
        let exit = Exit {
            slot: access.pair,
            destination: path.core.load(Relaxed),
            source: ue >> 16,
            tags: path.tags.load(Relaxed),
        };
        self.send(packet, &exit, false, None, None, Reason::Continued)
    }

    /// A packet towards the UE.
    fn downstream<P: Packet>(
        &self,
        packet: &mut P,
        action: &Action,
        record: &Record,
        quoted: Option<&Ip>,
    ) -> Verdict {
        let from_app = self.port.is_app();
        let inline = action.flags & flag::INLINE != 0;
        // A packet that an inline application gives back was counted when it came from the core.
        match (action.verb, from_app) {
            (verb::FORWARD, true) if inline => {}
            (verb::FORWARD, false) if !inline => return unsteered(self.port, Reason::WrongSide),
            (verb::DUPLICATE, true) => return Verdict::discard(Reason::CopyReply),
            _ => {
                self.account(record, Direction::Downstream);
                self.account_rule(action);
            }
        }
        match (action.verb, from_app) {
            (verb::FORWARD, true) => self.back(packet, action, record, quoted),
            (verb::FORWARD, false) => {
                self.forward(packet, action, action.second, None, quoted, Reason::Steered)
            }
            _ => self.act(packet, action, Some(record), quoted, Reason::Steered),
        }
    }

    /// Sends a packet to the UE by the way that the flow came in.
    fn back<P: Packet>(
        &self,
        packet: &mut P,
        action: &Action,
        record: &Record,
        quoted: Option<&Ip>,
    ) -> Verdict {
        let path = record.way_back();
        let ue = path.ue.load(Relaxed);
        let nat = (action.flags & flag::NAT != 0).then(|| Nat {
            which: Address::Source,
            old: record.reply_key().source,
            new: record.upstream_key().destination,
        });
        let exit = Exit {
            slot: ue as u16,
            destination: ue >> 16,
            source: path.core.load(Relaxed),
            tags: path.tags.load(Relaxed),
        };
        let routed = action.flags & flag::ROUTE != 0;
        self.send(packet, &exit, routed, nat, quoted, Reason::Replied)
    }

    /// Sends a packet to a next hop.
    fn forward<P: Packet>(
        &self,
        packet: &mut P,
        action: &Action,
        hop: u32,
        nat: Option<Nat>,
        quoted: Option<&Ip>,
        reason: Reason,
    ) -> Verdict {
        let Some(hop) = self.tables.hop(hop) else {
            return unsteered(self.port, Reason::NextHopUnresolved);
        };
        if hop.slot == self.port.slot {
            return unsteered(self.port, Reason::OwnOutput);
        }
        let Some(port) = self.tables.port_in(hop.slot) else {
            return unsteered(self.port, Reason::PortDown);
        };
        let exit = Exit {
            slot: hop.slot,
            destination: hop.mac,
            source: port.mac,
            tags: 0,
        };
        let routed = action.flags & flag::ROUTE != 0;
        self.send(packet, &exit, routed, nat, quoted, reason)
    }

    /// Sends a packet out, changed as it has to be.
    fn send<P: Packet>(
        &self,
        packet: &mut P,
        exit: &Exit,
        routed: bool,
        nat: Option<Nat>,
        quoted: Option<&Ip>,
        reason: Reason,
    ) -> Verdict {
        let (link, ip) = (&self.facts.link, &self.facts.ip);
        let Some(port) = self.tables.port_in(exit.slot) else {
            return unsteered(self.port, Reason::PortDown);
        };
        if routed && ip.ttl <= 1 {
            return unsteered(self.port, Reason::TtlExpired);
        }
        if ip.length > port.mtu as usize {
            return self.too_long(packet, port.mtu);
        }
        let changed = nat.is_none_or(|nat| self.translate(packet, &nat, quoted))
            && (!routed || rewrite::hop(packet, ip))
            && rewrite::link(
                packet,
                link.len,
                exit.destination,
                exit.source,
                exit.tags,
                link.ethertype,
            );
        if changed {
            Verdict::redirect(exit.slot, reason)
        } else {
            Verdict::discard(Reason::NoHeadroom)
        }
    }

    /// Changes an address, also in the packet that an ICMP error quotes, where it is at the other end.
    fn translate<P: Packet>(&self, packet: &mut P, nat: &Nat, quoted: Option<&Ip>) -> bool {
        let Some(quoted) = quoted else {
            return rewrite::address(packet, self.facts, nat.which, nat.new);
        };
        let (own, other) = match nat.which {
            Address::Source => (self.facts.ip.source, Address::Destination),
            Address::Destination => (self.facts.ip.destination, Address::Source),
        };
        // The error may come from a router on the way, whose address stays.
        (own != nat.old || rewrite::address(packet, self.facts, nat.which, nat.new))
            && rewrite::quoted_address(packet, self.facts, quoted, other, nat.new)
    }

    /// Answers a packet that is too long for where it should go, at most once a jiffy and CPU.
    fn too_long<P: Packet>(&self, packet: &mut P, mtu: u32) -> Verdict {
        let now = self.tables.now();
        let may_tell = !self.facts.icmp_error
            && self.facts.ip.fragment.is_none_or(|piece| piece.offset == 0)
            && self.tables.told().is_some_and(|told| {
                let due = told.load(Relaxed) != now;
                if due && !self.tables.read_only() {
                    told.store(now, Relaxed);
                }
                due
            });
        if may_tell && icmp::too_long(packet, self.facts, mtu) {
            Verdict {
                action: verdict::Action::Reflect,
                reason: Reason::MtuExceeded,
            }
        } else {
            Verdict::discard(Reason::MtuExceededUntold)
        }
    }

    fn follow(&self, record: &Record) {
        if !self.tables.read_only() {
            record.follow(&self.facts.link, self.port.slot);
        }
    }

    /// Counts the packet in its flow.
    fn account(&self, record: &Record, direction: Direction) {
        if self.tables.read_only() {
            return;
        }
        let half = record.half(direction);
        half.count(
            self.tables.cpu(),
            self.tables.now(),
            self.facts.ip.length as u64,
            self.facts.wire_len(),
        );
        if self.facts.key.protocol == TCP {
            let flags = u32::from(self.facts.tcp_flags);
            if half.tcp_flags.load(Relaxed) | flags != half.tcp_flags.load(Relaxed) {
                half.tcp_flags.fetch_or(flags, Relaxed);
            }
        }
    }

    /// Counts the packet for its rule.
    fn account_rule(&self, action: &Action) {
        if self.tables.read_only() {
            return;
        }
        if let Some(rule) = self.tables.rule(action.rule) {
            rule.count.add(self.facts.ip.length as u64);
            rule.last_hit.store(self.tables.now(), Relaxed);
        }
    }

    fn explain(&self, action: Option<u32>, flow: Option<FlowRef>) {
        self.tables.explain(Trace {
            action: action.map_or(0, |cell| cell + 1),
            flow: flow.map_or(0, |flow| u64::from(flow) + 1),
        });
    }
}
