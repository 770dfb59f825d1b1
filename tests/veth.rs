//! The program on its interfaces: the scenarios with frames through packet sockets, and what people
//! do, with real sockets on real kernels.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{net::SocketAddr, time::Duration};

use tests::{
    executor::Veth,
    lab::{Lab, Mode, Steering, http_get, udp_ask},
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
