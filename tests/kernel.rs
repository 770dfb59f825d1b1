//! The scenarios in the kernel: the loaded program, run on one frame at a time.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use dataplane_core::Reason;
use dataplane_user::{
    Error, Limits, Session, SessionStatus,
    rule::{Action, Rule, RuleSet},
};
use tests::{
    executor::{Kernel, Rig, pin},
    packet::{Gtpu, Packet},
    scenario::{self, Executor as _},
    shapes::{self, Shape},
};

#[test]
fn scenarios() {
    scenario::run_all(scenario::plain(), &mut Kernel::new().unwrap());
}

#[test]
fn scenarios_where_some_are_behind_tunnels() {
    let mut kernel = Kernel::mobile().unwrap();
    scenario::run_all(scenario::plain(), &mut kernel);
    scenario::run_all(scenario::mobile(), &mut kernel);
}

#[test]
fn a_rule_set_that_does_not_fit_changes_nothing() {
    let limits = Limits {
        rules: 8,
        filters: 64,
        ..Limits::default()
    };
    let mut kernel = Kernel::on(Rig::with_limits(limits).unwrap()).unwrap();
    let rules = |count: usize, filter: &str| -> RuleSet {
        let rule = |number| {
            format!("a/{number} prio 1 packet {filter} drop")
                .parse()
                .unwrap()
        };
        (0..count).map(rule).collect()
    };
    kernel.prepare(&rules(2, "proto udp")).unwrap();
    let epoch = kernel.rig.dataplane.status().epoch;
    for too_much in [rules(9, "any"), rules(8, "dport 1,3,5,7,9,11,13,15,17,19")] {
        let Rig {
            bench, dataplane, ..
        } = &mut kernel.rig;
        let error = bench.host.enter(|| dataplane.apply(&too_much)).unwrap_err();
        assert!(matches!(error, Error::TooMany { .. }), "{error}");
        assert_eq!(dataplane.status().epoch, epoch);
        let packet = Packet::udp("10.0.0.1:1", "10.0.0.2:2");
        let seen = kernel.arrive("access0", &packet.bytes()).unwrap();
        assert_eq!(seen.rules, ["a/0".parse().unwrap()]);
    }
    kernel.change(&rules(8, "proto udp")).unwrap();
}

#[test]
fn packets_see_one_rule_set_or_the_other() {
    let mut kernel = Kernel::new().unwrap();
    // Others are in force all the while, and some of them change as well.
    let others = shapes::rules(Shape::Acl, 600, false, &Action::Passthrough);
    let set = |id: &str, action: &str, others: &RuleSet| {
        let mut set = others.clone();
        let rule = format!("{id} prio 0 flow to 203.0.113.9 or to 203.0.113.10 {action}");
        set.insert(rule.parse().unwrap());
        set
    };
    let few = others.iter().skip(50).map(|it| Rule::clone(it)).collect();
    let (one, other) = (set("a/1", "drop", &others), set("b/1", "passthrough", &few));
    kernel.prepare(&one).unwrap();
    // Flows that last and flows that come, to both.
    let frames: Vec<Vec<u8>> = (0..128_u32)
        .map(|flow| {
            let ue = format!("10.45.0.{}:{}", flow % 8, 5000 + flow);
            Packet::udp(&ue, &format!("203.0.113.{}:443", 9 + flow % 2)).bytes()
        })
        .collect();
    let before = kernel.rig.counters("access0");
    let (rig, shooter) = kernel.parts();
    let Rig {
        bench, dataplane, ..
    } = rig;
    let over = AtomicBool::new(false);
    let arrived = bench.host.enter(|| {
        thread::scope(|scope| {
            let traffic = scope.spawn(|| {
                pin(1).unwrap();
                let mut arrived = 0;
                while !over.load(Ordering::Relaxed) {
                    for frame in &frames {
                        shooter.shoot("access0", frame).unwrap();
                    }
                    arrived += frames.len();
                }
                arrived
            });
            for _ in 0..100 {
                dataplane.apply(&other).unwrap();
                dataplane.apply(&one).unwrap();
            }
            over.store(true, Ordering::Relaxed);
            traffic.join().unwrap()
        })
    });
    let seen = kernel.rig.counters("access0").since(&before).reasons;
    let count = |reason| seen.iter().filter(|it| **it == reason).count();
    let (dropped, passed) = (count(Reason::RuleDrop), count(Reason::Passthrough));
    assert!(dropped > 0 && passed > 0, "{dropped} and {passed}");
    assert_eq!(dropped + passed, arrived, "some came under neither");
}

#[test]
fn two_cpus_learn_of_one_ue_at_the_same_time() {
    const UES: u32 = 500;
    const RAN: &str = "192.0.2.1:2152";
    const CORE: &str = "198.51.100.1:2152";
    let kernel = Kernel::mobile().unwrap();
    let talk = |ue: u32| {
        let ue = Ipv4Addr::from_bits(0x0a2d_0000 + ue);
        Packet::udp(&format!("{ue}:5000"), "203.0.113.9:443")
    };
    let up = |ue: u32| {
        let inner = talk(ue).network_bytes();
        Gtpu::pdu(0x10_0000 + ue, inner).over(RAN, CORE).bytes()
    };
    let down = |ue: u32| {
        let inner = talk(ue).reversed().network_bytes();
        Gtpu::pdu(0x20_0000 + ue, inner).over(CORE, RAN).bytes()
    };
    let end = |ue: u32| Gtpu::end_marker(0x20_0000 + ue).over(CORE, RAN).bytes();
    let together = |ports, frames: &dyn Fn(u32) -> [Vec<u8>; 2]| {
        let pairs: Vec<_> = (0..UES).map(frames).collect();
        kernel.arrive_together(ports, &pairs).unwrap();
    };
    together(["access0", "core0"], &|ue| [up(ue), down(ue)]);
    together(["core0", "access0"], &|ue| [down(ue), up(ue)]);
    // What could not be learned then is with the next packet.
    together(["core0", "core0"], &|ue| [down(ue), down(ue)]);
    together(["access0", "access0"], &|ue| [up(ue), up(ue)]);
    let sessions = kernel.rig.dataplane.sessions();
    let ues: HashSet<IpAddr> = sessions.iter().map(|it| it.ue).collect();
    assert_eq!((sessions.len(), ues.len()), (UES as usize, UES as usize));
    for Session {
        ue,
        bearers,
        status,
        ..
    } in sessions
    {
        let IpAddr::V4(address) = ue else {
            panic!("{ue}");
        };
        let ue = address.to_bits() - 0x0a2d_0000;
        let tunnels = bearers.iter().map(|it| (it.uplink, it.downlink));
        let known = (Some(0x10_0000 + ue), Some(0x20_0000 + ue));
        assert!(tunnels.eq([known]), "{address}: {bearers:?}");
        assert_eq!(status, SessionStatus::Active);
    }
    // What is said but once is heard, whatever another CPU learns just then.
    let renewed = |ue: u32| {
        let inner = talk(ue).network_bytes();
        Gtpu::pdu(0x30_0000 + ue, inner).over(RAN, CORE).bytes()
    };
    together(["access0", "core0"], &|ue| [renewed(ue), end(ue)]);
    for session in kernel.rig.dataplane.sessions() {
        let live = session.bearers.iter().any(|it| it.downlink.is_some());
        assert!(!live, "{session:?}");
    }
}
