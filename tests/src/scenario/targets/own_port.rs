//! Tunnels whose far end is behind the same port as the UEs.

use dataplane_core::Reason::{NoRule, OwnOutput, Replied, Steered};

use super::kind::{KEY, Kind, own};
use crate::scenario::{
    Family, FlowCount, Scenario, V4, V6,
    mobile::{DOWN, Interface, RAN},
    to_ue,
};
use crate::{
    packet::{Gre, IcmpError, Packet},
    world::{FAR, World},
};

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    for outer in [&V4, &V6] {
        for kind in Kind::ALL {
            plain(family, outer, kind, all);
            behind_tunnels(family, outer, kind, all);
        }
    }
    errors(family, all);
    not_again(family, all);
    not_again_with_tunnel(family, all);
    between_ends(family, all);
}

fn far(outer: &Family) -> &'static str {
    FAR[usize::from(!outer.is_v4())]
}

/// A rule for what `filter` says into the tunnel.
fn rule(what: &str, kind: Kind, outer: &Family) -> String {
    let tunnel = kind.rule_to(outer, far(outer));
    format!("a/1 prio 1 {what} {tunnel} via access0")
}

fn sent(kind: Kind, outer: &Family, inner: &Packet, flow: &Packet) -> Packet {
    kind.sent_to(&World::new(), outer, ("access0", far(outer)), inner, flow)
}

fn answered(kind: Kind, outer: &Family, inner: &Packet) -> Packet {
    kind.between(far(outer), own(outer), inner, 40_000)
}

fn plain(family: &Family, outer: &Family, kind: Kind, all: &mut Vec<Scenario>) {
    let up = family.tcp(443).class(0xb8).tag(0x8100, 5);
    let there = sent(kind, outer, &up.clone().untagged().ttl(63), &up);
    let answer = up.reversed().untagged().ttl(60);
    let reply = answered(kind, outer, &answer);
    let back = to_ue(&answer.clone().ttl(59), &up);
    let flow = FlowCount::new(&up, 2, &reply, 2).answered_with(&answer);
    let mut scenario = Scenario::new(
        "into a tunnel by the UE's own port, and back",
        family,
        &[&rule("flow to SERVICE forward", kind, outer)],
    )
    .original("access0", &reply, NoRule)
    .sent("access0", &up, Steered, "access0", &there)
    .sent("access0", &reply, Replied, "access0", &back)
    .sent("access0", &reply, Replied, "access0", &back)
    .sent("access0", &up, Steered, "access0", &there);
    scenario.flows.push(flow);
    all.push(scenario);
}

fn behind_tunnels(family: &Family, outer: &Family, kind: Kind, all: &mut Vec<Scenario>) {
    for interface in [Interface::N3, Interface::S1u] {
        let inner = family.udp(443);
        let up = interface.uplink(RAN, &inner);
        let down = interface.downlink(RAN, DOWN, &inner.reversed());
        let answer = inner.reversed().ttl(60);
        let reply = answered(kind, outer, &answer);
        let scenario = |what: &str| {
            Scenario::new(
                "from tunnel to tunnel by the station's own port, and back",
                family,
                &[&rule(what, kind, outer)],
            )
            .original("core0", &down, NoRule)
        };
        let there = sent(kind, outer, &inner.clone().ttl(63), &inner);
        let injected = interface.injected(RAN, DOWN, &answer.ttl(59), &up);
        all.push(
            scenario("flow to SERVICE forward")
                .sent("access0", &up, Steered, "access0", &there)
                .sent("access0", &reply, Replied, "access0", &injected)
                .sent("access0", &up, Steered, "access0", &there),
        );
        let there = sent(kind, outer, &up.clone().ttl(63), &inner);
        all.push(
            scenario("flow to SERVICE forward encapsulated")
                .sent("access0", &up, Steered, "access0", &there)
                .sent("access0", &reply, Replied, "access0", &injected),
        );
    }
}

