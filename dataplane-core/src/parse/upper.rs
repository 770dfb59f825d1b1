//! What follows IP headers: ports, and where fragments have them from.

use super::{Facts, Ip};
use crate::{
    flow::KeyRest,
    packet::Packet,
    table::{FragmentKey, Tables},
    verdict::Reason,
    wire::{
        icmp::{ICMP, ICMPV6, Icmp},
        transport::{self, Ports, SCTP, TCP, Tcp, UDP, Udp},
    },
};

/// Whether ports come first in the headers of `protocol`.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

pub(crate) const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

/// Parses what follows the IP header of a whole packet or a first fragment. Answers the ports.
#[inline(always)]
pub(super) fn upper<P: Packet>(packet: &P, facts: &mut Facts) -> Result<u32, Reason> {
    match facts.ip.protocol {
        TCP => tcp(packet, facts),
        UDP => udp(packet, &facts.ip),
        SCTP => {
            let ports = fitting::<P, Ports>(
                packet,
                &facts.ip,
                transport::SCTP_LEN,
                Reason::MalformedSctp,
            )?;
            Ok(ports.get())
        }
        protocol @ (ICMP | ICMPV6) => {
            let icmp = fitting::<P, Icmp>(packet, &facts.ip, Icmp::LEN, Reason::MalformedIcmp)?;
            if icmp.is_of_the_link(protocol) {
                return Err(Reason::NeighborDiscovery);
            }
            facts.icmp_error = icmp.is_error(protocol);
            Ok(if icmp.is_echo(protocol) {
                icmp.ports()
            } else {
                0
            })
        }
        _ => Ok(0),
    }
}

#[inline(always)]
pub(super) fn tcp<P: Packet>(packet: &P, facts: &mut Facts) -> Result<u32, Reason> {
    let ip = &facts.ip;
    let tcp = fitting::<P, Tcp>(packet, ip, Tcp::LEN, Reason::MalformedTcp)?;
    let len = tcp.header_len();
    if len < Tcp::LEN || (len > ip.room() && !ip.is_fragment()) {
        return Err(Reason::MalformedTcp);
    }
    facts.tcp_flags = tcp.flags;
    Ok(tcp.ports.get())
}

#[inline(always)]
fn udp<P: Packet>(packet: &P, ip: &Ip) -> Result<u32, Reason> {
    let udp = fitting::<P, Udp>(packet, ip, Udp::LEN, Reason::MalformedUdp)?;
    let len = usize::from(udp.length.get());
    if len < Udp::LEN || (len > ip.room() && !ip.is_fragment()) {
        return Err(Reason::MalformedUdp);
    }
    Ok(udp.ports.get())
}

/// The header behind the IP header, when `len` octets fit the room that this leaves. Headers beyond the
/// reach of steering are no fault of the packet.
fn fitting<'a, P: Packet, H: crate::packet::Header + 'a>(
    packet: &'a P,
    ip: &Ip,
    len: usize,
    malformed: Reason,
) -> Result<&'a H, Reason> {
    if ip.room() < len {
        return Err(malformed);
    }
    packet
        .get::<H>(ip.payload.into())
        .ok_or(Reason::HeaderChain)
}

/// Parses what follows the IP header of a fragment.
#[inline(never)]
pub(super) fn fragment<P: Packet, T: Tables>(
    packet: &P,
    zone: u16,
    tables: &T,
    facts: &mut Facts,
) -> Result<(), Reason> {
    facts.ports = fragment_ports(packet, zone, tables, facts)?;
    facts.key.rest = KeyRest::new(facts.ports, zone, facts.ip.protocol);
    Ok(())
}

/// The ports of a fragment: the first has them and tells the others.
fn fragment_ports<P: Packet, T: Tables>(
    packet: &P,
    zone: u16,
    tables: &T,
    facts: &mut Facts,
) -> Result<u32, Reason> {
    let key = FragmentKey {
        source: facts.key.source,
        destination: facts.key.destination,
        identification: facts.ip.identification,
        zone,
        protocol: facts.ip.protocol,
        padding: 0,
    };
    if !facts.ip.is_later_fragment() {
        let ports = upper(packet, facts)?;
        if has_ports(facts.ip.protocol) && !tables.read_only() {
            tables.remember_fragment(&key, ports);
        }
        return Ok(ports);
    }
    if facts.ip.protocol == TCP && facts.ip.fragment >> 1 == 1 {
        return Err(Reason::TinyFragment);
    }
    if has_ports(facts.ip.protocol) {
        return tables.fragment(&key).ok_or(Reason::FragmentUnknown);
    }
    if is_icmp(facts.ip.protocol) {
        return Err(Reason::FragmentUnknown);
    }
    Ok(0)
}
