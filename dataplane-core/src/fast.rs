//! The short way, which nearly all packets take: whole TCP and UDP packets without VLAN tags, of flows that
//! this CPU knows and that a FLOW rule sends on.
//!
//! It decides nothing that [`crate::steer`] would not decide the same, and leaves whatever is unusual to
//! that, before anything is changed or counted. What it gains is that the facts stay in registers.

mod gpdu;

use crate::{
    flow::{self, Cached, Decision, Path, Record},
    packet::Packet,
    parse::{self, Facts, Ip, Link},
    rewrite::{self, Address},
    session::{self, SessionRef},
    steer::unsteered,
    table::{Backend, CacheWay, Direction, FlowRef, Index, Port, Tables, flag, kind, verb},
    tunnel::{self, Way},
    verdict::{Reason, Verdict},
    wire::{
        ethernet::{self, Ethernet},
        transport::Tcp,
    },
};

/// Takes a packet that came by `port` to its verdict, and counts it. `None`: it is to go the long way.
#[inline(always)]
pub(crate) fn packet<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
) -> Option<Verdict> {
    if tables.read_only() {
        return None;
    }
    let mut link = Link::default();
    link.set(packet.get(0)?);
    // What follows is there once for each version of IP, in which everything has its place.
    match link.ethertype {
        ethernet::IPV4 => untagged::<P, T, false>(packet, port, tables, link),
        ethernet::IPV6 => untagged::<P, T, true>(packet, port, tables, link),
        _ => None,
    }
}

#[inline(always)]
fn untagged<P: Packet, T: Tables, const V6: bool>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    link: Link,
) -> Option<Verdict> {
    let mut facts = Facts {
        link,
        ..Facts::default()
    };
    parse::plain::<P, V6>(packet, Ethernet::LEN as u16, None, port.zone, &mut facts)?;
    if T::TUNNELS && tunnel::is_gtpu(&facts) {
        return gpdu::packet(packet, port, tables, &facts);
    }
    if T::TUNNELS && tunnel::may_be(&facts) {
        return None;
    }
    known(packet, port, tables, &facts)
}

/// The same, once there are facts: the flow has to be one that this CPU knows, or there are no rules.
#[inline(always)]
fn known<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    facts: &Facts,
) -> Option<Verdict> {
    if T::TUNNELS && facts.tcp_flags & Tcp::SYN != 0 && port.clamps_mss() {
        return None;
    }
    let state = tables.state()?;
    let inside = T::TUNNELS && facts.tunnel.way != Way::None;
    if state.image().root == Index::END && !inside && !(T::TUNNELS && port.is_app()) {
        let verdict = unsteered(port, Reason::NoRule);
        tables.count(port.slot, verdict, facts.wire_len());
        return Some(verdict);
    }
    let Some(Cached { way, record, flow }) = flow::cached(tables, &facts.key.words(), facts.ports)
    else {
        return nameless(port, tables, facts, inside);
    };
    let valid = state.validity();
    let upstream = flow.direction() == Direction::Upstream;
    if way.valid.get() != valid || way.moves.get() != record.half(flow.direction()).moves.get() {
        // What was decided under other rules is for the long way to decide anew.
        let decided = record.decision(flow.direction()).get();
        if !Decision::holds(decided, (valid >> 32) as u32) {
            return None;
        }
        resolve(tables, way, record, decided, valid);
    }
    let how = way.how.get();
    let kept = if inside { flag::ENCAPSULATED } else { 0 };
    // A connection that begins may get another backend.
    let begins = (facts.tcp_flags & Tcp::SYN) * (flag::BACKEND / Tcp::SYN);
    if how as u32 & (UNUSUAL | u32::from(kept | begins)) != 0 {
        return None;
    }
    let forward = how as u32 & PASSTHROUGH == 0;
    let rightly = if upstream {
        let [upper, lower] = sent_by(
            facts.link.destination,
            Path::ue(facts.link.source, port.slot),
        );
        let [known_upper, known_lower] = &way.link;
        known_upper.get() == upper && known_lower.get() == lower
    } else {
        !inside && (port.is_app() || !forward)
    };
    if !rightly {
        return None;
    }
    let reason = match (forward, upstream) {
        (false, _) => Reason::Passthrough,
        (true, true) => Reason::Steered,
        (true, false) => Reason::Replied,
    };
    let session = way.session.get();
    let counted = Counted {
        record,
        flow,
        rule: (how >> 32) as u32,
    };
    if T::TUNNELS && forward && !upstream && session != 0 {
        return gpdu::reply(packet, port, tables, facts, way, &counted, session);
    }
    if forward && !fits(way, how, facts, 0) {
        return None;
    }
    if inside && !session::is_usual(tables, session.into(), &facts.tunnel) {
        return None;
    }
    counted.add(tables, facts);
    let verdict = if !forward {
        unsteered(port, reason)
    } else if change(packet, way, facts, reason) && leave(packet, way, &facts.ip) {
        Verdict::redirect(way.exit.get() as u16, reason)
    } else {
        Verdict::discard(Reason::NoHeadroom)
    };
    tables.count(port.slot, verdict, facts.wire_len());
    Some(verdict)
}

/// Where a packet is counted, besides its port.
struct Counted<'a> {
    record: &'a Record,
    flow: FlowRef,
    rule: u32,
}

impl Counted<'_> {
    #[inline(always)]
    fn add<T: Tables>(&self, tables: &T, facts: &Facts) {
        let bytes = facts.ip.length.into();
        let direction = self.flow.direction();
        self.record
            .count(tables, direction, bytes, facts.wire_len(), facts.tcp_flags);
        if let Some(rule) = tables.rule(self.rule) {
            rule.add(tables, bytes);
        }
    }
}

