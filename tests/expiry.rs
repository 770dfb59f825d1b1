//! When flows end, and what is told of them then.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_core::Reason;
use dataplane_user::{Dataplane, Flow, Limits, Timeouts};
use tests::{
    executor::{Kernel, Rig, Veth},
    packet::{ACK, FIN, Packet, RST, SYN},
    scenario::Executor as _,
};

const RULE: &str = "a/1 prio 1 flow to 203.0.113.9 forward mac 02:00:00:00:0a:01 via app0";
const SERVICE: &str = "203.0.113.9:80";
/// How exactly the kernel and this process agree on time.
const TICK: Duration = Duration::from_millis(60);

const TIMEOUTS: Timeouts = Timeouts {
    tcp_established: Duration::from_millis(2500),
    tcp_transitory: Duration::from_millis(1500),
    tcp_closing: Duration::from_millis(500),
    udp: Duration::from_millis(1000),
    icmp: Duration::from_millis(700),
    other: Duration::from_millis(1200),
    session: Duration::from_millis(1000),
};

#[test]
fn flows_end_when_they_were_idle_for_long_enough() {
    let mut kernel = Kernel::on(Rig::with(LIMITS, TIMEOUTS).unwrap()).unwrap();
    kernel
        .rig
        .change(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let Timeouts {
        tcp_established: established,
        tcp_transitory: transitory,
        tcp_closing: closing,
        ..
    } = TIMEOUTS;
    let mut watched = [
        Watched::tcp("opening", 1, &[SYN], &[], transitory),
        Watched::tcp("answered", 16, &[SYN], &[SYN | ACK], transitory),
        Watched::tcp("open", 2, &[SYN, ACK], &[SYN | ACK], established),
        Watched::tcp(
            "closed by the UE",
            3,
            &[ACK, FIN | ACK],
            &[ACK],
            established,
        ),
        Watched::tcp(
            "closed by the application",
            4,
            &[ACK],
            &[FIN | ACK],
            established,
        ),
        Watched::tcp(
            "closed by both",
            5,
            &[ACK, FIN | ACK],
            &[FIN | ACK],
            closing,
        ),
        Watched::tcp("reset by the UE", 6, &[ACK, RST], &[ACK], closing),
        Watched::tcp("reset by the application", 7, &[ACK], &[RST | ACK], closing),
        Watched::tcp(
            "used again",
            12,
            &[SYN, ACK, FIN | ACK],
            &[SYN | ACK, FIN | ACK],
            established,
        )
        .then(&[SYN, ACK], &[SYN | ACK]),
        Watched::tcp(
            "used again, and not answered",
            13,
            &[SYN, RST],
            &[SYN | ACK],
            transitory,
        )
        .then(&[SYN, SYN], &[]),
        Watched::tcp(
            "used again after a refusal",
            14,
            &[SYN],
            &[RST | ACK],
            established,
        )
        .then(&[SYN], &[SYN | ACK])
        .then(&[ACK], &[]),
        Watched::tcp(
            "used again, and closed again",
            15,
            &[SYN, ACK],
            &[SYN | ACK, FIN],
            closing,
        )
        .then(&[SYN], &[SYN | ACK, FIN])
        .then(&[FIN | ACK], &[]),
        Watched::new("UDP", 8, udp(8), TIMEOUTS.udp),
        Watched::new("UDP that goes on", 9, udp(9), TIMEOUTS.udp),
        Watched::new(
            "echo",
            10,
            Packet::echo("10.45.0.7", "203.0.113.9", 10),
            TIMEOUTS.icmp,
        ),
        Watched::new(
            "SCTP",
            11,
            Packet::sctp("10.45.0.7:11", SERVICE),
            TIMEOUTS.other,
        ),
    ];
    for flow in &mut watched {
        flow.send(&mut kernel);
    }
    let begun = Instant::now();
    let mut ended = HashSet::new();
    while ended.len() < watched.len() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "only {ended:?} ended"
        );
        let [.., goes_on, _, _] = &mut watched;
        if begun.elapsed() < 2 * TIMEOUTS.udp && !ended.contains(goes_on.name) {
            goes_on.send(&mut kernel);
        }
        let before = Instant::now();
        expire(&mut kernel.rig);
        let after = Instant::now();
        let there: HashSet<u16> = kernel.flows().iter().map(|flow| flow.source_port).collect();
        for Watched {
            name,
            port,
            timeout,
            sent,
            ..
        } in &watched
        {
            let (first, last) = sent.unwrap();
            if there.contains(port) {
                let idle = before - last;
                assert!(idle < *timeout + TICK, "{name} is there after {idle:?}");
            } else if ended.insert(*name) {
                let idle = after - first;
                assert!(idle + TICK > *timeout, "{name} is gone after {idle:?}");
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_connection_with_the_ports_of_one_before_begins_anew() {
    let mut kernel = Kernel::on(Rig::with(LIMITS, TIMEOUTS).unwrap()).unwrap();
    kernel
        .rig
        .change(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let mut seen = |up: &[u8], down: &[u8]| {
        Watched::tcp("connection", 1, up, down, TIMEOUTS.tcp_closing).send(&mut kernel);
        let [flow] = &kernel.flows()[..] else {
            panic!("one flow");
        };
        (
            flow.tcp_flags,
            flow.upstream.packets,
            flow.downstream.packets,
        )
    };
    let closed = [SYN | ACK | FIN, SYN | ACK | FIN];
    assert_eq!(seen(&[SYN, ACK, FIN], &[SYN | ACK, FIN]), (closed, 3, 2));
    assert_eq!(seen(&[ACK], &[ACK]), (closed, 4, 3));
    assert_eq!(seen(&[SYN], &[]), ([SYN, 0], 5, 3));
    assert_eq!(seen(&[SYN, ACK], &[SYN | ACK]), ([SYN | ACK; 2], 7, 4));
    // Nothing has ended it.
    assert_eq!(seen(&[SYN], &[SYN | ACK]), ([SYN | ACK; 2], 8, 5));
    assert_eq!(seen(&[], &[RST]), ([SYN | ACK, SYN | ACK | RST], 8, 6));
}

#[test]
fn what_was_counted_of_a_flow_is_told_once() {
    let mut kernel = Kernel::new().unwrap();
    kernel
        .prepare(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let ended = kernel.rig.dataplane.ended(8);
    let (up, down) = (udp(5000), udp(5000).reversed());
    for _ in 0..3 {
        kernel.arrive("access0", &up.bytes()).unwrap();
    }
    for _ in 0..2 {
        kernel.arrive("app0", &down.bytes()).unwrap();
    }
    let [known] = &kernel.flows()[..] else {
        panic!("one flow");
    };
    assert_eq!(ended.try_iter().count(), 0, "it has not ended");
    thread::sleep(TICK);
    assert_eq!(expire(&mut kernel.rig), 1);
    let told: Vec<Flow> = ended.try_iter().collect();
    let [flow] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (flow.upstream, flow.downstream),
        (known.upstream, known.downstream)
    );
    assert_eq!((flow.upstream.packets, flow.downstream.packets), (3, 2));
    assert_eq!(flow.upstream.wire_bytes, 3 * up.bytes().len() as u64);
    assert_eq!((flow.source_port, &flow.rule), (5000, &known.rule));

    // The record is used again, and tells only of its new flow.
    kernel.arrive("access0", &udp(6000).bytes()).unwrap();
    thread::sleep(TICK);
    assert_eq!(expire(&mut kernel.rig), 1);
    assert_eq!(expire(&mut kernel.rig), 0);
    let told: Vec<Flow> = ended.try_iter().collect();
    let [flow] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        (
            flow.source_port,
            flow.upstream.packets,
            flow.downstream.packets
        ),
        (6000, 1, 0)
    );
    assert_eq!(kernel.rig.dataplane.status().ended_lost, 0);
}

#[test]
fn a_flow_tells_the_rule_it_was_counted_for_when_that_is_gone() {
    let rig = Rig::with_limits(LIMITS).unwrap();
    let mut kernel = Kernel::on(rig).unwrap();
    let rules = |lines: &[&str]| lines.iter().map(|line| line.parse().unwrap()).collect();
    kernel.prepare(&rules(&[RULE])).unwrap();
    let ended = kernel.rig.dataplane.ended(8);
    kernel.arrive("access0", &udp(1).bytes()).unwrap();
    kernel.arrive("access0", &udp(2).bytes()).unwrap();
    let of_rules = |flows: Vec<Flow>| -> Vec<_> {
        let named = |flow: Flow| (flow.source_port, flow.rule.map(|rule| rule.to_string()));
        let mut named: Vec<_> = flows.into_iter().map(named).collect();
        named.sort();
        named
    };
    let rule = || Some("a/1".to_owned());
    kernel.change(&rules(&[])).unwrap();
    let seen = kernel.arrive("access0", &udp(1).bytes()).unwrap();
    assert_eq!(seen.reasons, [Reason::NoRule]);
    assert_eq!(of_rules(kernel.flows()), [(1, rule()), (2, rule())]);
    // Its counter becomes that of another rule.
    for number in 0..2 * LIMITS.rules {
        let other = format!("b/{number} prio 1 flow to 192.0.2.1 drop");
        kernel.change(&rules(&[&other])).unwrap();
    }
    assert_eq!(of_rules(kernel.flows()), [(1, rule()), (2, rule())]);
    // One comes under another rule again.
    let other = RULE.replace("a/1", "c/1");
    kernel.change(&rules(&[&other])).unwrap();
    kernel.arrive("access0", &udp(2).bytes()).unwrap();
    let expected = [(1, rule()), (2, Some("c/1".to_owned()))];
    assert_eq!(of_rules(kernel.flows()), expected);
    thread::sleep(TICK);
    assert_eq!(expire(&mut kernel.rig), 2);
    assert_eq!(of_rules(ended.try_iter().collect()), expected);
}

#[test]
fn flows_that_nobody_hears_of_are_counted() {
    let mut kernel = Kernel::new().unwrap();
    kernel
        .prepare(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let ended = kernel.rig.dataplane.ended(2);
    for port in 1..=5 {
        kernel.arrive("access0", &udp(port).bytes()).unwrap();
    }
    thread::sleep(TICK);
    assert_eq!(expire(&mut kernel.rig), 5);
    assert_eq!(ended.try_iter().count(), 2);
    assert_eq!(kernel.rig.dataplane.status().ended_lost, 3);
    // Who does not listen any more misses nothing.
    drop(ended);
    kernel.arrive("access0", &udp(6).bytes()).unwrap();
    thread::sleep(TICK);
    assert_eq!(expire(&mut kernel.rig), 1);
    assert_eq!(kernel.rig.dataplane.status().ended_lost, 3);
}

#[test]
fn no_packet_is_missed_by_flows_that_end_under_traffic() {
    const TIMES: usize = 20;
    let mut veth = Veth::new().unwrap();
    veth.prepare(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let ended = veth.rig.dataplane.ended(1 << 16);
    let steered = |dataplane: &Dataplane| {
        let counters = dataplane.port_counters().into_iter();
        let steered = counters.filter(|it| it.port == "access0" && it.reason == Reason::Steered);
        steered
            .map(|it| (it.packets, it.bytes))
            .fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    };
    let before = steered(&veth.rig.dataplane);
    let far = veth.rig.bench.socket("access0").unwrap();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Some flows, that come again and again.
            for port in (1..=7)
                .cycle()
                .take_while(|_| !done.load(Ordering::Relaxed))
            {
                far.send(&udp(port).bytes()).unwrap();
            }
        });
        let mut times = 0;
        while times < TIMES {
            times += usize::from(expire(&mut veth.rig) > 0);
        }
        done.store(true, Ordering::Relaxed);
    });
    let deadline = Instant::now() + Duration::from_secs(5);
    while !veth.flows().is_empty() {
        assert!(Instant::now() < deadline, "flows do not end");
        thread::sleep(TICK);
        expire(&mut veth.rig);
    }
    assert_eq!(veth.rig.dataplane.status().ended_lost, 0);
    let counted = steered(&veth.rig.dataplane);
    let told = ended.try_iter().fold((0, 0), |sum, flow| {
        (
            sum.0 + flow.upstream.packets,
            sum.1 + flow.upstream.wire_bytes,
        )
    });
    assert_eq!(told, (counted.0 - before.0, counted.1 - before.1));
    assert!(told.0 > 100, "only {told:?} came through");
}

const LIMITS: Limits = Limits {
    flows: 1024,
    filters: 64,
    rules: 64,
    fragments: 64,
    sessions: 64,
    vips: 1,
};

fn udp(port: u16) -> Packet {
    Packet::udp(&format!("10.45.0.7:{port}"), SERVICE)
}

fn expire(rig: &mut Rig) -> usize {
    let Rig {
        bench, dataplane, ..
    } = rig;
    bench.host.enter(|| dataplane.expire().flows)
}

/// A flow, and when its last packet came.
struct Watched {
    name: &'static str,
    port: u16,
    frames: Vec<(&'static str, Vec<u8>)>,
    timeout: Duration,
    /// Between these.
    sent: Option<(Instant, Instant)>,
}

impl Watched {
    fn new(name: &'static str, port: u16, packet: Packet, timeout: Duration) -> Self {
        Self {
            name,
            port,
            frames: vec![("access0", packet.bytes())],
            timeout,
            sent: None,
        }
    }

    /// A connection in which segments with these flags go each way.
    fn tcp(name: &'static str, port: u16, up: &[u8], down: &[u8], timeout: Duration) -> Self {
        let segment = |flags: &u8| Packet::tcp(&format!("10.45.0.7:{port}"), SERVICE).flags(*flags);
        let up = up.iter().map(|flags| ("access0", segment(flags).bytes()));
        let down = down
            .iter()
            .map(|flags| ("app0", segment(flags).reversed().bytes()));
        Self {
            frames: up.chain(down).collect(),
            ..Self::new(name, port, segment(&0), timeout)
        }
    }

    /// Segments of a connection that come later.
    fn then(mut self, up: &[u8], down: &[u8]) -> Self {
        let later = Self::tcp(self.name, self.port, up, down, self.timeout);
        self.frames.extend(later.frames);
        self
    }

    fn send(&mut self, kernel: &mut Kernel) {
        let before = Instant::now();
        for (port, frame) in &self.frames {
            kernel.arrive(port, frame).unwrap();
        }
        self.sent = Some((before, Instant::now()));
    }
}
