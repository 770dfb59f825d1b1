//! From a described packet to octets. Ethernet, IP, TCP and UDP headers are etherparse's.

use std::net::IpAddr;

use etherparse::{
    EtherType, Ethernet2Header, IpDscp, IpEcn, IpFragOffset, IpNumber, Ipv4Header, Ipv6Header,
    TcpHeader, UdpHeader, checksum::Sum16BitWords,
};

use super::{Extension, IcmpError, Packet, Transport};

const FRAGMENT_HEADER: u8 = 44;

/// Where a fragment stands in its packet.
#[derive(Clone, Copy)]
struct Piece {
    offset: usize,
    more: bool,
}

impl Packet {
    /// The whole frame.
    pub fn bytes(&self) -> Vec<u8> {
        [self.link_bytes(), self.network_bytes()].concat()
    }

    /// The frame from the IP header on.
    pub fn network_bytes(&self) -> Vec<u8> {
        let content = self.transport_bytes();
        [self.network_header(content.len(), None), content].concat()
    }

    /// Where the IP header starts.
    pub fn network_offset(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    /// Where the transport header starts.
    pub fn transport_offset(&self) -> usize {
        self.network_offset() + self.network_header(0, None).len()
    }

    /// Frames holding `chunk` octets of the packet each, in order.
    pub fn fragments(&self, chunk: usize) -> Vec<Vec<u8>> {
        assert_eq!(chunk % 8, 0, "fragments are cut at multiples of 8");
        let content = self.transport_bytes();
        let pieces = content.chunks(chunk).enumerate();
        pieces
            .map(|(index, part)| {
                let offset = index * chunk;
                let more = offset + part.len() < content.len();
                let header = self.network_header(part.len(), Some(Piece { offset, more }));
                [self.link_bytes(), header, part.to_vec()].concat()
            })
            .collect()
    }

    /// The octets after the IP headers.
    pub fn transport_bytes(&self) -> Vec<u8> {
        match &self.transport {
            &Transport::Tcp {
                source,
                destination,
                flags,
            } => self.tcp_bytes(source, destination, flags),
            &Transport::Udp {
                source,
                destination,
                checksum,
            } => self.udp_bytes(source, destination, checksum),
            &Transport::Sctp {
                source,
                destination,
            } => self.sctp_bytes(source, destination),
            &Transport::Echo {
                reply,
                id,
                sequence,
            } => {
                let kind = match (self.source, reply) {
                    (IpAddr::V4(_), false) => 8,
                    (IpAddr::V4(_), true) => 0,
                    (IpAddr::V6(_), false) => 128,
                    (IpAddr::V6(_), true) => 129,
                };
                let rest = (u32::from(id) << 16) | u32::from(sequence);
                self.icmp_bytes(kind, 0, rest, &self.payload)
            }
            Transport::Error { kind, quote } => {
                let v4 = self.source.is_ipv4();
                let (kind, code, rest) = match (*kind, v4) {
                    (IcmpError::Unreachable, true) => (3, 3, 0),
                    (IcmpError::TooBig(mtu), true) => (3, 4, u32::from(mtu)),
                    (IcmpError::TimeExceeded, true) => (11, 0, 0),
                    (IcmpError::Unreachable, false) => (1, 4, 0),
                    (IcmpError::TooBig(mtu), false) => (2, 0, u32::from(mtu)),
                    (IcmpError::TimeExceeded, false) => (3, 0, 0),
                };
                self.icmp_bytes(kind, code, rest, quote)
            }
            Transport::Other(_) => self.payload.clone(),
        }
    }

    fn link_bytes(&self) -> Vec<u8> {
        let network = match self.source {
            IpAddr::V4(_) => EtherType::IPV4,
            IpAddr::V6(_) => EtherType::IPV6,
        };
        let types: Vec<u16> = self.tags.iter().map(|tag| tag.protocol).collect();
        let mut bytes = Ethernet2Header {
            source: self.source_mac,
            destination: self.destination_mac,
            ether_type: types.first().copied().map_or(network, EtherType),
        }
        .to_bytes()
        .to_vec();
        for (index, tag) in self.tags.iter().enumerate() {
            let control = (u16::from(tag.priority) << 13) | tag.vlan;
            let inner = types.get(index + 1).copied().unwrap_or(network.0);
            bytes.extend(control.to_be_bytes());
            bytes.extend(inner.to_be_bytes());
        }
        bytes
    }

    fn network_header(&self, content: usize, piece: Option<Piece>) -> Vec<u8> {
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header = Ipv4Header::new(
                    0,
                    self.ttl,
                    IpNumber(self.protocol()),
                    source.octets(),
                    destination.octets(),
                )
                .expect("an empty payload fits");
                header.options = (&self.options[..])
                    .try_into()
                    .expect("at most 40 octets of options, in words");
                header
                    .set_payload_len(content)
                    .expect("the packet fits its length field");
                header.dscp = IpDscp::try_new(self.class >> 2).expect("six bits");
                header.ecn = IpEcn::try_new(self.class & 3).expect("two bits");
                header.identification = self.identification as u16;
                header.dont_fragment = self.dont_fragment;
                if let Some(Piece { offset, more }) = piece {
                    header.more_fragments = more;
                    header.fragment_offset = fragment_offset(offset);
                }
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let (first, extensions) = self.extension_bytes(piece);
                let length = extensions.len() + content;
                let mut bytes = Ipv6Header {
                    traffic_class: self.class,
                    flow_label: Default::default(),
                    payload_length: length.try_into().expect("the packet fits its length field"),
                    next_header: IpNumber(first),
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                }
                .to_bytes()
                .to_vec();
                bytes.extend(extensions);
                bytes
            }
            (source, destination) => panic!("{source} cannot talk to {destination}"),
        }
    }

    /// The first next-header number, and the extension headers one after the other.
    fn extension_bytes(&self, piece: Option<Piece>) -> (u8, Vec<u8>) {
        let mut next = self.protocol();
        let mut bytes = Vec::new();
        if let Some(Piece { offset, more }) = piece {
            let field = fragment_offset(offset).value() << 3 | u16::from(more);
            bytes = self.fragment_header(next, field);
            next = FRAGMENT_HEADER;
        }
        for extension in self.extensions.iter().rev() {
            let (number, header) = match extension {
                Extension::HopByHop => (0, vec![next, 0, 1, 4, 0, 0, 0, 0]),
                Extension::DestinationOptions => {
                    (60, [&[next, 1, 1, 12][..], &[0; 12][..]].concat())
                }
                Extension::Routing => (43, [&[next, 2, 2, 0][..], &[0; 20][..]].concat()),
                Extension::AtomicFragment => (FRAGMENT_HEADER, self.fragment_header(next, 0)),
                Extension::Authentication => (51, [&[next, 4, 0, 0][..], &[7; 20][..]].concat()),
            };
            bytes = [header, bytes].concat();
            next = number;
        }
        (next, bytes)
    }

    fn fragment_header(&self, next: u8, field: u16) -> Vec<u8> {
        let mut bytes = vec![next, 0];
        bytes.extend(field.to_be_bytes());
        bytes.extend(self.identification.to_be_bytes());
        bytes
    }

    fn tcp_bytes(&self, source: u16, destination: u16, flags: u8) -> Vec<u8> {
        let mut header = TcpHeader::new(source, destination, 0x0102_0304, 8192);
        header.fin = flags & super::FIN != 0;
        header.syn = flags & super::SYN != 0;
        header.rst = flags & super::RST != 0;
        header.ack = flags & super::ACK != 0;
        header
            .set_options_raw(&self.tcp_options)
            .expect("at most 40 octets of options");
        header.checksum = match (self.source, self.destination) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                header.calc_checksum_ipv4_raw(a.octets(), b.octets(), &self.payload)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                header.calc_checksum_ipv6_raw(a.octets(), b.octets(), &self.payload)
            }
            _ => unreachable!("checked when the IP header was made"),
        }
        .expect("the payload fits");
        [&header.to_bytes()[..], &self.payload].concat()
    }

    fn udp_bytes(&self, source: u16, destination: u16, checksum: bool) -> Vec<u8> {
        let payload = &self.payload;
        let header = match (self.source, self.destination) {
            (IpAddr::V4(_), _) if !checksum => {
                UdpHeader::without_ipv4_checksum(source, destination, payload.len())
            }
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let (a, b) = (a.octets(), b.octets());
                let header = UdpHeader::without_ipv4_checksum(source, destination, payload.len());
                header.map(|header| UdpHeader {
                    checksum: header
                        .calc_checksum_ipv4_raw(a, b, payload)
                        .expect("the payload fits"),
                    ..header
                })
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                let header = UdpHeader::without_ipv4_checksum(source, destination, payload.len());
                header.map(|header| UdpHeader {
                    checksum: header
                        .calc_checksum_ipv6_raw(a.octets(), b.octets(), payload)
                        .expect("the payload fits"),
                    ..header
                })
            }
            _ => unreachable!("checked when the IP header was made"),
        }
        .expect("the payload fits");
        [&header.to_bytes()[..], payload].concat()
    }

    fn sctp_bytes(&self, source: u16, destination: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(source.to_be_bytes());
        bytes.extend(destination.to_be_bytes());
        bytes.extend([0xca, 0xfe, 0xba, 0xbe, 0, 0, 0, 0]);
        bytes.extend(&self.payload);
        let checksum = crc32c(&bytes);
        bytes[8..12].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn icmp_bytes(&self, kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![kind, code, 0, 0];
        bytes.extend(rest.to_be_bytes());
        bytes.extend(body);
        let checksum = icmp_checksum(self.source, self.destination, &bytes);
        bytes[2..4].copy_from_slice(&checksum.to_be_bytes());
        bytes
    }
}

/// The checksum of an ICMP message whose checksum field is zero, or 0 over a message that is right.
pub(super) fn icmp_checksum(source: IpAddr, destination: IpAddr, message: &[u8]) -> u16 {
    let sum = match (source, destination) {
        (IpAddr::V6(a), IpAddr::V6(b)) => Sum16BitWords::new()
            .add_16bytes(a.octets())
            .add_16bytes(b.octets())
            .add_4bytes((message.len() as u32).to_be_bytes())
            .add_4bytes([0, 0, 0, 58]),
        _ => Sum16BitWords::new(),
    };
    sum.add_slice(message).ones_complement().to_be()
}

/// CRC32c as SCTP uses it, RFC 9260 appendix A.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}

fn fragment_offset(octets: usize) -> IpFragOffset {
    IpFragOffset::try_new((octets / 8) as u16).expect("13 bits of eight octets")
}
