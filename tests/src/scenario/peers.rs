//! VIPs without a backend on this host or another: packets go from one to the other in tunnels, and not round.

mod one_port;

use dataplane_core::Reason::{NoBackend, NoRule, Replied, Steered, VipEcho, VipLoop, VipPeer};

use super::{
    Family, Scenario, answer,
    balance::{A, A_NAT, is, vip},
    mobile::{DOWN, Interface, RAN},
    to_app, to_ue,
};
use crate::{
    packet::{Gre, IcmpError, Packet},
    world::{OWN, PEER, PEER_KEY, World},
};

/// The peer as the fallback of a VIP.
const ELSE: &str = "else gre 198.18.2.2 from 198.18.0.1 key 77 via app1";

/// `inner` as it is sent to the peer.
fn to_peer(inner: &Packet) -> Packet {
    let gre = Gre::new(inner).key(PEER_KEY).over(OWN[0], PEER);
    to_app(&World::new(), "app1", &gre.dont_fragment()).identification(0)
}

/// `inner` as it comes from the peer.
fn from_peer(inner: &Packet) -> Packet {
    Gre::new(inner).key(PEER_KEY).over(PEER, OWN[0])
}

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let elsewhere = format!("{} {ELSE}", vip(&is(A, "draining")));
    for up in [family.udp(443), family.tcp(443)] {
        sending(family, &up, &elsewhere, all);
        receiving(family, &up, &elsewhere, all);
    }
    behind_tunnels(family, &elsewhere, all);
    backend_elsewhere(family, all);
    errors(family, all);
    one_port::scenarios(family, all);
}

/// An error may be from anybody: it goes where its flow goes, and does not move it.
fn errors(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    for up in [family.udp(443), family.tcp(443)] {
        let came = from_peer(&up);
        let there = to_app(&world, "app0", &up).ttl(63);
        let reply = answer(&there);
        let answered = to_peer(&reply.clone().ttl(63)).macs(came.destination_mac, came.source_mac);
        let direct = to_ue(&reply, &up).ttl(63);
        let error = Packet::error(
            family.ue,
            IcmpError::Unreachable,
            &reply.clone().ttl(63),
            200,
        );
        let told = to_app(&world, "app0", &error).ttl(63);
        let start = |name: &str| {
            let name = format!("{name}, protocol {}", up.protocol());
            Scenario::new(&name, family, &[&vip(&is(A, "up"))])
        };
        all.push(
            start("an error does not take a flow away from a peer")
                .sent("app1", &came, Steered, "app0", &there)
                .sent("app0", &reply, Replied, "app1", &answered)
                .sent("access0", &error, Steered, "app0", &told)
                .sent("app0", &reply, Replied, "app1", &answered)
                .sent("app1", &from_peer(&error), Steered, "app0", &told)
                .sent("app0", &reply, Replied, "app1", &answered),
        );
        all.push(
            start("an error from a peer does not bring a flow there")
                .sent("access0", &up, Steered, "app0", &there)
                .sent("app0", &reply, Replied, "access0", &direct)
                .sent("app1", &from_peer(&error), Steered, "app0", &told)
                .sent("app0", &reply, Replied, "access0", &direct),
        );
    }
}

/// A backend on another host is at the end of a tunnel.
fn backend_elsewhere(family: &Family, all: &mut Vec<Scenario>) {
    let far = "gre 198.18.2.2 from 198.18.0.1 key 77 via app1";
    let up = family.udp(443);
    let there = to_peer(&up.clone().ttl(63));
    let reply = up.reversed().ttl(60);
    let back = to_ue(&reply.clone().ttl(59), &up);
    let both = |state: &str| {
        let elsewhere = format!("backend b weight 1 {state} {far}");
        vip(&format!("{} {elsewhere}", is(A, "draining")))
    };
    all.push(
        Scenario::new("a backend on another host", family, &[&both("up")])
            .sent("access0", &up, Steered, "app1", &there)
            .sent("app1", &from_peer(&reply), Replied, "access0", &back)
            .sent("access0", &up, Steered, "app1", &there)
            .rules(family, &[&both("down")])
            .original("access0", &up, NoBackend),
    );
}

