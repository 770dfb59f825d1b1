//! Rules for packets in some tunnels and not in others.

use dataplane_core::Reason::{
    CopyReply, Duplicated, NoDownlinkTunnel, NoRule, Passthrough, Replied, RuleDrop, Steered,
    WrongSide,
};

use super::{CORE, DOWN, Interface, OTHER_DOWN, OTHER_RAN, RAN};
use crate::{
    packet::{GTPU_PORT, Packet},
    scenario::{Family, Scenario, Then, addressing::at, answer, to_app},
    world::World,
};

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    stations(family, interface, all);
    packets_of_a_flow(family, interface, all);
    qci(family, interface, all);
    reply_first(family, interface, all);
    copies(family, interface, all);
    if interface != Interface::S1u {
        latest_qfi(family, interface, all);
    }
}

/// Each attribute alone, and lists, ranges and several together: for packets up and down and over IPv6, and from a
/// port that is not usual.
pub(super) fn attributes(family: &Family, all: &mut Vec<Scenario>) {
    let interface = Interface::N3;
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let over_v6 = Interface::N3Ipv6.uplink(RAN, &inner);
    let other_port = from_port(interface, 50000, &up);
    let frames = [
        ("access0", &up),
        ("core0", &down),
        ("access0", &over_v6),
        ("access0", &other_port),
        ("access0", &inner),
    ];
    let mut scenario = Scenario::new("filters look at the tunnel", family, &[]);
    for (filter, [of_up, of_down, of_v6, of_port, of_plain]) in [
        ("tunnel-from 192.0.2.1", [true, false, false, true, false]),
        ("tunnel-to 192.0.2.1", [false, true, false, false, false]),
        (
            "tunnel-from 198.51.100.0/24",
            [false, true, false, false, false],
        ),
        ("tunnel-to 198.51.100.1", [true, false, false, true, false]),
        ("tunnel-from 192.0.2.2-192.0.2.9", [false; 5]),
        (
            "tunnel-from 192.0.2.9,192.0.2.1 tunnel-to 198.51.100.1",
            [true, false, false, true, false],
        ),
        ("tunnel-from 192.0.2.1 tunnel-to 198.51.100.2", [false; 5]),
        (
            "tunnel-from 2001:db8:2::/64",
            [false, false, true, false, false],
        ),
        ("tunnel-to ::/0", [false, false, true, false, false]),
        ("tunnel-to 0.0.0.0/0", [true, true, false, true, false]),
        ("tunnel-sport 2152", [true, true, true, false, false]),
        (
            "tunnel-sport 40000-65535",
            [false, false, false, true, false],
        ),
        ("tunnel-dport 2000-3000", [true, true, true, true, false]),
        ("tunnel-dport 1-2151,2153-65535", [false; 5]),
        ("tunnel-sport 0-65535", [true, true, true, true, false]),
        ("qci 7", [false; 5]),
        (
            "dport 443 tunnel-from 192.0.2.1",
            [true, false, false, true, false],
        ),
        ("dport 444 tunnel-from 192.0.2.1", [false; 5]),
        (
            "dport 444 or tunnel-to 192.0.2.1",
            [false, true, false, false, false],
        ),
        ("tunnel-to 192.0.2.1 or dport 443", [true; 5]),
    ] {
        scenario = scenario.rules(family, &[&format!("a/1 prio 1 packet {filter} drop")]);
        for ((port, frame), matches) in frames
            .into_iter()
            .zip([of_up, of_down, of_v6, of_port, of_plain])
        {
            scenario = if matches {
                scenario.discarded(port, frame, RuleDrop)
            } else {
                scenario.original(port, frame, NoRule)
            };
        }
    }
    all.push(scenario);
}

