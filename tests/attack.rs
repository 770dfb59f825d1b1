//! Floods of packets that each would be a flow, until there is no room for more.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    collections::HashSet,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use dataplane_core::Reason;
use dataplane_user::{Dataplane, FlowFilter, Limits, Timeouts, rule::RuleSet};
use tests::{
    executor::{Kernel, Rig, Shooter, pin},
    packet::{ACK, Packet, SYN},
};

const RULE: &str = "a/1 prio 1 flow to 203.0.113.9 forward mac 02:00:00:00:0a:01 via app0";
const SERVICE: &str = "203.0.113.9:80";
const LIMITS: Limits = Limits {
    flows: 1024,
    filters: 64,
    rules: 64,
    fragments: 64,
    sessions: 64,
    vips: 1,
};
/// Connections that were there before the flood, and as many exchanges over UDP.
const ESTABLISHED: u16 = 32;
/// Longer than what a flood leaves is remembered in a full table.
const A_WHILE: Duration = Duration::from_millis(1100);

#[test]
fn established_flows_do_not_notice_a_flood() {
    const ROUNDS: u64 = 200;
    let mut kernel = kernel(&[RULE], LIMITS, Timeouts::default());
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let flows = established();
    let over = AtomicBool::new(false);
    let (flooded, evicted) = bench.host.enter(|| {
        for exchange in &flows {
            exchange.begin(shooter);
        }
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                pin(1).unwrap();
                let mut flood = Flood::default();
                while !over.load(Ordering::Relaxed) {
                    flood.send(shooter, "access0");
                }
                flood.sent
            });
            let traffic = scope.spawn(|| {
                pin(0).unwrap();
                for _ in 0..ROUNDS {
                    for exchange in &flows {
                        exchange.go_on(shooter);
                    }
                    thread::sleep(Duration::from_millis(20));
                }
                over.store(true, Ordering::Relaxed);
            });
            let mut evicted = 0;
            while !traffic.is_finished() {
                evicted += dataplane.expire().evicted as u64;
                thread::sleep(Duration::from_millis(50));
            }
            (flood.join().unwrap(), evicted)
        })
    });
    let known = dataplane.flows();
    for exchange in &flows {
        let flow = known.iter().find(|it| it.source_port == exchange.port);
        let flow = flow.unwrap_or_else(|| panic!("{exchange:?} is forgotten"));
        let counted = [flow.upstream, flow.downstream].map(|it| (it.packets, it.wire_bytes));
        let [up, down] = [&exchange.up, &exchange.down].map(|it| it.len() as u64);
        let [first, last] = [ROUNDS + 2, ROUNDS + 1];
        assert_eq!(counted, [(first, first * up), (last, last * down)]);
    }
    let of_flows = u64::from(2 * ESTABLISHED);
    let replied = of(dataplane, "app0", Reason::Replied);
    assert_eq!(replied, of_flows * (ROUNDS + 1));
    let steered = of(dataplane, "access0", Reason::Steered);
    let refused = of(dataplane, "access0", Reason::FlowTableFull);
    assert_eq!(steered + refused, flooded + of_flows * (ROUNDS + 2));
    assert!(refused > 1000, "{refused} of {flooded}: this is no flood");
    assert!(
        evicted > u64::from(LIMITS.flows),
        "{evicted} made room for others"
    );
    assert_eq!(dataplane.status().evicted, evicted);
}

#[test]
fn without_room_packets_are_steered_where_answers_find_their_way() {
    const PACKETS: u64 = 3000;
    let nat = "b/1 prio 1 flow to 203.0.113.10 forward ip 198.18.1.2 nat via app0";
    let mut kernel = kernel(&[RULE, nat], LIMITS, Timeouts::default());
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    bench.host.enter(|| {
        let mut flood = Flood::default();
        for _ in 0..PACKETS {
            assert!(flood.send(shooter, "access2"), "the kernel got a packet");
        }
        // To translate answers takes a flow; so does leaving the wire.
        let other = Packet::udp("10.45.0.7:5000", "203.0.113.10:80").bytes();
        assert!(!shooter.shoot("access2", &other).unwrap());
        let other = Packet::udp("10.45.0.7:5000", SERVICE).bytes();
        shooter.shoot("access0", &other).unwrap();
    });
    let steered = of(dataplane, "access2", Reason::Steered);
    let stateless = of(dataplane, "access2", Reason::SteeredStateless);
    assert_eq!((steered, stateless), (1024, PACKETS - 1024));
    for port in ["access0", "access2"] {
        assert_eq!(of(dataplane, port, Reason::FlowTableFull), 1, "{port}");
    }
    let status = dataplane.status();
    let flows = status.pressure.iter().find(|it| it.name == "flows");
    assert_eq!(flows.map(|it| (it.used, it.max)), Some((1024, 1024)));
}

