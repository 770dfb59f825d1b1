//! Packets of UEs behind tunnels: G-PDUs with at most a PDU Session Container; into tunnels over IPv4 only.

use crate::{
    packet::Packet,
    parse::{self, Facts},
    session::{self, Exit},
    table::{Port, Tables},
    tunnel::{self, Tunnel, Way},
    verdict::Verdict,
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
) -> Option<Verdict> {
    if !port.is_upstream() || !port.sees_gtpu() || !tunnel::is_gtpu(outer) {
        return None;
    }
    let mut facts = Facts {
        link: outer.link,
        ..Facts::default()
    };
    let tunnel = &mut facts.tunnel;
    tunnel.ran = outer.key.source;
    tunnel.core = outer.key.destination;
    tunnel.ports = outer.ports;
    tunnel.length = outer.ip.length;
    let at = usize::from(outer.ip.payload) + Udp::LEN;
    let at = header(packet, at, outer.ip.end(), tunnel)?;
    let [first, ..] = packet.get::<[u8; 4]>(at.into())?;
    match first >> 4 {
        4 => inside::<P, T, false>(packet, port, tables, outer, at, facts),
        6 => inside::<P, T, true>(packet, port, tables, outer, at, facts),
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
) -> Option<Verdict> {
    let end = outer.ip.end();
    parse::plain::<P, V6>(packet, at, Some(end), port.zone, &mut facts)?;
    facts.tunnel.way = Way::Uplink;
    super::known(packet, port, tables, &facts)
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

/// Finds the tunnel to a UE, if it is over IPv4. Answers how many octets it adds.
#[inline(always)]
pub(super) fn exit<T: Tables>(tables: &T, session: u64, exit: &Exit) -> Option<u32> {
    let known = session::exit(tables, session.into(), Way::Downlink, exit) && exit.is_v4();
    known.then(|| exit.overhead() as u32)
}
