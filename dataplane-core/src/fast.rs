//! The short way, which nearly all packets take: whole TCP and UDP packets without VLAN tags, of flows that
//! this CPU knows and that a FLOW rule sends on.
//!
//! It decides nothing that [`crate::steer`] would not decide the same, and leaves whatever is unusual to
//! that, before anything is changed or counted. What it gains is that the facts stay in registers.

mod gpdu;

use crate::{
    flow::{self, Cached, Decision, Record},
    packet::Packet,
    parse::{self, Facts, Ip},
    rewrite::{self, Address},
    session::{self, SessionRef},
    steer::unsteered,
    table::{Backend, CacheWay, Direction, FlowRef, Index, Port, Tables, flag, kind, verb},
    tunnel::{self, Tunnel, Way},
    verdict::{Reason, Verdict},
    wire::{
        ethernet::{self, Ethernet},
        transport::Tcp,
    },
    word::Word,
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
    let ethernet: &Ethernet = packet.get(0)?;
    let [upper, lower] = ethernet.raw();
    let from = [upper, lower | u64::from(port.slot) << 32];
    // What follows is there once for each version of IP, in which everything has its place.
    match ethernet.ethertype.get() {
        ethernet::IPV4 => untagged::<P, T, false>(packet, port, tables, from),
        ethernet::IPV6 => untagged::<P, T, true>(packet, port, tables, from),
        _ => None,
    }
}

#[inline(always)]
fn untagged<P: Packet, T: Tables, const V6: bool>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    from: [u64; 2],
) -> Option<Verdict> {
    let mut facts = plain_facts();
    parse::plain::<P, V6>(packet, Ethernet::LEN as u16, None, port.zone, &mut facts)?;
    if T::TUNNELS && tunnel::is_gtpu(&facts) {
        return gpdu::packet(packet, port, tables, &facts, from);
    }
    if T::TUNNELS && tunnel::may_be(&facts) {
        return None;
    }
    known(packet, port, tables, &facts, from)
}

/// What is known of a packet without tags before it is looked at: its addresses are compared as they lie in the frame.
fn plain_facts() -> Facts {
    let mut facts = Facts::default();
    facts.link.len = Ethernet::LEN as u16;
    facts
}

/// The same, once there are facts: the flow has to be one that this CPU knows, or there are no rules. `from` is what
/// [`CacheWay::link`] is of packets from the UE.
#[inline(always)]
fn known<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    facts: &Facts,
    from: [u64; 2],
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
    if way.valid.get() != valid || way.moves.get() != moves(tables, way, record, flow) {
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
        has(&way.link, from)
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
        return gpdu::reply(packet, port, tables, facts, way, &counted);
    }
    if forward && !fits(way, how, facts, 0) {
        return None;
    }
    if inside && !is_usual(tables, way, &facts.tunnel) {
        return None;
    }
    counted.add(tables, facts);
    if !forward {
        let verdict = unsteered(port, reason);
        tables.count(port.slot, verdict, facts.wire_len());
        return Some(verdict);
    }
    let changed = change(packet, way, facts, reason) && leave(packet, way, &facts.ip);
    Some(sent(port, tables, facts, way, reason, changed))
}

/// The verdict on a packet that was `changed` as it has to be, or cannot be.
#[inline(always)]
fn sent<T: Tables>(
    port: &Port,
    tables: &T,
    facts: &Facts,
    way: &CacheWay,
    reason: Reason,
    changed: bool,
) -> Verdict {
    if !changed {
        return discarded(port.slot, tables, facts.wire_len());
    }
    let verdict = Verdict::redirect((way.exit[1].get() >> 32) as u16, reason);
    tables.count(port.slot, verdict, facts.wire_len());
    verdict
}

/// Out of line, so that what is counted of others is known to the compiler.
#[inline(never)]
fn discarded<T: Tables>(slot: u16, tables: &T, bytes: u64) -> Verdict {
    let verdict = Verdict::discard(Reason::NoHeadroom);
    tables.count(slot, verdict, bytes);
    verdict
}

/// What [`CacheWay::moves`] is as long as the way and the session of the flow are as they were.
#[inline(always)]
fn moves<T: Tables>(tables: &T, way: &CacheWay, record: &Record, flow: FlowRef) -> u64 {
    let moves = record.half(flow.direction()).moves.get();
    if !T::TUNNELS {
        return moves;
    }
    let session = SessionRef::from(way.session.get());
    tables.session_changes(session.id()) << 32 | u64::from(moves as u32)
}