/// Each station has an application of its own. A flow stays with the one that it began with, until rules change.
fn stations(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let rules = [
        "a/1 prio 1 flow to SERVICE tunnel-from 192.0.2.1 forward ip APP0 via app0",
        "a/2 prio 1 flow to SERVICE tunnel-from 192.0.2.2 forward ip APP1 via app1",
        "a/3 prio 3 flow to UE drop",
    ];
    let rules = rules.map(|rule| interface.address(rule));
    let rules = rules.each_ref().map(String::as_str);
    let world = World::new();
    let inner = family.udp(443);
    let later = family.udp(444);
    let [there, elsewhere] = ["app0", "app1"].map(|app| to_app(&world, app, &inner).ttl(63));
    let later_elsewhere = to_app(&world, "app1", &later).ttl(63);
    let up = interface.uplink(RAN, &inner);
    let down = |to, teid| interface.downlink(to, teid, &inner.reversed());
    let moved = interface.uplink(OTHER_RAN, &inner);
    let reply = answer(&elsewhere);
    let restored = Packet {
        ttl: 63,
        ..reply.clone()
    };
    let injected = interface.injected(OTHER_RAN, OTHER_DOWN, &restored, &moved);
    all.push(
        Scenario::new("each station has its application", family, &rules[..2])
            .original("core0", &down(RAN, DOWN), NoRule)
            .sent("access0", &up, Steered, "app0", &there)
            .sent("access0", &moved, Steered, "app0", &there)
            .original(
                "access0",
                &interface.uplink(OTHER_RAN, &later),
                NoDownlinkTunnel,
            )
            .original("core0", &down(OTHER_RAN, OTHER_DOWN), WrongSide)
            .sent("access0", &moved, Steered, "app0", &there)
            .sent(
                "access0",
                &interface.uplink(OTHER_RAN, &later),
                Steered,
                "app1",
                &later_elsewhere,
            )
            .original(
                "access0",
                &interface.uplink("192.0.2.3", &family.tcp(443)),
                NoRule,
            )
            // Back again: what comes from a third place made it doubtful.
            .sent("access0", &moved, Steered, "app0", &there)
            .original("core0", &down(OTHER_RAN, OTHER_DOWN), WrongSide)
            .rules(family, &rules)
            .sent("access0", &moved, Steered, "app1", &elsewhere)
            .sent("app1", &reply, Replied, "access0", &injected)
            // Packets that are in no tunnel are nobody's.
            .original("access0", &family.udp(445), NoRule),
    );
}

