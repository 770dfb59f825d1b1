//! What nearly all packets are: whole TCP and UDP, without options or extension headers.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{
    Facts,
    network::{ipv4_header, ipv6_header, is_mapped},
    upper::tcp,
};
use crate::{
    flow::KeyRest,
    packet::Packet,
    wire::{
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{TCP, UDP, Udp},
    },
};

/// An IPv4 header without options, and the first octets behind it that TCP and UDP have both.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct PlainV4 {
    ip: Ipv4,
    upper: Udp,
}

/// The same of IPv6.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct PlainV6 {
    ip: Ipv6,
    upper: Udp,
}

/// Parses a whole TCP or UDP packet of one IP version, at `at`, without options or extension headers, into `facts`,
/// which are empty but for the link layer. It ends before `end`, or where the frame does. `None`: it is none of those.
#[inline(always)]
pub(crate) fn plain<P: Packet, const V6: bool>(
    packet: &P,
    at: u16,
    end: Option<usize>,
    zone: u16,
    facts: &mut Facts,
) -> Option<()> {
    let Facts { ip, key, .. } = facts;
    let udp = if V6 {
        let PlainV6 { ip: header, upper } = packet.get(at.into())?;
        ipv6_header(header, at, key, ip)?;
        if is_mapped(key.source) || is_mapped(key.destination) {
            return None;
        }
        upper
    } else {
        let PlainV4 { ip: header, upper } = packet.get(at.into())?;
        if header.header_len() != Ipv4::LEN {
            return None;
        }
        ipv4_header(header, at, key, ip)?;
        upper
    };
    let whole = match end {
        Some(end) => ip.end() <= end,
        None => packet.holds(ip.end()),
    };
    if !whole || usize::from(ip.payload) + Udp::LEN > ip.end() || ip.is_fragment() {
        return None;
    }
    facts.ports = match ip.protocol {
        TCP => tcp(packet, facts).ok()?,
        UDP => {
            // Neither shorter than its header nor longer than there is room.
            let payload = usize::from(udp.length.get()).wrapping_sub(Udp::LEN);
            if payload > ip.room() - Udp::LEN {
                return None;
            }
            udp.ports.get()
        }
        _ => return None,
    };
    facts.key.rest = KeyRest::new(facts.ports, zone, facts.ip.protocol);
    Some(())
}
