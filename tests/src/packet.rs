//! Packets as values: described, built to bytes, cut into fragments, quoted by ICMP errors.
//!
//! A test says what it sends and what it expects in the same vocabulary, and compares bytes:
//! the expected frame is the input with the fields changed that steering should change.

mod bytes;
mod change;
mod gre;
mod gtpu;
mod inspect;
mod tunnel;
mod verify;
mod vxlan;

use std::net::{IpAddr, SocketAddr};

pub use gre::Gre;
pub use gtpu::{G_PDU, GTPU_PORT, Gtpu, GtpuExtension, Session, UDP_PORT};
pub use inspect::{describe, difference};
pub use tunnel::{Opened, Tunnel, open};
pub use verify::verify;
pub use vxlan::{VXLAN_PORT, Vxlan};

/// A link-layer address.
pub type MacAddress = [u8; 6];

/// A VLAN tag, IEEE 802.1Q clause 9.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    /// Tag protocol identifier: 0x8100, 0x88a8 or 0x9100.
    pub protocol: u16,
    /// VLAN identifier, 12 bits.
    pub vlan: u16,
    /// Priority code point, 3 bits.
    pub priority: u8,
}

/// An IPv6 extension header, RFC 8200 section 4 and RFC 4302.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options holding only padding.
    HopByHop,
    /// A routing header whose segments are all visited.
    Routing,
    /// Destination options holding only padding.
    DestinationOptions,
    /// A fragment header on a packet that is whole (an atomic fragment, RFC 6946).
    AtomicFragment,
    /// An authentication header with a 12-octet integrity value.
    Authentication,
}

/// What an ICMP or ICMPv6 error says about the packet it quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Port unreachable.
    Unreachable,
    /// Fragmentation needed, or packet too big, with this MTU.
    TooBig(u16),
    /// Time exceeded in transit.
    TimeExceeded,
}

/// What follows the IP headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Octet 13 of the header.
        flags: u8,
    },
    /// UDP.
    Udp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
        /// Whether there is one; IPv4 only can do without.
        checksum: bool,
    },
    /// SCTP: a common header, then the payload.
    Sctp {
        /// Source port.
        source: u16,
        /// Destination port.
        destination: u16,
    },
    /// ICMP or ICMPv6 echo.
    Echo {
        /// A reply rather than a request.
        reply: bool,
        /// Identifier.
        id: u16,
        /// Sequence number.
        sequence: u16,
    },
    /// ICMP or ICMPv6 error.
    Error {
        /// What is wrong.
        kind: IcmpError,
        /// The start of the packet it is about, from the IP header on.
        quote: Vec<u8>,
    },
    /// Any other protocol number; the payload follows the IP header.
    Other(u8),
}

/// TCP flag: the sender has finished.
pub const FIN: u8 = 0x01;
/// TCP flag: open a connection.
pub const SYN: u8 = 0x02;
/// TCP flag: reset.
pub const RST: u8 = 0x04;
/// TCP flag: the acknowledgment number counts.
pub const ACK: u8 = 0x10;

/// An Ethernet frame holding an IP packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Link-layer source.
    pub source_mac: MacAddress,
    /// Link-layer destination.
    pub destination_mac: MacAddress,
    /// Outermost first.
    pub tags: Vec<Tag>,
    /// IP source.
    pub source: IpAddr,
    /// IP destination.
    pub destination: IpAddr,
    /// IPv4 TTL or IPv6 hop limit.
    pub ttl: u8,
    /// IPv4 type of service octet or IPv6 traffic class: DSCP and ECN.
    pub class: u8,
    /// What the fragments of a packet share; IPv4 carries the low 16 bits.
    pub identification: u32,
    /// The IPv4 bit of that name.
    pub dont_fragment: bool,
    /// IPv4 options, a multiple of four octets.
    pub options: Vec<u8>,
    /// TCP options; they are filled up to a multiple of four octets.
    pub tcp_options: Vec<u8>,
    /// IPv6 extension headers, outermost first.
    pub extensions: Vec<Extension>,
    /// What follows the IP headers.
    pub transport: Transport,
    /// What the transport carries.
    pub payload: Vec<u8>,
}

