//! Changing the headers of a packet, checksums included.

use zerocopy::network_endian::{U16, U64};

use crate::{
    checksum::Delta,
    packet::Packet,
    parse::{Facts, Ip},
    wire::{
        ethernet::{Ethernet, Vlan},
        icmp::{ICMP, ICMPV6, Icmp},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{TCP, Tcp, UDP, Udp},
    },
};

/// One of the two addresses in an IP header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// The source.
    Source,
    /// The destination.
    Destination,
}

/// A link-layer header to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC address, in the lower 48 bits.
    pub destination: u64,
    /// Source MAC address, in the lower 48 bits.
    pub source: u64,
    /// VLAN tags, as in [`crate::parse::Link`].
    pub tags: u64,
    /// EtherType of what follows.
    pub ethertype: u16,
}

/// Octets of a link-layer header with these tags.
pub(crate) const fn link_len(tags: u64) -> usize {
    let (outer, inner) = ((tags >> 32) as u32, tags as u32);
    Ethernet::LEN + Vlan::LEN * (outer != 0) as usize + Vlan::LEN * (inner != 0) as usize
}

/// Puts a link-layer header in the place of the one of `len` octets. Offsets of everything behind it
/// change.
#[inline(always)]
#[must_use]
pub fn link<P: Packet>(packet: &mut P, len: usize, new: &Link) -> bool {
    // Most packets have no tags, and get none.
    if (new.tags != 0 || len != Ethernet::LEN) && !tags(packet, len, new, 0) {
        return false;
    }
    addresses(packet, new)
}

/// Puts a link-layer header without tags in the place of the first `len` octets, of which it needs no more than there are.
/// The addresses are as in [`Ethernet::raw`].
#[inline(always)]
#[must_use]
pub(crate) fn untagged<P: Packet>(
    packet: &mut P,
    len: usize,
    addresses: [u64; 2],
    ethertype: u16,
) -> bool {
    if len != Ethernet::LEN && !packet.trim_front(len - Ethernet::LEN) {
        return false;
    }
    let Some(ethernet) = packet.get_mut::<Ethernet>(0) else {
        return false;
    };
    ethernet.set_raw(addresses);
    if len != Ethernet::LEN {
        ethernet.ethertype = U16::new(ethertype);
    }
    true
}

/// Puts a link-layer header, and `room` octets of unspecified value behind it, in the place of the first
/// `len` octets.
#[inline(always)]
#[must_use]
pub(crate) fn link_and_room<P: Packet>(
    packet: &mut P,
    len: usize,
    new: &Link,
    room: usize,
) -> bool {
    tags(packet, len, new, room) && addresses(packet, new)
}

#[inline(always)]
fn addresses<P: Packet>(packet: &mut P, new: &Link) -> bool {
    let Some(ethernet) = packet.get_mut::<Ethernet>(0) else {
        return false;
    };
    ethernet.set_addresses(new.destination, new.source);
    true
}

/// Puts tags in the place of those in a header of `len` octets.
#[inline(always)]
fn tags<P: Packet>(packet: &mut P, len: usize, new: &Link, room: usize) -> bool {
    let (outer, inner) = ((new.tags >> 32) as u32, new.tags as u32);
    let depth = usize::from(outer != 0) + usize::from(inner != 0);
    let wanted = Ethernet::LEN + Vlan::LEN * depth + room;
    if wanted < len && !packet.trim_front(len - wanted) {
        return false;
    }
    if wanted > len && !packet.grow_front(wanted - len) {
        return false;
    }
    let first = if depth == 2 { outer } else { inner };
    let Some(ethernet) = packet.get_mut::<Ethernet>(0) else {
        return false;
    };
    ethernet.ethertype = U16::new(type_before(first, new.ethertype));
    match depth {
        0 => true,
        1 => set_tag(packet, Ethernet::LEN, inner, new.ethertype),
        _ => {
            set_tag(
                packet,
                Ethernet::LEN,
                outer,
                type_before(inner, new.ethertype),
            ) && set_tag(packet, Ethernet::LEN + Vlan::LEN, inner, new.ethertype)
        }
    }
}

/// The EtherType that announces `tag`, or `ethertype` where there is none.
const fn type_before(tag: u32, ethertype: u16) -> u16 {
    if tag == 0 {
        ethertype
    } else {
        (tag >> 16) as u16
    }
}

fn set_tag<P: Packet>(packet: &mut P, at: usize, tag: u32, ethertype: u16) -> bool {
    let Some(vlan) = packet.get_mut::<Vlan>(at) else {
        return false;
    };
    vlan.tci = U16::new(tag as u16);
    vlan.ethertype = U16::new(ethertype);
    true
}

