//! VIPs under many flows: who is chosen, who stays, and what is rewritten.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use dataplane_core::{Reason, table::TARGETS};
use dataplane_user::{Limits, Timeouts, rule::RuleSet};
use proptest::{
    prelude::{Strategy as _, any},
    sample::select,
    test_runner::{Config, TestRunner},
};
use tests::{
    executor::{Host, Kernel, Rig, Shooter},
    packet::{Gre, Packet, Transport, Tunnel, open, verify},
    scenario::{Executor, Exit, Family, V4, V6},
    world::{self, OWN, PEER, PEER_KEY},
};

const FLOWS: u32 = 100_000;
const LIMITS: Limits = Limits {
    flows: 1 << 17,
    filters: 64,
    rules: 64,
    fragments: 64,
    sessions: 64,
    vips: 1,
};

/// Which backend each flow has, by its source.
type Choices = BTreeMap<(IpAddr, u16), String>;

/// Backends by name, weight and state.
type Backends = BTreeMap<String, (u16, &'static str)>;

/// What happens to backends, in words and to the list.
type Change<'a> = (&'a str, &'a dyn Fn(&mut Backends));

#[test]
fn churn_moves_no_flow_of_a_backend_that_lives() {
    let rig = Rig::with(LIMITS, Timeouts::default()).unwrap();
    let mut kernel = Kernel::on(rig).unwrap();
    let mut backends: Backends = (0..10).map(|at| (format!("b{at}"), (100, "up"))).collect();
    let mut before = step(&mut kernel, &backends, &[]);
    let shares = shares(&before);
    assert!(
        shares.len() == 10 && shares.values().all(|it| (9_000..11_000).contains(it)),
        "{shares:?}"
    );
    let changes: [Change; 8] = [
        ("b0 drains", &|it| it.get_mut("b0").unwrap().1 = "draining"),
        ("b1 is taken out of service", &|it| {
            it.get_mut("b1").unwrap().0 = 0
        }),
        ("one more", &|it| {
            _ = it.insert("a0".to_owned(), (100, "up"))
        }),
        ("other weights", &|it| {
            it.values_mut().for_each(|it| it.0 = it.0 / 2 * 3)
        }),
        ("b2 is down", &|it| it.get_mut("b2").unwrap().1 = "down"),
        ("b2 is up", &|it| it.get_mut("b2").unwrap().1 = "up"),
        ("b3 is gone", &|it| _ = it.remove("b3")),
        ("b4 and b5 are gone, one comes", &|it| {
            it.retain(|name, _| name != "b4" && name != "b5");
            it.insert("z0".to_owned(), (100, "up"));
        }),
    ];
    for (what, change) in changes {
        change(&mut backends);
        let rechosen = kernel.rig.dataplane.status().rechosen;
        let after = step(&mut kernel, &backends, &[]);
        check(what, &before, &after, &backends);
        let moved = moved(&before, &after).count() as u64;
        if what == "b2 is down" {
            let counted = kernel.rig.dataplane.status().rechosen - rechosen;
            assert!(
                moved > 9_000 && counted == moved,
                "{moved} moved, {counted} counted"
            );
        }
        before = after;
    }
    // Other rules, and another process.
    let other = "a/1 prio 1 flow to 203.0.113.77 drop";
    let after = step(&mut kernel, &backends, &[other]);
    assert_eq!(moved(&before, &after).count(), 0, "another rule came");
    let (rig, _) = kernel.parts();
    rig.restart().unwrap();
    let after = step(&mut kernel, &backends, &[other]);
    assert_eq!(moved(&before, &after).count(), 0, "another process came");
    let counters = kernel.rig.dataplane.backend_counters();
    let counted: u64 = counters.iter().map(|it| it.packets).sum();
    assert_eq!(
        counted + gone(&kernel),
        u64::from(FLOWS) * 11,
        "packets by backend"
    );
}

/// Packets of backends that are no more.
fn gone(kernel: &Kernel) -> u64 {
    let steered = kernel.rig.dataplane.port_counters();
    let of_port = steered
        .iter()
        .filter(|it| it.port == "access0" && it.reason == Reason::Steered);
    let all: u64 = of_port.map(|it| it.packets).sum();
    let known: u64 = kernel
        .rig
        .dataplane
        .backend_counters()
        .iter()
        .map(|it| it.packets)
        .sum();
    all - known
}

/// Puts the backends in force, sends a packet of each flow, and tells which backend each has then.
fn step(kernel: &mut Kernel, backends: &Backends, others: &[&str]) -> Choices {
    let text = backends.iter().map(|(name, (weight, state))| {
        format!("backend {name} weight {weight} {state} ip 198.18.1.2 via app0")
    });
    let text = text.collect::<Vec<_>>().join(" ");
    let vip = format!("@vip/1 prio 128 flow to 203.0.113.9 proto udp dport 443 balance {text}");
    let rules: RuleSet = [&*vip]
        .iter()
        .chain(others)
        .map(|it| it.parse().unwrap())
        .collect();
    let (rig, shooter) = kernel.parts();
    let applied = rig
        .bench
        .host
        .enter(|| rig.dataplane.apply(&rules))
        .unwrap();
    assert!(applied.not_installed.is_empty(), "{applied:?}");
    rig.bench.host.enter(|| shoot(&shooter));
    let flows = rig.dataplane.flows();
    assert_eq!(flows.len(), FLOWS as usize);
    flows
        .into_iter()
        .map(|flow| {
            (
                (flow.source, flow.source_port),
                flow.backend.unwrap().to_string(),
            )
        })
        .collect()
}

fn shoot(shooter: &Shooter<'_>) {
    for flow in 0..FLOWS {
        let [_, _, high, low] = (flow >> 3).to_be_bytes();
        let ue = format!("10.45.{high}.{low}:{}", 5000 + flow % 8);
        let frame = Packet::udp(&ue, "203.0.113.9:443").bytes();
        shooter.shoot("access0", &frame).unwrap();
    }
}

fn shares(choices: &Choices) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for backend in choices.values() {
        *shares.entry(&**backend).or_default() += 1;
    }
    shares
}

