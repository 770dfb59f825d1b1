//! Packets in packets.

use std::net::IpAddr;

use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};

use super::{GTPU_PORT, Gre, Gtpu, VXLAN_PORT, Vxlan, gre};

/// What a tunnel's endpoint adds to a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tunnel {
    /// GTP-U in UDP.
    Gtpu(Gtpu),
    /// GRE in IP.
    Gre(Gre),
    /// VXLAN in UDP.
    Vxlan(Vxlan),
}

/// A frame of a tunnel taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// The endpoint that sent it.
    pub source: IpAddr,
    /// The endpoint it is for.
    pub destination: IpAddr,
    /// The UDP source port; none for GRE.
    pub source_port: Option<u16>,
    /// The tunnel, with what it carries.
    pub tunnel: Tunnel,
}

impl Tunnel {
    /// What is tunneled, from the IP header on or, by VXLAN and bridged by GRE, from the Ethernet
    /// header on; of GTP-U messages other than G-PDUs, their information elements.
    pub fn content(&self) -> &[u8] {
        match self {
            Self::Gtpu(Gtpu { content, .. })
            | Self::Gre(Gre { content, .. })
            | Self::Vxlan(Vxlan { content, .. }) => content,
        }
    }

    /// What follows these headers, if it is a tunnel by protocol number and UDP destination port.
    pub(super) fn behind(
        transport: Option<&TransportSlice<'_>>,
        ip: IpNumber,
        rest: &[u8],
    ) -> Option<Result<Self, String>> {
        match transport {
            Some(TransportSlice::Udp(udp)) if udp.destination_port() == GTPU_PORT => {
                Some(Gtpu::parse(udp.payload()).map(Self::Gtpu))
            }
            Some(TransportSlice::Udp(udp)) if udp.destination_port() == VXLAN_PORT => {
                Some(Vxlan::parse(udp.payload()).map(Self::Vxlan))
            }
            None if ip.0 == gre::PROTOCOL => Some(Gre::parse(rest).map(Self::Gre)),
            _ => None,
        }
    }
}

/// Takes a frame of a tunnel apart, and says what is wrong with it; checksums are not looked at.
pub fn open(frame: &[u8]) -> Result<Opened, String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    let (source, destination, payload): (IpAddr, IpAddr, _) = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            (source.into(), destination.into(), ip.payload())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            (source.into(), destination.into(), ip.payload())
        }
        _ => return Err("not an IP packet".into()),
    };
    let transport = packet.transport.as_ref();
    let tunnel = Tunnel::behind(transport, payload.ip_number, payload.payload);
    Ok(Opened {
        source,
        destination,
        source_port: match transport {
            Some(TransportSlice::Udp(udp)) => Some(udp.source_port()),
            _ => None,
        },
        tunnel: tunnel.ok_or("not a packet of a tunnel")??,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Packet, Session, describe, verify};

    #[test]
    fn what_was_tunneled_comes_out_again() {
        let inner = Packet::tcp("10.45.0.7:5000", "203.0.113.9:80");
        let inner6 = Packet::echo("2001:db8:45::7", "2001:db8:203::9", 7);
        for (source, destination) in [
            ("192.0.2.1", "192.0.2.10"),
            ("[2001:db8:2::1]", "[2001:db8:2::10]"),
        ] {
            let port = |address: &str, port: u16| format!("{address}:{port}");
            for inner in [&inner, &inner6] {
                let gtpu = Gtpu::pdu(0x1234, inner.network_bytes()).session(Session::Uplink(9));
                let over = gtpu.over(&port(source, 40_000), &port(destination, GTPU_PORT));
                check(&over, Tunnel::Gtpu(gtpu), inner.network_bytes());
                let gre = Gre::new(inner).key(7).checksum();
                let [from, to] = [source, destination].map(|it| it.trim_matches(['[', ']']));
                check(&gre.over(from, to), Tunnel::Gre(gre), inner.network_bytes());
                let vxlan = Vxlan::new(0xabcdef, inner);
                let over = vxlan.over(&port(source, 40_000), &port(destination, VXLAN_PORT));
                check(&over, Tunnel::Vxlan(vxlan), inner.bytes());
            }
        }
    }

    fn check(packet: &Packet, tunnel: Tunnel, inner: Vec<u8>) {
        let frame = packet.clone().tag(0x8100, 5).bytes();
        verify(&frame).unwrap();
        let opened = open(&frame).unwrap();
        assert_eq!(opened.tunnel.content(), inner);
        let source_port = packet.ports().map(|(source, _)| source);
        let expected = Opened {
            source: packet.source,
            destination: packet.destination,
            source_port,
            tunnel,
        };
        assert_eq!(opened, expected);
        // Wherever it is damaged, it is noticed: checksums cover what is inside.
        let mut damaged = frame;
        *damaged.last_mut().unwrap() ^= 0x55;
        verify(&damaged).unwrap_err();
    }

    #[test]
    fn a_damaged_packet_in_a_sound_one_is_noticed() {
        let mut inner = Packet::tcp("10.45.0.7:5000", "203.0.113.9:80").network_bytes();
        *inner.last_mut().unwrap() ^= 0x55;
        let packet = Gtpu::pdu(1, inner).over("192.0.2.1:2152", "192.0.2.10:2152");
        let error = verify(&packet.bytes()).unwrap_err();
        assert!(
            error.starts_with("in the tunnel: transport checksum"),
            "{error}"
        );
    }

    #[test]
    fn descriptions_look_into_the_tunnel() {
        let inner = Packet::udp("10.45.0.7:5000", "203.0.113.9:443");
        let gtpu = Gtpu::pdu(0x1234, inner.network_bytes())
            .sequence(5)
            .session(Session::Uplink(9));
        let frame = gtpu.over("192.0.2.1:2152", "192.0.2.10:2152").bytes();
        assert_eq!(
            describe(&frame),
            "02:00:00:00:00:01 > 02:00:00:00:00:02 udp 192.0.2.1:2152 > 192.0.2.10:2152 ttl 64 \
             class 0 ip-length 81 {gtpu 255 teid 0x1234 sequence 5 qfi 9 up: udp 10.45.0.7:5000 > \
             203.0.113.9:443 ttl 64 class 0 ip-length 37} (95 octets)"
        );
        let gre = Gre::new(&inner).key(7).over("192.0.2.1", "192.0.2.10");
        let text = describe(&gre.bytes());
        assert!(
            text.contains(" {gre 0x0800 key 7: udp 10.45.0.7:5000 > "),
            "{text}"
        );
        let vxlan = Vxlan::new(9, &inner).over("192.0.2.1:4000", "192.0.2.10:4789");
        let text = describe(&vxlan.bytes());
        assert!(text.contains(" {vxlan 9: 02:00:00:00:00:01 > "), "{text}");
    }

    #[test]
    fn what_is_no_tunnel_is_not_opened() {
        let packet = Packet::udp("10.45.0.7:2152", "203.0.113.9:443");
        assert_eq!(
            open(&packet.bytes()),
            Err("not a packet of a tunnel".to_owned())
        );
        let packet = Packet::udp("10.45.0.7:2152", "203.0.113.9:2152");
        open(&packet.bytes()).unwrap_err();
    }
}
