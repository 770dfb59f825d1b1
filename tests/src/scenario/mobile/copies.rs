//! Copies without the tunnels of what is copied.

use dataplane_core::Reason::{CopyReply, Duplicated, NoRule};

use super::{DOWN, Interface, RAN};
use crate::{
    packet::Packet,
    scenario::{Family, Scenario, Then, answer, to_app},
    world::World,
};

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    for kind in ["packet", "flow"] {
        let rule = format!("a/1 prio 1 {kind} to SERVICE duplicate mac 02:00:00:00:0a:01 via app0");
        of_uplink(family, interface, &rule, all);
    }
    of_downlink(family, interface, all);
}

/// On wires and where the kernel routes, with tags, and with as little inside as there can be.
fn of_uplink(family: &Family, interface: Interface, rule: &str, all: &mut Vec<Scenario>) {
    let inner = family.udp(443);
    let bare = Packet {
        payload: vec![],
        ..inner.clone()
    };
    let up = interface.uplink(RAN, &inner);
    let tagged = up.clone().tag(0x8100, 7);
    let twice = up.clone().tag(0x88a8, 7).tag(0x8100, 8);
    let small = interface.uplink(RAN, &bare);
    let answered = answer(&to_app(&World::new(), "app0", &inner));
    all.push(
        Scenario::new("copies leave their tunnel", family, &[rule])
            .frame("access0", up.bytes(), Duplicated, copy(&inner))
            .frame("access0", small.bytes(), Duplicated, copy(&bare))
            .frame("access0", tagged.bytes(), Duplicated, copy(&inner))
            .frame("access0", twice.bytes(), Duplicated, copy(&inner))
            .frame("access2", up.bytes(), Duplicated, copy(&inner))
            .discarded("app0", &answered, CopyReply),
    );
}

/// A flow is copied in both directions, to one destination or to two.
fn of_downlink(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let inner = family.udp(443);
    let (up, down) = (
        interface.uplink(RAN, &inner),
        interface.downlink(RAN, DOWN, &inner.reversed()),
    );
    let other = interface.downlink(RAN, DOWN, &family.udp(80).reversed());
    all.push(
        Scenario::new(
            "copies of both directions leave their tunnels",
            family,
            &["a/1 prio 1 flow to SERVICE proto udp dport 443 duplicate mac 02:00:00:00:0a:01 via app0"],
        )
        .original("core0", &other, NoRule)
        .frame("access0", up.bytes(), Duplicated, copy(&inner))
        .frame("core0", down.bytes(), Duplicated, copy(&inner.reversed()))
        .frame("access0", up.bytes(), Duplicated, copy(&inner)),
    );
}

/// The packet goes on, and comes out of `app0` like this besides.
fn copy(inner: &Packet) -> Then {
    Then::Copied("app0", to_app(&World::new(), "app0", inner).bytes())
}