/// The verdict on a packet that no rule is about, nor a flow that rules have made.
#[inline(always)]
fn nameless<T: Tables>(port: &Port, tables: &T, facts: &Facts, inside: bool) -> Option<Verdict> {
    // Applications may answer copies. What is inside of a tunnel may teach something.
    if port.is_app() || inside {
        return None;
    }
    let names = tables.names()?;
    if names.has(facts.key.destination) || names.has(facts.key.source) {
        return None;
    }
    let verdict = unsteered(port, Reason::NoRule);
    tables.count(port.slot, verdict, facts.wire_len());
    Some(verdict)
}

/// In [`CacheWay::how`]: packets of this flow are not for the short way.
const UNUSUAL: u32 = 1 << 8;
/// In [`CacheWay::how`]: packets go their original path, and are counted.
const PASSTHROUGH: u32 = 1 << 9;

/// Notes in the flow cache how packets of a flow leave, for as long as nothing changes.
#[inline(never)]
fn resolve<T: Tables>(tables: &T, way: &CacheWay, record: &Record, decided: u64, valid: u64) {
    let flow = FlowRef::from(way.flow.get());
    way.moves.set(record.half(flow.direction()).moves.get());
    way.session.set(record.session.get());
    let how = exit(tables, way, record, decided, flow.direction());
    way.how.set(how.unwrap_or_else(|| UNUSUAL.into()));
    way.valid.set(valid);
}

/// How packets in `direction` leave, unless that is unusual.
#[inline(always)]
fn exit<T: Tables>(
    tables: &T,
    way: &CacheWay,
    record: &Record,
    decided: u64,
    direction: Direction,
) -> Option<u64> {
    let action = tables.action(Decision::from(decided).action?)?;
    let unusual = flag::INLINE | if T::TUNNELS { flag::TUNNEL } else { 0 };
    let path = record.way_back();
    if action.kind != kind::FLOW || action.flags & unusual != 0 || path.tags.get() != 0 {
        return None;
    }
    let (ue, core) = (path.ue.get(), path.core.get());
    if action.flags & flag::BACKEND != 0 {
        let backend = tables.backend(action.rule)?;
        if !Backend::from(backend.get()).lives() || action.flags & flag::FALLBACK != 0 {
            return None;
        }
    }
    let upstream = direction == Direction::Upstream;
    if T::TUNNELS && upstream && SessionRef::from(record.session.get()).peer().is_some() {
        return None;
    }
    let port = match (action.nat_port, direction) {
        (0, _) => 0,
        (port, Direction::Upstream) => port,
        (_, Direction::Downstream) => record.key.get().rest.destination_port(),
    };
    let how = u64::from(action.rule) << 32 | u64::from(port) << 16 | u64::from(action.flags);
    let [upper, lower] = sent_by(core, ue);
    way.link[0].set(upper);
    way.link[1].set(lower);
    match (action.verb, direction) {
        (verb::PASSTHROUGH, _) => return Some(how | u64::from(PASSTHROUGH)),
        (verb::FORWARD, Direction::Upstream) => {
            let hop = tables.hop(action.first)?;
            let port = tables.port_in(hop.slot)?;
            if hop.slot == ue as u16 {
                return None;
            }
            way.exit.set(hop.word());
            way.source.set(port.mac << 16 | mtu(port));
            way.address[0].set(action.nat[0]);
            way.address[1].set(action.nat[1]);
        }
        (verb::FORWARD, Direction::Downstream) => {
            let port = tables.port_in(ue as u16)?;
            way.exit.set(ue);
            way.source.set(core << 16 | mtu(port));
            let [high, low] = record.key.destination();
            way.address[0].set(high);
            way.address[1].set(low);
        }
        _ => return None,
    }
    Some(how)
}

/// [`CacheWay::link`] of packets from the UE: MAC addresses as they are in a frame, and the port at the end.
const fn sent_by(destination: u64, ue: u64) -> [u64; 2] {
    [destination << 16 | ue >> 48, ue & 0xffff_ffff_ffff]
}

/// The largest packet that may leave by `port`; none is longer than its length can say.
fn mtu(port: &Port) -> u64 {
    port.mtu.min(u16::MAX.into()).into()
}

const fn is_routed(how: u64) -> bool {
    how as u8 & flag::ROUTE != 0
}

#[inline(always)]
fn fits(way: &CacheWay, how: u64, facts: &Facts, overhead: u32) -> bool {
    facts.ip.length + overhead <= u32::from(way.source.get() as u16)
        && (facts.ip.ttl > 1 || !is_routed(how))
}

/// Changes the packet behind the link layer as it has to be.
#[inline(always)]
fn change<P: Packet>(packet: &mut P, way: &CacheWay, facts: &Facts, reason: Reason) -> bool {
    let (ip, how) = (&facts.ip, way.how.get());
    let translated = how as u8 & flag::NAT == 0 || {
        let which = if reason == Reason::Replied {
            Address::Source
        } else {
            Address::Destination
        };
        let [high, low] = &way.address;
        let port = (how >> 16) as u16;
        rewrite::address(packet, ip, which, [high.get(), low.get()], port)
    };
    translated && (!is_routed(how) || rewrite::hop(packet, ip))
}

/// Puts the link layer that the packet leaves with in front of it. What is there is its tunnel, if it came by one.
#[inline(always)]
fn leave<P: Packet>(packet: &mut P, way: &CacheWay, ip: &Ip) -> bool {
    let ethertype = if ip.v6 {
        ethernet::IPV6
    } else {
        ethernet::IPV4
    };
    let (destination, source) = (way.exit.get() >> 16, way.source.get() >> 16);
    rewrite::untagged(packet, ip.offset.into(), destination, source, ethertype)
}
