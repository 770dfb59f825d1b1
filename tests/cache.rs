//! The flow cache: what it has not, and that nothing is counted otherwise for that.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use dataplane_core::Reason;
use dataplane_user::{Count, Dataplane, Flow, FlowCache, Limits, Timeouts, rule::RuleSet};
use tests::{
    executor::{Kernel, Rig, Shooter, pin},
    packet::Packet,
    scenario::Executor as _,
};

const RULE: &str = "a/1 prio 1 flow to 203.0.113.9 forward mac 02:00:00:00:0a:01 via app0";
/// Flows that packets belong to, and CPUs that they come to.
const FLOWS: u16 = 96;
const CPUS: usize = 2;
/// Packets that come to each CPU.
const PACKETS: usize = 60_000;
const LIMITS: Limits = Limits {
    flows: FLOWS as u32,
    filters: 64,
    rules: 64,
    fragments: 64,
    sessions: 64,
    vips: 1,
};

#[test]
fn a_packet_is_a_miss_until_its_cpu_knows_the_flow() {
    let mut kernel = Kernel::on(Rig::with_limits(LIMITS).unwrap()).unwrap();
    kernel.prepare(&rules(&[RULE])).unwrap();
    let (rig, shooter) = kernel.parts();
    let ended = rig.dataplane.ended(8);
    let before = rig.dataplane.status().flow_cache;
    let shoot = |rig: &Rig, cpu, port: &str, packet: &Packet| {
        rig.bench.host.enter(|| {
            pin(cpu).unwrap();
            for _ in 0..10 {
                shooter.shoot(port, &packet.bytes()).unwrap();
            }
        });
        let now = rig.dataplane.status().flow_cache;
        (now.lookups - before.lookups, now.misses - before.misses)
    };
    let up = datagram(1, 0);
    // The first makes the flow, the second finds it in the table, and the others need not look there.
    assert_eq!(shoot(rig, 0, "access0", &up), (10, 2));
    assert_eq!(shoot(rig, 1, "access0", &up), (20, 3));
    // The first answer is decided about, the second finds that.
    assert_eq!(shoot(rig, 1, "app0", &up.reversed()), (30, 5));
    // It is a packet of no flow that no rule wants.
    let other = Packet::udp("10.45.0.7:1", "203.0.113.10:443");
    assert_eq!(shoot(rig, 1, "access0", &other), (30, 5));
    thread::sleep(Duration::from_millis(60));
    rig.forget().unwrap();
    assert_eq!(ended.try_iter().count(), 1);
    assert_eq!(shoot(rig, 1, "access0", &other), (30, 5), "without flows");
    rig.restart().unwrap();
    assert_eq!(shoot(rig, 1, "access0", &other), (30, 5), "restarted");
}