/// Whether a packet says nothing of its session that is not known.
#[inline(always)]
fn is_usual<T: Tables>(tables: &T, way: &CacheWay, tunnel: &Tunnel) -> bool {
    if way.how.get() as u32 & TUNNEL == 0 {
        return session::is_usual(tables, way.session.get().into(), tunnel);
    }
    let word = session::tunnel_word(tunnel.teid, tunnel.qfi);
    has(&way.address, [session::ends(tunnel.ran, tunnel.core), word])
}

fn has(words: &[Word; 2], values: [u64; 2]) -> bool {
    words[0].get() == values[0] && words[1].get() == values[1]
}

fn set(words: &[Word; 2], values: [u64; 2]) {
    words[0].set(values[0]);
    words[1].set(values[1]);
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
/// In [`CacheWay::how`]: the tunnel is noted, of packets to the UE or of packets from there that keep their addresses.
const TUNNEL: u32 = 1 << 10;

/// Notes in the flow cache how packets of a flow leave, for as long as nothing changes.
#[inline(never)]
fn resolve<T: Tables>(tables: &T, way: &CacheWay, record: &Record, decided: u64, valid: u64) {
    let flow = FlowRef::from(way.flow.get());
    way.session.set(record.session.get());
    // Before what it is about is looked at.
    way.moves.set(moves(tables, way, record, flow));
    let how = exit(tables, way, record, decided, flow.direction());
    way.how.set(how.unwrap_or_else(|| UNUSUAL.into()));
    way.valid.set(valid);
}

/// Notes the tunnel that upstream packets of a flow come by, or that its downstream packets go by, if that is usual and
/// over IPv4.
#[inline(never)]
fn note_tunnel<T: Tables>(tables: &T, way: &CacheWay, upstream: bool) -> bool {
    let session = SessionRef::from(way.session.get());
    let (words, tunnel) = if upstream {
        (&way.address, session::entry_v4(tables, session))
    } else {
        (&way.link, session::exit_v4(tables, session))
    };
    let Some(tunnel) = tunnel else {
        return false;
    };
    set(words, tunnel);
    true
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
    if upstream {
        let [upper, lower] = Ethernet::raw_of(core, ue >> 16);
        set(&way.link, [upper, lower | ue << 48 >> 16]);
    }
    let translated = action.flags & flag::NAT != 0;
    let noted = T::TUNNELS && !(upstream && translated) && note_tunnel(tables, way, upstream);
    let how = how | if noted { TUNNEL.into() } else { 0 };
    match (action.verb, direction) {
        (verb::PASSTHROUGH, _) => return Some(how | u64::from(PASSTHROUGH)),
        (verb::FORWARD, Direction::Upstream) => {
            let hop = tables.hop(action.first)?;
            let port = tables.port_in(hop.slot)?;
            if hop.slot == ue as u16 {
                return None;
            }
            leave_by(way, hop.mac, port.mac, port);
            if translated {
                set(&way.address, action.nat);
            }
        }
        (verb::FORWARD, Direction::Downstream) => {
            let port = tables.port_in(ue as u16)?;
            leave_by(way, ue >> 16, core, port);
            set(&way.address, record.key.destination());
        }
        _ => return None,
    }
    Some(how)
}

/// Notes [`CacheWay::exit`].
fn leave_by(way: &CacheWay, destination: u64, source: u64, port: &Port) {
    let [upper, lower] = Ethernet::raw_of(destination, source);
    // No packet is longer than its length can say.
    let mtu = u64::from(port.mtu.min(u16::MAX.into()));
    set(
        &way.exit,
        [upper, mtu << 48 | u64::from(port.slot) << 32 | lower],
    );
}

const fn is_routed(how: u64) -> bool {
    how as u8 & flag::ROUTE != 0
}

#[inline(always)]
fn fits(way: &CacheWay, how: u64, facts: &Facts, overhead: u32) -> bool {
    u64::from(facts.ip.length + overhead) <= way.exit[1].get() >> 48
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
    let [upper, lower] = &way.exit;
    let addresses = [upper.get(), lower.get()];
    rewrite::untagged(packet, ip.offset.into(), addresses, ethertype)
}
