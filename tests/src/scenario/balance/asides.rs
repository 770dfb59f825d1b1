//! What is not of a flow of its own: echo requests, errors, fragments; and other rules.

use dataplane_core::Reason::{NoBackend, NoRule, Passthrough, Replied, RuleDrop, Steered, VipEcho};

use super::{A, A_NAT, is, vip};
use crate::scenario::{Family, Scenario, Then, answer, to_app, to_ue};
use crate::{
    packet::{IcmpError, Packet},
    world::World,
};

/// An echo request to a VIP is answered while it has a backend.
pub(super) fn echo(family: &Family, all: &mut Vec<Scenario>) {
    let ping = family.echo();
    let tagged = ping.clone().tag(0x8100, 5);
    let spent = tagged.clone().ttl(1);
    all.push(
        Scenario::new("echo requests are answered", family, &[&vip(&is(A, "up"))])
            .sent("access0", &ping, VipEcho, "access0", &ping.reversed())
            .sent("access0", &spent, VipEcho, "access0", &tagged.reversed())
            .original("access0", &ping.reversed(), NoRule)
            .original("core0", &ping, NoRule)
            .rules(family, &[&vip(&is(A, "draining"))])
            .original("access0", &ping, NoBackend),
    );
    let passing = "a/1 prio 1 flow to SERVICE passthrough";
    all.push(
        Scenario::new(
            "echo requests that went on before the VIP was there go on",
            family,
            &[passing],
        )
        .original("access0", &ping, Passthrough)
        .rules(family, &[&vip(&is(A_NAT, "up"))])
        .original("access0", &ping, NoRule)
        .original("core0", &ping.reversed(), NoRule)
        .rules(family, &[passing])
        .original("access0", &ping, Passthrough),
    );
    let down = is(A, "down");
    let other = format!(
        "@vip/2 prio 128 flow to SERVICE proto tcp dport 80 balance {}",
        is(A, "up")
    );
    for quiet in [
        vip(&format!("silent {down}")),
        format!("@vip/1 prio 128 flow to SERVICE balance silent {down}"),
    ] {
        all.push(
            Scenario::new(
                "who is silent leaves echo requests to others",
                family,
                &[&quiet, &other],
            )
            .sent("access0", &ping, VipEcho, "access0", &ping.reversed())
            .original("access0", &family.udp(443), NoBackend)
            .rules(family, &[&quiet])
            .original("access0", &ping, NoRule),
        );
    }
    let any = format!("@vip/1 prio 128 flow to SERVICE balance {}", is(A, "up"));
    all.push(
        Scenario::new("also when a VIP is for all protocols", family, &[&any]).sent(
            "access0",
            &ping,
            VipEcho,
            "access0",
            &ping.reversed(),
        ),
    );
}

/// A VIP is a rule among others.
pub(super) fn order(family: &Family, all: &mut Vec<Scenario>) {
    let vip = vip(&is(A, "up"));
    all.push(
        Scenario::new(
            "explicit rules go before a VIP",
            family,
            &[
                &vip,
                "a/1 prio 127 flow from OTHER-UE drop",
                "a/2 prio 200 flow any drop",
            ],
        )
        .discarded("access0", &family.other(&family.udp(443)), RuleDrop)
        .discarded("access0", &family.udp(80), RuleDrop),
    );
}

/// What complains about a packet of a balanced flow reaches whom it is for.
pub(super) fn errors(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    let there = to_app(world, "app0", up)
        .ttl(63)
        .to(family.app0)
        .to_port(8443);
    let reply = answer(&there);
    let restored = to_ue(&reply, up).from_port(443).ttl(63);
    let length = 548;
    let kind = IcmpError::TooBig(1300);
    let complaint = Packet::error(family.ue, kind, &restored, length);
    let sent = Packet {
        ttl: 63,
        ..reply.clone()
    };
    let told = Packet::error_about_translated(family.ue, kind, &sent, &restored, length);
    let told = to_app(world, "app0", &told.to(family.app0)).ttl(63);
    let link = answer(&there);
    let back = Packet::error(family.router, kind, &there, length)
        .macs(link.source_mac, link.destination_mac);
    let quoted = Packet {
        ttl: 63,
        ..up.clone()
    };
    let back_told = Packet::error_about_translated(family.router, kind, &quoted, &there, length)
        .macs(up.destination_mac, up.source_mac)
        .ttl(63);
    all.push(
        Scenario::new(
            &format!("errors reach backend and UE, protocol {}", up.protocol()),
            family,
            &[&vip(&is(A_NAT, "up"))],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &restored)
        .sent("access0", &complaint, Steered, "app0", &told)
        .sent("app0", &back, Replied, "access0", &back_told),
    );
}

/// Fragments go with the first of them, and only that has ports.
pub(super) fn fragments(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let big = family.udp(443).payload(100);
    let there = to_app(world, "app0", &big)
        .ttl(63)
        .to(family.app0)
        .to_port(8443);
    let reply = answer(&there);
    let restored = to_ue(&reply, &big).from_port(443).ttl(63);
    let mut scenario = Scenario::new(
        "fragments have one port to change",
        family,
        &[&vip(&is(A_NAT, "up"))],
    );
    for (frame, looking) in big.fragments(48).into_iter().zip(there.fragments(48)) {
        scenario = scenario.frame("access0", frame, Steered, Then::Sent("app0", looking));
    }
    for (frame, looking) in reply.fragments(48).into_iter().zip(restored.fragments(48)) {
        scenario = scenario.frame("app0", frame, Replied, Then::Sent("access0", looking));
    }
    all.push(scenario);
}
