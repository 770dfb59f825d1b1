//! From the frame to the facts that steering looks at. Nothing here changes the packet.

use crate::{
    flow::FlowKey,
    packet::Packet,
    table::{FragmentKey, Tables},
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC address, in the lower 48 bits.
    pub destination: u64,
    /// Source MAC address, in the lower 48 bits.
    pub source: u64,
    /// Up to two VLAN tags, outermost in the upper half, each a TPID and a TCI; 0 is none.
    pub tags: u64,
    /// Octets of the header: where the next one begins.
    pub len: usize,
    /// EtherType of what follows.
    pub ethertype: u16,
}

/// An IP header, and where the next one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ip {
    /// Whether it is IPv6.
    pub v6: bool,
    /// Offset of the header.
    pub offset: usize,
    /// Octets of header and payload.
    pub length: usize,
    /// Source address; IPv4 in mapped form.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: u16,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Offset of the payload.
    pub payload: usize,
    /// Identification, when this is a fragment.
    pub fragment: Option<Piece>,
}

/// A fragment's place in its datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Identification of the datagram.
    pub identification: u32,
    /// Offset in units of 8 octets.
    pub offset: u16,
}

/// Everything that steering needs to know of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Link layer.
    pub link: Link,
    /// Network layer.
    pub ip: Ip,
    /// The flow that the packet belongs to.
    pub key: FlowKey,
    /// Whether a transport header is there (not in a later fragment).
    pub transport: bool,
    /// TCP control bits.
    pub tcp_flags: u8,
    /// Whether this is an ICMP error, which belongs to the flow it quotes.
    pub icmp_error: bool,
}

impl Facts {
    /// Octets on the wire, without padding: what is counted.
    #[must_use]
    pub const fn wire_len(&self) -> u64 {
        (self.link.len + self.ip.length) as u64
    }
}

/// Parses a frame that came from `zone`. The tables know the ports of fragments.
///
/// # Errors
///
/// The reason why there is nothing to steer.
pub fn frame<P: Packet, T: Tables>(packet: &P, zone: u16, tables: &T) -> Result<Facts, Reason> {
    let link = link(packet)?;
    let ip = match link.ethertype {
        ethernet::IPV4 => ipv4(packet, link.len)?,
        ethernet::IPV6 => ipv6(packet, link.len)?,
        _ => return Err(Reason::NotIp),
    };
    let mut facts = Facts {
        link,
        ip,
        key: FlowKey {
            source: ip.source,
            destination: ip.destination,
            source_port: 0,
            destination_port: 0,
            zone,
            protocol: ip.protocol,
            padding: 0,
        },
        transport: false,
        tcp_flags: 0,
        icmp_error: false,
    };
    match ip.fragment {
        Some(piece) if piece.offset > 0 => {
            if ip.protocol == TCP && piece.offset == 1 {
                return Err(Reason::TinyFragment);
            }
            if has_ports(ip.protocol) {
                let ports = tables
                    .fragment(&fragment_key(&ip, piece, zone))
                    .ok_or(Reason::FragmentUnknown)?;
                facts.key.source_port = (ports >> 16) as u16;
                facts.key.destination_port = ports as u16;
            } else if is_icmp(ip.protocol) {
                return Err(Reason::FragmentUnknown);
            }
        }
        first => {
            upper(packet, &mut facts)?;
            if let Some(piece) = first
                && has_ports(ip.protocol)
                && !tables.read_only()
            {
                let ports = u32::from(facts.key.source_port) << 16
                    | u32::from(facts.key.destination_port);
                tables.remember_fragment(&fragment_key(&ip, piece, zone), ports);
            }
        }
    }
    Ok(facts)
}

/// The key of the packet that an ICMP error quotes, as far as it tells, and where it is.
pub fn quoted<P: Packet>(packet: &P, facts: &Facts) -> Option<(FlowKey, Ip)> {
    let offset = facts.ip.payload + Icmp::LEN;
    let ip = if facts.ip.v6 {
        quoted_ipv6(packet, offset)?
    } else {
        quoted_ipv4(packet, offset)?
    };
    if ip.fragment.is_some_and(|piece| piece.offset > 0) {
        return None;
    }
    let (source_port, destination_port) = if has_ports(ip.protocol) {
        let ports = packet.get::<Ports>(ip.payload)?;
        (ports.source.get(), ports.destination.get())
    } else if is_icmp(ip.protocol) {
        let icmp = packet.get::<Icmp>(ip.payload)?;
        let identifier = icmp.identifier.get();
        icmp.is_echo(ip.protocol).then_some((identifier, identifier))?
    } else {
        (0, 0)
    };
    let key = FlowKey {
        source: ip.source,
        destination: ip.destination,
        source_port,
        destination_port,
        zone: facts.key.zone,
        protocol: ip.protocol,
        padding: 0,
    };
    Some((key, ip))
}

