//! From the frame to the facts that steering looks at. Nothing here changes the packet.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    flow::{FlowKey, KeyRest},
    packet::Packet,
    table::{FragmentKey, Port, Tables},
    tunnel::{self, Tunnel, Way},
    verdict::Reason,
    wire::{
        ethernet::{self, Ethernet, Vlan},
        icmp::{ICMP, ICMPV6, Icmp},
        ipv4::Ipv4,
        ipv6::{Extension, Fragment, Ipv6, next},
        transport::{self, Ports, SCTP, TCP, Tcp, UDP, Udp},
    },
};

/// Extension headers looked through at most.
const EXTENSIONS: usize = 8;

/// The link-layer header of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC address, in the lower 48 bits.
    pub destination: u64,
    /// Source MAC address, in the lower 48 bits.
    pub source: u64,
    /// Up to two VLAN tags, outermost in the upper half, each a TPID and a TCI; 0 is none.
    pub tags: u64,
    /// Octets of the header: where the next one begins.
    pub len: u16,
    /// EtherType of what follows.
    pub ethertype: u16,
}

impl Link {
    /// What the header says, without tags.
    pub(crate) const fn set(&mut self, header: &Ethernet) {
        self.destination = header.destination();
        self.source = header.source();
        self.tags = 0;
        self.len = Ethernet::LEN as u16;
        self.ethertype = header.ethertype.get();
    }
}

/// An IPv4 packet without VLAN tags.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Untagged {
    ethernet: Ethernet,
    ip: Ipv4,
}

/// What an IP header says besides the addresses, and where the next header is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ip {
    /// Octets of header and payload.
    pub length: u32,
    /// Offset of the header.
    pub offset: u16,
    /// Offset of the payload.
    pub payload: u16,
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: u16,
    /// Of a fragment: its offset in the datagram, in units of 8 octets, times 2, plus 1. Else 0.
    pub fragment: u16,
    /// Of a fragment: the identification of the datagram.
    pub identification: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Whether routers may fragment it: IPv4 without DF.
    pub may_fragment: bool,
}

impl Ip {
    /// Whether this is a fragment.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment != 0
    }

    /// Whether this is a fragment without the first octets of the datagram.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment > 1
    }

    const fn set_fragment(&mut self, offset: u16, identification: u32) {
        self.fragment = offset << 1 | 1;
        self.identification = identification;
    }

    /// Where the packet ends.
    pub(crate) const fn end(&self) -> usize {
        self.offset as usize + self.length as usize
    }

    /// Octets of the payload.
    const fn room(&self) -> usize {
        self.end() - self.payload as usize
    }
}

/// Everything that steering needs to know of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Link layer.
    pub link: Link,
    /// Network layer.
    pub ip: Ip,
    /// The flow that the packet belongs to.
    pub key: FlowKey,
    /// The ports in the key, for those who need not wait for the zone.
    pub ports: u32,
    /// TCP control bits.
    pub tcp_flags: u8,
    /// Whether this is an ICMP error, which belongs to the flow it quotes.
    pub icmp_error: bool,
    /// Whether that tells enough of the packet in [`Self::quote`].
    pub quotes: bool,
    /// The packet that an ICMP error quotes.
    pub quote: Quote,
    /// The tunnel it came by: then all else but the link layer is about the packet inside.
    pub tunnel: Tunnel,
}

/// A packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quote {
    /// Network layer.
    pub ip: Ip,
    /// Its flow.
    pub key: FlowKey,
}

impl Facts {
    /// Octets on the wire, without padding: what is counted.
    #[must_use]
    pub const fn wire_len(&self) -> u64 {
        let packet = match self.tunnel.way {
            Way::None => self.ip.length,
            Way::Uplink | Way::Downlink | Way::Target => self.tunnel.length,
        };
        self.link.len as u64 + packet as u64
    }

    /// Octets that the tunnel it came by adds to the packet.
    pub(crate) const fn overhead(&self) -> u32 {
        match self.tunnel.way {
            Way::None => 0,
            Way::Uplink | Way::Downlink => self.tunnel.ip.length - self.ip.length,
            Way::Target => self.tunnel.length - self.ip.length,
        }
    }

    /// Octets of headers between the link-layer header and the packet.
    pub(crate) const fn outside(&self) -> u16 {
        self.ip.offset.saturating_sub(self.link.len)
    }
}

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

/// Whether ports come first in the headers of `protocol`.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

pub(crate) const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

/// Parses what follows the IP header of a fragment.
#[inline(never)]
fn fragment<P: Packet, T: Tables>(
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
fn ipv4<P: Packet>(packet: &P, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Result<(), Reason> {
    quoted_ipv4(packet, offset, key, ip).ok_or(Reason::MalformedIpv4)?;
    ipv4_payload(packet, ip)
}

/// Whether the payload is all there.
fn ipv4_payload<P: Packet>(packet: &P, ip: &Ip) -> Result<(), Reason> {
    if !packet.holds(ip.end()) || usize::from(ip.payload) > ip.end() {
        return Err(Reason::MalformedIpv4);
    }
    Ok(())
}

/// An IPv4 header whose payload may be cut short.
#[inline(always)]
fn quoted_ipv4<P: Packet>(packet: &P, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Option<()> {
    ipv4_header(packet.get(offset.into())?, offset, key, ip)
}

#[inline(always)]
fn ipv4_header(header: &Ipv4, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Option<()> {
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
fn ipv6<P: Packet>(packet: &P, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Result<(), Reason> {
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
fn quoted_ipv6<P: Packet>(packet: &P, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Option<()> {
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
fn ipv6_header(header: &Ipv6, offset: u16, key: &mut FlowKey, ip: &mut Ip) -> Option<()> {
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

/// Parses what follows the IP header of a whole packet or a first fragment. Answers the ports.
#[inline(always)]
fn upper<P: Packet>(packet: &P, facts: &mut Facts) -> Result<u32, Reason> {
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
fn tcp<P: Packet>(packet: &P, facts: &mut Facts) -> Result<u32, Reason> {
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
