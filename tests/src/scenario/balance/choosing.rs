//! Which backend takes a flow, and when another one does.

use dataplane_core::Reason::{NextHopUnresolved, NoBackend, NoRule, Replied, Steered, WrongSide};

use super::{A, A_NAT, B, B_NAT, is, of, vip};
use crate::scenario::{Family, Scenario, addressing::at, answer, to_app, to_ue};
use crate::{
    packet::{Packet, SYN},
    world::World,
};

/// Flows stay with a backend while it lives, and no longer.
pub(super) fn states(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    let kind = format!("protocol {}", up.protocol());
    let there = to_app(world, "app0", up)
        .ttl(63)
        .to(family.app0)
        .to_port(8443);
    let back = answer(&there);
    let restored = to_ue(&back, up).from_port(443).ttl(63);
    let elsewhere = to_app(world, "app1", up).ttl(63).to(family.app1);
    let other = family.other(up);
    let other_there = to_app(world, "app1", &other).ttl(63).to(family.app1);
    let both = |state, other| of(A_NAT, state, B_NAT, other);
    for (state, name) in [("draining", "drains"), ("up", "weighs nothing")] {
        let drained = both(state, "up");
        let drained = if state == "up" {
            drained.replacen("weight 1", "weight 0", 1)
        } else {
            drained
        };
        all.push(
            Scenario::new(
                &format!("a backend that {name} keeps its flows and gets none, {kind}"),
                family,
                &[&both("up", "down")],
            )
            .sent("access0", up, Steered, "app0", &there)
            .rules(family, &[&drained])
            .sent("access0", up, Steered, "app0", &there)
            .sent("access0", &other, Steered, "app1", &other_there)
            .sent("app0", &back, Replied, "access0", &restored)
            // Other changes leave them where they are.
            .rules(family, &[&drained, "a/1 prio 1 flow to NOBODY drop"])
            .sent("access0", up, Steered, "app0", &there)
            .sent("access0", &other, Steered, "app1", &other_there)
            .sent("app0", &back, Replied, "access0", &restored),
        );
    }
    let back_elsewhere = answer(&elsewhere);
    all.push(
        Scenario::new(
            &format!("flows of a backend that is down go to another at once, {kind}"),
            family,
            &[&both("up", "down")],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("access0", up, Steered, "app0", &there)
        .rules(family, &[&both("down", "up")])
        .sent("access0", up, Steered, "app1", &elsewhere)
        .original("app0", &back, NoRule)
        .sent(
            "app1",
            &back_elsewhere,
            Replied,
            "access0",
            &to_ue(&back_elsewhere, up).ttl(63),
        )
        // And stay there.
        .rules(family, &[&both("up", "up")])
        .sent("access0", up, Steered, "app1", &elsewhere)
        .flow(up, 4, &back_elsewhere, 1),
    );
    all.push(
        Scenario::new(
            &format!("a backend that is no more has no flows, {kind}"),
            family,
            &[&both("up", "down")],
        )
        .sent("access0", up, Steered, "app0", &there)
        .rules(family, &[&vip(&is(B_NAT, "up"))])
        .sent("access0", up, Steered, "app1", &elsewhere)
        .rules(family, &[])
        .original("access0", up, NoRule),
    );
    let unknown = "backend c weight 1 up ip NOBODY via app0";
    all.push(
        Scenario::new(
            &format!("a backend that nobody has seen is waited for, {kind}"),
            family,
            &[&vip(unknown)],
        )
        .original("access0", up, NextHopUnresolved),
    );
}

/// A connection that begins gets a backend that takes new flows.
pub(super) fn connections(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let data = family.tcp(443);
    let begin = data.clone().flags(SYN);
    let there = |packet: &Packet| {
        to_app(world, "app0", packet)
            .ttl(63)
            .to(family.app0)
            .to_port(8443)
    };
    let elsewhere = |packet: &Packet| to_app(world, "app1", packet).ttl(63).to(family.app1);
    all.push(
        Scenario::new(
            "a new connection is chosen for anew",
            family,
            &[&of(A_NAT, "up", B_NAT, "down")],
        )
        .sent("access0", &begin, Steered, "app0", &there(&begin))
        .sent("access0", &begin, Steered, "app0", &there(&begin))
        .sent("access0", &data, Steered, "app0", &there(&data))
        .rules(family, &[&of(A_NAT, "draining", B_NAT, "up")])
        .sent("access0", &data, Steered, "app0", &there(&data))
        .sent("access0", &begin, Steered, "app1", &elsewhere(&begin))
        .sent("access0", &data, Steered, "app1", &elsewhere(&data))
        .sent("access0", &data, Steered, "app1", &elsewhere(&data)),
    );
    all.push(
        Scenario::new(
            "what does not come from the UE gets its connection no other backend",
            family,
            &[&of(A_NAT, "up", B_NAT, "down")],
        )
        .sent("access0", &begin, Steered, "app0", &there(&begin))
        .rules(family, &[&of(A_NAT, "draining", B_NAT, "up")])
        .original("core0", &begin, WrongSide)
        .original("app1", &begin, WrongSide)
        .sent("access0", &data, Steered, "app0", &there(&data)),
    );
}

/// Without backends packets go on, and what began with the data network stays with it.
pub(super) fn fallback(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let data = family.tcp(443);
    let begin = data.clone().flags(SYN);
    let there = |packet: &Packet| to_app(world, "app0", packet).ttl(63);
    for down in ["down", "draining"] {
        all.push(
            Scenario::new(
                &format!("without a backend that is not {down}, packets go on"),
                family,
                &[&vip(&is(A, down))],
            )
            .original("access0", &begin, NoBackend)
            .original("access0", &data, NoBackend)
            .original("core0", &data.reversed(), NoBackend)
            .rules(family, &[&vip(&is(A, "up"))])
            .original("access0", &data, NoBackend)
            .sent("access0", &begin, Steered, "app0", &there(&begin))
            .sent("access0", &data, Steered, "app0", &there(&data)),
        );
    }
    let translated = there(&data).to(family.app0).to_port(8443);
    let back = answer(&translated);
    all.push(
        Scenario::new(
            "the last backend goes, and answers once more",
            family,
            &[&vip(&is(A_NAT, "up"))],
        )
        .sent("access0", &data, Steered, "app0", &translated)
        .rules(family, &[&vip("")])
        .original("app0", &back, NoBackend)
        .original("core0", &data.reversed(), NoBackend)
        .original("access0", &data, NoBackend)
        .original("app0", &back, NoRule),
    );
    all.push(
        Scenario::new("a VIP without backends", family, &[&vip("")])
            .original("access0", &data, NoBackend)
            .original("access0", &family.echo(), NoBackend),
    );
}

/// A UE keeps its backend for new flows.
pub(super) fn affinity(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let packets = |port: u16| {
        let up = Packet::udp(&at(family.ue, port), &at(family.service, 443));
        let there = to_app(world, "app0", &up).ttl(63);
        let elsewhere = to_app(world, "app1", &up).ttl(63);
        (up, there, elsewhere)
    };
    let vip = |a: &str, b: &str| {
        let backends = format!("ue 60 {} {}", is(A, a), is(B, b));
        vip(&backends.replace("b weight 1", "b weight 65535"))
    };
    let (first, there, _) = packets(5000);
    let mut scenario = Scenario::new(
        "a UE keeps its backend, until that drains",
        family,
        &[&vip("up", "down")],
    )
    .sent("access0", &first, Steered, "app0", &there)
    // From now on the other has nearly all places.
    .rules(family, &[&vip("up", "up")]);
    for port in 5001..5010 {
        let (up, there, _) = packets(port);
        scenario = scenario.sent("access0", &up, Steered, "app0", &there);
    }
    scenario = scenario.rules(family, &[&vip("draining", "up")]);
    for port in 5010..5013 {
        let (up, _, elsewhere) = packets(port);
        scenario = scenario.sent("access0", &up, Steered, "app1", &elsewhere);
    }
    scenario = scenario
        .rules(family, &[&vip("up", "up")])
        .sent("access0", &first, Steered, "app0", &there);
    all.push(scenario);
}