fn moved<'a>(before: &'a Choices, after: &'a Choices) -> impl Iterator<Item = (&'a str, &'a str)> {
    let pairs = before.iter().map(|(flow, old)| (&**old, &*after[flow]));
    pairs.filter(|(old, new)| old != new)
}

/// Only flows of backends that live no more have another, and that one takes flows.
fn check(what: &str, before: &Choices, after: &Choices, backends: &Backends) {
    let lives = |name: &str| {
        backends
            .get(name)
            .is_some_and(|(_, state)| *state != "down")
    };
    let taking: BTreeSet<&str> = backends
        .iter()
        .filter(|(_, (weight, state))| *state == "up" && *weight > 0)
        .map(|(name, _)| &**name)
        .collect();
    for (old, new) in moved(before, after) {
        assert!(!lives(old), "{what}: a flow went from {old} to {new}");
        assert!(taking.contains(new), "{what}: a flow came to {new}");
    }
    for backend in after.values() {
        assert!(lives(backend), "{what}: a flow is with {backend}");
    }
}

/// A jiffy passes with each packet here, a thousand of them are a second.
#[test]
fn a_ue_keeps_its_backend_for_as_long_as_is_said() {
    let rules = |b: &str| -> RuleSet {
        let backends = format!(
            "backend a weight 1 up ip APP0 via app0 backend b weight 65535 {b} ip APP1 via app1"
        );
        let rule = format!("@vip/1 prio 128 flow to SERVICE proto udp balance ue 1 {backends}");
        [V4.fill_in(&rule).parse().unwrap()].into_iter().collect()
    };
    let mut host = Host::new();
    host.prepare(&rules("down")).unwrap();
    let mut port = 1000;
    let mut goes = |host: &mut Host| {
        port += 1;
        let packet = Packet::udp(&format!("{}:{port}", V4.ue), &format!("{}:443", V4.service));
        let seen = host.arrive("access0", &packet.bytes()).unwrap();
        seen.out[0].0.clone()
    };
    let [to_a, to_b] = ["app0", "app1"].map(|port| Exit::Port(Some(port.to_owned())));
    assert_eq!(goes(&mut host), to_a);
    host.change(&rules("up")).unwrap();
    let pass = |host: &mut Host, jiffies: usize| {
        for _ in 0..jiffies {
            host.arrive("core0", &V4.udp(9).bytes()).unwrap();
        }
    };
    // Each new flow makes it longer.
    for _ in 0..3 {
        pass(&mut host, 800);
        assert_eq!(goes(&mut host), to_a);
    }
    pass(&mut host, 1100);
    assert_eq!(goes(&mut host), to_b);
    assert_eq!(goes(&mut host), to_b);
}

#[test]
fn translated_packets_have_right_checksums_on_the_host() {
    checksums(&mut Host::new(), 20_000);
}

#[test]
fn translated_packets_have_right_checksums_in_the_kernel() {
    checksums(&mut Kernel::new().unwrap(), 4_000);
}

