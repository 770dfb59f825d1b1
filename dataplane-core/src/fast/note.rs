//! Noting in the flow cache what the long way has found out.

use super::{
    BEGINS, KIND, OWNED, PASSTHROUGH, REPLY, form, valid,
    wrap::{Kind, Noted},
};
use crate::{
    checksum::Delta,
    flow::{Decision, Record},
    packet::Packet,
    parse::Facts,
    rewrite::Address,
    session::{self, SessionRef},
    steer::{Steering, unsteered},
    table::{
        Backend, CHANGES, CacheSet, CacheWay, Direction, FlowRef, Passage, RuleAction, Tables,
        flag, kind, verb,
    },
    tunnel::{self, Way},
    verdict::Reason,
    wire::{
        ethernet::Ethernet,
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{TCP, UDP},
    },
    word::Word,
};

/// What a note is true for. It is read before what it is about.
#[derive(Clone, Copy)]
struct Stamp {
    validity: u64,
    moves: u64,
}

impl<T: Tables> Steering<'_, T> {
    /// Notes how packets such as this one of a flow leave, if that is usual, and was decided before.
    #[inline(never)]
    pub(crate) fn note<P: Packet>(&self, packet: &P, flow: FlowRef) {
        // What was begun is not valid.
        let _: Option<()> = self.note_usual(packet, flow);
    }

    #[inline(always)]
    fn note_usual<P: Packet>(&self, packet: &P, flow: FlowRef) -> Option<()> {
        let (tables, facts) = (self.tables, self.facts);
        if tables.read_only() {
            return None;
        }
        let record = tables.record(flow.id())?;
        let direction = flow.direction();
        let stamp = Stamp {
            validity: tables.state()?.validity(),
            moves: record.half(direction).generation.get(),
        };
        let action = self.usual_action(record, direction)?;
        let (form, index) = form(facts)?;
        let word = |at| packet.get::<[u8; 8]>(at).copied().map(u64::from_ne_bytes);
        let hash = form::hash(facts.ip.offset.into(), facts.ip.v6, |at| {
            word(at).unwrap_or_default()
        });
        if (stamp.validity >> 32) as u32 != self.image.epoch
            // It may have another key by now.
            || !record.has(&facts.key, direction)
        {
            return None;
        }
        let way = tables.cache(hash)?.way_of(flow);
        let session = SessionRef::from(record.session.get());
        way.moves.set(stamp.moves);
        way.told.set(tables.session_changes(session.id()));
        let counted = u64::from(session.id() % CHANGES);
        way.flow.set(counted << 32 | u64::from(u32::from(flow)));
        if T::TUNNELS
            && facts.tunnel.way == Way::Uplink
            && !session::is_usual(tables, session, &facts.tunnel)
        {
            return None;
        }
        self.note_exit(way, record, direction, action)?;
        form.note(way, self.port.ifindex, word)?;
        way.valid.set(valid::<T>(stamp.validity, index));
        Some(())
    }

    /// The action that decides about packets such as this one, if it is one for the short way.
    #[inline(always)]
    fn usual_action(&self, record: &Record, direction: Direction) -> Option<&RuleAction> {
        let (facts, tables) = (self.facts, self.tables);
        let inside = T::TUNNELS && facts.tunnel.way != Way::None;
        let whole = !facts.ip.is_fragment() && matches!(facts.ip.protocol, TCP | UDP);
        if !whole
            || usize::from(facts.link.len) != Ethernet::LEN
            || T::TUNNELS && !inside && tunnel::may_be(facts)
        {
            return None;
        }
        let decided = record.decision(direction).get();
        if !Decision::holds(decided, self.image.epoch) {
            return None;
        }
        let action = tables.action(Decision::from(decided).action?)?;
        let unusual = flag::INLINE
            | if inside {
                flag::ENCAPSULATED | flag::TUNNEL
            } else {
                0
            };
        if action.kind != kind::FLOW || action.flags & unusual != 0 {
            return None;
        }
        if action.flags & flag::BACKEND != 0 {
            let backend = tables.backend(action.rule)?;
            if !Backend::from(backend.get()).lives() {
                return None;
            }
        }
        let rightly = match direction {
            Direction::Upstream => {
                self.port.is_upstream()
                    && (!inside || facts.tunnel.way == Way::Uplink)
                    && record.came_by(&facts.link, self.port.slot)
            }
            Direction::Downstream => {
                !inside && (self.port.is_app() || action.verb == verb::PASSTHROUGH)
            }
        };
        rightly.then_some(action)
    }

    /// Notes how packets leave by an action.
    #[inline(always)]
    fn note_exit(
        &self,
        way: &CacheWay,
        record: &Record,
        direction: Direction,
        action: &RuleAction,
    ) -> Option<()> {
        let session = SessionRef::from(record.session.get());
        if T::TUNNELS && session.peer().is_some() || record.way_back().tags.get() != 0 {
            return None;
        }
        let clamps = T::TUNNELS && self.port.clamps_mss();
        let mut how = u64::from(self.tables.rule_place(action.rule)) << 32;
        if clamps || action.flags & flag::BACKEND != 0 {
            how |= BEGINS;
        }
        if record.half(direction).is_owned(self.tables.cpu()) {
            how |= OWNED;
        }
        match (action.verb, direction) {
            (verb::PASSTHROUGH, _) => {
                let reason = reason(action, Reason::Passthrough, Reason::NoBackend);
                way.how.set(how | PASSTHROUGH);
                let verdict = unsteered(self.port, reason);
                set(&way.address, [verdict.word().into(), 0]);
                let passage = Passage::new(self.port.slot, 0, reason);
                way.leave_by(0, 0, passage, u32::MAX, &Noted::NONE);
            }
            (verb::FORWARD, Direction::Upstream) => self.note_forward(way, how, action)?,
            (verb::FORWARD, Direction::Downstream) => self.note_back(way, how, record, action)?,
            _ => return None,
        }
        Some(())
    }

    #[inline(always)]
    fn note_forward(&self, way: &CacheWay, how: u64, action: &RuleAction) -> Option<()> {
        let hop = self.tables.hop(action.first)?;
        let port = self.tables.port_in(hop.slot)?;
        if hop.slot == self.port.slot {
            return None;
        }
        let address = self.translated(Address::Destination, action.nat, action.nat_port);
        set(&way.address, address);
        let mut tunnel = Noted::NONE;
        if T::TUNNELS && action.flags & flag::TUNNEL != 0 {
            let target = self.tables.target(action.first)?;
            tunnel = Noted::to_target(target)?;
            if tunnel.kind == Kind::Vxlan {
                if action.flags & flag::NAT != 0 {
                    return None;
                }
                let [upper, _] = Ethernet::raw_of(target.mac, port.mac);
                let from = self.facts.key.source_port_outside();
                set(&way.address, [upper, from.into()]);
            }
        }
        let reason = reason(action, Reason::Steered, Reason::VipPeer);
        let how = how | u64::from(action.nat_port) << 16 | u64::from(action.flags);
        way.how.set(how | (tunnel.kind as u64) << KIND);
        let passage = Passage::new(self.port.slot, port.slot, reason);
        way.leave_by(hop.mac, port.mac, passage, port.mtu, &tunnel);
        Some(())
    }

    #[inline(always)]
    fn note_back(
        &self,
        way: &CacheWay,
        how: u64,
        record: &Record,
        action: &RuleAction,
    ) -> Option<()> {
        let (path, session) = (record.way_back(), record.session.get());
        let (ue, core) = (path.ue.get(), path.core.get());
        let port = self.tables.port_in(ue as u16)?;
        let mut tunnel = Noted::NONE;
        if T::TUNNELS && session != 0 {
            tunnel = Noted::to_ue(session::exit_v4(self.tables, session.into())?);
        }
        let to = match action.nat_port {
            0 => 0,
            _ => record.key.get().rest.destination_port(),
        };
        let address = self.translated(Address::Source, record.key.destination(), to);
        set(&way.address, address);
        let how = how | u64::from(to) << 16 | u64::from(action.flags) | REPLY;
        way.how.set(how | (tunnel.kind as u64) << KIND);
        let passage = Passage::new(self.port.slot, port.slot, Reason::Replied);
        way.leave_by(ue >> 16, core, passage, port.mtu, &tunnel);
        Some(())
    }

    /// An address, and a port or 0, that take the place of those of the packet, as [`CacheWay::address`] has them.
    #[inline(always)]
    fn translated(&self, which: Address, to: [u64; 2], port: u16) -> [u64; 2] {
        let (facts, rest) = (self.facts, &self.facts.key.rest);
        if facts.ip.v6 {
            return to;
        }
        let ([_, from], from_port) = match which {
            Address::Source => (facts.key.source, rest.source_port()),
            Address::Destination => (facts.key.destination, rest.destination_port()),
        };
        let port = if port == 0 { from_port } else { port };
        let to = to[1] as u32;
        let of_address = Delta::default().words(from & 0xffff_ffff, to.into());
        let of_both = of_address.word(from_port, port);
        let deltas =
            u64::from(of_both.folded().to_be()) << 16 | u64::from(of_address.folded().to_be());
        [
            deltas,
            u64::from(port.to_be()) << 32 | u64::from(to.to_be()),
        ]
    }
}