#[test]
fn counters_are_exact_whatever_happens_at_once() {
    let timeouts = Timeouts::default();
    let mut kernel = Kernel::on(Rig::with(LIMITS, timeouts).unwrap()).unwrap();
    kernel.rig.change(&rules(&[RULE])).unwrap();
    for flow in 0..FLOWS {
        kernel
            .arrive("access0", &datagram(flow, 0).bytes())
            .unwrap();
    }
    let before = Counted::of(&kernel.rig.dataplane);
    let other = "b/1 prio 1 flow to 203.0.113.10 drop";
    let sets = [
        rules(&[RULE]),
        rules(&[other, RULE]),
        rules(&[&RULE.replace("prio 1", "prio 7"), other]),
        rules(&[&RULE.replace("0a:01 via app0", "0a:02 via app1")]),
    ];
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let done = AtomicUsize::new(0);
    let (sent, changes) = bench.host.enter(|| {
        thread::scope(|scope| {
            let sides = [0, 1].map(|cpu| {
                let done = &done;
                scope.spawn(move || {
                    let sent = storm(cpu, shooter);
                    done.fetch_add(1, Ordering::Relaxed);
                    sent
                })
            });
            let mut changes = 0;
            while done.load(Ordering::Relaxed) < CPUS {
                dataplane.apply(&sets[changes % sets.len()]).unwrap();
                assert_eq!(dataplane.flows().len(), usize::from(FLOWS));
                assert_eq!(dataplane.expire().flows, 0);
                let FlowCache { lookups, misses } = dataplane.status().flow_cache;
                assert!(misses <= lookups, "{misses} of {lookups}");
                changes += 1;
            }
            let sent = sides.map(|side| side.join().unwrap());
            (sent, changes)
        })
    });
    assert!(changes > 20, "only {changes} changes of rules");
    let [mut sent, other] = sent;
    for (sum, other) in sent.iter_mut().flatten().zip(other.iter().flatten()) {
        add(sum, other);
    }
    let after = Counted::of(&kernel.rig.dataplane);
    let counted = after.flows.iter().zip(&before.flows);
    for (flow, ((after, before), sent)) in counted.zip(&sent).enumerate() {
        let counted = [0, 1].map(|way| less(&after[way], &before[way]));
        assert_eq!(counted, *sent, "flow {flow}");
    }
    assert_eq!(
        (after.flows.len(), sent.len()),
        (FLOWS.into(), FLOWS.into())
    );
    let sum = |way: usize| {
        let mut sum = Count::default();
        sent.iter().for_each(|it| add(&mut sum, &it[way]));
        sum
    };
    let (up, down) = (sum(0), sum(1));
    assert_eq!(up.packets + down.packets, (CPUS * PACKETS) as u64);
    assert_eq!(less(&after.rule, &before.rule), {
        let (packets, bytes) = (up.packets + down.packets, up.bytes + down.bytes);
        Count {
            packets,
            bytes,
            wire_bytes: 0,
        }
    });
    for (counted, before, sent) in [
        (after.steered, before.steered, up),
        (after.replied, before.replied, down),
    ] {
        let counted = (counted.0 - before.0, counted.1 - before.1);
        assert_eq!(counted, (sent.packets, sent.wire_bytes));
    }
    let lookups = after.cache.lookups - before.cache.lookups;
    let misses = after.cache.misses - before.cache.misses;
    assert_eq!(lookups, (CPUS * PACKETS) as u64);
    assert!(misses > lookups / 50, "no storm: {misses} of {lookups}");
    assert!(misses < lookups, "{misses} of {lookups}");
}

/// Sends packets of all flows in no order, both ways, by this CPU. Answers what was sent.
fn storm(cpu: usize, shooter: Shooter<'_>) -> Vec<[Count; 2]> {
    pin(cpu).unwrap();
    let frames: Vec<_> = (0..FLOWS)
        .map(|flow| {
            let lengths = [0, 100].map(|length| length + usize::from(flow));
            let [up, down] = lengths.map(|length| datagram(flow, length));
            [("access0", up.bytes()), ("app0", down.reversed().bytes())]
        })
        .collect();
    let mut sent = vec![[Count::default(); 2]; usize::from(FLOWS)];
    let mut random = 0x9e37_79b9_7f4a_7c15 ^ cpu as u64;
    for _ in 0..PACKETS {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let flow = (random >> 32) as usize % sent.len();
        let way = (random >> 20) as usize % 2;
        let (port, frame) = &frames[flow][way];
        assert!(shooter.shoot(port, frame).unwrap(), "a packet is lost");
        let wire_bytes = frame.len() as u64;
        let one = Count {
            packets: 1,
            bytes: wire_bytes - 14,
            wire_bytes,
        };
        add(&mut sent[flow][way], &one);
    }
    sent
}

/// All that is counted.
struct Counted {
    flows: Vec<[Count; 2]>,
    rule: Count,
    steered: (u64, u64),
    replied: (u64, u64),
    cache: FlowCache,
}

