//! UEs behind tunnels.

use dataplane_core::Reason::{NoBackend, NoDownlinkTunnel, NoRule, Replied, Steered, VipEcho};

use super::{A, A_NAT, B_NAT, is, of, vip};
use crate::scenario::{
    Family, Scenario, answer,
    mobile::{DOWN, Interface, RAN},
    to_app,
};
use crate::{
    packet::{Packet, SYN},
    world::World,
};

/// UEs behind tunnels use VIPs as others do.
pub(in crate::scenario) fn mobile(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let udp = family.udp(443);
    let ping = family.echo();
    let up = |inner: &Packet| interface.uplink(RAN, inner);
    let down = |inner: &Packet| interface.downlink(RAN, DOWN, inner);
    let there = to_app(&world, "app0", &udp)
        .ttl(63)
        .to(family.app0)
        .to_port(8443);
    let reply = answer(&there);
    let restored = Packet {
        ttl: 63,
        source: udp.destination,
        ..reply.clone().from_port(443)
    };
    let injected = interface.injected(RAN, DOWN, &restored, &up(&udp));
    let echoed = interface.injected(RAN, DOWN, &ping.reversed(), &up(&ping));
    let elsewhere = to_app(&world, "app1", &udp).ttl(63).to(family.app1);
    all.push(
        Scenario::new(
            "a VIP in tunnels",
            family,
            &[&of(A_NAT, "up", B_NAT, "down")],
        )
        .original("access0", &up(&udp), NoDownlinkTunnel)
        .original("core0", &down(&udp.reversed()), NoRule)
        .sent("access0", &up(&udp), Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &injected)
        .sent("access0", &up(&udp), Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &injected)
        .sent("access0", &up(&ping), VipEcho, "access0", &echoed)
        .rules(family, &[&of(A_NAT, "draining", B_NAT, "up")])
        .sent("access0", &up(&udp), Steered, "app0", &there)
        .rules(family, &[&of(A_NAT, "down", B_NAT, "up")])
        .sent("access0", &up(&udp), Steered, "app1", &elsewhere)
        .rules(family, &[&of(A_NAT, "down", B_NAT, "down")])
        .original("access0", &up(&ping), NoBackend)
        .original("access0", &up(&udp), NoBackend),
    );
    connections_in_tunnels(&world, family, interface, all);
}

/// A connection that went on without a backend gets one once answers find the UE.
fn connections_in_tunnels(
    world: &World,
    family: &Family,
    interface: Interface,
    all: &mut Vec<Scenario>,
) {
    let begin = family.tcp(443).flags(SYN);
    let there = to_app(world, "app0", &begin).ttl(63);
    let up = interface.uplink(RAN, &begin);
    let down = interface.downlink(RAN, DOWN, &begin.reversed());
    all.push(
        Scenario::new(
            "a connection gets a backend when answers find the UE",
            family,
            &[&vip(&is(A, "draining"))],
        )
        .original("access0", &up, NoBackend)
        .rules(family, &[&vip(&is(A, "up"))])
        .original("access0", &up, NoBackend)
        .original("core0", &down, NoBackend)
        .sent("access0", &up, Steered, "app0", &there)
        .rules(family, &[&vip(&is(A, "down"))])
        .original("access0", &up, NoBackend)
        .rules(family, &[&vip(&is(A, "up"))])
        .sent("access0", &up, Steered, "app0", &there),
    );
}