/// The reason that packets are counted for, which is another where no backend is there.
const fn reason(action: &RuleAction, usual: Reason, fallback: Reason) -> Reason {
    if action.flags & flag::FALLBACK == 0 {
        usual
    } else {
        fallback
    }
}

/// The form of a frame, and its number.
fn form(facts: &Facts) -> Option<(&'static form::Form, usize)> {
    let len = |v6| if v6 { Ipv6::LEN } else { Ipv4::LEN };
    let (ip, outer) = (&facts.ip, &facts.tunnel.ip);
    let outside = match facts.tunnel.way {
        Way::Uplink if usize::from(outer.payload - outer.offset) == len(outer.v6) => len(outer.v6),
        Way::None => 0,
        Way::Uplink | Way::Downlink | Way::Target => return None,
    };
    if usize::from(ip.payload - ip.offset) != len(ip.v6) {
        return None;
    }
    form::of(ip.offset.into(), outside, ip.v6)
}

impl CacheSet {
    /// The way of a flow, which nothing is known of any more. Another one may have had it.
    fn way_of(&self, flow: FlowRef) -> &CacheWay {
        let [first, second] = &self.ways;
        let is_its = |way: &CacheWay| way.flow.get() as u32 == u32::from(flow);
        let way = if is_its(second) {
            second
        } else {
            if !is_its(first) {
                second.take_over(first);
            }
            first
        };
        way.valid.set(0);
        way
    }
}

