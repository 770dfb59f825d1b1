//! Putting a packet into a GTP-U tunnel.

use core::cell::Cell;

use zerocopy::network_endian::{U16, U32, U64};

use crate::{
    checksum::{fold, halves},
    packet::Packet,
    parse::{Ip, is_mapped},
    rewrite,
    session::Exit,
    tunnel::{Tunnel, Way},
    wire::{
        ethernet,
        gtpu::{Container, Gtpu, Optional, PORT, extension, message},
        icmp::{ICMP, ICMPV6},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{TCP, UDP, Udp},
    },
};

impl Exit {
    /// Whether the outer packet is IPv4.
    const fn is_v4(&self) -> bool {
        is_mapped(self.destination)
    }

    /// Octets of GTP-U in front of the packet: on N3 with a PDU Session Container, on S1-U without.
    const fn header_len(&self) -> usize {
        if self.qfi & Tunnel::CONTAINER == 0 {
            Gtpu::LEN
        } else {
            Gtpu::LEN + Optional::LEN + Container::LEN
        }
    }

    /// Octets that the tunnel adds to a packet.
    pub(crate) const fn overhead(&self) -> usize {
        let network = if self.is_v4() { Ipv4::LEN } else { Ipv6::LEN };
        network + Udp::LEN + self.header_len()
    }

    /// EtherType of the outer packet.
    pub(crate) const fn ethertype(&self) -> u16 {
        if self.is_v4() {
            ethernet::IPV4
        } else {
            ethernet::IPV6
        }
    }
}

/// Puts the IP packet behind the first `strip` octets into the tunnel, with a link-layer header in front,
/// whose EtherType is that of the tunnel.
#[inline(never)]
#[must_use]
pub(crate) fn gtpu<P: Packet>(
    packet: &mut P,
    strip: usize,
    link: &rewrite::Link,
    ip: &Ip,
    exit: &Cell<Exit>,
) -> bool {
    let length = ip.length as u16;
    let at = rewrite::link_len(link.tags);
    if !rewrite::link_and_room(packet, strip, link, exit.get().overhead()) {
        return false;
    }
    let udp_length = length + (Udp::LEN + exit.get().header_len()) as u16;
    let at = if exit.get().is_v4() {
        if !ipv4(packet, at, ip, exit, udp_length) {
            return false;
        }
        at + Ipv4::LEN
    } else {
        if !ipv6(packet, at, ip, exit, udp_length) {
            return false;
        }
        at + Ipv6::LEN
    };
    let Some(udp) = packet.get_mut::<Udp>(at) else {
        return false;
    };
    udp.ports = U32::new((PORT as u32) << 16 | PORT as u32);
    udp.length = U16::new(udp_length);
    // None over IPv4: the packet inside has its own (RFC 768).
    udp.checksum = U16::ZERO;
    header(packet, at + Udp::LEN, exit, length)
        && (exit.get().is_v4() || checksum(packet, at, ip, exit))
}

#[inline(always)]
fn header<P: Packet>(packet: &mut P, at: usize, exit: &Cell<Exit>, length: u16) -> bool {
    let contained = exit.get().qfi & Tunnel::CONTAINER != 0;
    let Some(gtpu) = packet.get_mut::<Gtpu>(at) else {
        return false;
    };
    gtpu.flags = if contained {
        Gtpu::PLAIN | Gtpu::EXTENSION
    } else {
        Gtpu::PLAIN
    };
    gtpu.message = message::G_PDU;
    gtpu.length = U16::new(length + (exit.get().header_len() - Gtpu::LEN) as u16);
    gtpu.teid = U32::new(exit.get().teid);
    if !contained {
        return true;
    }
    let at = at + Gtpu::LEN;
    let Some(optional) = packet.get_mut::<Optional>(at) else {
        return false;
    };
    optional.sequence = U16::ZERO;
    optional.npdu = 0;
    optional.next_extension = extension::PDU_SESSION_CONTAINER;
    let Some(container) = packet.get_mut::<Container>(at + Optional::LEN) else {
        return false;
    };
    container.units = 1;
    container.kind = match exit.get().way {
        Way::Uplink => Container::UPLINK,
        Way::None | Way::Downlink => Container::DOWNLINK,
    };
    container.qfi = exit.get().qfi & Container::QFI;
    container.next_extension = extension::NONE;
    true
}

