//! The program on its interfaces: the scenarios with frames through packet sockets, and what people
//! do, with real sockets on real kernels.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use dataplane_core::Reason;
use dataplane_user::netlink;
use tests::{
    executor::Veth,
    lab::{Lab, Mode, Namespace, RawSocket, Steering, exchange, http_get, http_post, udp_ask},
    packet::{open, verify},
    scenario,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn scenarios() {
    scenario::run_all(scenario::plain(), &mut Veth::new().unwrap());
}

#[test]
fn scenarios_behind_tunnels() {
    scenario::run_all(scenario::mobile(), &mut Veth::mobile().unwrap());
}

#[test]
fn sockets_over_a_wire() {
    sockets(Mode::Wire);
}

#[test]
fn sockets_over_a_routed_host() {
    sockets(Mode::Routed);
}

/// TCP goes to the first application, by address translation; UDP to the second, by its MAC address.
const RULES: [&str; 4] = [
    "a/1 prio 1 flow to 203.0.113.9 proto tcp dport 80 forward ip 198.18.1.2 nat via app0",
    "a/2 prio 1 flow to 203.0.113.9 proto udp forward mac 02:00:00:00:0a:02 via app1",
    "a/3 prio 1 flow to 2001:db8:203::9 proto tcp forward ip 2001:db8:a1::2 nat via app0",
    "a/4 prio 1 flow to 2001:db8:203::9 proto udp forward mac 02:00:00:00:0a:02 via app1",
];

fn sockets(mode: Mode) {
    let lab = Lab::new(mode).unwrap();
    let _servers = lab.serve().unwrap();
    let mut steering = Steering::open(&lab.host, mode).unwrap();
    let all = ["network", "network"];
    ask(&lab, all);
    steering.apply(&lab.host, &RULES).unwrap();
    ask(&lab, ["app-a", "app-b"]);
    // The connections of before are over; new ones come under the rules that are left.
    steering.apply(&lab.host, &RULES[1..2]).unwrap();
    let v4 = SocketAddr::new(Lab::SERVICE, Lab::PORT);
    assert_eq!(http_get(&lab.ue, v4, "/").unwrap(), "network: GET /");
    steering.apply(&lab.host, &[]).unwrap();
    ask(&lab, all);
}

/// How an application is reached by a tunnel that its kernel ends: the ends, and the destination in rules.
const TUNNELS: [(&str, &str); 2] = [
    (
        "local 198.18.1.2 remote 198.18.1.1",
        "vxlan 198.18.1.2 vni 9 mac 02:00:00:00:ff:09",
    ),
    (
        "local 2001:db8:a1::2 remote 2001:db8:a1::1",
        "vxlan 2001:db8:a1::2 from 2001:db8:a1::1 vni 9 mac 02:00:00:00:ff:09",
    ),
];

#[test]
fn sockets_behind_tunnels_over_a_wire() {
    behind_tunnels(Mode::Wire);
}

#[test]
fn sockets_behind_tunnels_over_a_routed_host() {
    behind_tunnels(Mode::Routed);
}

fn behind_tunnels(mode: Mode) {
    let lab = Lab::new(mode).unwrap();
    let _servers = lab.serve().unwrap();
    let mut steering = Steering::plain(&lab.host, mode).unwrap();
    for (ends, destination) in TUNNELS {
        ask(&lab, ["network", "network"]);
        lab.end_tunnel(ends).unwrap();
        let rules = ["203.0.113.9", "2001:db8:203::9"]
            .map(|service| format!("a/1 prio 1 flow to {service} forward {destination} via app0"));
        let [v4, v6] = rules.each_ref();
        let v6 = v6.replace("a/1", "a/2");
        steering.apply(&lab.host, &[v4, &v6]).unwrap();
        ask(&lab, ["app-a", "app-a"]);
        let long = "edge".repeat(50_000);
        for address in [Lab::SERVICE, Lab::SERVICE6] {
            let service = SocketAddr::new(address, Lab::PORT);
            let echoed = http_post(&lab.ue, service, "/echo", &long).unwrap();
            assert!(echoed == format!("app-a: POST /echo\n{long}"), "{ends}");
        }
        let counted = steering.dataplane.port_counters();
        let mut from_app = counted.iter().filter(|it| it.port == "app0");
        let replied = from_app.find(|it| it.reason == Reason::Replied);
        assert!(replied.is_some_and(|it| it.packets > 100), "{counted:?}");
        steering.apply(&lab.host, &[]).unwrap();
        lab.apps[0].ip("link del tun0").unwrap();
    }
    ask(&lab, ["network", "network"]);
}

/// The programs that know tunnels and those that do not take turns, as rules for tunnels come and go.
#[test]
fn no_packet_is_lost_when_programs_change() {
    const DATAGRAMS: u32 = 8_000;
    const GAP: Duration = Duration::from_millis(1);
    for mode in [Mode::Wire, Mode::Routed] {
        let lab = Lab::new(mode).unwrap();
        let _servers = lab.serve().unwrap();
        let mut steering = Steering::plain(&lab.host, mode).unwrap();
        let (ends, destination) = TUNNELS[0];
        lab.end_tunnel(ends).unwrap();
        let plain = RULES[1];
        let tunnel = format!("a/3 prio 2 flow to 203.0.113.9 forward {destination} via app0");
        steering.apply(&lab.host, &[plain]).unwrap();
        let service = SocketAddr::new(Lab::SERVICE, Lab::PORT);
        let socket = lab.ue.enter(|| UdpSocket::bind("10.45.0.7:0").unwrap());
        lab.ue.enter(|| socket.connect(service)).unwrap();
        let program = |host: &Namespace| {
            let links = host.enter(netlink::links).unwrap();
            let access = links.into_iter().find(|link| link.name == "access0");
            access.unwrap().xdp.unwrap().program
        };
        let answers = thread::scope(|scope| {
            let datagrams = scope.spawn(|| exchange(&socket, DATAGRAMS, GAP));
            let mut turns = 0;
            while !datagrams.is_finished() {
                let before = program(&lab.host);
                steering.apply(&lab.host, &[plain, &tunnel]).unwrap();
                assert_ne!(program(&lab.host), before);
                let page = http_get(&lab.ue, service, "/page").unwrap();
                assert_eq!(page, "app-a: GET /page");
                steering.apply(&lab.host, &[plain]).unwrap();
                assert_eq!(program(&lab.host), before);
                turns += 1;
            }
            assert!(turns > 1, "{turns} turns");
            datagrams.join().unwrap()
        });
        let by_application = |it: &&Option<String>| it.as_deref() == Some("app-b");
        let answered = answers.iter().filter(by_application).count();
        assert_eq!(answered, DATAGRAMS as usize, "{mode:?}");
    }
}

/// Not every kernel knows GRE: who ends the tunnel here turns packets round, in it and around it.
#[test]
fn datagrams_go_through_gre_and_come_back() {
    const DATAGRAMS: u32 = 200;
    let lab = Lab::new(Mode::Wire).unwrap();
    let mut steering = Steering::plain(&lab.host, Mode::Wire).unwrap();
    let rule =
        "a/1 prio 1 flow to 203.0.113.9 forward gre 198.18.1.2 from 198.18.1.1 key 7 via app0";
    steering.apply(&lab.host, &[rule]).unwrap();
    let far_end = RawSocket::open(&lab.apps[0], "eth0").unwrap();
    let socket = lab.ue.enter(|| UdpSocket::bind("10.45.0.7:0").unwrap());
    let service = SocketAddr::new(Lab::SERVICE, Lab::PORT);
    lab.ue.enter(|| socket.connect(service)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    for number in 0..DATAGRAMS {
        socket.send(&number.to_be_bytes()).unwrap();
        let frame = loop {
            let frame = far_end.receive(PATIENCE).unwrap().unwrap();
            if matches!(open(&frame), Ok(opened) if opened.source.to_string() == "198.18.1.1") {
                break frame;
            }
        };
        verify(&frame).unwrap();
        far_end.send(&turned(frame)).unwrap();
        let mut answer = [0; 8];
        assert_eq!(socket.recv(&mut answer).unwrap(), 4);
        assert_eq!(answer[..4], number.to_be_bytes());
    }
    let counted = steering.dataplane.port_counters();
    let mut from_app = counted.iter().filter(|it| it.port == "app0");
    let replied = from_app.find(|it| it.reason == Reason::Replied);
    assert_eq!(replied.unwrap().packets, u64::from(DATAGRAMS));
}

/// A frame of UDP over IPv4 in GRE with a key, back to its sender: no checksum minds the order.
fn turned(mut frame: Vec<u8>) -> Vec<u8> {
    const OUTER: usize = 14;
    const INNER: usize = OUTER + 20 + 8;
    for (at, length) in [(0, 6), (OUTER + 12, 4), (INNER + 12, 4), (INNER + 20, 2)] {
        frame[at..at + 2 * length].rotate_left(length);
    }
    frame
}

/// Asks the service over TCP and UDP, by IPv4 and IPv6: `who` answers each of the transports.
fn ask(lab: &Lab, who: [&str; 2]) {
    for address in [Lab::SERVICE, Lab::SERVICE6] {
        let service = SocketAddr::new(address, Lab::PORT);
        let [tcp, udp] = who;
        let page = http_get(&lab.ue, service, "/page").unwrap();
        assert_eq!(page, format!("{tcp}: GET /page"), "{address}");
        let answer = udp_ask(&lab.ue, service, "question", PATIENCE).unwrap();
        assert_eq!(answer, Some(format!("{udp}: question")), "{address}");
    }
}
