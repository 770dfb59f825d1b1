//! The scenarios in the kernel: the loaded program, run on one frame at a time.

use dataplane_user::{Error, Limits, rule::RuleSet};
use tests::{
    executor::{Kernel, Rig},
    packet::Packet,
    scenario::{self, Executor as _},
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
