//! Putting a packet into a tunnel: GTP-U, GRE or VXLAN.

use zerocopy::network_endian::{U16, U32, U64};

use crate::{
    checksum::{fold, halves},
    packet::Packet,
    parse::{Ip, is_mapped},
    rewrite,
    session::Exit,
    table::encapsulation,
    tunnel::{Tunnel, Way},
    wire::{
        ethernet::{self, Ethernet},
        gre::{self, GRE, Gre},
        gtpu::{Container, Gtpu, Optional, PORT, extension, message},
        icmp::{ICMP, ICMPV6},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{TCP, UDP, Udp},
        vxlan::{self, Vxlan},
    },
};

/// TTL and hop limit of outer packets.
pub(crate) const TTL: u8 = 64;

impl Exit {
    /// Whether the outer packet is IPv4.
    pub(crate) fn is_v4(&self) -> bool {
        is_mapped(self.destination.get())
    }

    /// Whether the outer packet is a UDP datagram.
    fn is_udp(&self) -> bool {
        !matches!(
            self.encapsulation.get(),
            encapsulation::GRE | encapsulation::GRE_KEY
        )
    }

    /// Octets between the outer IP or UDP header and the packet: with GTP-U, a PDU Session Container
    /// among them on N3, and none on S1-U.
    fn header_len(&self) -> usize {
        match self.encapsulation.get() {
            encapsulation::GRE => Gre::LEN,
            encapsulation::GRE_KEY => Gre::LEN + Gre::FIELD,
            encapsulation::VXLAN => Vxlan::LEN + Ethernet::LEN,
            _ if self.qfi.get() & Tunnel::CONTAINER == 0 => Gtpu::LEN,
            _ => Gtpu::LEN + Optional::LEN + Container::LEN,
        }
    }

    /// Octets behind the outer IP header that the tunnel adds to a packet.
    fn upper_len(&self) -> usize {
        let udp = if self.is_udp() { Udp::LEN } else { 0 };
        udp + self.header_len()
    }

    /// Octets that the tunnel adds to a packet.
    pub(crate) fn overhead(&self) -> usize {
        let network = if self.is_v4() { Ipv4::LEN } else { Ipv6::LEN };
        network + self.upper_len()
    }

    /// Protocol of the outer packet.
    fn protocol(&self) -> u8 {
        if self.is_udp() { UDP } else { GRE }
    }

