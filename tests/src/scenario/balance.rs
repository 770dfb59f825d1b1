//! Flows balanced over the backends of a VIP.

mod asides;
mod choosing;
mod tunnels;

use dataplane_core::Reason::{NoRule, Replied, Steered};

use super::{Family, Scenario, answer, to_app, to_ue};
use crate::{packet::Packet, world::World};
use asides::{echo, errors, fragments, order};
use choosing::{affinity, connections, fallback, states};
pub(super) use tunnels::mobile;

/// A VIP with these backends.
pub(super) fn vip(backends: &str) -> String {
    format!("@vip/1 prio 128 flow to SERVICE proto tcp,udp dport 443 balance {backends}")
}

pub(super) const A: &str = "backend a weight 1 STATE ip APP0 via app0";
pub(super) const B: &str = "backend b weight 1 STATE ip APP1 via app1";
pub(super) const A_NAT: &str = "backend a weight 1 STATE ip APP0 nat 8443 via app0";
pub(super) const B_NAT: &str = "backend b weight 1 STATE ip APP1 nat via app1";

pub(super) fn is(backend: &str, state: &str) -> String {
    backend.replace("STATE", state)
}

/// A rule for a VIP with two backends in these states.
pub(super) fn of(one: &str, state: &str, other: &str, other_state: &str) -> String {
    vip(&format!("{} {}", is(one, state), is(other, other_state)))
}

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    for up in [family.udp(443), family.tcp(443)] {
        modes(&world, family, &up, all);
        states(&world, family, &up, all);
        errors(&world, family, &up, all);
    }
    connections(&world, family, all);
    fallback(&world, family, all);
    affinity(&world, family, all);
    echo(family, all);
    order(family, all);
    fragments(&world, family, all);
    other_protocols(&world, family, all);
}

/// A backend gets a packet as it was sent, or with its own address and port.
fn modes(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    let kind = format!("protocol {}", up.protocol());
    let there = to_app(world, "app0", up).ttl(63);
    let back = answer(&there);
    all.push(
        Scenario::new(
            &format!("a backend that has the VIP itself, {kind}"),
            family,
            &[&vip(&is(A, "up"))],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &to_ue(&back, up).ttl(63))
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &to_ue(&back, up).ttl(63))
        .original("core0", &back.clone().to(family.other_ue), NoRule)
        .flow(up, 2, &back, 2),
    );
    let there = there.to(family.app0).to_port(8443);
    let back = answer(&there);
    let restored = to_ue(&back, up).from_port(443).ttl(63);
    all.push(
        Scenario::new(
            &format!("a backend with an address and a port of its own, {kind}"),
            family,
            &[&vip(&is(A_NAT, "up"))],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &restored)
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &restored)
        .flow(up, 2, &back, 2),
    );
    let nowhere = up.clone().to_port(0);
    all.push(
        Scenario::new(
            &format!("port 0 is not translated, {kind}"),
            family,
            &[&vip(&is(A_NAT, "up")).replace(" dport 443", "")],
        )
        .sent("access0", up, Steered, "app0", &there)
        .original("access0", &nowhere, NoRule),
    );
    let rule = "a/1 prio 1 flow to SERVICE proto tcp,udp forward ip APP0 nat 8443 via app0";
    all.push(
        Scenario::new(
            &format!("ports are translated by rules too, {kind}"),
            family,
            &[rule],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("app0", &back, Replied, "access0", &restored),
    );
}

/// SCTP has its own checksum, over ports but not addresses; what has no ports is balanced by addresses.
fn other_protocols(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    for (filter, nat) in [
        ("proto sctp dport 443 ", ""),
        ("proto sctp ", " nat"),
        ("", ""),
        ("", " nat"),
    ] {
        let rule = format!(
            "@vip/1 prio 128 flow to SERVICE {filter}balance backend a weight 1 up ip APP0{nat} via app0"
        );
        let packets = [
            family.sctp(443),
            Packet::other(family.ue, family.service, 47),
        ];
        for up in packets
            .into_iter()
            .take(if filter.is_empty() { 2 } else { 1 })
        {
            let there = to_app(world, "app0", &up).ttl(63);
            let there = if nat.is_empty() {
                there
            } else {
                there.to(family.app0)
            };
            let back = answer(&there);
            let name = format!("a VIP for {filter}protocol {}{nat}", up.protocol());
            all.push(
                Scenario::new(&name, family, &[&rule])
                    .sent("access0", &up, Steered, "app0", &there)
                    .sent(
                        "app0",
                        &back,
                        Replied,
                        "access0",
                        &to_ue(&back, &up).ttl(63),
                    )
                    .flow(&up, 1, &back, 1),
            );
        }
    }
}