/// DSCP and ECN field of the outer header: the DSCP of the packet inside.
const fn class(ip: &Ip) -> u8 {
    if ip.v6 {
        ip.tos as u8 & 0xfc
    } else {
        (ip.tos << 2) as u8
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &mut P, at: usize, inner: &Ip, exit: &Cell<Exit>, length: u16) -> bool {
    let Some(ip) = packet.get_mut::<Ipv4>(at) else {
        return false;
    };
    let tos = class(inner);
    let total = Ipv4::LEN as u16 + length;
    ip.version_ihl = 0x45;
    ip.tos = tos;
    ip.total_length = U16::new(total);
    // Not fragmented, so that no two packets need to be told apart (RFC 6864).
    ip.identification = U16::ZERO;
    ip.fragment = U16::new(Ipv4::DONT_FRAGMENT);
    ip.ttl = 64;
    ip.protocol = UDP;
    ip.source = U32::new(exit.get().source[1] as u32);
    ip.destination = U32::new(exit.get().destination[1] as u32);
    let sum = u32::from(u16::from_be_bytes([0x45, tos]))
        + u32::from(total)
        + u32::from(Ipv4::DONT_FRAGMENT)
        + u32::from(u16::from_be_bytes([64, UDP]))
        + halves(exit.get().source[1] & 0xffff_ffff)
        + halves(exit.get().destination[1] & 0xffff_ffff);
    ip.checksum = U16::new(!fold(sum));
    true
}

fn ipv6<P: Packet>(packet: &mut P, at: usize, inner: &Ip, exit: &Cell<Exit>, length: u16) -> bool {
    let Some(ip) = packet.get_mut::<Ipv6>(at) else {
        return false;
    };
    ip.version_class_label = U32::new(6 << 28 | u32::from(class(inner)) << 20);
    ip.payload_length = U16::new(length);
    ip.next_header = UDP;
    ip.hop_limit = 64;
    ip.source = exit.get().source.map(U64::new);
    ip.destination = exit.get().destination.map(U64::new);
    true
}

/// Sets the checksum of the UDP datagram at `at`, which IPv6 does not do without (RFC 8200, 8.1), with the
/// packet in `ip` inside.
fn checksum<P: Packet>(packet: &mut P, at: usize, ip: &Ip, exit: &Cell<Exit>) -> bool {
    let inside = at + Udp::LEN + exit.get().header_len();
    let mut sum = sum(packet, inside, ip);
    if sum == UNKNOWN {
        sum = long_sum(packet, inside, ip.length as usize);
    }
    if sum == UNKNOWN {
        return false;
    }
    let Exit {
        source: [a, b],
        destination: [c, d],
        ..
    } = exit.get();
    sum += halves(a) + halves(b) + halves(c) + halves(d);
    // The headers are 16 octets, or 24.
    for word in 0..3 {
        if word * 8 < Udp::LEN + exit.get().header_len() {
            let Some(octets) = packet.get::<U64>(at + word * 8) else {
                return false;
            };
            sum += halves(octets.get());
        }
    }
    let Some(udp) = packet.get_mut::<Udp>(at) else {
        return false;
    };
    sum += u32::from(UDP) + u32::from(udp.length.get());
    // Zero would say that there is none.
    let checksum = !fold(sum);
    udp.checksum = U16::new(if checksum == 0 { 0xffff } else { checksum });
    true
}

/// No sum in 16 bits. (An option would be returned in two registers, of which one may be undefined.)
const UNKNOWN: u32 = 1 << 16;

/// The one's complement sum of the IP packet at `at`, from its header alone; [`UNKNOWN`] if that does not
/// tell.
///
/// Where a checksum is right, what it covers adds up to nothing: so does an IPv4 header, and what follows
/// with its pseudo-header. Where it is wrong, so will be the one made of this, and the packet is discarded
/// at its end, as it would have been.
fn sum<P: Packet>(packet: &P, at: usize, ip: &Ip) -> u32 {
    let header = usize::from(ip.payload - ip.offset);
    let length = ip.length as u16 - header as u16;
    let covered = match ip.protocol {
        _ if ip.is_fragment() => false,
        TCP => true,
        UDP => packet
            .get::<Udp>(at + header)
            .is_some_and(|udp| udp.checksum.get() != 0 && udp.length.get() == length),
        ICMP => !ip.v6,
        ICMPV6 => ip.v6,
        _ => false,
    };
    if !covered || (ip.v6 && header != Ipv6::LEN) {
        return UNKNOWN;
    }
    if ip.v6 {
        // Addresses and length are in the pseudo-header too.
        let Some(words) = packet.get::<[U16; 4]>(at) else {
            return UNKNOWN;
        };
        let [version, label, _, hops] = words.map(|word| u32::from(word.get()));
        return version + label + hops + u32::from(!u16::from(ip.protocol));
    }
    if ip.protocol == ICMP {
        return 0;
    }
    let Some(header) = packet.get::<Ipv4>(at) else {
        return UNKNOWN;
    };
    let pseudo = halves(u64::from(header.source.get()))
        + halves(u64::from(header.destination.get()))
        + u32::from(ip.protocol)
        + u32::from(length);
    u32::from(!fold(pseudo))
}

/// The same from all of its octets.
#[inline(never)]
fn long_sum<P: Packet>(packet: &P, at: usize, length: usize) -> u32 {
    packet.sum(at, length).map_or(UNKNOWN, u32::from)
}
