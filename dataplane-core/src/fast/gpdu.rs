//! Packets of UEs behind tunnels: G-PDUs with at most a PDU Session Container; into tunnels over IPv4 only.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U32, U64},
};

use super::{Counted, TUNNEL, change, fits, sent};
use crate::{
    encapsulate::GtpuV4,
    packet::Packet,
    parse::{self, Facts},
    table::{CacheWay, Port, Tables},
    tunnel::{Tunnel, Way},
    verdict::{Reason, Verdict},
    wire::{
        gtpu::{Container, Gtpu, Optional, extension, message},
        transport::Udp,
    },
};

/// Takes a packet from a UE to its verdict, if `outer` is a G-PDU. Whether the endpoints are those of a
/// tunnel is seen by the session that the flow knows.
#[inline(always)]
pub(super) fn packet<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    outer: &Facts,
    from: [u64; 2],
) -> Option<Verdict> {
    if !port.is_upstream() || !port.sees_gtpu() {
        return None;
    }
    let mut facts = super::plain_facts();
    let tunnel = &mut facts.tunnel;
    tunnel.ran = outer.key.source;
    tunnel.core = outer.key.destination;
    tunnel.ports = outer.ports;
    tunnel.length = outer.ip.length;
    let at = outer.ip.payload + Udp::LEN as u16;
    let Start { said, teid, rest } = packet.get(at.into())?;
    tunnel.teid = teid.get();
    tunnel.qfi = 0;
    // What is left is bits that say what else is in the header, or it is no G-PDU that fills its datagram.
    let length = outer
        .ip
        .length
        .checked_sub(u32::from(at + Gtpu::LEN as u16 - outer.ip.offset))?;
    let said = u64::from(said.get()) ^ (G_PDU | u64::from(length));
    if said & !OPTIONAL != 0 {
        return None;
    }
    // What is inside has a place of its own in each, that is known beforehand.
    let at = at + Gtpu::LEN as u16;
    if said == 0 {
        return version(packet, port, tables, outer, at, facts, from);
    }
    let rest = rest.get();
    let at = at + Optional::LEN as u16;
    if said & EXTENSION == 0 || rest & NEXT == 0 {
        return version(packet, port, tables, outer, at, facts, from);
    }
    if rest & !CONTAINER_SAYS != CONTAINER {
        return None;
    }
    tunnel.qfi = Tunnel::CONTAINER | (rest >> 8) as u8 & Container::QFI;
    let at = at + Container::LEN as u16;
    version(packet, port, tables, outer, at, facts, from)
}

/// How a G-PDU begins, and the octets behind its header that are there at least: more than eight of an IP packet, or
/// further headers.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Start {
    /// Flags, type and length.
    said: U32,
    teid: U32,
    /// [`Optional`] and a [`Container`], if they are there.
    rest: U64,
}

/// [`Start::said`] of a G-PDU without a length and without more in its header.
const G_PDU: u64 = (Gtpu::PLAIN as u64) << 24 | (message::G_PDU as u64) << 16;

/// Flags in [`Start::said`]: more is in the header.
const OPTIONAL: u64 = 7 << 24;

/// One of those: an extension header.
const EXTENSION: u64 = (Gtpu::EXTENSION as u64) << 24;

/// Type of the extension header that is next, in [`Start::rest`]. 0 is none.
const NEXT: u64 = 0xff << 32;

/// [`Start::rest`] with a PDU Session Container of one unit and no more, but for the bits that are not of its form.
const CONTAINER: u64 = (extension::PDU_SESSION_CONTAINER as u64) << 32 | 1 << 24;

/// Those: sequence and N-PDU number, PDU type and QFI.
const CONTAINER_SAYS: u64 = 0xffff_ff00_00ff_ff00;

/// Takes the packet inside, which begins at `at`, to its verdict.
#[inline(always)]
fn version<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    outer: &Facts,
    at: u16,
    facts: Facts,
    from: [u64; 2],
) -> Option<Verdict> {
    let [first, ..] = packet.get::<[u8; 4]>(at.into())?;
    match first >> 4 {
        4 => inside::<P, T, false>(packet, port, tables, outer, at, facts, from),
        6 => inside::<P, T, true>(packet, port, tables, outer, at, facts, from),
        _ => None,
    }
}

#[inline(always)]
fn inside<P: Packet, T: Tables, const V6: bool>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    outer: &Facts,
    at: u16,
    mut facts: Facts,
    from: [u64; 2],
) -> Option<Verdict> {
    let end = outer.ip.end();
    parse::plain::<P, V6>(packet, at, Some(end), port.zone, &mut facts)?;
    facts.tunnel.way = Way::Uplink;
    super::known(packet, port, tables, &facts, from)
}

/// Takes an answer to a UE to its verdict, by its tunnel, if that is over IPv4.
#[inline(always)]
pub(super) fn reply<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    facts: &Facts,
    way: &CacheWay,
    counted: &Counted<'_>,
) -> Option<Verdict> {
    let how = way.how.get();
    let [ends, word] = &way.link;
    let exit = GtpuV4 {
        ends: ends.get(),
        teid: word.get() as u32,
        qfi: (word.get() >> 32) as u8,
    };
    if how as u32 & TUNNEL == 0 || !fits(way, how, facts, exit.overhead()) {
        return None;
    }
    counted.add(tables, facts);
    let [upper, lower] = &way.exit;
    let changed = change(packet, way, facts, Reason::Replied)
        && exit.wrap(packet, &facts.ip, [upper.get(), lower.get()]);
    Some(sent(port, tables, facts, way, Reason::Replied, changed))
}