impl Packet {
    /// A packet with this transport; the addresses decide whether it is IPv4 or IPv6.
    pub fn new(source: IpAddr, destination: IpAddr, transport: Transport) -> Self {
        assert_eq!(
            source.is_ipv4(),
            destination.is_ipv4(),
            "{source} and {destination} are of different families"
        );
        Self {
            source_mac: [2, 0, 0, 0, 0, 1],
            destination_mac: [2, 0, 0, 0, 0, 2],
            tags: Vec::new(),
            source,
            destination,
            ttl: 64,
            class: 0,
            identification: 0x1234,
            dont_fragment: false,
            options: Vec::new(),
            tcp_options: Vec::new(),
            extensions: Vec::new(),
            transport,
            payload: b"edgesteer".to_vec(),
        }
    }

    /// A TCP segment with only ACK set, between two `address:port`.
    pub fn tcp(source: &str, destination: &str) -> Self {
        let (from, to) = (socket(source), socket(destination));
        let transport = Transport::Tcp {
            source: from.port(),
            destination: to.port(),
            flags: ACK,
        };
        Self::new(from.ip(), to.ip(), transport)
    }

    /// A UDP datagram between two `address:port`.
    pub fn udp(source: &str, destination: &str) -> Self {
        let (from, to) = (socket(source), socket(destination));
        let transport = Transport::Udp {
            source: from.port(),
            destination: to.port(),
            checksum: true,
        };
        Self::new(from.ip(), to.ip(), transport)
    }

    /// An SCTP packet between two `address:port`.
    pub fn sctp(source: &str, destination: &str) -> Self {
        let (from, to) = (socket(source), socket(destination));
        let transport = Transport::Sctp {
            source: from.port(),
            destination: to.port(),
        };
        Self::new(from.ip(), to.ip(), transport)
    }

    /// An echo request.
    pub fn echo(source: &str, destination: &str, id: u16) -> Self {
        let transport = Transport::Echo {
            reply: false,
            id,
            sequence: 1,
        };
        Self::new(address(source), address(destination), transport)
    }

    /// A packet of a protocol without ports.
    pub fn other(source: &str, destination: &str, protocol: u8) -> Self {
        let transport = Transport::Other(protocol);
        Self::new(address(source), address(destination), transport)
    }

    /// The error that the node `from` sends to the source of `offending`, quoting at most
    /// `length` octets of it.
    pub fn error(from: &str, kind: IcmpError, offending: &Self, length: usize) -> Self {
        Self::error_about_translated(from, kind, offending, offending, length)
    }

    /// The same, when addresses and ports in the quoted headers were translated on the way, and the rest of the
    /// transport header was left as it was in `before`.
    pub fn error_about_translated(
        from: &str,
        kind: IcmpError,
        offending: &Self,
        before: &Self,
        length: usize,
    ) -> Self {
        let header = offending.transport_offset() - offending.network_offset();
        let mut quote = offending.network_bytes();
        quote.truncate(header);
        let mut transport = before.transport_bytes();
        if let Some((source, destination)) = offending.ports() {
            transport[..2].copy_from_slice(&source.to_be_bytes());
            transport[2..4].copy_from_slice(&destination.to_be_bytes());
        }
        quote.extend(transport);
        quote.truncate(length);
        let mut packet = Self::new(
            address(from),
            offending.source,
            Transport::Error { kind, quote },
        );
        packet.payload.clear();
        packet
    }