/// Rules for packets look at each: what was decided for one is not for the next.
fn packets_of_a_flow(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let there = to_app(&world, "app0", &inner).ttl(63);
    let up = interface.uplink(RAN, &inner);
    let moved = interface.uplink(OTHER_RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let other_down = interface.downlink(OTHER_RAN, OTHER_DOWN, &inner.reversed());
    all.push(
        Scenario::new(
            "rules for packets look at every tunnel",
            family,
            &[
                &interface.address("a/1 prio 1 packet tunnel-from 192.0.2.2 drop"),
                &interface.address("a/2 prio 1 packet tunnel-to 192.0.2.2 drop"),
                "a/3 prio 2 flow to SERVICE proto udp forward ip APP0 via app0",
            ],
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .original("core0", &down, WrongSide)
        .discarded("access0", &moved, RuleDrop)
        .discarded("core0", &other_down, RuleDrop)
        .sent("access0", &up, Steered, "app0", &there)
        .original("core0", &down, WrongSide)
        .discarded("core0", &other_down, RuleDrop)
        .discarded("access0", &moved, RuleDrop)
        // It was the same flow outside of any tunnel.
        .sent("access0", &inner, Steered, "app0", &there),
    );
}

/// The QCI is what somebody said. Rules for flows look at it when one begins, those for packets each time.
fn qci(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    const RULES: [&str; 3] = [
        "a/1 prio 1 packet qci 8 drop",
        "a/2 prio 2 flow to SERVICE qci 7 forward ip APP0 via app0",
        "a/3 prio 3 flow to SERVICE passthrough",
    ];
    let world = World::new();
    let (first, second) = (family.udp(443), family.udp(444));
    let [first_there, second_there] =
        [&first, &second].map(|inner| to_app(&world, "app0", inner).ttl(63));
    let [first_up, second_up] = [&first, &second].map(|inner| interface.uplink(RAN, inner));
    let down = interface.downlink(RAN, DOWN, &first.reversed());
    let binding = |qci| interface.binding(&first, RAN, DOWN, qci);
    let unsaid = Scenario::new("a QCI is what somebody said", family, &RULES)
        .original("core0", &down, NoRule)
        .original("access0", &first_up, Passthrough);
    let said = unsaid
        .provisioned(&binding(7))
        .original("access0", &first_up, Passthrough)
        .sent("access0", &second_up, Steered, "app0", &second_there)
        .original("core0", &down, Passthrough);
    let changed = said
        .rules(
            family,
            &[RULES[0], RULES[1], RULES[2], "a/4 prio 4 flow to UE drop"],
        )
        .sent("access0", &first_up, Steered, "app0", &first_there)
        .original("core0", &down, WrongSide);
    all.push(
        changed
            .provisioned(&binding(8))
            .discarded("access0", &first_up, RuleDrop)
            .discarded("core0", &down, RuleDrop)
            .discarded("access0", &second_up, RuleDrop),
    );
}

/// A flow comes under its new rule whichever of its packets is the next: its record knows the tunnel.
fn reply_first(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let there = to_app(&world, "app0", &inner).ttl(63);
    let up = from_port(interface, 50000, &interface.uplink(RAN, &inner));
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let mut scenario = Scenario::new(
        "a flow remembers its tunnel",
        family,
        &["a/1 prio 1 flow to SERVICE passthrough"],
    )
    .original("core0", &down, NoRule)
    .original("access0", &up, Passthrough);
    for (filter, matches) in [
        (
            "tunnel-from 192.0.2.1 tunnel-to 198.51.100.1 tunnel-sport 50000 tunnel-dport 2152",
            true,
        ),
        ("tunnel-from 192.0.2.2", false),
        ("tunnel-to 198.51.100.1", true),
        ("tunnel-sport 2152", false),
        ("tunnel-sport 50000", true),
        ("qci 7", false),
    ] {
        let rule = format!("a/1 prio 1 flow to SERVICE {filter} forward ip APP0 via app0");
        scenario = scenario.rules(family, &[&interface.address(&rule)]);
        scenario = if matches {
            scenario
                .original("core0", &down, WrongSide)
                .sent("access0", &up, Steered, "app0", &there)
        } else {
            scenario
                .original("core0", &down, NoRule)
                .original("access0", &up, NoRule)
        };
    }
    all.push(scenario);
}

/// Copies of what comes by some tunnels. What answers a copy ends, in a tunnel or in none.
fn copies(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let copy = to_app(&world, "app0", &up);
    let answered = answer(&to_app(&world, "app0", &inner));
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let moved = interface.uplink(OTHER_RAN, &inner);
    for (kind, filter) in [
        ("packet", "tunnel-from 192.0.2.1"),
        ("flow", "tunnel-from 192.0.2.1"),
        ("packet", "qci 7"),
    ] {
        let rule = format!(
            "a/1 prio 1 {kind} to SERVICE {filter} duplicate encapsulated mac 02:00:00:00:0a:01 via app0"
        );
        let rule = interface.address(&rule);
        let mut scenario = Scenario::new("copies are made of some tunnels", family, &[&rule]);
        if filter == "qci 7" {
            scenario = scenario
                .original("access0", &up, NoRule)
                .provisioned(&interface.binding(&inner, RAN, DOWN, 7));
        }
        let scenario = scenario
            .original("core0", &down, NoRule)
            .frame(
                "access0",
                up.bytes(),
                Duplicated,
                Then::Copied("app0", copy.bytes()),
            )
            .discarded("app0", &answered, CopyReply)
            .discarded("app0", &down, CopyReply);
        all.push(if (kind, filter) == ("packet", "tunnel-from 192.0.2.1") {
            scenario.original("access0", &moved, NoRule)
        } else {
            scenario
        });
    }
}

/// With which QFI a UE sent last, is not said of the next one.
fn latest_qfi(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let inner = family.udp(443);
    let (up, said) = (
        interface.uplink(RAN, &inner),
        interface.binding(&inner, RAN, DOWN, 7),
    );
    let next = Packet {
        source: family.other_ue.parse().expect("an address"),
        ..inner.clone()
    };
    let said_of_next = interface.binding(&next, OTHER_RAN, OTHER_DOWN, 7);
    let rule = "a/1 prio 1 packet to SERVICE qci 7 duplicate mac 02:00:00:00:0a:01 via app0";
    let copy = to_app(&World::new(), "app0", &inner).bytes();
    let scenario = Scenario::new("a QFI is that of one UE", family, &[rule])
        .provisioned(&said)
        .frame(
            "access0",
            up.bytes(),
            Duplicated,
            Then::Copied("app0", copy),
        )
        .withdrawn(&said)
        .provisioned(&said_of_next)
        .original("app0", &next.reversed(), NoDownlinkTunnel);
    all.push(scenario);
}

/// The same message from another port of the station.
fn from_port(interface: Interface, port: u16, message: &Packet) -> Packet {
    let station = at(&interface.address(RAN), port);
    let core = at(&interface.address(CORE), GTPU_PORT);
    Packet {
        payload: message.payload.clone(),
        ..Packet::udp(&station, &core)
    }
}
