//! Telling a sender that its packet is too long (RFC 1191, RFC 4443 section 3.2).
//!
//! The answer seems to come from where the packet was going: that address is neither the sender's own,
//! which senders ignore, nor one that has to be configured.

use zerocopy::network_endian::{U16, U32, U64};

use crate::{
    checksum::{Delta, fold, halves},
    packet::Packet,
    parse::{Facts, Ip},
    rewrite,
    wire::{
        icmp::{ICMP, ICMPV6, Icmp},
        ipv4::Ipv4,
        ipv6::Ipv6,
    },
};

/// Octets of the packet that are quoted. Whatever is too long for an MTU is longer.
const QUOTE: usize = 256;

/// Precedence of answers over IPv4: internetwork control (RFC 1812, 4.3.2.5).
const CONTROL: u8 = 0xc0;

/// Whether a host may be told of its packet (RFC 1122, 3.2.2; RFC 4443, 2.4).
#[must_use]
pub(crate) const fn may_answer(facts: &Facts) -> bool {
    let [source, destination] = [facts.key.source, facts.key.destination];
    let (from_one, to_one) = if facts.ip.v6 {
        // Of an IPv6 packet for many its sender may be told the MTU.
        (
            source[0] >> 56 != 0xff && !(source[0] == 0 && source[1] == 0),
            true,
        )
    } else {
        const MULTICAST: u32 = 0xe000_0000;
        let source = source[1] as u32;
        (
            source != 0 && source < MULTICAST,
            (destination[1] as u32) < MULTICAST,
        )
    };
    from_one && to_one && !facts.icmp_error && !facts.ip.is_later_fragment()
}

/// The link layer of an answer to the packet.
pub(crate) const fn turned(facts: &Facts) -> rewrite::Link {
    rewrite::Link {
        destination: facts.link.source,
        source: facts.link.destination,
        tags: facts.link.tags,
        ethertype: facts.link.ethertype,
    }
}

/// Turns the packet into the answer to it, without the tunnel that it came by. `false`: the driver had no
/// room for it.
#[must_use]
pub(crate) fn too_long<P: Packet>(packet: &mut P, facts: &Facts, mtu: u32) -> bool {
    let header = if facts.ip.v6 { Ipv6::LEN } else { Ipv4::LEN };
    let icmp = usize::from(facts.link.len) + header;
    let strip = facts.ip.offset.into();
    rewrite::link_and_room(packet, strip, &turned(facts), header + Icmp::LEN)
        && packet.truncate(icmp + Icmp::LEN + QUOTE)
        && message(packet, facts, icmp, mtu)
        && if facts.ip.v6 {
            ipv6(packet, facts)
        } else {
            ipv4(packet, facts)
        }
}

/// Whether the packet asks for an echo (RFC 792, RFC 4443 section 4.1).
pub(crate) fn is_echo_request<P: Packet>(packet: &P, facts: &Facts) -> bool {
    let icmp = packet.get::<Icmp>(facts.ip.payload.into());
    let (request, _) = echo(facts.ip.v6);
    icmp.is_some_and(|icmp| icmp.kind == request && icmp.code == 0)
}

/// Types of echo request and reply.
const fn echo(v6: bool) -> (u8, u8) {
    if v6 { (128, 129) } else { (8, 0) }
}

/// Turns an echo request into the reply to it, where it is.
#[must_use]
pub(crate) fn echo_reply<P: Packet>(packet: &mut P, facts: &Facts) -> bool {
    const TTL: u8 = 64;
    let Ip {
        v6,
        offset,
        payload,
        ..
    } = facts.ip;
    let Some(icmp) = packet.get_mut::<Icmp>(payload.into()) else {
        return false;
    };
    let (request, reply) = echo(v6);
    let delta = Delta::default().word(u16::from(request) << 8, u16::from(reply) << 8);
    icmp.kind = reply;
    icmp.checksum = U16::new(delta.apply(icmp.checksum.get()));
    // That the addresses change places makes no difference to checksums.
    if v6 {
        let Some(ip) = packet.get_mut::<Ipv6>(offset.into()) else {
            return false;
        };
        ip.source = facts.key.destination.map(U64::new);
        ip.destination = facts.key.source.map(U64::new);
        ip.hop_limit = TTL;
        return true;
    }
    let Some(ip) = packet.get_mut::<Ipv4>(offset.into()) else {
        return false;
    };
    ip.source = U32::new(facts.key.destination[1] as u32);
    ip.destination = U32::new(facts.key.source[1] as u32);
    let delta = Delta::default().word(u16::from(ip.ttl) << 8, u16::from(TTL) << 8);
    ip.ttl = TTL;
    ip.checksum = U16::new(delta.apply(ip.checksum.get()));
    true
}

