//! Ports that take no packets, because their interface is gone or switched off: what becomes of packets that
//! would leave there.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_core::Reason;
use tests::{
    executor::{Interfaces, Rig},
    packet::Packet,
};

const RULE: &str = "a/1 prio 1 flow to 203.0.113.9 forward mac 02:00:00:00:0a:01 via app0";
const PATIENCE: Duration = Duration::from_secs(2);

#[test]
fn what_would_leave_by_a_wire_without_an_end_is_counted_as_that() {
    let mut rig = Rig::new().unwrap();
    arrives(&rig, "access0", "core0");
    change(&mut rig, "link set core0 down");
    assert_eq!(ends(&rig, "access0", &packet()), [Reason::PortDown]);
    change(&mut rig, "link set core0 up");
    arrives(&rig, "access0", "core0");
    change(&mut rig, "link del core0");
    assert_eq!(ends(&rig, "access0", &packet()), [Reason::PortDown]);
    let Rig { bench, .. } = &rig;
    bench.host.link("core0", (&bench.far, "far-core0")).unwrap();
    bench.far.prepare_far_end("far-core0").unwrap();
    change(&mut rig, "link set core0 up");
    arrives(&rig, "access0", "core0");
    arrives(&rig, "core0", "access0");
}

#[test]
fn what_would_go_to_an_application_behind_a_port_that_is_off_goes_its_original_path() {
    let mut rig = Rig::new().unwrap();
    rig.change(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    assert_eq!(ends(&rig, "access0", &packet()), [Reason::Steered]);
    change(&mut rig, "link set app0 down");
    let out = rig.bench.socket("core0").unwrap();
    let ended = ends(&rig, "access0", &packet());
    assert_eq!(ended, [Reason::NextHopUnresolved]);
    assert_eq!(out.receive(PATIENCE).unwrap(), Some(packet().bytes()));
    change(&mut rig, "link set app0 up");
    assert_eq!(ends(&rig, "access0", &packet()), [Reason::Steered]);
}

#[test]
fn answers_to_a_port_that_is_off_are_not_counted_as_sent() {
    let mut rig = Rig::new().unwrap();
    rig.change(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let answer = packet().reversed();
    assert_eq!(ends(&rig, "access0", &packet()), [Reason::Steered]);
    assert_eq!(ends(&rig, "app0", &answer), [Reason::Replied]);
    change(&mut rig, "link set access0 down");
    assert_eq!(ends(&rig, "app0", &answer), [Reason::PortDown]);
    change(&mut rig, "link set access0 up");
    assert_eq!(ends(&rig, "app0", &answer), [Reason::Replied]);
}

#[test]
fn a_wire_that_is_taken_over_is_never_parted() {
    let mut rig = Rig::new().unwrap();
    let interfaces = Interfaces::pinned(rig.pins()).unwrap();
    let ends = ["access0", "core0"].map(|port| rig.link(port).unwrap().index);
    let pairs = || ends.map(|ifindex| interfaces.port(ifindex).pair);
    let before = pairs();
    let done = AtomicBool::new(false);
    let looks = thread::scope(|scope| {
        let looker = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(pairs(), before);
                looks += 1;
            }
            looks
        });
        rig.restart().unwrap();
        done.store(true, Ordering::Relaxed);
        looker.join().unwrap()
    });
    assert!(looks > 100, "looked {looks} times only");
    change(&mut rig, "link set core0 down");
    rig.restart().unwrap();
    assert_eq!(pairs()[1], before[1]);
    assert_ne!(pairs()[0], before[0]);
}

fn packet() -> Packet {
    Packet::udp("10.45.0.7:5000", "203.0.113.9:443")
}

/// Does something to interfaces of the host, which it then follows.
fn change(rig: &mut Rig, what: &str) {
    let Rig {
        bench, dataplane, ..
    } = rig;
    bench.host.ip(what).unwrap();
    bench.host.enter(|| dataplane.refresh()).unwrap();
}

/// Why a packet that comes by `port` ends.
fn ends(rig: &Rig, port: &str, packet: &Packet) -> Vec<Reason> {
    let before = rig.counters(port);
    rig.bench
        .socket(port)
        .unwrap()
        .send(&packet.bytes())
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = rig.counters(port).since(&before).reasons;
        if !seen.is_empty() || Instant::now() > deadline {
            return seen;
        }
    }
}

/// A packet of no rule that comes by one port leaves by another.
fn arrives(rig: &Rig, from: &str, to: &str) {
    let out = rig.bench.socket(to).unwrap();
    assert_eq!(ends(rig, from, &packet()), [Reason::NoRule]);
    assert_eq!(out.receive(PATIENCE).unwrap(), Some(packet().bytes()));
}
