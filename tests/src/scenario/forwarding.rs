//! Actions and destinations, and the way back.

use dataplane_core::Reason::{
    CopyReply, Duplicated, NextHopUnresolved, NoRule, OwnOutput, Passthrough, Replied, RuleDrop,
    Steered, TtlExpired, WrongSide,
};

use super::{Family, Scenario, Then, addressing::at, answer, to_app, to_ue};
use crate::{packet::Packet, world::World};

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let udp = family.udp(443);
    let from_core = udp.reversed();

    all.push(
        Scenario::new("without rules the wire is a wire", family, &[])
            .original("access0", &udp, NoRule)
            .original("core0", &from_core, NoRule)
            .original("access1", &udp, NoRule)
            .original("app0", &from_core, NoRule)
            .original("access0", &udp.clone().ttl(1), NoRule),
    );
    all.push(
        Scenario::new(
            "DROP discards",
            family,
            &["a/1 prio 1 flow to SERVICE drop"],
        )
        .discarded("access0", &udp, RuleDrop)
        .discarded("access0", &family.echo(), RuleDrop)
        .original("core0", &from_core, NoRule),
    );
    all.push(
        Scenario::new(
            "PASSTHROUGH stops lower rules",
            family,
            &[
                "a/1 prio 1 flow to SERVICE proto udp passthrough",
                "a/2 prio 2 flow any drop",
            ],
        )
        .original("access0", &udp, Passthrough)
        .original("core0", &from_core, Passthrough)
        .discarded("access0", &family.tcp(443), RuleDrop)
        .flow(&udp, 1, &from_core, 1),
    );
    copies(&world, family, all);
    all.push(
        Scenario::new(
            "an unresolved next hop is passed by",
            family,
            &["a/1 prio 1 flow to SERVICE forward ip NOBODY via app0"],
        )
        .original("access0", &udp, NextHopUnresolved),
    );
    for packet in family.each() {
        destinations(&world, family, &packet, all);
    }
    way_back(&world, family, all);

    let expiring = udp.clone().ttl(1);
    let there = to_app(&world, "app0", &udp).ttl(63);
    let reply = answer(&there).ttl(1);
    all.push(
        Scenario::new(
            "a used-up TTL is the next router's to answer",
            family,
            &["a/1 prio 1 flow to SERVICE forward ip APP0 via app0"],
        )
        .original("access0", &udp.clone().ttl(0), TtlExpired)
        .original("access0", &expiring, TtlExpired)
        .sent("access0", &udp, Steered, "app0", &there)
        .original("app0", &reply, TtlExpired),
    );
    let back = answer(&there);
    let answered = to_ue(&back, &udp).ttl(63);
    all.push(
        Scenario::new(
            "a used-up TTL, also when the flow is well known",
            family,
            &["a/1 prio 1 flow to SERVICE forward ip APP0 via app0"],
        )
        .sent("access0", &udp, Steered, "app0", &there)
        .sent("access0", &udp, Steered, "app0", &there)
        .sent("access0", &udp, Steered, "app0", &there)
        .original("access0", &udp.clone().ttl(0), TtlExpired)
        .original("access0", &expiring, TtlExpired)
        .sent("app0", &back, Replied, "access0", &answered)
        .sent("app0", &back, Replied, "access0", &answered)
        .sent("app0", &back, Replied, "access0", &answered)
        .original("app0", &back.clone().ttl(0), TtlExpired)
        .original("app0", &reply, TtlExpired),
    );
    all.push(
        Scenario::new(
            "the link layer takes no TTL",
            family,
            &["a/1 prio 1 flow to SERVICE forward mac 02:00:00:00:0a:01 via app0"],
        )
        .sent(
            "access0",
            &expiring,
            Steered,
            "app0",
            &to_app(&world, "app0", &expiring),
        ),
    );
    all.push(
        Scenario::new(
            "a rule does not apply to what its destination sends",
            family,
            &[
                "a/1 prio 1 packet to SERVICE forward mac 02:00:00:00:0a:01 via app0",
                "a/2 prio 2 packet to SERVICE proto tcp drop",
            ],
        )
        .sent(
            "access0",
            &udp,
            Steered,
            "app0",
            &to_app(&world, "app0", &udp),
        )
        .original("app0", &udp, NoRule)
        .discarded("app0", &family.tcp(443), RuleDrop)
        .sent("app1", &udp, Steered, "app0", &to_app(&world, "app0", &udp)),
    );
    all.push(
        Scenario::new(
            "what an application forwards of a flow it got is left alone",
            family,
            &["a/1 prio 1 flow to SERVICE forward mac 02:00:00:00:0a:01 via app0"],
        )
        .sent(
            "access0",
            &udp,
            Steered,
            "app0",
            &to_app(&world, "app0", &udp),
        )
        .original("app0", &udp, OwnOutput)
        .original("app1", &udp, WrongSide)
        .original("core0", &udp, WrongSide)
        .original("core0", &from_core, WrongSide),
    );
}

