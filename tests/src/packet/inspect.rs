//! What is in a frame, as etherparse sees it: a parser that shares nothing with the data path.

use std::{fmt::Write as _, net::IpAddr};

use etherparse::{
    IpPayloadSlice, Ipv4HeaderSlice, LaxNetSlice, LaxSlicedPacket, LinkExtSlice, NetSlice,
    SlicedPacket, TransportSlice,
};

use super::bytes::{crc32c, icmp_checksum};

/// One line that says what a frame is, for failure messages; never fails.
pub fn describe(frame: &[u8]) -> String {
    let mut line = String::new();
    if let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, ..] = frame {
        let _ = write!(
            line,
            "{s0:02x}:{s1:02x}:{s2:02x}:{s3:02x}:{s4:02x}:{s5:02x} > \
             {d0:02x}:{d1:02x}:{d2:02x}:{d3:02x}:{d4:02x}:{d5:02x} "
        );
    }
    match LaxSlicedPacket::from_ethernet(frame) {
        Err(error) => {
            let _ = write!(line, "[{error}] ");
        }
        Ok(packet) => {
            for extension in &packet.link_exts {
                if let etherparse::LaxLinkExtSlice::Vlan(tag) = extension {
                    let _ = write!(line, "vlan {} ", tag.vlan_identifier().value());
                }
            }
            describe_network(&mut line, &packet);
            if let Some((error, layer)) = packet.stop_err {
                let _ = write!(line, "[{layer}: {error}] ");
            }
        }
    }
    let _ = write!(line, "({} octets)", frame.len());
    line
}

/// Where two frames differ, with both described; `None` when they are the same.
pub fn difference(expected: &[u8], found: &[u8]) -> Option<String> {
    if expected == found {
        return None;
    }
    let at = expected
        .iter()
        .zip(found)
        .take_while(|(a, b)| a == b)
        .count();
    Some(format!(
        "first difference at octet {at}\n  expected {}\n  found    {}\n  expected {expected:02x?}\n  \
         found    {found:02x?}",
        describe(expected),
        describe(found),
    ))
}

/// Checks that a frame is well formed and that every checksum in it is right.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    let tags = packet.link_exts.iter();
    let link = 14
        + 4 * tags
            .filter(|tag| matches!(tag, LinkExtSlice::Vlan(_)))
            .count();
    let (source, destination, payload): (IpAddr, IpAddr, &IpPayloadSlice<'_>) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = Ipv4HeaderSlice::from_slice(&frame[link..]).map_err(|e| e.to_string())?;
            let right = header.to_header().calc_header_checksum();
            if header.header_checksum() != right {
                return Err(format!(
                    "IPv4 checksum is {:04x} and should be {right:04x}",
                    header.header_checksum()
                ));
            }
            let header = ip.header();
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                ip.payload(),
            )
        }
        Some(NetSlice::Ipv6(ip)) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
            ip.payload(),
        ),
        _ => return Err("not an IP packet".into()),
    };
    if payload.fragmented {
        return Ok(());
    }
    let (found, right) = match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let right = match (source, destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => tcp.calc_checksum_ipv4(a.octets(), b.octets()),
                (IpAddr::V6(a), IpAddr::V6(b)) => tcp.calc_checksum_ipv6(a.octets(), b.octets()),
                _ => unreachable!("one IP header has one family"),
            };
            (u32::from(tcp.checksum()), right.map(u32::from))
        }
        Some(TransportSlice::Udp(udp)) => {
            if udp.checksum() == 0 && source.is_ipv4() {
                return Ok(());
            }
            let (header, data) = (udp.to_header(), udp.payload());
            let right = match (source, destination) {
                (IpAddr::V4(a), IpAddr::V4(b)) => {
                    header.calc_checksum_ipv4_raw(a.octets(), b.octets(), data)
                }
                (IpAddr::V6(a), IpAddr::V6(b)) => {
                    header.calc_checksum_ipv6_raw(a.octets(), b.octets(), data)
                }
                _ => unreachable!("one IP header has one family"),
            };
            (u32::from(udp.checksum()), right.map(u32::from))
        }
        Some(TransportSlice::Icmpv4(_) | TransportSlice::Icmpv6(_)) => {
            let sum = icmp_checksum(source, destination, payload.payload);
            (u32::from(sum), Ok(0))
        }
        Some(TransportSlice::Igmp(_)) | None if payload.ip_number.0 == 132 => {
            let mut message = payload.payload.to_vec();
            let field: [u8; 4] = message
                .get(8..12)
                .and_then(|field| field.try_into().ok())
                .ok_or("SCTP header cut")?;
            message[8..12].fill(0);
            (u32::from_le_bytes(field), Ok(crc32c(&message)))
        }
        Some(TransportSlice::Igmp(_)) | None => return Ok(()),
    };
    let right = right.map_err(|error| error.to_string())?;
    if found == right {
        Ok(())
    } else {
        Err(format!(
            "transport checksum is {found:04x} and should be {right:04x}"
        ))
    }
}

fn describe_network(line: &mut String, packet: &LaxSlicedPacket<'_>) {
    let (source, destination, ttl, class, length, payload): (IpAddr, IpAddr, _, _, _, _) =
        match &packet.net {
            Some(LaxNetSlice::Ipv4(ip)) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    header.ttl(),
                    header.dcp().value() << 2 | header.ecn().value(),
                    header.total_len(),
                    ip.payload(),
                )
            }
            Some(LaxNetSlice::Ipv6(ip)) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    header.hop_limit(),
                    header.traffic_class(),
                    header.payload_length(),
                    ip.payload(),
                )
            }
            _ => return line.push_str("not IP "),
        };
    let ports = |line: &mut String, name: &str, from: u16, to: u16| {
        let _ = match source {
            IpAddr::V4(_) => write!(line, "{name} {source}:{from} > {destination}:{to} "),
            IpAddr::V6(_) => write!(line, "{name} [{source}]:{from} > [{destination}]:{to} "),
        };
    };
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            ports(line, "tcp", tcp.source_port(), tcp.destination_port());
        }
        Some(TransportSlice::Udp(udp)) => {
            ports(line, "udp", udp.source_port(), udp.destination_port());
        }
        Some(TransportSlice::Icmpv4(icmp)) => {
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            let _ = write!(line, "icmp {kind}/{code} {source} > {destination} ");
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let (kind, code) = (icmp.type_u8(), icmp.code_u8());
            let _ = write!(line, "icmpv6 {kind}/{code} {source} > {destination} ");
        }
        Some(TransportSlice::Igmp(_)) | None => {
            let protocol = payload.ip_number.0;
            let _ = write!(line, "protocol {protocol} {source} > {destination} ");
        }
    }
    if payload.fragmented {
        line.push_str("fragment ");
    }
    let _ = write!(line, "ttl {ttl} class {class} ip-length {length} ");
}