    /// EtherType of the outer packet.
    pub(crate) fn ethertype(&self) -> u16 {
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
pub(crate) fn into<P: Packet>(
    packet: &mut P,
    strip: usize,
    link: &rewrite::Link,
    ip: &Ip,
    exit: &Exit,
) -> bool {
    let at = rewrite::link_len(link.tags);
    if !rewrite::link_and_room(packet, strip, link, exit.overhead()) {
        return false;
    }
    let length = ip.length as u16 + exit.upper_len() as u16;
    let at = if exit.is_v4() {
        if !ipv4(packet, at, ip, exit, length) {
            return false;
        }
        at + Ipv4::LEN
    } else {
        if !ipv6(packet, at, ip, exit, length) {
            return false;
        }
        at + Ipv6::LEN
    };
    if !exit.is_udp() {
        return gre(packet, at, ip, exit);
    }
    let to = match exit.encapsulation.get() {
        encapsulation::VXLAN => vxlan::PORT,
        _ => PORT,
    };
    if !udp(packet, at, exit, to, length) {
        return false;
    }
    let inside = at + Udp::LEN;
    let written = match exit.encapsulation.get() {
        encapsulation::VXLAN => vxlan(packet, inside, link.source, ip, exit),
        _ => gtpu(packet, inside, exit, ip.length as u16),
    };
    written && (exit.is_v4() || checksum(packet, at, ip, exit))
}

/// EtherType of the packet.
pub(crate) const fn ethertype(ip: &Ip) -> u16 {
    if ip.v6 {
        ethernet::IPV6
    } else {
        ethernet::IPV4
    }
}

fn gre<P: Packet>(packet: &mut P, at: usize, ip: &Ip, exit: &Exit) -> bool {
    let key = exit.encapsulation.get() == encapsulation::GRE_KEY;
    let Some(header) = packet.get_mut::<Gre>(at) else {
        return false;
    };
    header.flags = U16::new(if key { Gre::KEY } else { 0 });
    header.ethertype = U16::new(ethertype(ip));
    if !key {
        return true;
    }
    let Some(field) = packet.get_mut::<gre::Field>(at + Gre::LEN) else {
        return false;
    };
    field.set(exit.identifier.get());
    true
}

#[inline(always)]
fn udp<P: Packet>(packet: &mut P, at: usize, exit: &Exit, to: u16, length: u16) -> bool {
    let Some(udp) = packet.get_mut::<Udp>(at) else {
        return false;
    };
    udp.ports = U32::new(u32::from(exit.port.get()) << 16 | u32::from(to));
    udp.length = U16::new(length);
    // None over IPv4: the packet inside has its own (RFC 768).
    udp.checksum = U16::ZERO;
    true
}

/// The frame inside is sent from the address that the outer one is sent from.
fn vxlan<P: Packet>(packet: &mut P, at: usize, source: u64, ip: &Ip, exit: &Exit) -> bool {
    let Some(header) = packet.get_mut::<Vxlan>(at) else {
        return false;
    };
    header.flags = U32::new(Vxlan::VALID);
    header.vni = U32::new(exit.identifier.get() << 8);
    let Some(frame) = packet.get_mut::<Ethernet>(at + Vxlan::LEN) else {
        return false;
    };
    frame.set_addresses(exit.mac.get(), source);
    frame.ethertype = U16::new(ethertype(ip));
    true
}

#[inline(always)]
fn gtpu<P: Packet>(packet: &mut P, at: usize, exit: &Exit, length: u16) -> bool {
    let contained = exit.qfi.get() & Tunnel::CONTAINER != 0;
    let Some(gtpu) = packet.get_mut::<Gtpu>(at) else {
        return false;
    };
    gtpu.flags = gtpu_flags(contained);
    gtpu.message = message::G_PDU;
    gtpu.length = U16::new(length + (exit.header_len() - Gtpu::LEN) as u16);
    gtpu.teid = U32::new(exit.identifier.get());
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
    let Some(header) = packet.get_mut::<Container>(at + Optional::LEN) else {
        return false;
    };
    header.units = 1;
    [header.kind, header.qfi] = container(exit);
    header.next_extension = extension::NONE;
    true
}

pub(crate) const fn gtpu_flags(contained: bool) -> u8 {
    if contained {
        Gtpu::PLAIN | Gtpu::EXTENSION
    } else {
        Gtpu::PLAIN
    }
}

/// PDU type and QFI of the PDU Session Container.
fn container(exit: &Exit) -> [u8; 2] {
    let kind = match exit.way.get() {
        // What a rule sends into a tunnel comes from UEs.
        Way::Uplink | Way::Target => Container::UPLINK,
        Way::None | Way::Downlink => Container::DOWNLINK,
    };
    [kind, exit.qfi.get() & Container::QFI]
}

/// DSCP and ECN field of the outer header: the DSCP of the packet inside.
pub(crate) const fn class(ip: &Ip) -> u8 {
    if ip.v6 {
        ip.tos as u8 & 0xfc
    } else {
        (ip.tos << 2) as u8
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &mut P, at: usize, inner: &Ip, exit: &Exit, length: u16) -> bool {
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
    ip.ttl = TTL;
    ip.protocol = exit.protocol();
    ip.source = U32::new(exit.source.get()[1] as u32);
    ip.destination = U32::new(exit.destination.get()[1] as u32);
    ip.checksum = U16::new(ipv4_checksum(tos, total, exit));
    true
}

/// Checksum of an outer IPv4 header.
#[inline(always)]
fn ipv4_checksum(tos: u8, total: u16, exit: &Exit) -> u16 {
    let sum = u32::from(u16::from_be_bytes([0x45, tos]))
        + u32::from(total)
        + u32::from(Ipv4::DONT_FRAGMENT)
        + u32::from(u16::from_be_bytes([TTL, exit.protocol()]))
        + halves(exit.source.get()[1] & 0xffff_ffff)
        + halves(exit.destination.get()[1] & 0xffff_ffff);
    !fold(sum)
}

fn ipv6<P: Packet>(packet: &mut P, at: usize, inner: &Ip, exit: &Exit, length: u16) -> bool {
    let Some(ip) = packet.get_mut::<Ipv6>(at) else {
        return false;
    };
    ip.version_class_label = U32::new(6 << 28 | u32::from(class(inner)) << 20);
    ip.payload_length = U16::new(length);
    ip.next_header = exit.protocol();
    ip.hop_limit = TTL;
    ip.source = exit.source.get().map(U64::new);
    ip.destination = exit.destination.get().map(U64::new);
    true
}

/// Sets the checksum of the UDP datagram at `at`, which IPv6 does not do without (RFC 8200, 8.1), with the
/// packet in `ip` inside.
fn checksum<P: Packet>(packet: &mut P, at: usize, ip: &Ip, exit: &Exit) -> bool {
    let headers = exit.upper_len();
    let inside = at + headers;
    let mut sum = sum(packet, inside, ip);
    if sum == UNKNOWN {
        sum = long_sum(packet, inside, ip.length as usize);
    }
    if sum == UNKNOWN {
        return false;
    }
    for [high, low] in [exit.source.get(), exit.destination.get()] {
        sum += halves(high) + halves(low);
    }
    // The headers are 16 octets, or 24, or 30.
    for word in 0..3 {
        if word * 8 + 8 <= headers {
            let Some(octets) = packet.get::<U64>(at + word * 8) else {
                return false;
            };
            sum += halves(octets.get());
        }
    }
    if headers == 30 {
        let Some(rest) = packet.get::<[U16; 3]>(at + 24) else {
            return false;
        };
        let [a, b, c] = rest.map(|half| u32::from(half.get()));
        sum += a + b + c;
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
