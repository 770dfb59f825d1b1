//! The short way, which nearly all packets take: whole TCP and UDP packets without VLAN tags, of flows that
//! this CPU knows and that a FLOW rule sends on.
//!
//! It decides nothing that [`crate::steer`] would not decide the same, and leaves whatever is unusual to
//! that, before anything is changed or counted. What it gains is that the facts stay in registers.

mod gpdu;

use crate::{
    encapsulate,
    flow::{self, Decision, Found, Record},
    packet::Packet,
    parse::{self, Facts},
    rewrite::{self, Address},
    steer::{Notes, Scratch, unsteered},
    table::{Direction, Index, Port, RuleAction, Tables, flag, kind, verb},
    tunnel::{self, Way},
    verdict::{Reason, Verdict},
    wire::{
        ethernet::{self, Ethernet},
        transport::Tcp,
    },
};

/// How a packet leaves.
struct Exit<'a> {
    port: &'a Port,
    destination: u64,
    source: u64,
    /// Octets of the tunnel that it leaves by, which is noted, or 0.
    overhead: u32,
    reason: Reason,
}

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
    // What follows is there once for each version of IP, in which everything has its place.
    match packet.get::<Ethernet>(0)?.ethertype.get() {
        ethernet::IPV4 => plain::<P, T, false>(packet, port, tables),
        ethernet::IPV6 => plain::<P, T, true>(packet, port, tables),
        _ => None,
    }
}

#[inline(always)]
fn plain<P: Packet, T: Tables, const V6: bool>(
    packet: &mut P,
    port: &Port,
    tables: &T,
) -> Option<Verdict> {
    let mut facts = Facts::default();
    parse::plain::<P, V6>(packet, Ethernet::LEN as u16, port.zone, &mut facts)?;
    known(packet, port, tables, &facts, None)
}

/// The same where UEs may be behind tunnels. There is more to know, for which there are not the registers.
#[inline(always)]
pub(crate) fn mobile<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    scratch: &mut Scratch,
) -> Option<Verdict> {
    if tables.read_only() {
        return None;
    }
    let Scratch { facts, notes } = scratch;
    let at = Ethernet::LEN as u16;
    match packet.get::<Ethernet>(0)?.ethertype.get() {
        ethernet::IPV4 => parse::plain::<P, false>(packet, at, port.zone, facts)?,
        ethernet::IPV6 => parse::plain::<P, true>(packet, at, port.zone, facts)?,
        _ => return None,
    }
    if tunnel::may_be(facts) {
        gpdu::open(packet, port, facts)?;
    }
    if facts.tcp_flags & Tcp::SYN != 0 && port.clamps_mss() {
        return None;
    }
    known(packet, port, tables, facts, Some(notes))
}

#[inline(always)]
fn known<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    facts: &Facts,
    notes: Option<&Notes>,
) -> Option<Verdict> {
    let image = tables.image();
    let inside = T::TUNNELS && facts.tunnel.way != Way::None;
    if image.root == Index::END && !inside && !(T::TUNNELS && port.is_app()) {
        let verdict = unsteered(port, Reason::NoRule);
        tables.count(port.slot, verdict, facts.wire_len());
        return Some(verdict);
    }
    let found = flow::cached(tables, &facts.key.words(), facts.ports)?;
    let word = found.decided.get();
    if !Decision::holds(word, image.epoch) {
        return None;
    }
    let action = tables.action(Decision::from(word).action?)?;
    let kept = if inside { flag::ENCAPSULATED } else { 0 };
    let unusual = flag::INLINE | kept | if T::TUNNELS { flag::TUNNEL } else { 0 };
    if action.kind != kind::FLOW || action.flags & unusual != 0 {
        return None;
    }
    let upstream = found.flow.direction() == Direction::Upstream;
    let rightly = if upstream {
        port.is_upstream()
    } else {
        !inside
    };
    if !rightly {
        return None;
    }
    let exit = match action.verb {
        verb::FORWARD if upstream => Some(onward(tables, port, action)?),
        verb::FORWARD if port.is_app() => Some(back(tables, &found, notes)?),
        verb::PASSTHROUGH => None,
        _ => return None,
    };
    if let Some(exit) = &exit
        && !fits(exit, action, facts)
    {
        return None;
    }
    let Found { record, flow, .. } = found;
    if inside && !gpdu::is_usual(tables, record, facts) {
        return None;
    }
    if upstream {
        record.follow(&facts.link, port.slot);
    }
    let bytes = facts.ip.length.into();
    record.count(
        tables,
        flow.direction(),
        bytes,
        facts.wire_len(),
        facts.tcp_flags,
    );
    if let Some(rule) = tables.rule(action.rule) {
        rule.add(tables, bytes);
    }
    let verdict = match exit {
        Some(exit) if change(packet, action, record, facts, &exit, notes) => {
            Verdict::redirect(exit.port.slot, exit.reason)
        }
        Some(_) => Verdict::discard(Reason::NoHeadroom),
        None => unsteered(port, Reason::Passthrough),
    };
    tables.count(port.slot, verdict, facts.wire_len());
    Some(verdict)
}