fn sending(family: &Family, up: &Packet, elsewhere: &str, all: &mut Vec<Scenario>) {
    let world = World::new();
    let there = to_peer(&up.clone().ttl(63));
    let reply = up.reversed().ttl(60);
    let back = to_ue(&reply.clone().ttl(59), up);
    let local = vip(&is(A, "up"));
    let other = family.other(up);
    all.push(
        Scenario::new(
            &format!(
                "without a backend the peer takes flows, protocol {}",
                up.protocol()
            ),
            family,
            &[elsewhere],
        )
        .sent("access0", up, VipPeer, "app1", &there)
        .sent("app1", &from_peer(&reply), Replied, "access0", &back)
        .sent("access0", up, VipPeer, "app1", &there)
        // A flow that the peer has stays with it.
        .rules(family, &[&format!("{local} {ELSE}")])
        .sent("access0", up, VipPeer, "app1", &there)
        .sent("app1", &from_peer(&reply), Replied, "access0", &back)
        .sent(
            "access0",
            &other,
            Steered,
            "app0",
            &to_app(&world, "app0", &other).ttl(63),
        )
        .original("access0", &family.udp(80), NoRule),
    );
}

fn receiving(family: &Family, up: &Packet, elsewhere: &str, all: &mut Vec<Scenario>) {
    let world = World::new();
    let kind = format!("protocol {}", up.protocol());
    let came = from_peer(up);
    let there = to_app(&world, "app0", up)
        .ttl(63)
        .to(family.app0)
        .to_port(8443);
    let reply = answer(&there);
    let restored = Packet {
        source: up.destination,
        ..reply.clone().from_port(443).ttl(63)
    };
    let to_peer = |inner: &Packet| to_peer(inner).macs(came.destination_mac, came.source_mac);
    let answered = to_peer(&restored);
    let direct = to_ue(&reply, up).from_port(443).ttl(63);
    let ping = family.echo();
    let local = vip(&is(A_NAT, "up"));
    all.push(
        Scenario::new(
            &format!("what a peer sends is served and answered by it, {kind}"),
            family,
            &[&local],
        )
        .sent("app1", &came, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "app1", &answered)
        .sent("app1", &came, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "app1", &answered)
        .sent(
            "app1",
            &from_peer(&ping),
            VipEcho,
            "app1",
            &to_peer(&ping.reversed()),
        )
        // The UE has come to this host, and goes again.
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &direct)
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &direct)
        .sent("app1", &came, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "app1", &answered)
        .original("app1", &from_peer(&family.udp(80)), NoRule),
    );
    for (rule, name) in [
        (elsewhere.to_owned(), "and would send it back"),
        (vip(&is(A, "draining")), "and would pass it on"),
        (vip(""), "nor ever"),
    ] {
        all.push(
            Scenario::new(
                &format!("who has no backend takes nothing from a peer, {name}, {kind}"),
                family,
                &[&rule],
            )
            .discarded("app1", &came, VipLoop)
            .discarded("app1", &came, VipLoop),
        );
    }
    all.push(
        Scenario::new(
            &format!("what a peer sent goes nowhere once the backend is down, {kind}"),
            family,
            &[&format!("{local} {ELSE}")],
        )
        .sent("app1", &came, Steered, "app0", &there)
        .rules(family, &[&format!("{} {ELSE}", vip(&is(A_NAT, "down")))])
        .discarded("app1", &came, VipLoop)
        .original("app1", &from_peer(&ping), NoBackend),
    );
}

/// A UE behind a tunnel reaches the peer without that, and gets answers by it.
fn behind_tunnels(family: &Family, elsewhere: &str, all: &mut Vec<Scenario>) {
    for interface in [Interface::N3, Interface::S1u] {
        let inner = family.udp(443);
        let up = interface.uplink(RAN, &inner);
        let down = interface.downlink(RAN, DOWN, &inner.reversed());
        let there = to_peer(&inner.clone().ttl(63));
        let reply = inner.reversed().ttl(60);
        let injected = interface.injected(RAN, DOWN, &reply.clone().ttl(59), &up);
        all.push(
            Scenario::new("a UE behind a tunnel and a peer", family, &[elsewhere])
                .original("core0", &down, NoRule)
                .sent("access0", &up, VipPeer, "app1", &there)
                .sent("app1", &from_peer(&reply), Replied, "access0", &injected)
                .sent("access0", &up, VipPeer, "app1", &there),
        );
    }
}
