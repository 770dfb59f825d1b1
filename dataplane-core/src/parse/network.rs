//! IP headers.

use super::Ip;
use crate::{
    flow::FlowKey,
    packet::Packet,
    verdict::Reason,
    wire::{
        ipv4::Ipv4,
        ipv6::{Extension, Fragment, Ipv6, next},
    },
};

/// Extension headers looked through at most.
const EXTENSIONS: usize = 8;

/// An IPv4 address as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
#[must_use]
pub const fn mapped(address: u32) -> [u64; 2] {
    [0, 0xffff_0000_0000 | address as u64]
}

/// Whether `address` is one of those.
#[must_use]
pub const fn is_mapped(address: [u64; 2]) -> bool {
    address[0] == 0 && address[1] >> 32 == 0xffff
}

#[inline(always)]
pub(super) fn ipv4<P: Packet>(
    packet: &P,
    offset: u16,
    key: &mut FlowKey,
    ip: &mut Ip,
) -> Result<(), Reason> {
    quoted_ipv4(packet, offset, key, ip).ok_or(Reason::MalformedIpv4)?;
    ipv4_payload(packet, ip)
}

/// Whether the payload is all there.
pub(super) fn ipv4_payload<P: Packet>(packet: &P, ip: &Ip) -> Result<(), Reason> {
    if !packet.holds(ip.end()) || usize::from(ip.payload) > ip.end() {
        return Err(Reason::MalformedIpv4);
    }
    Ok(())
}

/// An IPv4 header whose payload may be cut short.
#[inline(always)]
pub(super) fn quoted_ipv4<P: Packet>(
    packet: &P,
    offset: u16,
    key: &mut FlowKey,
    ip: &mut Ip,
) -> Option<()> {
    ipv4_header(packet.get(offset.into())?, offset, key, ip)
}

#[inline(always)]
pub(super) fn ipv4_header(
    header: &Ipv4,
    offset: u16,
    key: &mut FlowKey,
    ip: &mut Ip,
) -> Option<()> {
    if header.version_ihl >> 4 != 4 || header.header_len() < Ipv4::LEN {
        return None;
    }
    key.source = mapped(header.source.get());
    key.destination = mapped(header.destination.get());
    ip.length = header.total_length.get().into();
    ip.offset = offset;
    ip.payload = offset + header.header_len() as u16;
    ip.tos = (header.tos >> 2).into();
    ip.ttl = header.ttl;
    ip.protocol = header.protocol;
    ip.v6 = false;
    let fragment = header.fragment.get();
    ip.may_fragment = fragment & Ipv4::DONT_FRAGMENT == 0;
    ip.fragment = 0;
    if fragment & (Ipv4::MORE_FRAGMENTS | Ipv4::FRAGMENT_OFFSET) != 0 {
        let identification = header.identification.get().into();
        ip.set_fragment(fragment & Ipv4::FRAGMENT_OFFSET, identification);
    }
    Some(())
}

#[inline(always)]
pub(super) fn ipv6<P: Packet>(
    packet: &P,
    offset: u16,
    key: &mut FlowKey,
    ip: &mut Ip,
) -> Result<(), Reason> {
    ipv6_base(packet, offset, key, ip).ok_or(Reason::MalformedIpv6)?;
    if !packet.holds(ip.end()) {
        return Err(Reason::MalformedIpv6);
    }
    if is_mapped(key.source) || is_mapped(key.destination) {
        return Err(Reason::MappedAddress);
    }
    if is_extension(ip.protocol) {
        extensions(packet, ip)?;
    }
    if usize::from(ip.payload) > ip.end() {
        return Err(Reason::MalformedIpv6);
    }
    Ok(())
}

/// Steps over all extension headers.
#[inline(never)]
fn extensions<P: Packet>(packet: &P, ip: &mut Ip) -> Result<(), Reason> {
    for _ in 0..EXTENSIONS {
        if usize::from(ip.payload) + 8 > ip.end() {
            return Err(Reason::MalformedIpv6);
        }
        extension(packet, ip).ok_or(Reason::HeaderChain)?;
        if !is_extension(ip.protocol) || ip.is_later_fragment() {
            return Ok(());
        }
    }
    Err(Reason::HeaderChain)
}

/// An IPv6 header and its extension headers, whose payload may be cut short.
pub(super) fn quoted_ipv6<P: Packet>(
    packet: &P,
    offset: u16,
    key: &mut FlowKey,
    ip: &mut Ip,
) -> Option<()> {
    ipv6_base(packet, offset, key, ip)?;
    for _ in 0..EXTENSIONS {
        if !is_extension(ip.protocol) || ip.is_later_fragment() {
            break;
        }
        extension(packet, ip)?;
    }
    Some(())
}

fn ipv6_base<P: Packet>(packet: &P, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Option<()> {
    ipv6_header(packet.get(offset.into())?, offset, key, ip)
}

#[inline(always)]
pub(super) fn ipv6_header(
    header: &Ipv6,
    offset: u16,
    key: &mut FlowKey,
    ip: &mut Ip,
) -> Option<()> {
    if header.version_class_label.get() >> 28 != 6 {
        return None;
    }
    let [a, b] = &header.source;
    let [c, d] = &header.destination;
    key.source = [a.get(), b.get()];
    key.destination = [c.get(), d.get()];
    ip.length = Ipv6::LEN as u32 + u32::from(header.payload_length.get());
    ip.offset = offset;
    ip.payload = offset + Ipv6::LEN as u16;
    ip.tos = 256 + u16::from(header.traffic_class());
    ip.ttl = header.hop_limit;
    ip.protocol = header.next_header;
    ip.v6 = true;
    ip.may_fragment = false;
    ip.fragment = 0;
    Some(())
}

const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        next::HOP_BY_HOP
            | next::ROUTING
            | next::FRAGMENT
            | next::AUTHENTICATION
            | next::DESTINATION
    )
}

/// Steps over the extension header that `ip.protocol` announces.
fn extension<P: Packet>(packet: &P, ip: &mut Ip) -> Option<()> {
    if ip.protocol == next::FRAGMENT {
        let fragment = packet.get::<Fragment>(ip.payload.into())?;
        let offset = fragment.offset.get();
        // An "atomic" fragment (RFC 6946) is the whole datagram.
        if offset & !6 != 0 {
            ip.set_fragment(offset >> 3, fragment.identification.get());
        }
        ip.protocol = fragment.next_header;
        ip.payload += Fragment::LEN as u16;
        return Some(());
    }
    let header = packet.get::<Extension>(ip.payload.into())?;
    let units = u16::from(header.length);
    ip.payload += match ip.protocol {
        next::AUTHENTICATION => 8 + 4 * units,
        _ => 8 + 8 * units,
    };
    ip.protocol = header.next_header;
    Some(())
}