    /// The IP protocol number of the transport.
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp { .. } => 17,
            Transport::Sctp { .. } => 132,
            Transport::Echo { .. } | Transport::Error { .. } if self.source.is_ipv4() => 1,
            Transport::Echo { .. } | Transport::Error { .. } => 58,
            Transport::Other(protocol) => protocol,
        }
    }

    /// Source and destination port or, of an echo, twice its identifier: what tells flows apart.
    pub fn flow_ports(&self) -> (u16, u16) {
        if let Transport::Echo { id, .. } = self.transport {
            return (id, id);
        }
        self.ports().unwrap_or_default()
    }

    /// Source and destination port, of the protocols that have them.
    pub fn ports(&self) -> Option<(u16, u16)> {
        match self.transport {
            Transport::Tcp {
                source,
                destination,
                ..
            }
            | Transport::Udp {
                source,
                destination,
                ..
            }
            | Transport::Sctp {
                source,
                destination,
            } => Some((source, destination)),
            Transport::Echo { .. } | Transport::Error { .. } | Transport::Other(_) => None,
        }
    }
}

fn socket(text: &str) -> SocketAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn address(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes() -> Vec<Packet> {
        let (v4, v6) = (("10.45.0.7", "203.0.113.9"), ("2001:db8::7", "2001:db8::9"));
        let mut all = Vec::new();
        for (from, to) in [v4, v6] {
            let bracket = |a: &str, port: u16| match a.parse().unwrap() {
                IpAddr::V4(a) => format!("{a}:{port}"),
                IpAddr::V6(a) => format!("[{a}]:{port}"),
            };
            let (a, b) = (bracket(from, 5000), bracket(to, 443));
            all.extend([
                Packet::tcp(&a, &b),
                Packet::udp(&a, &b).payload(33),
                Packet::sctp(&a, &b),
                Packet::echo(from, to, 7),
                Packet::other(from, to, 50),
                Packet::udp(&a, &b).tag(0x88a8, 100).tag(0x8100, 5),
            ]);
            let offending = Packet::udp(&a, &b);
            all.push(Packet::error(to, IcmpError::TooBig(1400), &offending, 548));
        }
        all.push(Packet::tcp("10.0.0.1:1", "10.0.0.2:2").options(10));
        all.push(
            Packet::tcp("[2001:db8::1]:1", "[2001:db8::2]:2")
                .extension(Extension::HopByHop)
                .extension(Extension::Routing)
                .extension(Extension::AtomicFragment)
                .extension(Extension::Authentication)
                .extension(Extension::DestinationOptions),
        );
        all
    }

    #[test]
    fn every_shape_passes_an_independent_parser() {
        for packet in shapes() {
            verify(&packet.bytes()).unwrap_or_else(|error| panic!("{packet:?}: {error}"));
            verify(&packet.reversed().bytes()).unwrap();
        }
    }

    #[test]
    fn a_damaged_checksum_is_noticed() {
        for packet in shapes() {
            if matches!(packet.transport, Transport::Other(_)) {
                continue;
            }
            let mut frame = packet.bytes();
            *frame.last_mut().unwrap() ^= 0x55;
            verify(&frame).unwrap_err();
        }
    }

    #[test]
    fn fragments_put_together_are_the_packet() {
        for packet in [
            Packet::udp("10.0.0.1:1", "10.0.0.2:2").payload(100),
            Packet::udp("[2001:db8::1]:1", "[2001:db8::2]:2").payload(100),
        ] {
            let fragments = packet.fragments(48);
            assert_eq!(fragments.len(), 3);
            let header = fragments[0].len() - 48;
            let whole: Vec<u8> = fragments
                .iter()
                .flat_map(|fragment| fragment[header..].to_vec())
                .collect();
            assert_eq!(whole, packet.transport_bytes());
            for fragment in &fragments {
                verify(fragment).unwrap();
            }
        }
    }

    #[test]
    fn descriptions_name_what_matters() {
        let packet = Packet::udp("10.45.0.7:5000", "203.0.113.9:443").tag(0x8100, 5);
        assert_eq!(
            describe(&packet.bytes()),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 vlan 5 udp 10.45.0.7:5000 > 203.0.113.9:443 \
             ttl 64 class 0 ip-length 37 (55 octets)"
        );
        assert!(describe(&packet.bytes()[..20]).contains("20 octets"));
    }
}
