//! The scenarios on the host: the core, a packet in memory and tables in memory; and what the kernel does to tables
//! so seldom that it cannot be waited for.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::collections::HashSet;

use dataplane_core::Reason;
use tests::{
    executor::Host,
    packet::{Gtpu, Packet, Tunnel, open},
    scenario::{self, Executor as _, Then},
    tshark,
};

#[test]
fn scenarios() {
    scenario::run_all(scenario::plain(), &mut Host::new());
}

#[test]
fn scenarios_behind_tunnels() {
    scenario::run_all(scenario::mobile(), &mut Host::new());
}

/// A table's entry may become that of another key between when it is found and when it is read.
#[test]
fn nobody_gets_into_the_tunnel_that_another_key_led_to() {
    let mut host = host("a/1 prio 1 flow to 203.0.113.10 drop");
    let [one, other] = ues().map(|ue| Packet::udp(&format!("{ue}:5000"), "203.0.113.9:443"));
    for (teid, up) in [(1, &one), (2, &other)] {
        for (port, packet, [from, to]) in [
            ("access0", up.clone(), [RAN, CORE]),
            ("core0", up.reversed(), [CORE, RAN]),
        ] {
            let packet = Gtpu::pdu(teid, packet.network_bytes()).over(from, to);
            assert_eq!(reason(&mut host, port, &packet), Reason::NoRule);
        }
    }
    let first = one.reversed();
    host.reuse_session(&one, &other);
    assert_eq!(reason(&mut host, "app0", &first), Reason::NoRule);
    // Neither does a packet in a tunnel tell of another UE.
    host.reuse_session(&one, &other);
    let moved = Gtpu::pdu(3, one.network_bytes()).over(RAN, CORE);
    reason(&mut host, "access0", &moved);
    host.reuse_session(&one, &other);
    let woken = Gtpu::pdu(3, first.network_bytes()).over(CORE, RAN);
    reason(&mut host, "core0", &woken);
    let seen = host.arrive("app0", &other.reversed().bytes()).unwrap();
    assert_eq!(seen.reasons, [Reason::AppInitiated]);
    let opened = open(&seen.out[0].1).unwrap();
    assert!(
        matches!(&opened.tunnel, Tunnel::Gtpu(gtpu) if gtpu.teid == 2),
        "{opened:?}"
    );
}

const RAN: &str = "192.0.2.1:2152";
const CORE: &str = "198.51.100.1:2152";

fn ues() -> [&'static str; 2] {
    ["10.45.0.7", "10.45.0.8"]
}

fn host(rule: &str) -> Host {
    let mut host = Host::new();
    let rules = [rule.parse().unwrap()].into_iter().collect();
    host.prepare(&rules).unwrap();
    host
}

fn reason(host: &mut Host, port: &str, packet: &Packet) -> Reason {
    let seen = host.arrive(port, &packet.bytes()).unwrap();
    let [reason] = seen.reasons[..] else {
        panic!("{seen:?}");
    };
    reason
}

/// The scenarios see to it that these are the packets that come out.
#[test]
fn wireshark_has_nothing_to_say_against_what_goes_into_tunnels() {
    let steps = scenario::mobile().into_iter().flat_map(|it| it.steps);
    let sent = steps.filter_map(|step| match step.then {
        Then::Sent(_, frame) => Some(frame),
        Then::Discarded
        | Then::Original
        | Then::Copied(..)
        | Then::Routed(_)
        | Then::Answered(_) => None,
    });
    let in_tunnel = |frame: &Vec<u8>| {
        let Ok(opened) = open(frame) else {
            return false;
        };
        let inner = opened.tunnel.content();
        // Other protocols and options are in scenarios with nothing sensible inside.
        let is_sensible = match inner[0] {
            0x45 => [1, 6, 17].contains(&inner[9]),
            0x60 => [6, 17, 58].contains(&inner[6]),
            _ => false,
        };
        matches!(opened.tunnel, Tunnel::Gtpu(_)) && is_sensible
    };
    let frames: Vec<Vec<u8>> = sent.filter(in_tunnel).collect();
    let fields = [
        "gtp.message",
        "gtp.ext_hdr.pdu_ses_con.pdu_type",
        "ip.version",
    ];
    let seen = tshark::dissect(&frames, &fields).unwrap();
    let kinds: HashSet<Vec<String>> = seen.into_iter().collect();
    // On S1-U there is no container; on N3 one of each direction, over both IP versions.
    for (container, versions) in [
        ("", "4,4"),
        ("", "4,6"),
        ("0", "4,4"),
        ("0", "4,6"),
        ("0", "6,4"),
        ("0", "6,6"),
        ("1", "4,4"),
        ("1", "4,6"),
        ("1", "6,4"),
        ("1", "6,6"),
    ] {
        let kind = ["0xff", container, versions];
        assert!(
            kinds.contains(&kind.map(str::to_owned)[..]),
            "no {kind:?} in {kinds:?}"
        );
    }
}