/// MAC, IP and NAT destinations, for one kind of packet.
fn copies(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let udp = family.udp(443);
    let from_core = udp.reversed();
    let tagged = udp.clone().tag(0x8100, 7);
    let copy = |packet: &Packet| Then::Copied("app0", to_app(world, "app0", packet).bytes());
    for kind in ["flow", "packet"] {
        let rule = format!("a/1 prio 1 {kind} to SERVICE duplicate mac 02:00:00:00:0a:01 via app0");
        let mut scenario = Scenario::new("DUPLICATE lets the original go on", family, &[&rule])
            .frame("access0", udp.bytes(), Duplicated, copy(&udp))
            .frame("app0", from_core.bytes(), CopyReply, Then::Discarded);
        if kind == "flow" {
            scenario = scenario
                .frame("core0", from_core.bytes(), Duplicated, copy(&from_core))
                .flow(&udp, 1, &from_core, 1);
        } else {
            scenario = scenario.frame("access0", tagged.bytes(), Duplicated, copy(&udp));
        }
        all.push(scenario);
        let rule =
            format!("a/1 prio 1 {kind} zone 2 to SERVICE duplicate mac 02:00:00:00:0a:01 via app0");
        let other = family.udp(80).reversed();
        all.push(
            Scenario::new(
                &format!("answers to copies of another zone, by {kind}"),
                family,
                &[&rule],
            )
            .frame("access1", udp.bytes(), Duplicated, copy(&udp))
            .discarded("app0", &from_core, CopyReply)
            .original("app1", &from_core, NoRule)
            .original("app0", if kind == "flow" { &other } else { &udp }, NoRule),
        );
    }
}

fn destinations(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    let kind = format!("protocol {}", up.protocol());
    let named = |what: &str| format!("{what} destination, {kind}");

    let there = to_app(world, "app0", up);
    let back = answer(&there);
    all.push(
        Scenario::new(
            &named("MAC"),
            family,
            &["a/1 prio 1 flow from UES to SERVICE forward mac 02:00:00:00:0a:01 via app0"],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &to_ue(&back, up))
        .flow(up, 2, &back, 1),
    );

    let there = to_app(world, "app1", up).ttl(63);
    let back = answer(&there);
    all.push(
        Scenario::new(
            &named("IP"),
            family,
            &["a/1 prio 1 flow from UES to SERVICE forward ip APP1 via app1"],
        )
        .sent("access0", up, Steered, "app1", &there)
        .sent("app1", &back, Replied, "access0", &to_ue(&back, up).ttl(63))
        .flow(up, 1, &back, 1),
    );

    let there = to_app(world, "app0", up).ttl(63).to(family.app0);
    let back = answer(&there);
    all.push(
        Scenario::new(
            &named("NAT"),
            family,
            &["a/1 prio 1 flow from UES to SERVICE forward ip APP0 nat via app0"],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &to_ue(&back, up).ttl(63))
        .sent("access0", up, Steered, "app0", &there)
        .flow(up, 2, &back, 1),
    );
}

/// Tags, zones and a UE whose path changes.
fn way_back(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let rules = ["a/1 prio 1 flow from UES to SERVICE forward ip APP0 nat via app0"];
    let udp = family.udp(443);
    for (name, tags) in [
        ("VLAN", &[(0x8100, 5)][..]),
        ("QinQ", &[(0x88a8, 100), (0x8100, 5)]),
        ("QinQ of old", &[(0x9100, 100), (0x8100, 5)]),
    ] {
        let tagged = |packet: &Packet| {
            tags.iter()
                .fold(packet.clone(), |packet, &(protocol, vlan)| {
                    packet.tag(protocol, vlan)
                })
        };
        let up = tagged(&udp);
        let there = to_app(world, "app0", &up).ttl(63).to(family.app0);
        let back = answer(&there);
        all.push(
            Scenario::new(&format!("{name} tags are put back"), family, &rules)
                .sent("access0", &up, Steered, "app0", &there)
                .sent(
                    "app0",
                    &back,
                    Replied,
                    "access0",
                    &to_ue(&back, &up).ttl(63),
                )
                .original(
                    "access0",
                    &tagged(&Packet::udp(&at(family.ue, 1), &at(family.app1, 1))),
                    NoRule,
                ),
        );
    }

    let there = to_app(world, "app0", &udp).ttl(63).to(family.app0);
    let back = answer(&there);
    let moved = udp
        .clone()
        .tag(0x8100, 9)
        .macs([2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]);
    all.push(
        Scenario::new("replies follow a UE whose path changes", family, &rules)
            .sent("access0", &udp, Steered, "app0", &there)
            .sent(
                "app0",
                &back,
                Replied,
                "access0",
                &to_ue(&back, &udp).ttl(63),
            )
            .sent("access0", &moved, Steered, "app0", &there)
            .sent(
                "app0",
                &back,
                Replied,
                "access0",
                &to_ue(&back, &moved).ttl(63),
            ),
    );

    let other = Packet::udp(&at(family.other_ue, 5000), &at(family.service, 443));
    let there_other = to_app(world, "app0", &other).ttl(63).to(family.app0);
    let back_other = answer(&there_other);
    all.push(
        Scenario::new("each UE gets its own answers", family, &rules)
            .sent("access0", &udp, Steered, "app0", &there)
            .sent("access1", &other, Steered, "app0", &there_other)
            .sent(
                "app0",
                &back_other,
                Replied,
                "access1",
                &to_ue(&back_other, &other).ttl(63),
            )
            .sent(
                "app0",
                &back,
                Replied,
                "access0",
                &to_ue(&back, &udp).ttl(63),
            ),
    );
}