/// Random packets to a VIP, and what a backend with another address and port answers, looked at by a parser that is
/// not ours.
fn checksums(executor: &mut impl Executor, cases: u32) {
    let rule = |family: &Family| {
        let rule = "@vip/1 prio 128 flow to SERVICE proto tcp,udp balance backend a weight 1 up ip APP0 nat 8443 via app0";
        let rule = family
            .fill_in(rule)
            .replace("@vip/1", &format!("@vip/{}", family.name));
        rule.parse().unwrap()
    };
    let rules: RuleSet = [&V4, &V6].map(rule).into_iter().collect();
    executor.prepare(&rules).unwrap();
    let executor = RefCell::new(executor);
    let packets = (
        select(vec![true, false]),
        select(vec![0_u8, 1, 2]),
        // As many flows as the host has room for.
        0..50_u16,
        0..200_usize,
        any::<u8>(),
    );
    let packets = packets.prop_map(|(v4, kind, source, length, class)| {
        let family = if v4 { &V4 } else { &V6 };
        let destination = 443;
        let (ue, service) = (family.ue.parse().unwrap(), family.service.parse().unwrap());
        let transport = match kind {
            0 => Transport::Tcp {
                source,
                destination,
                flags: class & 0x3d,
            },
            _ => Transport::Udp {
                source,
                destination,
                // IPv6 has no choice.
                checksum: kind == 1 || !v4,
            },
        };
        Packet::new(ue, service, transport)
            .payload(length)
            .class(class)
    });
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let checked = runner.run(&packets, |packet| {
        let mut executor = executor.borrow_mut();
        let there = sent(&mut **executor, "access0", &packet.bytes());
        let reply = Packet {
            ttl: 64,
            ..there_and_back(&packet)
        };
        let back = sent(&mut **executor, "app0", &reply.bytes());
        assert_eq!(there.len(), back.len());
        Ok(())
    });
    checked.unwrap();
}

/// What the backend answers to a packet that came to its own address and port.
fn there_and_back(packet: &Packet) -> Packet {
    let app = if packet.source.is_ipv4() {
        V4.app0
    } else {
        V6.app0
    };
    packet.clone().to(app).to_port(8443).reversed()
}

fn sent(executor: &mut impl Executor, port: &str, frame: &[u8]) -> Vec<u8> {
    let seen = executor.arrive(port, frame).unwrap();
    let [(_, sent)] = &seen.out[..] else {
        panic!("{seen:?}");
    };
    let expected = if port == "app0" {
        Reason::Replied
    } else {
        Reason::Steered
    };
    assert_eq!(seen.reasons, [expected]);
    verify(sent).unwrap();
    sent.clone()
}

/// A flow that came from a peer is answered by the tunnel to that peer, though the process is another, and all other tunnels are
/// in use by others.
#[test]
fn a_peer_keeps_its_tunnel_over_a_restart() {
    let others = TARGETS - world::peers().len() as u32;
    let vip = |fallback: &str| {
        let backend = "backend a weight 1 up ip 198.18.1.2 via app0";
        format!("@vip/1 prio 128 flow to 203.0.113.9 proto udp balance {backend} {fallback}")
    };
    let rules = |lines: Vec<String>| -> RuleSet {
        lines.iter().map(|line| line.parse().unwrap()).collect()
    };
    let mut kernel = Kernel::mobile().unwrap();
    let peer = format!("else gre {PEER} from {} key {PEER_KEY} via app1", OWN[0]);
    kernel.prepare(&rules(vec![vip(&peer)])).unwrap();
    let question = V4.udp(443);
    let came = Gre::new(&question).key(PEER_KEY).over(PEER, OWN[0]);
    let seen = kernel.arrive("app1", &came.bytes()).unwrap();
    assert_eq!(seen.reasons, [Reason::Steered]);
    kernel.rig.restart().unwrap();
    kernel.change(&rules(vec![vip("")])).unwrap();
    let other = |key| {
        format!(
            "a/{key} prio 1 flow to 10.9.0.1 proto tcp dport {key} forward gre 198.18.1.2 from {} key {key} via app0",
            OWN[0]
        )
    };
    let all = (1000..1000 + others).map(other).chain([vip("")]);
    kernel.change(&rules(all.collect())).unwrap();
    let answer = kernel.arrive("app0", &question.reversed().bytes()).unwrap();
    assert_eq!(answer.reasons, [Reason::Replied]);
    let [(_, sent)] = &answer.out[..] else {
        panic!("{answer:?}");
    };
    let opened = open(sent).unwrap();
    assert!(
        matches!(&opened.tunnel, Tunnel::Gre(gre) if gre.key == Some(PEER_KEY)),
        "{opened:?}"
    );
}

#[test]
fn a_change_of_health_costs_little() {
    let mut kernel = Kernel::on(Rig::with(LIMITS, Timeouts::default()).unwrap()).unwrap();
    let rules = |down: bool| {
        let backends = (0..50).map(|at| {
            let state = if down && at == 7 { "down" } else { "up" };
            format!("backend b{at:02} weight 1 {state} ip 198.18.1.2 via app0")
        });
        let backends = backends.collect::<Vec<_>>().join(" ");
        let vip = format!("@vip/1 prio 128 flow to 203.0.113.9 proto udp balance {backends}");
        [vip.parse().unwrap()].into_iter().collect::<RuleSet>()
    };
    let (rig, _) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let first = bench.host.enter(|| dataplane.apply(&rules(false))).unwrap();
    let began = std::time::Instant::now();
    let second = bench.host.enter(|| dataplane.apply(&rules(true))).unwrap();
    // Flows keep what was decided for them: nothing is classified anew.
    assert_eq!((second.epoch, second.changed), (first.epoch, 0));
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "{:?}",
        began.elapsed()
    );
}