/// Decrements TTL or hop limit, which is above 1.
#[inline(always)]
#[must_use]
pub fn hop<P: Packet>(packet: &mut P, ip: &Ip) -> bool {
    if ip.v6 {
        let Some(header) = packet.get_mut::<Ipv6>(ip.offset.into()) else {
            return false;
        };
        header.hop_limit -= 1;
        return true;
    }
    let Some(header) = packet.get_mut::<Ipv4>(ip.offset.into()) else {
        return false;
    };
    header.ttl -= 1;
    // The TTL is the upper octet of its word (RFC 1624, with all that is known put in).
    let sum = u32::from(header.checksum.get()) + 0x100;
    header.checksum = U16::new((sum + u32::from(sum >= 0xffff)) as u16);
    true
}

/// Replaces an address of the packet itself, and with it the port of TCP or UDP unless `port` is 0.
// Inlined: as a call of its own it makes the deepest chain of calls overflow the stack of Linux 6.1,
// which rounds each frame up to 32 octets.
#[inline(always)]
#[must_use]
pub fn address<P: Packet>(
    packet: &mut P,
    ip: &Ip,
    which: Address,
    new: [u64; 2],
    port: u16,
) -> bool {
    let Some(mut delta) = replace(packet, ip, which, new) else {
        return false;
    };
    if ip.is_later_fragment() {
        return true;
    }
    let at = usize::from(ip.payload);
    if port != 0 && matches!(ip.protocol, TCP | UDP) {
        let Some(changed) = replace_port(packet, at, which, port, delta) else {
            return false;
        };
        delta = changed;
    }
    match ip.protocol {
        TCP => patch(packet, at + Tcp::CHECKSUM, delta),
        UDP => patch_udp(packet, at + Udp::CHECKSUM, delta),
        // ICMP and SCTP checksums do not cover addresses; that of ICMPv6 does.
        ICMPV6 => patch(packet, at + Icmp::CHECKSUM, delta),
        _ => true,
    }
}

/// Replaces an address in the packet that an ICMP error quotes, and with it the port unless `port` is 0.
#[must_use]
pub fn quoted_address<P: Packet>(
    packet: &mut P,
    facts: &Facts,
    which: Address,
    new: [u64; 2],
    port: u16,
) -> bool {
    let quoted = &facts.quote.ip;
    let Some(mut delta) = replace(packet, quoted, which, new) else {
        return false;
    };
    if facts.ip.protocol == ICMP {
        // A changed IPv4 header carries a changed checksum, and the sum of both changes is nothing.
        delta = Delta::default();
    }
    if port != 0 && matches!(quoted.protocol, TCP | UDP) {
        let at = usize::from(quoted.payload);
        let Some(changed) = replace_port(packet, at, which, port, delta) else {
            return false;
        };
        delta = changed;
    }
    let at = usize::from(facts.ip.payload) + Icmp::CHECKSUM;
    patch(packet, at, delta)
}

/// Replaces an address and brings the checksum of an IPv4 header up to date. Answers the difference
/// for checksums that cover the address.
#[inline(always)]
fn replace<P: Packet>(packet: &mut P, ip: &Ip, which: Address, new: [u64; 2]) -> Option<Delta> {
    if ip.v6 {
        let at = usize::from(ip.offset)
            + match which {
                Address::Source => Ipv6::SOURCE,
                Address::Destination => Ipv6::DESTINATION,
            };
        let field = packet.get_mut::<[U64; 2]>(at)?;
        let [high, low] = field.map(|half| half.get());
        *field = new.map(U64::new);
        return Some(Delta::default().words(high, new[0]).words(low, new[1]));
    }
    let header = packet.get_mut::<Ipv4>(ip.offset.into())?;
    let field = match which {
        Address::Source => &mut header.source,
        Address::Destination => &mut header.destination,
    };
    let delta = Delta::default().words(u64::from(field.get()), new[1] & 0xffff_ffff);
    field.set(new[1] as u32);
    header.checksum = U16::new(delta.apply(header.checksum.get()));
    Some(delta)
}

/// Replaces a port of TCP or UDP. Answers `delta` with that difference.
#[inline(always)]
fn replace_port<P: Packet>(
    packet: &mut P,
    at: usize,
    which: Address,
    new: u16,
    delta: Delta,
) -> Option<Delta> {
    let at = match which {
        Address::Source => at,
        Address::Destination => at + size_of::<U16>(),
    };
    let field = packet.get_mut::<U16>(at)?;
    let delta = delta.word(field.get(), new);
    field.set(new);
    Some(delta)
}

fn patch<P: Packet>(packet: &mut P, at: usize, delta: Delta) -> bool {
    let Some(checksum) = packet.get_mut::<U16>(at) else {
        return false;
    };
    checksum.set(delta.apply(checksum.get()));
    true
}

/// A UDP checksum of zero says that there is none, so none may become zero (RFC 768).
fn patch_udp<P: Packet>(packet: &mut P, at: usize, delta: Delta) -> bool {
    let Some(checksum) = packet.get_mut::<U16>(at) else {
        return false;
    };
    if checksum.get() != 0 {
        let sum = delta.apply(checksum.get());
        checksum.set(if sum == 0 { 0xffff } else { sum });
    }
    true
}