/// What is to be known of that answer to put it into a tunnel.
pub(crate) const fn answer(facts: &Facts) -> Ip {
    let (header, tos, protocol) = if facts.ip.v6 {
        (Ipv6::LEN, 256, ICMPV6)
    } else {
        (Ipv4::LEN, (CONTROL >> 2) as u16, ICMP)
    };
    let offset = facts.link.len;
    Ip {
        length: (header + Icmp::LEN + QUOTE) as u32,
        offset,
        payload: offset + header as u16,
        tos,
        fragment: 0,
        identification: 0,
        ttl: 64,
        protocol,
        v6: facts.ip.v6,
        may_fragment: false,
    }
}

fn message<P: Packet>(packet: &mut P, facts: &Facts, at: usize, mtu: u32) -> bool {
    let (kind, code) = if facts.ip.v6 { (2, 0) } else { (3, 4) };
    let Some(icmp) = packet.get_mut::<Icmp>(at) else {
        return false;
    };
    icmp.kind = kind;
    icmp.code = code;
    icmp.checksum = U16::ZERO;
    icmp.identifier = U16::new((mtu >> 16) as u16);
    icmp.sequence = U16::new(mtu as u16);
    let mut sum = u32::from(u16::from_be_bytes([kind, code])) + (mtu >> 16) + (mtu & 0xffff);
    if facts.ip.v6 {
        let [a, b] = facts.key.source;
        let [c, d] = facts.key.destination;
        sum += halves(a) + halves(b) + halves(c) + halves(d);
        sum += u32::from(ICMPV6) + (Icmp::LEN + QUOTE) as u32;
    }
    for word in 0..QUOTE / 8 {
        let Some(quoted) = packet.get::<U64>(at + Icmp::LEN + word * 8) else {
            return false;
        };
        sum += halves(quoted.get());
    }
    let Some(icmp) = packet.get_mut::<Icmp>(at) else {
        return false;
    };
    icmp.checksum = U16::new(!fold(sum));
    true
}

fn ipv4<P: Packet>(packet: &mut P, facts: &Facts) -> bool {
    let Some(ip) = packet.get_mut::<Ipv4>(facts.link.len.into()) else {
        return false;
    };
    ip.version_ihl = 0x45;
    ip.tos = CONTROL;
    ip.total_length = U16::new((Ipv4::LEN + Icmp::LEN + QUOTE) as u16);
    ip.identification = U16::ZERO;
    ip.fragment = U16::ZERO;
    ip.ttl = 64;
    ip.protocol = ICMP;
    ip.checksum = U16::ZERO;
    ip.source = U32::new(facts.key.destination[1] as u32);
    ip.destination = U32::new(facts.key.source[1] as u32);
    let sum = u32::from(u16::from_be_bytes([0x45, CONTROL]))
        + u32::from(ip.total_length.get())
        + u32::from(u16::from_be_bytes([ip.ttl, ip.protocol]))
        + halves(facts.key.destination[1] & 0xffff_ffff)
        + halves(facts.key.source[1] & 0xffff_ffff);
    ip.checksum = U16::new(!fold(sum));
    true
}

fn ipv6<P: Packet>(packet: &mut P, facts: &Facts) -> bool {
    let Some(ip) = packet.get_mut::<Ipv6>(facts.link.len.into()) else {
        return false;
    };
    ip.version_class_label = U32::new(6 << 28);
    ip.payload_length = U16::new((Icmp::LEN + QUOTE) as u16);
    ip.next_header = ICMPV6;
    ip.hop_limit = 64;
    ip.source = facts.key.destination.map(U64::new);
    ip.destination = facts.key.source.map(U64::new);
    true
}