/// Parses the link layer.
fn link<P: Packet>(packet: &P) -> Result<Link, Reason> {
    let ethernet = packet.get::<Ethernet>(0).ok_or(Reason::MalformedEthernet)?;
    let mut link = Link {
        destination: ethernet.destination.into(),
        source: ethernet.source.into(),
        tags: 0,
        len: Ethernet::LEN,
        ethertype: ethernet.ethertype.get(),
    };
    for _ in 0..2 {
        if !Vlan::announced_by(link.ethertype) {
            break;
        }
        let vlan = packet.get::<Vlan>(link.len).ok_or(Reason::MalformedEthernet)?;
        link.tags = link.tags << 32 | u64::from(link.ethertype) << 16 | u64::from(vlan.tci.get());
        link.len += Vlan::LEN;
        link.ethertype = vlan.ethertype.get();
    }
    Ok(link)
}

/// Whether ports come first in the headers of `protocol`.
#[must_use]
pub const fn has_ports(protocol: u8) -> bool {
    matches!(protocol, TCP | UDP | SCTP)
}

const fn is_icmp(protocol: u8) -> bool {
    matches!(protocol, ICMP | ICMPV6)
}

const fn fragment_key(ip: &Ip, piece: Piece, zone: u16) -> FragmentKey {
    FragmentKey {
        source: ip.source,
        destination: ip.destination,
        identification: piece.identification,
        zone,
        protocol: ip.protocol,
        padding: 0,
    }
}

/// An IPv4 address as an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
#[must_use]
pub const fn mapped(address: u32) -> [u64; 2] {
    [0, 0xffff_0000_0000 | address as u64]
}

/// Whether `address` is one of those.
const fn is_mapped(address: [u64; 2]) -> bool {
    address[0] == 0 && address[1] >> 32 == 0xffff
}

fn ipv4<P: Packet>(packet: &P, offset: usize) -> Result<Ip, Reason> {
    let ip = quoted_ipv4(packet, offset).ok_or(Reason::MalformedIpv4)?;
    if ip.offset + ip.length > packet.len() || ip.payload > ip.offset + ip.length {
        return Err(Reason::MalformedIpv4);
    }
    Ok(ip)
}

/// An IPv4 header whose payload may be cut short.
fn quoted_ipv4<P: Packet>(packet: &P, offset: usize) -> Option<Ip> {
    let header = packet.get::<Ipv4>(offset)?;
    if header.version_ihl >> 4 != 4 || header.header_len() < Ipv4::LEN {
        return None;
    }
    let place = header.fragment.get() & Ipv4::FRAGMENT_OFFSET;
    let more = header.fragment.get() & Ipv4::MORE_FRAGMENTS != 0;
    Some(Ip {
        v6: false,
        offset,
        length: usize::from(header.total_length.get()),
        source: mapped(header.source.get()),
        destination: mapped(header.destination.get()),
        tos: u16::from(header.tos >> 2),
        ttl: header.ttl,
        protocol: header.protocol,
        payload: offset + header.header_len(),
        fragment: (place > 0 || more).then_some(Piece {
            identification: u32::from(header.identification.get()),
            offset: place,
        }),
    })
}

fn ipv6<P: Packet>(packet: &P, offset: usize) -> Result<Ip, Reason> {
    let mut ip = ipv6_base(packet, offset).ok_or(Reason::MalformedIpv6)?;
    let end = ip.offset + ip.length;
    if end > packet.len() {
        return Err(Reason::MalformedIpv6);
    }
    if is_mapped(ip.source) || is_mapped(ip.destination) {
        return Err(Reason::MappedAddress);
    }
    for _ in 0..EXTENSIONS {
        if !is_extension(ip.protocol) || ip.fragment.is_some_and(|piece| piece.offset > 0) {
            return if ip.payload > end {
                Err(Reason::MalformedIpv6)
            } else {
                Ok(ip)
            };
        }
        if ip.payload + 8 > end {
            return Err(Reason::MalformedIpv6);
        }
        extension(packet, &mut ip).ok_or(Reason::HeaderChain)?;
    }
    Err(Reason::HeaderChain)
}