impl Counted {
    fn of(dataplane: &Dataplane) -> Self {
        let mut flows = dataplane.flows();
        flows.sort_by_key(|flow| flow.source_port);
        let both = |flow: &Flow| [flow.upstream, flow.downstream];
        let of_rule = dataplane.rule_counters().into_iter();
        let of_rule = of_rule.filter(|it| it.id.to_string() == "a/1");
        let rule = of_rule.fold(Count::default(), |sum, it| Count {
            packets: sum.packets + it.packets,
            bytes: sum.bytes + it.bytes,
            wire_bytes: 0,
        });
        let of_port = |port: &str, reason| {
            let counters = dataplane.port_counters().into_iter();
            let mut here = counters.filter(|it| it.port == port && it.reason == reason);
            here.next().map(|it| (it.packets, it.bytes)).unwrap()
        };
        Self {
            flows: flows.iter().map(both).collect(),
            rule,
            steered: of_port("access0", Reason::Steered),
            replied: of_port("app0", Reason::Replied),
            cache: dataplane.status().flow_cache,
        }
    }
}

/// However alike flows are, few of them take each other's place: with four sets for each, some 3% would by chance.
#[test]
fn flows_find_room() {
    const FLOWS: u16 = 1 << 10;
    let v4 = |ue: u16, port| {
        Packet::udp(
            &format!("10.45.{}.{}:{port}", ue >> 8, ue & 255),
            "203.0.113.9:443",
        )
    };
    let v6 = |ue: u16, port| {
        Packet::udp(
            &format!("[2001:db8:45:{ue:x}::1]:{port}"),
            "[2001:db8:203::9]:443",
        )
    };
    let shapes: [(&str, &dyn Fn(u16) -> Packet); 5] = [
        ("one UE", &|flow| v4(1, 1024 + flow)),
        ("a port of many UEs", &|flow| v4(flow, 5000)),
        ("some ports of some UEs", &|flow| {
            v4(flow % 64, 1024 + flow / 64)
        }),
        ("one UE, over IPv6", &|flow| v6(1, 1024 + flow)),
        ("some ports of some UEs, over IPv6", &|flow| {
            v6(flow % 64, 1024 + flow / 64)
        }),
    ];
    let limits = Limits {
        flows: 4 * u32::from(FLOWS),
        ..LIMITS
    };
    let mut kernel = Kernel::on(Rig::with_limits(limits).unwrap()).unwrap();
    let over_ipv6 = "a/2 prio 2 flow to 2001:db8:203::9 forward mac 02:00:00:00:0a:01 via app0";
    kernel.prepare(&rules(&[RULE, over_ipv6])).unwrap();
    let (rig, shooter) = kernel.parts();
    let _ended = rig.dataplane.ended(1);
    for (shape, packet) in shapes {
        let frames: Vec<_> = (0..FLOWS)
            .map(|flow| {
                let up = packet(flow);
                [("access0", up.bytes()), ("app0", up.reversed().bytes())]
            })
            .collect();
        let shoot = |way: usize, rounds| {
            let before = rig.dataplane.status().flow_cache.misses;
            rig.bench.host.enter(|| {
                pin(0).unwrap();
                for _ in 0..rounds {
                    for (port, frame) in frames.iter().map(|ways| &ways[way]) {
                        assert!(
                            shooter.shoot(port, frame).unwrap(),
                            "{shape}: a packet is lost"
                        );
                    }
                }
            });
            rig.dataplane.status().flow_cache.misses - before
        };
        for way in [0, 1] {
            shoot(way, 2);
            let misses = shoot(way, 1);
            assert!(
                misses < u64::from(FLOWS) / 16,
                "{shape}, way {way}: {misses} of {FLOWS}"
            );
        }
        thread::sleep(Duration::from_millis(60));
        rig.forget().unwrap();
    }
}

fn add(sum: &mut Count, other: &Count) {
    sum.packets += other.packets;
    sum.bytes += other.bytes;
    sum.wire_bytes += other.wire_bytes;
}

fn less(count: &Count, before: &Count) -> Count {
    Count {
        packets: count.packets - before.packets,
        bytes: count.bytes - before.bytes,
        wire_bytes: count.wire_bytes - before.wire_bytes,
    }
}

fn datagram(flow: u16, length: usize) -> Packet {
    let port = 1000 + flow;
    Packet {
        payload: vec![7; length],
        ..Packet::udp(&format!("10.45.0.7:{port}"), "203.0.113.9:443")
    }
}

fn rules(lines: &[&str]) -> RuleSet {
    lines.iter().map(|line| line.parse().unwrap()).collect()
}