#[test]
fn a_full_table_forgets_what_has_only_begun() {
    let mut kernel = kernel(&[RULE], LIMITS, Timeouts::default());
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let flows = established();
    let open = usize::from(2 * ESTABLISHED);
    bench.host.enter(|| {
        for exchange in &flows {
            exchange.begin(shooter);
        }
        // With some room, everything is remembered for as long as it should be.
        let mut flood = Flood::default();
        for _ in 0..700 - open {
            flood.send(shooter, "access0");
        }
        thread::sleep(A_WHILE);
        let expired = dataplane.expire();
        assert_eq!((expired.flows, expired.nearly_full), (0, false));
        // Nor does it help to have what was sent answered.
        for port in 1..=400 {
            let begun = Packet::tcp(&format!("10.46.0.1:{port}"), SERVICE).flags(SYN);
            shooter.shoot("access0", &begun.bytes()).unwrap();
            let answer = begun.reversed().flags(SYN | ACK);
            shooter.shoot("app0", &answer.bytes()).unwrap();
        }
        assert!(of(dataplane, "access0", Reason::FlowTableFull) > 0);
        thread::sleep(A_WHILE);
        let expired = dataplane.expire();
        let evicted = LIMITS.flows as usize - open;
        assert_eq!((expired.evicted, expired.nearly_full), (evicted, true));
        assert_eq!(dataplane.status().evicted, evicted as u64);
        let known: HashSet<u16> = dataplane.flows().iter().map(|it| it.source_port).collect();
        assert!(flows.iter().all(|exchange| known.contains(&exchange.port)));
        let packet = Packet::tcp("10.47.0.1:1", SERVICE).bytes();
        let before = of(dataplane, "access0", Reason::Steered);
        shooter.shoot("access0", &packet).unwrap();
        assert_eq!(of(dataplane, "access0", Reason::Steered), before + 1);
        assert!(!dataplane.expire().nearly_full);
    });
}

#[test]
fn forgetting_and_reading_keep_up() {
    // A million where the compiler optimizes.
    const FLOWS: u32 = if cfg!(debug_assertions) {
        1 << 16
    } else {
        1 << 20
    };
    let limits = Limits {
        flows: FLOWS,
        ..LIMITS
    };
    let timeouts = Timeouts {
        tcp_transitory: Duration::from_millis(1),
        udp: Duration::from_millis(1),
        ..Timeouts::default()
    };
    let mut kernel = kernel(&[RULE], limits, timeouts);
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let all = FlowFilter::default();
    bench.host.enter(|| {
        let mut flood = Flood::default();
        for _ in 0..FLOWS {
            flood.send(shooter, "access0");
        }
        let begun = Instant::now();
        assert_eq!(dataplane.flows().len(), FLOWS as usize);
        let took = begun.elapsed();
        println!("{FLOWS} flows read in {took:?}");
        assert!(took < Duration::from_secs(4), "{took:?}");
        let (mut from, mut read, mut longest) = (Some(0), HashSet::new(), Duration::ZERO);
        while let Some(place) = from {
            let begun = Instant::now();
            let (flows, next) = dataplane.find_flows(&all, place, 1000);
            longest = longest.max(begun.elapsed());
            assert!(flows.len() <= 1000);
            read.extend(flows.iter().map(|it| (it.source, it.source_port)));
            from = next;
        }
        assert_eq!(read.len(), FLOWS as usize);
        println!("1000 of them in {longest:?} at most");
        assert!(longest < Duration::from_millis(500), "{longest:?}");

        thread::sleep(Duration::from_millis(20));
        let (mut gone, mut calls, mut longest) = (0, 0, Duration::ZERO);
        let whole = Instant::now();
        loop {
            let begun = Instant::now();
            let expired = dataplane.expire();
            longest = longest.max(begun.elapsed());
            gone += expired.flows;
            calls += 1;
            if !expired.more {
                break;
            }
        }
        let whole = whole.elapsed();
        println!("forgotten in {whole:?}, {calls} calls of {longest:?} at most");
        assert_eq!((gone, dataplane.flows().len()), (FLOWS as usize, 0));
        assert!(whole < FLOWS * Duration::from_micros(150), "{whole:?}");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
    });
}

