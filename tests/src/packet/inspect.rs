//! What is in a frame, as etherparse sees it: a parser that shares nothing with the data path.

use std::{fmt::Write as _, net::IpAddr};

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

use super::{G_PDU, Gtpu, Session, Tunnel};

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
    if let Some((error, layer)) = &packet.stop_err {
        let _ = write!(line, "[{layer}: {error}] ");
    }
    match Tunnel::behind(
        packet.transport.as_ref(),
        payload.ip_number,
        payload.payload,
    ) {
        Some(Ok(tunnel)) => describe_tunnel(line, &tunnel),
        Some(Err(error)) => {
            let _ = write!(line, "{{{error}}} ");
        }
        None => {}
    }
}

fn describe_tunnel(line: &mut String, tunnel: &Tunnel) {
    match tunnel {
        Tunnel::Gtpu(gtpu) => describe_gtpu(line, gtpu),
        Tunnel::Gre(gre) => {
            let _ = write!(line, "{{gre 0x{:04x}", gre.protocol);
            if let Some(key) = gre.key {
                let _ = write!(line, " key {key}");
            }
            if let Some(sequence) = gre.sequence {
                let _ = write!(line, " sequence {sequence}");
            }
        }
        Tunnel::Vxlan(vxlan) => {
            let _ = write!(line, "{{vxlan {}", vxlan.vni);
        }
    }
    line.push_str(": ");
    match tunnel {
        Tunnel::Vxlan(vxlan) => line.push_str(&describe(&vxlan.content)),
        Tunnel::Gtpu(Gtpu { message, .. }) if *message != G_PDU => {}
        Tunnel::Gtpu(_) | Tunnel::Gre(_) => match LaxSlicedPacket::from_ip(tunnel.content()) {
            Ok(packet) => describe_network(line, &packet),
            Err(error) => {
                let _ = write!(line, "[{error}]");
            }
        },
    }
    line.truncate(line.trim_end().len());
    line.push_str("} ");
}

fn describe_gtpu(line: &mut String, gtpu: &Gtpu) {
    let _ = write!(line, "{{gtpu {} teid 0x{:x}", gtpu.message, gtpu.teid);
    if let Some(sequence) = gtpu.sequence {
        let _ = write!(line, " sequence {sequence}");
    }
    let _ = match gtpu.said() {
        Some(Session::Uplink(qfi)) => write!(line, " qfi {qfi} up"),
        Some(Session::Downlink(qfi)) => write!(line, " qfi {qfi} down"),
        None => Ok(()),
    };
}
