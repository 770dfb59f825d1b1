//! The packets of flows, by number: 16 flows for each UE, up to 1,048,576.

use tests::packet::{Gtpu, Packet, Session};

/// Makes the frame of a flow.
pub(crate) type Maker = fn(u32) -> Vec<u8>;

/// Octets in front of a packet on N3: IPv4, UDP, GTP-U and a PDU Session Container.
pub(crate) const N3_HEADERS: i32 = 20 + 8 + 8 + 4 + 4;

/// Octets in front of a packet in GRE: IPv4 and GRE without options.
pub(crate) const GRE_HEADERS: i32 = 20 + 4;

/// From a UE to the service.
pub(crate) fn upstream(flow: u32) -> Vec<u8> {
    plain(flow).bytes()
}

/// From the service to a UE.
pub(crate) fn downstream(flow: u32) -> Vec<u8> {
    plain(flow).reversed().bytes()
}

/// From the application, by its own address, to a UE.
pub(crate) fn translated(flow: u32) -> Vec<u8> {
    plain(flow).reversed().from("198.18.1.2").bytes()
}

/// The same, from a port of its own.
pub(crate) fn of_backend(flow: u32) -> Vec<u8> {
    let answer = plain(flow).reversed().from("198.18.1.2");
    answer.from_port(8443).bytes()
}

/// As [`upstream`], over IPv6.
pub(crate) fn upstream_v6(flow: u32) -> Vec<u8> {
    let ue = format!("[2001:db8:45::{:x}]:{}", flow >> 4, 5000 + (flow & 15));
    let packet = Packet::udp(&ue, "[2001:db8:203::9]:443");
    packet.payload(2).bytes()
}

/// The first fragment of a datagram of a UE.
pub(crate) fn first_fragment(flow: u32) -> Vec<u8> {
    fragments(flow).swap_remove(0)
}

/// The second fragment of the same datagram.
pub(crate) fn second_fragment(flow: u32) -> Vec<u8> {
    fragments(flow).swap_remove(1)
}

/// From a UE behind a gNB.
pub(crate) fn uplink(flow: u32) -> Vec<u8> {
    let pdu = Gtpu::pdu(
        0x1_0000 + (flow >> 4),
        plain(flow).payload(42).network_bytes(),
    );
    pdu.session(Session::Uplink(9))
        .over("192.0.2.1:2152", "198.51.100.1:2152")
        .bytes()
}

/// From a UPF to a UE.
pub(crate) fn downlink(flow: u32) -> Vec<u8> {
    let inner = plain(flow).payload(42).reversed();
    let pdu = Gtpu::pdu(0x2_0000 + (flow >> 4), inner.network_bytes());
    pdu.session(Session::Downlink(9))
        .over("198.51.100.1:2152", "192.0.2.1:2152")
        .bytes()
}

fn plain(flow: u32) -> Packet {
    let ue = format!(
        "10.45.{}.{}:{}",
        flow >> 12,
        flow >> 4 & 0xff,
        5000 + (flow & 15)
    );
    Packet::udp(&ue, "203.0.113.9:443").payload(22)
}

/// Two, of which both fit into the shortest frame.
fn fragments(flow: u32) -> Vec<Vec<u8>> {
    let datagram = plain(flow).identification(flow).payload(40);
    datagram.fragments(24)
}