impl CacheWay {
    fn take_over(&self, other: &Self) {
        let copy = |cell: &Word, other: &Word| cell.set(other.get());
        for index in 0..form::WORDS {
            copy(self.word(index), other.word(index));
        }
        copy(&self.flow, &other.flow);
        copy(&self.valid, &other.valid);
        copy(&self.moves, &other.moves);
        copy(&self.told, &other.told);
        copy(&self.how, &other.how);
        for index in 0..2 {
            copy(&self.exit[index], &other.exit[index]);
            copy(&self.address[index], &other.address[index]);
            copy(&self.tunnel[index], &other.tunnel[index]);
        }
    }

    /// Notes how packets leave that are, with the tunnel, no longer than `mtu`.
    fn leave_by(&self, to: u64, from: u64, passage: Passage, mtu: u32, tunnel: &Noted) {
        let [upper, lower] = Ethernet::raw_of(to, from);
        set(&self.exit, [upper, lower | u64::from(passage.word()) << 32]);
        // No packet is longer than its length can say.
        self.flow
            .set(self.flow.get() | u64::from(tunnel.sum()) << 48);
        let mtu = mtu
            .min(u16::MAX.into())
            .saturating_sub(tunnel.kind.overhead());
        set(
            &self.tunnel,
            [tunnel.ends, u64::from(mtu) << 48 | tunnel.label],
        );
    }
}

fn set(words: &[Word; 2], values: [u64; 2]) {
    words[0].set(values[0]);
    words[1].set(values[1]);
}
