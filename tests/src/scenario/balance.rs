//! Flows balanced over the backends of a VIP.

use dataplane_core::Reason::{
    NextHopUnresolved, NoBackend, NoDownlinkTunnel, NoRule, Passthrough, Replied, RuleDrop,
    Steered, VipEcho, WrongSide,
};

use super::{
    Family, Scenario, Then,
    addressing::at,
    answer,
    mobile::{DOWN, Interface, RAN},
    to_app, to_ue,
};
use crate::{
    packet::{IcmpError, Packet, SYN},
    world::World,
};

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

/// Flows stay with a backend while it lives, and no longer.
fn states(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    let kind = format!("protocol {}", up.protocol());
    let there = to_app(world, "app0", up)
        .ttl(63)
        .to(family.app0)
        .to_port(8443);
    let back = answer(&there);
    let restored = to_ue(&back, up).from_port(443).ttl(63);
    let elsewhere = to_app(world, "app1", up).ttl(63).to(family.app1);
    let other = family.other(up);
    let other_there = to_app(world, "app1", &other).ttl(63).to(family.app1);
    let both = |state, other| of(A_NAT, state, B_NAT, other);
    for (state, name) in [("draining", "drains"), ("up", "weighs nothing")] {
        let drained = both(state, "up");
        let drained = if state == "up" {
            drained.replacen("weight 1", "weight 0", 1)
        } else {
            drained
        };
        all.push(
            Scenario::new(
                &format!("a backend that {name} keeps its flows and gets none, {kind}"),
                family,
                &[&both("up", "down")],
            )
            .sent("access0", up, Steered, "app0", &there)
            .rules(family, &[&drained])
            .sent("access0", up, Steered, "app0", &there)
            .sent("access0", &other, Steered, "app1", &other_there)
            .sent("app0", &back, Replied, "access0", &restored)
            // Other changes leave them where they are.
            .rules(family, &[&drained, "a/1 prio 1 flow to NOBODY drop"])
            .sent("access0", up, Steered, "app0", &there)
            .sent("access0", &other, Steered, "app1", &other_there)
            .sent("app0", &back, Replied, "access0", &restored),
        );
    }
    let back_elsewhere = answer(&elsewhere);
    all.push(
        Scenario::new(
            &format!("flows of a backend that is down go to another at once, {kind}"),
            family,
            &[&both("up", "down")],
        )
        .sent("access0", up, Steered, "app0", &there)
        .sent("access0", up, Steered, "app0", &there)
        .rules(family, &[&both("down", "up")])
        .sent("access0", up, Steered, "app1", &elsewhere)
        .original("app0", &back, NoRule)
        .sent(
            "app1",
            &back_elsewhere,
            Replied,
            "access0",
            &to_ue(&back_elsewhere, up).ttl(63),
        )
        // And stay there.
        .rules(family, &[&both("up", "up")])
        .sent("access0", up, Steered, "app1", &elsewhere)
        .flow(up, 4, &back_elsewhere, 1),
    );
    all.push(
        Scenario::new(
            &format!("a backend that is no more has no flows, {kind}"),
            family,
            &[&both("up", "down")],
        )
        .sent("access0", up, Steered, "app0", &there)
        .rules(family, &[&vip(&is(B_NAT, "up"))])
        .sent("access0", up, Steered, "app1", &elsewhere)
        .rules(family, &[])
        .original("access0", up, NoRule),
    );
    let unknown = "backend c weight 1 up ip NOBODY via app0";
    all.push(
        Scenario::new(
            &format!("a backend that nobody has seen is waited for, {kind}"),
            family,
            &[&vip(unknown)],
        )
        .original("access0", up, NextHopUnresolved),
    );
}

