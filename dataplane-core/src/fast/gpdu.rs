//! Packets of UEs behind tunnels: G-PDUs over IPv4 with at most a PDU Session Container.

use crate::{
    flow::Record,
    packet::Packet,
    parse::{self, Facts},
    session::{self, SessionRef},
    steer::Notes,
    table::{Port, Tables},
    tunnel::{self, Tunnel, Way},
    wire::{
        gtpu::{Container, Gtpu, Optional, extension, message},
        transport::Udp,
    },
};

/// Makes `facts`, which are about a datagram to the port of GTP-U, those of the packet inside, if it is a G-PDU from
/// a UE. Whether the endpoints are those of a tunnel is seen by the session that the flow knows.
#[inline(always)]
pub(super) fn open<P: Packet>(packet: &P, port: &Port, facts: &mut Facts) -> Option<()> {
    if !port.is_upstream() || !port.sees_gtpu() || !tunnel::is_gtpu(facts) {
        return None;
    }
    let tunnel = &mut facts.tunnel;
    tunnel.ran = facts.key.source;
    tunnel.core = facts.key.destination;
    tunnel.ports = facts.ports;
    tunnel.length = facts.ip.length;
    tunnel.target = 0;
    let end = facts.ip.end();
    // The outer header is not copied: a copy in words of what was written in fields makes a CPU wait.
    let at = header(
        packet,
        usize::from(facts.ip.payload) + Udp::LEN,
        end,
        tunnel,
    )?;
    let [first, ..] = packet.get::<[u8; 4]>(at.into())?;
    match first >> 4 {
        4 => parse::plain::<P, false>(packet, at, port.zone, facts)?,
        6 => parse::plain::<P, true>(packet, at, port.zone, facts)?,
        _ => return None,
    }
    facts.tunnel.way = Way::Uplink;
    (facts.ip.end() <= end).then_some(())
}

/// Takes from the header of a G-PDU what it says of its tunnel. Answers where the packet inside begins.
#[inline(always)]
fn header<P: Packet>(packet: &P, at: usize, end: usize, tunnel: &mut Tunnel) -> Option<u16> {
    let header = packet.get::<Gtpu>(at)?;
    let whole = at + Gtpu::LEN + usize::from(header.length.get()) == end;
    if !header.is_version_1() || header.message != message::G_PDU || !whole {
        return None;
    }
    tunnel.teid = header.teid.get();
    tunnel.qfi = 0;
    let at = at + Gtpu::LEN;
    if !header.has_optional() {
        return Some(at as u16);
    }
    let optional = packet.get::<Optional>(at)?;
    let at = at + Optional::LEN;
    if !header.has_extension() || optional.next_extension == extension::NONE {
        return Some(at as u16);
    }
    let container = packet.get::<Container>(at)?;
    tunnel.qfi = Tunnel::CONTAINER | container.qfi & Container::QFI;
    let alone = optional.next_extension == extension::PDU_SESSION_CONTAINER
        && container.units == 1
        && container.next_extension == extension::NONE;
    alone.then_some((at + Container::LEN) as u16)
}

/// Whether a packet from a UE says nothing of its session that is not known.
#[inline(always)]
pub(super) fn is_usual<T: Tables>(tables: &T, record: &Record, facts: &Facts) -> bool {
    let known = SessionRef::from(record.session.get());
    session::get(tables, known).is_some_and(|session| session.knows_uplink(&facts.tunnel, known))
}

/// Notes the tunnel to a UE. Answers how many octets it adds.
#[inline(always)]
pub(super) fn exit<T: Tables>(tables: &T, session: u64, notes: &Notes) -> Option<u32> {
    session::exit(tables, session.into(), Way::Downlink, &notes.exit)
        .then(|| notes.exit.overhead() as u32)
}
