//! Putting a packet into a GTP-U tunnel.

use zerocopy::network_endian::{U16, U32, U64};

use crate::{
    checksum::{fold, halves},
    packet::Packet,
    parse::{Facts, is_mapped},
    rewrite,
    session::Exit,
    tunnel::{Tunnel, Way},
    wire::{
        ethernet,
        gtpu::{Container, Gtpu, Optional, PORT, extension, message},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{UDP, Udp},
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
    const fn ethertype(&self) -> u16 {
        if self.is_v4() {
            ethernet::IPV4
        } else {
            ethernet::IPV6
        }
    }
}

/// Puts the IP packet behind the first `strip` octets into the tunnel, with a link-layer header in front.
#[inline(never)]
#[must_use]
pub(crate) fn gtpu<P: Packet>(
    packet: &mut P,
    strip: usize,
    link: &rewrite::Link,
    facts: &Facts,
    exit: &Exit,
) -> bool {
    let link = rewrite::Link {
        ethertype: exit.ethertype(),
        ..*link
    };
    let length = facts.ip.length as u16;
    let at = rewrite::link_len(link.tags);
    if !rewrite::link_and_room(packet, strip, &link, exit.overhead()) {
        return false;
    }
    let udp_length = length + (Udp::LEN + exit.header_len()) as u16;
    let (at, checksum) = if exit.is_v4() {
        if !ipv4(packet, at, facts, exit, udp_length) {
            return false;
        }
        // No checksum: the packet inside has its own (RFC 768).
        (at + Ipv4::LEN, 0)
    } else {
        if !ipv6(packet, at, facts, exit, udp_length) {
            return false;
        }
        (at + Ipv6::LEN, 0)
    };
    let Some(udp) = packet.get_mut::<Udp>(at) else {
        return false;
    };
    udp.ports = U32::new((PORT as u32) << 16 | PORT as u32);
    udp.length = U16::new(udp_length);
    udp.checksum = U16::new(checksum);
    header(packet, at + Udp::LEN, exit, length)
}

fn header<P: Packet>(packet: &mut P, at: usize, exit: &Exit, length: u16) -> bool {
    let contained = exit.qfi & Tunnel::CONTAINER != 0;
    let Some(gtpu) = packet.get_mut::<Gtpu>(at) else {
        return false;
    };
    gtpu.flags = if contained {
        Gtpu::PLAIN | Gtpu::EXTENSION
    } else {
        Gtpu::PLAIN
    };
    gtpu.message = message::G_PDU;
    gtpu.length = U16::new(length + (exit.header_len() - Gtpu::LEN) as u16);
    gtpu.teid = U32::new(exit.teid);
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
    container.kind = match exit.way {
        Way::Uplink => Container::UPLINK,
        Way::None | Way::Downlink => Container::DOWNLINK,
    };
    container.qfi = exit.qfi & Container::QFI;
    container.next_extension = extension::NONE;
    true
}

/// DSCP and ECN field of the outer header: the DSCP of the packet inside.
const fn class(facts: &Facts) -> u8 {
    if facts.ip.v6 {
        facts.ip.tos as u8 & 0xfc
    } else {
        (facts.ip.tos << 2) as u8
    }
}

fn ipv4<P: Packet>(packet: &mut P, at: usize, facts: &Facts, exit: &Exit, length: u16) -> bool {
    let Some(ip) = packet.get_mut::<Ipv4>(at) else {
        return false;
    };
    let tos = class(facts);
    let total = Ipv4::LEN as u16 + length;
    ip.version_ihl = 0x45;
    ip.tos = tos;
    ip.total_length = U16::new(total);
    // Not fragmented, so that no two packets need to be told apart (RFC 6864).
    ip.identification = U16::ZERO;
    ip.fragment = U16::new(Ipv4::DONT_FRAGMENT);
    ip.ttl = 64;
    ip.protocol = UDP;
    ip.source = U32::new(exit.source[1] as u32);
    ip.destination = U32::new(exit.destination[1] as u32);
    let sum = u32::from(u16::from_be_bytes([0x45, tos]))
        + u32::from(total)
        + u32::from(Ipv4::DONT_FRAGMENT)
        + u32::from(u16::from_be_bytes([64, UDP]))
        + halves(exit.source[1] & 0xffff_ffff)
        + halves(exit.destination[1] & 0xffff_ffff);
    ip.checksum = U16::new(!fold(sum));
    true
}

fn ipv6<P: Packet>(packet: &mut P, at: usize, facts: &Facts, exit: &Exit, length: u16) -> bool {
    let Some(ip) = packet.get_mut::<Ipv6>(at) else {
        return false;
    };
    ip.version_class_label = U32::new(6 << 28 | u32::from(class(facts)) << 20);
    ip.payload_length = U16::new(length);
    ip.next_header = UDP;
    ip.hop_limit = 64;
    ip.source = exit.source.map(U64::new);
    ip.destination = exit.destination.map(U64::new);
    true
}