#[test]
fn a_flow_is_on_one_page_while_others_come_and_go() {
    let timeouts = Timeouts {
        tcp_transitory: Duration::from_millis(1),
        udp: Duration::from_millis(1),
        ..Timeouts::default()
    };
    let mut kernel = kernel(&[RULE], LIMITS, timeouts);
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let flow = |port: u16| {
        let packet = Packet::tcp(&format!("10.45.0.7:{port}"), SERVICE);
        [packet.bytes(), packet.reversed().bytes()]
    };
    bench.host.enter(|| {
        let mut flood = Flood::default();
        for port in 1..=100 {
            let [up, down] = flow(port);
            shooter.shoot("access0", &up).unwrap();
            shooter.shoot("app0", &down).unwrap();
            flood.send(shooter, "access0");
        }
        let ue = FlowFilter {
            ue: Some("10.45.0.7".parse().unwrap()),
            ..FlowFilter::default()
        };
        let app = FlowFilter {
            app: Some("a".to_owned()),
            rule: Some("a/1".to_owned()),
            ..ue
        };
        for filter in [ue, app] {
            let (mut from, mut ports) = (Some(0), Vec::new());
            while let Some(place) = from {
                let (flows, next) = dataplane.find_flows(&filter, place, 7);
                assert!(flows.len() <= 7);
                ports.extend(flows.iter().map(|flow| flow.source_port));
                from = next;
                thread::sleep(Duration::from_millis(10));
                dataplane.expire();
                (0..20).for_each(|_| _ = flood.send(shooter, "access0"));
            }
            ports.sort_unstable();
            assert!(ports.into_iter().eq(1..=100));
        }
        let none = FlowFilter {
            app: Some("b".to_owned()),
            ..FlowFilter::default()
        };
        assert_eq!(dataplane.find_flows(&none, 0, 7), (vec![], None));
    });
}

fn kernel(rules: &[&str], limits: Limits, timeouts: Timeouts) -> Kernel {
    let mut kernel = Kernel::on(Rig::with(limits, timeouts).unwrap()).unwrap();
    let rules: RuleSet = rules.iter().map(|rule| rule.parse().unwrap()).collect();
    kernel.rig.change(&rules).unwrap();
    kernel
}

/// Packets from a port that ended for this reason.
fn of(dataplane: &Dataplane, port: &str, reason: Reason) -> u64 {
    let counters = dataplane.port_counters().into_iter();
    let mut here = counters.filter(|it| it.port == port && it.reason == reason);
    here.next().map(|it| it.packets).unwrap()
}

/// A connection, or datagrams both ways.
#[derive(Debug)]
struct Exchange {
    port: u16,
    begin: [Vec<u8>; 2],
    up: Vec<u8>,
    down: Vec<u8>,
}

fn established() -> Vec<Exchange> {
    let tcp = (1..=ESTABLISHED).map(|port| {
        let packet = Packet::tcp(&format!("10.45.0.7:{port}"), SERVICE);
        let begin = [
            packet.clone().flags(SYN),
            packet.reversed().flags(SYN | ACK),
        ];
        (port, packet, begin)
    });
    let udp = (ESTABLISHED + 1..=2 * ESTABLISHED).map(|port| {
        let packet = Packet::udp(&format!("10.45.0.7:{port}"), SERVICE);
        let begin = [packet.clone(), packet.reversed()];
        (port, packet, begin)
    });
    tcp.chain(udp)
        .map(|(port, packet, begin)| Exchange {
            port,
            begin: begin.map(|it| it.bytes()),
            up: packet.bytes(),
            down: packet.reversed().bytes(),
        })
        .collect()
}

impl Exchange {
    fn begin(&self, shooter: Shooter<'_>) {
        let [up, down] = &self.begin;
        for (port, frame) in [("access0", up), ("app0", down), ("access0", &self.up)] {
            assert!(shooter.shoot(port, frame).unwrap());
        }
    }

    fn go_on(&self, shooter: Shooter<'_>) {
        assert!(shooter.shoot("access0", &self.up).unwrap());
        assert!(shooter.shoot("app0", &self.down).unwrap());
    }
}

/// First segments and datagrams by turns, each from another source.
#[derive(Default)]
struct Flood {
    sent: u64,
}

impl Flood {
    fn send(&mut self, shooter: Shooter<'_>, port: &str) -> bool {
        let [a, b, c] = [self.sent >> 16, self.sent >> 8, self.sent].map(|it| it as u8);
        let source = format!("10.{}.{b}.{c}:1000", 48 + a);
        self.sent += 1;
        let packet = if self.sent.is_multiple_of(2) {
            Packet::udp(&source, SERVICE)
        } else {
            Packet::tcp(&source, SERVICE).flags(SYN)
        };
        shooter.shoot(port, &packet.bytes()).unwrap()
    }
}
