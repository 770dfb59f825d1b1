//! N3 over IPv6, between sockets of real kernels: these take no datagram whose checksum is wrong or missing.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{net::UdpSocket, time::Duration};

use tests::{
    lab::{Lab, Mode, Steering},
    packet::{Gtpu, Packet, Session},
};

/// How long a datagram may be under way.
const PATIENCE: Duration = Duration::from_secs(2);
/// The RAN's end of the tunnel, and the core's.
const RAN: &str = "[2001:db8:2::1]:2152";
const CORE: &str = "[2001:db8:2::2]:2152";

#[test]
fn a_base_station_takes_what_the_application_answers() {
    let lab = Lab::new(Mode::Wire).unwrap();
    let _servers = lab.serve().unwrap();
    let mut steering = Steering::open(&lab.host, Mode::Wire).unwrap();
    let rules = [
        "a/1 prio 1 flow to 203.0.113.9 proto udp forward ip 198.18.1.2 nat via app0",
        "a/2 prio 1 flow to 2001:db8:203::9 proto udp forward ip 2001:db8:a1::2 nat via app0",
    ];
    steering.apply(&lab.host, &rules).unwrap();
    let station = lab.access.enter(|| UdpSocket::bind(RAN)).unwrap();
    let gateway = lab.network.enter(|| UdpSocket::bind(CORE)).unwrap();
    for question in [
        Packet::udp("10.45.0.7:5000", "203.0.113.9:80"),
        Packet::udp("[2001:db8:45::7]:5000", "[2001:db8:203::9]:80"),
    ] {
        let up = Gtpu::pdu(7, question.network_bytes()).session(Session::Uplink(9));
        station.send_to(&up.bytes(), CORE).unwrap();
        assert_eq!(receive(&gateway), up);
        let other = question.reversed().network_bytes();
        let down = Gtpu::pdu(8, other).session(Session::Downlink(9));
        gateway.send_to(&down.bytes(), RAN).unwrap();
        assert_eq!(receive(&station), down);
        // Now that answers arrive, the application is asked.
        for length in [9, 10, 1200] {
            let question = question.clone().payload(length);
            let up = Gtpu::pdu(7, question.network_bytes()).session(Session::Uplink(9));
            station.send_to(&up.bytes(), CORE).unwrap();
            let answer = receive(&station);
            assert_eq!(
                (answer.teid, answer.said()),
                (8, Some(Session::Downlink(9)))
            );
            let payload = answer
                .content
                .split_at(question.transport_offset() - 14 + 8)
                .1;
            assert_eq!(payload, [b"app-a: ", &*question.payload].concat());
        }
    }
}

fn receive(socket: &UdpSocket) -> Gtpu {
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    Gtpu::parse(&buffer[..length]).unwrap()
}
