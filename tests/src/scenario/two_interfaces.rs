//! Applications with two interfaces: between UE and core, or listening to both.

use dataplane_core::Reason::{Continued, CopyReply, Duplicated, OwnOutput, Replied, Steered};

use super::{Family, Scenario, Then, to_app};
use crate::{packet::Packet, world::World};

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    inline(&world, family, all);
    tap(&world, family, all);
}

/// An application between its two interfaces.
fn inline(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let rules = [
        "a/1 prio 1 flow to SERVICE zone 0 forward mac 02:00:00:00:0a:01 via app0 \
                  and mac 02:00:00:00:0a:02 via app1",
    ];
    let up = family.udp(443).tag(0x8100, 5);
    let down = up.reversed();
    let to_ue_side = to_app(world, "app0", &up);
    let to_core_side = to_app(world, "app1", &down);
    // An inline application sends from its own MAC addresses, as a bridge or a router would.
    let given = up
        .clone()
        .untagged()
        .macs([2, 0, 0, 0, 0xa, 2], world.port("app1").mac);
    let given_back = down
        .clone()
        .untagged()
        .macs([2, 0, 0, 0, 0xa, 1], world.port("app0").mac);
    all.push(
        Scenario::new("an inline application is in the middle", family, &rules)
            .sent("access0", &up, Steered, "app0", &to_ue_side)
            .sent("app1", &given, Continued, "core0", &up)
            .sent("core0", &down, Steered, "app1", &to_core_side)
            .sent("app0", &given_back, Replied, "access0", &down)
            .flow(&up, 1, &down, 1),
    );
    let bounced = |packet: &Packet| {
        let (source, destination) = (packet.source_mac, packet.destination_mac);
        packet.clone().macs(destination, source)
    };
    all.push(
        Scenario::new(
            "an inline application cannot turn packets round",
            family,
            &rules,
        )
        .sent("access0", &up, Steered, "app0", &to_ue_side)
        .original("app0", &bounced(&to_ue_side), OwnOutput)
        .sent("core0", &down, Steered, "app1", &to_core_side)
        .original("app1", &bounced(&to_core_side), OwnOutput)
        .flow(&up, 1, &down, 1),
    );
    let routed = given.clone().macs(up.source_mac, world.port("app1").mac);
    all.push(
        Scenario::new(
            "the kernel routes what an inline application gives back",
            family,
            &rules,
        )
        .sent("access2", &up, Steered, "app0", &to_ue_side)
        .frame(
            "app1",
            given.bytes(),
            Continued,
            Then::Routed(routed.bytes()),
        ),
    );
}

/// An application that listens on two interfaces.
fn tap(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let up = family.udp(443);
    let down = up.reversed();
    let copy = |port, packet: &Packet| Then::Copied(port, to_app(world, port, packet).bytes());
    for kind in ["flow", "packet"] {
        let rule = format!(
            "a/1 prio 1 {kind} any duplicate mac 02:00:00:00:0a:01 via app0 \
                and mac 02:00:00:00:0a:02 via app1"
        );
        let scenario = Scenario::new(
            &format!("a tap hears each side on its own interface, {kind}"),
            family,
            &[&rule],
        )
        .frame("access0", up.bytes(), Duplicated, copy("app0", &up))
        .frame("core0", down.bytes(), Duplicated, copy("app1", &down))
        .frame("app0", down.bytes(), CopyReply, Then::Discarded)
        .frame("app1", down.bytes(), CopyReply, Then::Discarded);
        all.push(if kind == "flow" {
            scenario
                .original("app0", &up, OwnOutput)
                .original("app1", &up, OwnOutput)
                .flow(&up, 1, &down, 1)
        } else {
            scenario
        });
    }
}
