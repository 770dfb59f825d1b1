//! Frames out of a line like `udp 10.45.0.7:5000 > 203.0.113.9:443 vlan 7 dscp 46 ttl 3`.

mod tunnel;

use std::net::{IpAddr, SocketAddr};

use dataplane_user::rule::{Mac, protocol_number};
use etherparse::{
    IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, NetSlice, PacketBuilder, PacketBuilderStep,
    SlicedPacket, VlanId, ip_number,
};

pub(crate) use tunnel::Tunnel;

/// The ends of a flow: whose packets it is about.
pub(crate) fn ends(frame: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some((
                header.source_addr().into(),
                header.destination_addr().into(),
            ))
        }
        NetSlice::Arp(_) => None,
    }
}

/// The frame of the first packet of a flow, addressed to `destination` on the link. The error says what to write instead.
pub(crate) fn build(flow: &str, destination: Option<Mac>) -> Result<Vec<u8>, String> {
    let usage = || {
        format!(
            "`{flow}` is not a flow; write `udp 10.45.0.7:5000 > 203.0.113.9:443`, with `vlan`, `dscp` or `ttl` and a number behind it if needed"
        )
    };
    let (left, right) = flow.split_once('>').ok_or_else(usage)?;
    let mut left = left.split_whitespace();
    let protocol = left.next().and_then(protocol_number).ok_or_else(usage)?;
    let source = endpoint(left.next().ok_or_else(usage)?)?;
    let mut right = right.split_whitespace();
    let target = endpoint(right.next().ok_or_else(usage)?)?;
    if left.next().is_some() {
        return Err(usage());
    }
    let (mut vlan, mut dscp, mut ttl) = (None, 0u8, 64u8);
    while let Some(word) = right.next() {
        let number: u16 = right
            .next()
            .and_then(|number| number.parse().ok())
            .ok_or_else(usage)?;
        match (word, u8::try_from(number)) {
            ("vlan", _) => vlan = Some(VlanId::try_new(number).map_err(|e| e.to_string())?),
            ("dscp", Ok(number @ 0..64)) => dscp = number,
            ("ttl", Ok(number)) => ttl = number,
            _ => return Err(usage()),
        }
    }
    let ethernet = PacketBuilder::ethernet2(
        [2, 0, 0, 0, 0, 1],
        destination.map_or([2, 0, 0, 0, 0, 2], Mac::octets),
    );
    let header = ip(source.ip(), target.ip(), dscp, ttl)?;
    let builder = match vlan {
        Some(vlan) => ethernet.single_vlan(vlan).ip(header),
        None => ethernet.ip(header),
    };
    finish(builder, protocol, source.port(), target.port())
}

fn finish(
    builder: PacketBuilderStep<etherparse::IpHeaders>,
    protocol: u8,
    source: u16,
    target: u16,
) -> Result<Vec<u8>, String> {
    let mut frame = Vec::new();
    let payload = [0; 16];
    let written = match IpNumber(protocol) {
        ip_number::UDP => builder.udp(source, target).write(&mut frame, &payload),
        ip_number::TCP => builder
            .tcp(source, target, 0, 65535)
            .syn()
            .write(&mut frame, &[]),
        ip_number::ICMP => builder
            .icmpv4_echo_request(1, 1)
            .write(&mut frame, &payload),
        ip_number::IPV6_ICMP => builder
            .icmpv6_echo_request(1, 1)
            .write(&mut frame, &payload),
        ip_number::SCTP => {
            // Ports, verification tag and checksum are enough of a header for steering.
            let mut header = [0; 12];
            header[..2].copy_from_slice(&source.to_be_bytes());
            header[2..4].copy_from_slice(&target.to_be_bytes());
            builder.write(&mut frame, ip_number::SCTP, &header)
        }
        other => builder.write(&mut frame, other, &payload),
    };
    written.map_err(|error| error.to_string())?;
    Ok(frame)
}

fn ip(source: IpAddr, target: IpAddr, dscp: u8, ttl: u8) -> Result<etherparse::IpHeaders, String> {
    match (source, target) {
        (IpAddr::V4(source), IpAddr::V4(target)) => {
            let mut header = Ipv4Header {
                time_to_live: ttl,
                source: source.octets(),
                destination: target.octets(),
                ..Ipv4Header::default()
            };
            header.dscp = etherparse::IpDscp::try_new(dscp).map_err(|error| error.to_string())?;
            Ok(etherparse::IpHeaders::Ipv4(
                header,
                etherparse::Ipv4Extensions::default(),
            ))
        }
        (IpAddr::V6(source), IpAddr::V6(target)) => {
            let header = Ipv6Header {
                traffic_class: dscp << 2,
                flow_label: Ipv6FlowLabel::ZERO,
                hop_limit: ttl,
                source: source.octets(),
                destination: target.octets(),
                ..Ipv6Header::default()
            };
            Ok(etherparse::IpHeaders::Ipv6(
                header,
                etherparse::Ipv6Extensions::default(),
            ))
        }
        _ => Err("both addresses are of the same IP version".to_owned()),
    }
}

/// An address, with a port where the protocol has some.
fn endpoint(text: &str) -> Result<SocketAddr, String> {
    let alone = || {
        text.parse()
            .map(|address: IpAddr| SocketAddr::new(address, 0))
    };
    text.parse().or_else(|_| alone()).map_err(|_| format!("`{text}` is not an address, or an address and a port like 10.45.0.7:5000 or [2001:db8::1]:5000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_say_what_the_line_says() {
        for line in [
            "udp 10.45.0.7:5000 > 203.0.113.9:443",
            "tcp [2001:db8::7]:5000 > [2001:db8::9]:443 vlan 7",
            "icmp 10.45.0.7 > 203.0.113.9 ttl 1",
            "icmpv6 2001:db8::7 > 2001:db8::9 dscp 46",
            "sctp 10.45.0.7:1 > 203.0.113.9:2",
            "gre 10.45.0.7 > 203.0.113.9",
        ] {
            let frame = build(line, None).unwrap();
            SlicedPacket::from_ethernet(&frame).unwrap();
        }
        let frame = build(
            "udp 10.45.0.7:5000 > 203.0.113.9:443 dscp 46",
            Some([2, 0, 0, 0, 0, 9].into()),
        )
        .unwrap();
        assert_eq!(frame[..6], [2, 0, 0, 0, 0, 9]);
        assert_eq!(frame[15], 46 << 2);
        assert_eq!(frame[34..38], [0x13, 0x88, 0x01, 0xbb]);
    }

    #[test]
    fn refusals_show_how() {
        for line in [
            "",
            "udp",
            "udp 10.0.0.1:1",
            "http 10.0.0.1:1 > 10.0.0.2:2",
            "udp 10.0.0.1:1 > ::1",
            "udp 10.0.0.1:1 > 10.0.0.2:2 dscp 64",
            "udp 10.0.0.1:1 > 10.0.0.2:2 vlan",
        ] {
            assert!(build(line, None).is_err(), "{line}");
        }
    }
}
