//! Whether a frame is sound, as etherparse sees it: a parser that shares nothing with the data path.

use std::net::IpAddr;

use etherparse::{IpPayloadSlice, NetSlice, SlicedPacket, TransportSlice};

use super::{
    G_PDU, Tunnel,
    bytes::{crc32c, icmp_checksum},
};

/// Checks that a frame is well formed and that every checksum in it is right, also in what it
/// tunnels.
pub fn verify(frame: &[u8]) -> Result<(), String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    let Some(network) = &packet.net else {
        return Err("not an IP packet".into());
    };
    verify_network(network, packet.transport.as_ref())
}

fn verify_network(
    network: &NetSlice<'_>,
    transport: Option<&TransportSlice<'_>>,
) -> Result<(), String> {
    let (source, destination, payload): (IpAddr, IpAddr, &IpPayloadSlice<'_>) = match network {
        NetSlice::Ipv4(ip) => {
            let header = ip.header();
            let right = header.to_header().calc_header_checksum();
            if header.header_checksum() != right {
                return Err(format!(
                    "IPv4 checksum is {:04x} and should be {right:04x}",
                    header.header_checksum()
                ));
            }
            (
                header.source_addr().into(),
                header.destination_addr().into(),
                ip.payload(),
            )
        }
        NetSlice::Ipv6(ip) => (
            ip.header().source_addr().into(),
            ip.header().destination_addr().into(),
            ip.payload(),
        ),
        NetSlice::Arp(_) => return Err("not an IP packet".into()),
    };
    if payload.fragmented {
        return Ok(());
    }
    verify_transport(source, destination, transport, payload)?;
    match Tunnel::behind(transport, payload.ip_number, payload.payload) {
        Some(tunnel) => tunnel
            .and_then(|tunnel| verify_tunnel(&tunnel))
            .map_err(|error| format!("in the tunnel: {error}")),
        None => Ok(()),
    }
}

fn verify_tunnel(tunnel: &Tunnel) -> Result<(), String> {
    match tunnel {
        Tunnel::Vxlan(vxlan) => return verify(&vxlan.content),
        Tunnel::Gtpu(gtpu) if gtpu.message != G_PDU => return Ok(()),
        Tunnel::Gtpu(_) | Tunnel::Gre(_) => {}
    }
    let packet = SlicedPacket::from_ip(tunnel.content()).map_err(|error| error.to_string())?;
    let network = packet.net.as_ref().ok_or("not an IP packet")?;
    verify_network(network, packet.transport.as_ref())
}

fn verify_transport(
    source: IpAddr,
    destination: IpAddr,
    transport: Option<&TransportSlice<'_>>,
    payload: &IpPayloadSlice<'_>,
) -> Result<(), String> {
    let (found, right) = match transport {
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
