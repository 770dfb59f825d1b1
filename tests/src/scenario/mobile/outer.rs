//! What is sent over IPv6 has a UDP checksum, whatever is inside (RFC 8200, 8.1).

use dataplane_core::Reason::{AppInitiated, NoRule, Replied, Steered};

use super::{DOWN, Interface, RAN};
use crate::{
    packet::{Extension, Packet, Transport},
    scenario::{Family, Scenario, Then, answer, to_app},
    world::World,
};

const OUTER: Interface = Interface::N3Ipv6;

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    initiated(family, all);
    for packet in family.each() {
        translated(family, &packet, all);
    }
}

/// An application sends packets of every kind, length and shape.
fn initiated(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let up = OUTER.uplink(RAN, &family.udp(9));
    let down = OUTER.downlink(RAN, DOWN, &family.udp(9).reversed());
    let mut scenario = Scenario::new(
        "over IPv6 there is a checksum",
        family,
        &["a/1 prio 1 flow to NOBODY drop"],
    )
    .original("access0", &up, NoRule)
    .original("core0", &down, NoRule);
    for packet in shapes(family) {
        let first = answer(&to_app(&world, "app0", &packet));
        let restored = first.clone().ttl(63);
        let whole = first.transport_bytes().len();
        // Later fragments of an echo are not known by its identifier.
        let cut = whole > 1000 && !matches!(packet.transport, Transport::Echo { .. });
        let pieces = |packet: &Packet| {
            if cut {
                packet.fragments(600)
            } else {
                vec![packet.bytes()]
            }
        };
        for (frame, inner) in pieces(&first).into_iter().zip(pieces(&restored)) {
            let inner = inner.split_at(14).1.to_vec();
            let carrying = OUTER.carrying(RAN, DOWN, inner).class(packet.class);
            let then = Then::Sent("access0", OUTER.sent(carrying, &up).bytes());
            scenario = scenario.frame("app0", frame, AppInitiated, then);
        }
    }
    all.push(scenario);
}

fn shapes(family: &Family) -> Vec<Packet> {
    let mut shapes = family.each();
    for packet in family.each() {
        let lengths = [0, 1, 511, 512, 513, 1001];
        shapes.extend(lengths.map(|length| packet.clone().payload(length)));
        shapes.push(packet.clone().class(0xb8));
        shapes.push(if family.is_v4() {
            packet.options(3)
        } else {
            packet.extension(Extension::Routing)
        });
    }
    // Of another family's kind, so that the pseudo-header is not what its number tells.
    let number = if family.is_v4() { 58 } else { 1 };
    shapes.push(Packet::new(
        shapes[0].source,
        shapes[0].destination,
        Transport::Other(number),
    ));
    shapes
}

/// Answers in which an address was replaced.
fn translated(family: &Family, packet: &Packet, all: &mut Vec<Scenario>) {
    let world = World::new();
    let mut scenario = Scenario::new(
        &format!(
            "over IPv6 the checksum is of what the packet has become, protocol {}",
            packet.protocol()
        ),
        family,
        &["a/1 prio 1 flow to SERVICE forward ip APP0 nat via app0"],
    )
    .original(
        "core0",
        &OUTER.downlink(RAN, DOWN, &packet.reversed()),
        NoRule,
    );
    for length in [0, 9, 700] {
        let packet = packet.clone().payload(length);
        let up = OUTER.uplink(RAN, &packet);
        let there = to_app(&world, "app0", &packet).ttl(63).to(family.app0);
        let reply = answer(&there);
        let restored = reply.clone().ttl(63).from(family.service);
        scenario = scenario.sent("access0", &up, Steered, "app0", &there).sent(
            "app0",
            &reply,
            Replied,
            "access0",
            &OUTER.injected(RAN, DOWN, &restored, &up),
        );
    }
    all.push(scenario);
}