/// To the application.
#[inline(always)]
fn onward<'a, T: Tables>(tables: &'a T, port: &Port, action: &RuleAction) -> Option<Exit<'a>> {
    let hop = tables.hop(action.first)?;
    let exit = tables.port_in(hop.slot)?;
    (hop.slot != port.slot).then_some(Exit {
        port: exit,
        destination: hop.mac,
        source: exit.mac,
        overhead: 0,
        reason: Reason::Steered,
    })
}

/// To the UE.
#[inline(always)]
fn back<'a, T: Tables>(
    tables: &'a T,
    found: &Found<'_>,
    notes: Option<&Notes>,
) -> Option<Exit<'a>> {
    let record = found.record;
    let session = record.session.get();
    let overhead = if T::TUNNELS && session != 0 {
        gpdu::exit(tables, session, notes?)?
    } else {
        0
    };
    let path = record.way_back();
    let ue = path.ue.get();
    let exit = tables.port_in(ue as u16)?;
    (path.tags.get() == 0).then_some(Exit {
        port: exit,
        destination: ue >> 16,
        source: path.core.get(),
        overhead,
        reason: Reason::Replied,
    })
}

const fn is_routed(action: &RuleAction) -> bool {
    action.flags & flag::ROUTE != 0
}

#[inline(always)]
const fn fits(exit: &Exit<'_>, action: &RuleAction, facts: &Facts) -> bool {
    facts.ip.length + exit.overhead <= exit.port.mtu && (facts.ip.ttl > 1 || !is_routed(action))
}

#[inline(always)]
fn change<P: Packet>(
    packet: &mut P,
    action: &RuleAction,
    record: &Record,
    facts: &Facts,
    exit: &Exit<'_>,
    notes: Option<&Notes>,
) -> bool {
    let ip = &facts.ip;
    let translated = if action.flags & flag::NAT == 0 {
        true
    } else if exit.reason == Reason::Replied {
        // Looked up here, where it is needed: it lies in another line of the cache.
        rewrite::address(packet, ip, Address::Source, record.key.destination())
    } else {
        rewrite::address(packet, ip, Address::Destination, action.nat)
    };
    let routed = !is_routed(action) || rewrite::hop(packet, &facts.ip);
    let link = rewrite::Link {
        destination: exit.destination,
        source: exit.source,
        tags: 0,
        ethertype: match notes {
            Some(notes) if exit.overhead != 0 => notes.exit.ethertype(),
            _ if ip.v6 => ethernet::IPV6,
            _ => ethernet::IPV4,
        },
    };
    translated
        && routed
        && match notes {
            Some(notes) if exit.overhead != 0 => {
                encapsulate::into(packet, Ethernet::LEN, &link, ip, &notes.exit)
            }
            // What is before the packet is its tunnel, if it came by one.
            _ => rewrite::link(packet, ip.offset.into(), &link),
        }
}
