//! The short way, which nearly all packets take: whole TCP and UDP packets without VLAN tags, of flows that
//! this CPU knows and that a FLOW rule sends on.
//!
//! It decides nothing that [`crate::steer`] would not decide the same, and leaves whatever is unusual to
//! that, before anything is changed or counted. What it gains is that the facts stay in registers.

use crate::{
    flow::{self, Decision, Found, Record},
    packet::Packet,
    parse::{self, Facts},
    rewrite::{self, Address},
    steer::unsteered,
    table::{Direction, Index, Port, RuleAction, Tables, flag, kind, verb},
    tunnel,
    verdict::{Reason, Verdict},
    wire::ethernet::{self, Ethernet},
};

/// How a packet leaves.
struct Exit<'a> {
    port: &'a Port,
    destination: u64,
    source: u64,
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
    let facts = parse::plain::<P, V6>(packet, port.zone)?;
    if T::TUNNELS && tunnel::may_be(&facts) && port.sees_gtpu() {
        return None;
    }
    let verdict = known(packet, port, tables, &facts)?;
    tables.count(port.slot, verdict, facts.wire_len());
    Some(verdict)
}

#[inline(always)]
fn known<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    facts: &Facts,
) -> Option<Verdict> {
    let image = tables.image();
    if image.root == Index::END && !(T::TUNNELS && port.is_app()) {
        return Some(unsteered(port, Reason::NoRule));
    }
    let found = flow::cached(tables, &facts.key.words(), facts.ports)?;
    let word = found.decided.get();
    if !Decision::holds(word, image.epoch) {
        return None;
    }
    let action = tables.action(Decision::from(word).action?)?;
    if action.kind != kind::FLOW || action.flags & flag::INLINE != 0 {
        return None;
    }
    let upstream = found.flow.direction() == Direction::Upstream;
    if upstream && !port.is_upstream() {
        return None;
    }
    let exit = match action.verb {
        verb::FORWARD if upstream => Some(onward(tables, port, action)?),
        verb::FORWARD if port.is_app() => Some(back(tables, &found)?),
        verb::PASSTHROUGH => None,
        _ => return None,
    };
    if let Some(exit) = &exit
        && !fits(exit, action, facts)
    {
        return None;
    }
    let Found { record, flow, .. } = found;
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
    Some(match exit {
        Some(exit) if change(packet, action, record, facts, &exit) => {
            Verdict::redirect(exit.port.slot, exit.reason)
        }
        Some(_) => Verdict::discard(Reason::NoHeadroom),
        None => unsteered(port, Reason::Passthrough),
    })
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
        reason: Reason::Steered,
    })
}

/// To the UE.
#[inline(always)]
fn back<'a, T: Tables>(tables: &'a T, found: &Found<'_>) -> Option<Exit<'a>> {
    let record = found.record;
    if T::TUNNELS && record.session.get() != 0 {
        return None;
    }
    let path = record.way_back();
    let ue = path.ue.get();
    let exit = tables.port_in(ue as u16)?;
    (path.tags.get() == 0).then_some(Exit {
        port: exit,
        destination: ue >> 16,
        source: path.core.get(),
        reason: Reason::Replied,
    })
}

const fn is_routed(action: &RuleAction) -> bool {
    action.flags & flag::ROUTE != 0
}

#[inline(always)]
const fn fits(exit: &Exit<'_>, action: &RuleAction, facts: &Facts) -> bool {
    facts.ip.length <= exit.port.mtu && (facts.ip.ttl > 1 || !is_routed(action))
}

#[inline(always)]
fn change<P: Packet>(
    packet: &mut P,
    action: &RuleAction,
    record: &Record,
    facts: &Facts,
    exit: &Exit<'_>,
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
    let Some(ethernet) = packet.get_mut::<Ethernet>(0) else {
        return false;
    };
    ethernet.set_addresses(exit.destination, exit.source);
    translated && routed
}