/// A connection that begins gets a backend that takes new flows.
fn connections(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let data = family.tcp(443);
    let begin = data.clone().flags(SYN);
    let there = |packet: &Packet| {
        to_app(world, "app0", packet)
            .ttl(63)
            .to(family.app0)
            .to_port(8443)
    };
    let elsewhere = |packet: &Packet| to_app(world, "app1", packet).ttl(63).to(family.app1);
    all.push(
        Scenario::new(
            "a new connection is chosen for anew",
            family,
            &[&of(A_NAT, "up", B_NAT, "down")],
        )
        .sent("access0", &begin, Steered, "app0", &there(&begin))
        .sent("access0", &begin, Steered, "app0", &there(&begin))
        .sent("access0", &data, Steered, "app0", &there(&data))
        .rules(family, &[&of(A_NAT, "draining", B_NAT, "up")])
        .sent("access0", &data, Steered, "app0", &there(&data))
        .sent("access0", &begin, Steered, "app1", &elsewhere(&begin))
        .sent("access0", &data, Steered, "app1", &elsewhere(&data))
        .sent("access0", &data, Steered, "app1", &elsewhere(&data)),
    );
    all.push(
        Scenario::new(
            "what does not come from the UE gets its connection no other backend",
            family,
            &[&of(A_NAT, "up", B_NAT, "down")],
        )
        .sent("access0", &begin, Steered, "app0", &there(&begin))
        .rules(family, &[&of(A_NAT, "draining", B_NAT, "up")])
        .original("core0", &begin, WrongSide)
        .original("app1", &begin, WrongSide)
        .sent("access0", &data, Steered, "app0", &there(&data)),
    );
}

/// Without backends packets go on, and what began with the data network stays with it.
fn fallback(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let data = family.tcp(443);
    let begin = data.clone().flags(SYN);
    let there = |packet: &Packet| to_app(world, "app0", packet).ttl(63);
    for down in ["down", "draining"] {
        all.push(
            Scenario::new(
                &format!("without a backend that is not {down}, packets go on"),
                family,
                &[&vip(&is(A, down))],
            )
            .original("access0", &begin, NoBackend)
            .original("access0", &data, NoBackend)
            .original("core0", &data.reversed(), NoBackend)
            .rules(family, &[&vip(&is(A, "up"))])
            .original("access0", &data, NoBackend)
            .sent("access0", &begin, Steered, "app0", &there(&begin))
            .sent("access0", &data, Steered, "app0", &there(&data)),
        );
    }
    all.push(
        Scenario::new("a VIP without backends", family, &[&vip("")])
            .original("access0", &data, NoBackend)
            .original("access0", &family.echo(), NoBackend),
    );
}

/// A UE keeps its backend for new flows.
fn affinity(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let packets = |port: u16| {
        let up = Packet::udp(&at(family.ue, port), &at(family.service, 443));
        let there = to_app(world, "app0", &up).ttl(63);
        let elsewhere = to_app(world, "app1", &up).ttl(63);
        (up, there, elsewhere)
    };
    let vip = |a: &str, b: &str| {
        let backends = format!("ue 60 {} {}", is(A, a), is(B, b));
        vip(&backends.replace("b weight 1", "b weight 65535"))
    };
    let (first, there, _) = packets(5000);
    let mut scenario = Scenario::new(
        "a UE keeps its backend, until that drains",
        family,
        &[&vip("up", "down")],
    )
    .sent("access0", &first, Steered, "app0", &there)
    // From now on the other has nearly all places.
    .rules(family, &[&vip("up", "up")]);
    for port in 5001..5010 {
        let (up, there, _) = packets(port);
        scenario = scenario.sent("access0", &up, Steered, "app0", &there);
    }
    scenario = scenario.rules(family, &[&vip("draining", "up")]);
    for port in 5010..5013 {
        let (up, _, elsewhere) = packets(port);
        scenario = scenario.sent("access0", &up, Steered, "app1", &elsewhere);
    }
    scenario = scenario
        .rules(family, &[&vip("up", "up")])
        .sent("access0", &first, Steered, "app0", &there);
    all.push(scenario);
}

/// An echo request to a VIP is answered while it has a backend.
fn echo(family: &Family, all: &mut Vec<Scenario>) {
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
fn order(family: &Family, all: &mut Vec<Scenario>) {
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
fn errors(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
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
fn fragments(world: &World, family: &Family, all: &mut Vec<Scenario>) {
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

/// UEs behind tunnels use VIPs as others do.
pub(super) fn mobile(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
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