/// An IPv6 header and its extension headers, whose payload may be cut short.
fn quoted_ipv6<P: Packet>(packet: &P, offset: usize) -> Option<Ip> {
    let mut ip = ipv6_base(packet, offset)?;
    for _ in 0..EXTENSIONS {
        if !is_extension(ip.protocol) {
            return Some(ip);
        }
        extension(packet, &mut ip)?;
    }
    None
}

fn ipv6_base<P: Packet>(packet: &P, offset: usize) -> Option<Ip> {
    let header = packet.get::<Ipv6>(offset)?;
    if header.version_class_label.get() >> 28 != 6 {
        return None;
    }
    Some(Ip {
        v6: true,
        offset,
        length: Ipv6::LEN + usize::from(header.payload_length.get()),
        source: header.source.map(|half| half.get()),
        destination: header.destination.map(|half| half.get()),
        tos: 256 + u16::from(header.traffic_class()),
        ttl: header.hop_limit,
        protocol: header.next_header,
        payload: offset + Ipv6::LEN,
        fragment: None,
    })
}

const fn is_extension(next_header: u8) -> bool {
    matches!(
        next_header,
        next::HOP_BY_HOP | next::ROUTING | next::FRAGMENT | next::AUTHENTICATION | next::DESTINATION
    )
}

/// Steps over the extension header that `ip.protocol` announces.
fn extension<P: Packet>(packet: &P, ip: &mut Ip) -> Option<()> {
    if ip.protocol == next::FRAGMENT {
        let fragment = packet.get::<Fragment>(ip.payload)?;
        let offset = fragment.offset.get();
        if offset & !6 != 0 {
            ip.fragment = Some(Piece {
                identification: fragment.identification.get(),
                offset: offset >> 3,
            });
        }
        ip.protocol = fragment.next_header;
        ip.payload += Fragment::LEN;
        return Some(());
    }
    let header = packet.get::<Extension>(ip.payload)?;
    let units = usize::from(header.length);
    ip.payload += match ip.protocol {
        next::AUTHENTICATION => 8 + 4 * units,
        _ => 8 + 8 * units,
    };
    ip.protocol = header.next_header;
    Some(())
}

/// Parses what follows the IP header of a whole packet or a first fragment.
fn upper<P: Packet>(packet: &P, facts: &mut Facts) -> Result<(), Reason> {
    let at = facts.ip.payload;
    let room = facts.ip.offset + facts.ip.length - at;
    match facts.ip.protocol {
        TCP => {
            let tcp = fitting::<P, Tcp>(packet, at, room, Tcp::LEN, Reason::MalformedTcp)?;
            let len = usize::from(tcp.data_offset >> 4) * 4;
            if len < Tcp::LEN || (len > room && facts.ip.fragment.is_none()) {
                return Err(Reason::MalformedTcp);
            }
            facts.tcp_flags = tcp.flags;
            set_ports(facts, &tcp.ports);
        }
        UDP => {
            let udp = fitting::<P, Udp>(packet, at, room, Udp::LEN, Reason::MalformedUdp)?;
            let len = usize::from(udp.length.get());
            if len < Udp::LEN || (len > room && facts.ip.fragment.is_none()) {
                return Err(Reason::MalformedUdp);
            }
            set_ports(facts, &udp.ports);
        }
        SCTP => {
            let ports =
                fitting::<P, Ports>(packet, at, room, transport::SCTP_LEN, Reason::MalformedSctp)?;
            set_ports(facts, ports);
        }
        protocol @ (ICMP | ICMPV6) => {
            let icmp = fitting::<P, Icmp>(packet, at, room, Icmp::LEN, Reason::MalformedIcmp)?;
            if icmp.is_echo(protocol) {
                facts.key.source_port = icmp.identifier.get();
                facts.key.destination_port = icmp.identifier.get();
            }
            facts.icmp_error = icmp.is_error(protocol);
            facts.transport = true;
        }
        _ => {}
    }
    Ok(())
}

/// The header at `at`, when `len` octets fit the `room` that the IP header leaves. Headers beyond
/// the reach of steering are no fault of the packet.
fn fitting<'a, P: Packet, H: crate::packet::Header + 'a>(
    packet: &'a P,
    at: usize,
    room: usize,
    len: usize,
    malformed: Reason,
) -> Result<&'a H, Reason> {
    if room < len {
        return Err(malformed);
    }
    packet.get::<H>(at).ok_or(Reason::HeaderChain)
}

fn set_ports(facts: &mut Facts, ports: &Ports) {
    facts.key.source_port = ports.source.get();
    facts.key.destination_port = ports.destination.get();
    facts.transport = true;
}
