//! From the frame to the facts that steering looks at. Nothing here changes the packet.

mod facts;
mod network;
mod upper;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use facts::{Facts, Ip, Link, Quote};
pub use network::{is_mapped, mapped};
pub use upper::has_ports;
pub(crate) use upper::is_icmp;

use self::{
    network::{ipv4, ipv4_header, ipv4_payload, ipv6, quoted_ipv4, quoted_ipv6},
    upper::{fragment, upper},
};
use crate::{
    flow::KeyRest,
    packet::Packet,
    table::{Port, Tables},
    tunnel::{self, Way},
    verdict::Reason,
    wire::{
        ethernet::{self, Ethernet, Vlan},
        icmp::Icmp,
        ipv4::Ipv4,
        transport::Ports,
    },
};

/// Parses a frame that came by `port` into `facts`, so that they are written once, where they stay.
/// The tables know the ports of fragments and the endpoints of tunnels.
///
/// # Errors
///
/// The reason why there is nothing to steer.
#[inline(always)]
pub fn frame<P: Packet, T: Tables>(
    packet: &P,
    port: &Port,
    tables: &T,
    facts: &mut Facts,
) -> Result<(), Reason> {
    facts.tcp_flags = 0;
    facts.icmp_error = false;
    facts.tunnel.way = Way::None;
    // Most packets are of this kind, and take one look at where they end.
    if let Some(Untagged { ethernet, ip }) = packet.get(0)
        && ethernet.ethertype.get() == ethernet::IPV4
    {
        facts.link.set(ethernet);
        let header = ipv4_header(ip, Ethernet::LEN as u16, &mut facts.key, &mut facts.ip);
        header.ok_or(Reason::MalformedIpv4)?;
        ipv4_payload(packet, &facts.ip)?;
    } else {
        network(packet, facts)?;
    }
    if facts.ip.is_fragment() {
        fragment(packet, port.zone, tables, facts)?;
    } else {
        facts.ports = upper(packet, facts)?;
        facts.key.rest = KeyRest::new(facts.ports, port.zone, facts.ip.protocol);
    }
    if T::TUNNELS && tunnel::may_be(facts) {
        tunnel::open(packet, port, tables, facts)?;
    }
    facts.quotes = facts.icmp_error && quote(packet, port.zone, &facts.ip, &mut facts.quote);
    Ok(())
}

/// An IPv4 packet without VLAN tags.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Untagged {
    ethernet: Ethernet,
    ip: Ipv4,
}

/// Parses the packet in a tunnel into the facts, which say where it is.
///
/// # Errors
///
/// As [`frame`], but nothing in a tunnel is malformed enough to be discarded: that is for its end to do.
#[inline(never)]
pub(crate) fn inner<P: Packet, T: Tables>(
    packet: &P,
    zone: u16,
    tables: &T,
    facts: &mut Facts,
) -> Result<(), Reason> {
    let at = facts.tunnel.inside as u16;
    let end = facts.tunnel.end as usize;
    let version = packet
        .get::<[u8; 4]>(at.into())
        .map_or(0, |[first, ..]| first >> 4);
    let parsed = match version {
        4 => ipv4(packet, at, &mut facts.key, &mut facts.ip),
        6 => ipv6(packet, at, &mut facts.key, &mut facts.ip),
        _ => return Err(Reason::GtpuNotIp),
    };
    let parsed = parsed.and_then(|()| {
        if facts.ip.end() > end {
            Err(Reason::MalformedInner)
        } else if facts.ip.is_fragment() {
            fragment(packet, zone, tables, facts)
        } else {
            facts.ports = upper(packet, facts)?;
            facts.key.rest = KeyRest::new(facts.ports, zone, facts.ip.protocol);
            Ok(())
        }
    });
    match parsed {
        Ok(()) => Ok(()),
        Err(reason) if reason.is_malformed() => Err(Reason::MalformedInner),
        Err(reason) => Err(reason),
    }
}

/// Parses the link layer and the IP header.
#[inline(always)]
fn network<P: Packet>(packet: &P, facts: &mut Facts) -> Result<(), Reason> {
    link(packet, &mut facts.link)?;
    let offset = facts.link.len;
    match facts.link.ethertype {
        ethernet::IPV4 => ipv4(packet, offset, &mut facts.key, &mut facts.ip),
        ethernet::IPV6 => ipv6(packet, offset, &mut facts.key, &mut facts.ip),
        _ => Err(Reason::NotIp),
    }
}

/// Parses the packet that an ICMP error quotes, as far as it tells: `false` when that is too little.
#[inline(never)]
fn quote<P: Packet>(packet: &P, zone: u16, error: &Ip, quote: &mut Quote) -> bool {
    let offset = error.payload + Icmp::LEN as u16;
    let Quote { ip, key } = quote;
    let header = if error.v6 {
        quoted_ipv6(packet, offset, key, ip)
    } else {
        quoted_ipv4(packet, offset, key, ip)
    };
    if header.is_none() || ip.is_later_fragment() {
        return false;
    }
    let mut ports = 0;
    if has_ports(ip.protocol) {
        let Some(header) = packet.get::<Ports>(ip.payload.into()) else {
            return false;
        };
        ports = header.get();
    } else if is_icmp(ip.protocol) {
        let Some(icmp) = packet.get::<Icmp>(ip.payload.into()) else {
            return false;
        };
        if !icmp.is_echo(ip.protocol) {
            return false;
        }
        ports = icmp.ports();
    }
    key.rest = KeyRest::new(ports, zone, ip.protocol);
    true
}

/// Parses the link layer.
#[inline(always)]
fn link<P: Packet>(packet: &P, link: &mut Link) -> Result<(), Reason> {
    let ethernet = packet.get(0).ok_or(Reason::MalformedEthernet)?;
    link.set(ethernet);
    for _ in 0..2 {
        if !Vlan::announced_by(link.ethertype) {
            break;
        }
        let vlan = packet
            .get::<Vlan>(link.len.into())
            .ok_or(Reason::MalformedEthernet)?;
        link.tags = link.tags << 32 | u64::from(link.ethertype) << 16 | u64::from(vlan.tci.get());
        link.len += Vlan::LEN as u16;
        link.ethertype = vlan.ethertype.get();
    }
    Ok(())
}