/// Errors about what was sent, and about what came back.
fn errors(family: &Family, all: &mut Vec<Scenario>) {
    let kind = Kind::GreWithKey;
    let up = family.udp(443);
    let there = sent(kind, &V4, &up.clone().ttl(63), &up);
    let answer = up.reversed();
    let back = to_ue(&answer.clone().ttl(63), &up);
    let from_there = Packet::error(family.router, IcmpError::TimeExceeded, &up, 200);
    let told = from_there.clone().macs(up.destination_mac, up.source_mac);
    let from_ue = Packet::error(family.ue, IcmpError::Unreachable, &answer, 200);
    let complained = sent(kind, &V4, &from_ue.clone().ttl(63), &from_ue);
    all.push(
        Scenario::new(
            "errors go into a tunnel by their own port, and come out of it",
            family,
            &[&rule("flow to SERVICE forward", kind, &V4)],
        )
        .sent("access0", &up, Steered, "access0", &there)
        .sent(
            "access0",
            &answered(kind, &V4, &answer),
            Replied,
            "access0",
            &back,
        )
        .sent(
            "access0",
            &answered(kind, &V4, &from_there),
            Replied,
            "access0",
            &told.ttl(63),
        )
        .sent("access0", &from_ue, Steered, "access0", &complained),
    );
}

/// No rule applies to what comes out of the tunnel that it sends into.
fn not_again(family: &Family, all: &mut Vec<Scenario>) {
    for (kind, other) in [(Kind::Gre, Kind::Gre), (Kind::Gtpu, Kind::GtpuWithQfi)] {
        let up = family.udp(443);
        let there = sent(kind, &V4, &up.clone().ttl(63), &up);
        let answer = up.reversed();
        let back = to_ue(&answer.clone().ttl(63), &up);
        let reply = answered(kind, &V4, &answer);
        let stray = answered(kind, &V4, &family.udp(444));
        let every = rule("packet any forward", other, &V4);
        let own = rule("flow to SERVICE forward", kind, &V4).replace("a/1 prio 1", "a/2 prio 2");
        let into_other = sent(other, &V4, &up.clone().ttl(63), &up);
        all.push(
            Scenario::new(
                "what comes out of a tunnel does not go back",
                family,
                &[&own, &every],
            )
            .sent("access0", &up, Steered, "access0", &into_other)
            .original("access0", &stray, NoRule)
            .original("app0", &stray, NoRule),
        );
        all.push(
            Scenario::new(
                "answers come out of a tunnel that all is sent into",
                family,
                &[&own],
            )
            .sent("access0", &up, Steered, "access0", &there)
            .rules(family, &[&own, &every])
            .sent("access0", &reply, Replied, "access0", &back)
            .sent("access0", &up, Steered, "access0", &into_other),
        );
    }
}

/// The same, where the station's tunnel is kept inside.
fn not_again_with_tunnel(family: &Family, all: &mut Vec<Scenario>) {
    let kind = Kind::Gre;
    let inner = family.udp(443);
    let up = Interface::N3.uplink(RAN, &inner);
    let down = Interface::N3.downlink(RAN, DOWN, &inner.reversed());
    let there = sent(kind, &V4, &up.clone().ttl(63), &inner);
    let back = down.clone().macs(up.destination_mac, up.source_mac).ttl(63);
    let own = rule("flow to SERVICE forward encapsulated", kind, &V4);
    let every = rule("packet any forward encapsulated", kind, &V4);
    let own_later = own.replace("a/1 prio 1", "a/2 prio 2");
    all.push(
        Scenario::new(
            "nor does what was sent with the station's tunnel",
            family,
            &[&own],
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "access0", &there)
        .rules(family, &[&every, &own_later])
        .sent(
            "access0",
            &answered(kind, &V4, &down),
            Replied,
            "access0",
            &back,
        ),
    );
}

/// What passes between the ends of a tunnel does not go into it.
fn between_ends(family: &Family, all: &mut Vec<Scenario>) {
    let kind = Kind::Gre;
    let (near, end) = (own(family), far(family));
    let every = rule("flow any forward", kind, family);
    let up = family.udp(443);
    let there = sent(kind, family, &up.clone().ttl(63), &up);
    let strange = Gre::new(&up).key(KEY);
    for packet in [
        // As if the network had turned it round.
        there.clone(),
        strange.clone().over(end, near),
        strange.over(near, end),
        Packet::echo(family.ue, end, 7),
        Packet::echo(end, family.service, 7),
        Packet::echo(family.ue, near, 7),
    ] {
        all.push(
            Scenario::new(
                "what passes between the ends of a tunnel does not go into it",
                family,
                &[&every],
            )
            .sent("access0", &up, Steered, "access0", &there)
            .original("access0", &packet, OwnOutput)
            .original("access0", &packet, OwnOutput),
        );
    }
}
