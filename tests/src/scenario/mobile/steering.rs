//! How packets leave their tunnel and answers go back, and rules that leave them in it.

use dataplane_core::Reason::{
    self, AppInitiated, Continued, DownlinkPending, GtpuEndMarker, GtpuErrorIndication,
    NoDownlinkTunnel, NoRule, Replied, Steered,
};

use super::{CORE, DOWN, Interface, OTHER_DOWN, OTHER_RAN, RAN, RULE, UP};
use crate::{
    packet::{Gtpu, IcmpError, Packet, UDP_PORT},
    scenario::{Family, Scenario, answer, to_app},
    world::World,
};

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    life(family, interface, all);
    initiated(family, interface, all);
    inline(family, interface, all);
    left(family, interface, all);
    taken_over(family, interface, all);
    complaint(family, interface, all);
}

/// From the first packet to the end of the tunnel.
fn life(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let there = to_app(&world, "app0", &inner).ttl(63);
    let reply = answer(&there);
    let restored = Packet {
        ttl: 63,
        ..reply.clone()
    };
    let injected = interface.injected(RAN, DOWN, &restored, &up);
    let marker = interface.between(&Gtpu::end_marker(DOWN), CORE, RAN);
    let missing = interface.between(&Gtpu::error_indication(DOWN, RAN), RAN, CORE);
    let between = |ends: &Packet, reason: Reason, port: &'static str| {
        Scenario::new("a tunnel is learned, used and given up", family, &[RULE])
            .original("access0", &up, NoDownlinkTunnel)
            .original("core0", &down, NoRule)
            .sent("access0", &up, Steered, "app0", &there)
            .sent("app0", &reply, Replied, "access0", &injected)
            .original(port, ends, reason)
            .discarded("app0", &reply, DownlinkPending)
            // What was under way says nothing new.
            .original("core0", &down, Reason::WrongSide)
            .discarded("app0", &reply, DownlinkPending)
            .sent("access0", &up, Steered, "app0", &there)
            .discarded("app0", &reply, DownlinkPending)
    };
    all.push(between(&marker, GtpuEndMarker, "core0"));
    all.push(between(&missing, GtpuErrorIndication, "access0"));
}

/// A connection that began with the data network is not torn from it once answers would arrive.
fn left(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let first = family.tcp(443);
    let other = family.tcp(444);
    let up = interface.uplink(RAN, &first);
    let down = interface.downlink(RAN, DOWN, &first.reversed());
    let there = to_app(&world, "app0", &other).ttl(63);
    let rule = "a/1 prio 1 flow to SERVICE proto tcp forward ip APP0 via app0";
    all.push(
        Scenario::new("a connection stays where it began", family, &[rule])
            .original("access0", &up, NoDownlinkTunnel)
            .original("core0", &down, NoRule)
            .original("access0", &up, NoDownlinkTunnel)
            .original("core0", &down, NoRule)
            .sent(
                "access0",
                &interface.uplink(RAN, &other),
                Steered,
                "app0",
                &there,
            )
            .original("access0", &up, NoDownlinkTunnel)
            .rules(family, &[])
            .original("access0", &up, NoDownlinkTunnel)
            .rules(family, &[rule])
            .original("access0", &up, NoDownlinkTunnel),
    );
    let passed = |name: &str, earlier: &[&str]| {
        let rules = [
            earlier,
            &[
                "a/2 prio 2 flow to SERVICE proto tcp forward ip APP0 via app0",
                "a/3 prio 3 packet from SERVICE drop",
            ],
        ];
        Scenario::new(name, family, &rules.concat())
            .original("access0", &up, NoDownlinkTunnel)
            .original("access0", &up, NoDownlinkTunnel)
    };
    all.push(
        passed("a later rule is none for a connection that stays", &[])
            .original("core0", &down, NoRule),
    );
    all.push(
        passed(
            "an earlier rule is one for a connection that stays",
            &["a/1 prio 1 packet from SERVICE drop"],
        )
        .discarded("core0", &down, Reason::RuleDrop),
    );
}

/// What goes to the data network goes on there when a rule comes that forwards it, while its answers would not
/// arrive; and what an application has stays with applications.
fn taken_over(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let passes = ["a/1 prio 1 flow to SERVICE passthrough"];
    let forwards = ["a/1 prio 1 flow to SERVICE forward ip APP0 via app0"];
    let elsewhere = ["a/2 prio 1 flow to SERVICE forward ip APP1 via app1"];
    let packets = |inner: &Packet| {
        let up = interface.uplink(RAN, inner);
        let down = interface.downlink(RAN, DOWN, &inner.reversed());
        (up, down, to_app(&world, "app0", inner).ttl(63))
    };
    let begin = |name: &str, rules: &[&str]| Scenario::new(name, family, rules);
    let (up, down, there) = packets(&family.udp(443));
    for (name, before, reason) in [
        (
            "what passed is forwarded once answers arrive",
            &passes[..],
            Reason::Passthrough,
        ),
        (
            "what no rule was for is forwarded once answers arrive",
            &[],
            NoRule,
        ),
    ] {
        all.push(
            begin(name, &passes)
                .original("access0", &up, Reason::Passthrough)
                .rules(family, before)
                .original("access0", &up, reason)
                .rules(family, &forwards)
                .original("access0", &up, NoDownlinkTunnel)
                .original("access0", &up, NoDownlinkTunnel)
                .original("core0", &down, Reason::WrongSide)
                .sent("access0", &up, Steered, "app0", &there),
        );
    }
    let marker = interface.between(&Gtpu::end_marker(DOWN), CORE, RAN);
    let moved = to_app(&world, "app1", &family.udp(443)).ttl(63);
    all.push(
        begin(
            "an application's flow goes to another application",
            &forwards,
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .original("core0", &marker, GtpuEndMarker)
        .rules(family, &elsewhere)
        .sent("access0", &up, Steered, "app1", &moved)
        .rules(family, &passes)
        .original("access0", &up, Reason::Passthrough)
        .rules(family, &forwards)
        .original("access0", &up, NoDownlinkTunnel),
    );
    let (up, down, there) = packets(&family.tcp(443));
    all.push(
        begin("a connection that passed stays where it is", &passes)
            .original("access0", &up, Reason::Passthrough)
            .rules(family, &forwards)
            .original("access0", &up, NoDownlinkTunnel)
            .original("core0", &down, NoRule)
            .original("access0", &up, NoDownlinkTunnel)
            .rules(family, &passes)
            .original("access0", &up, Reason::Passthrough)
            .rules(family, &forwards)
            .sent("access0", &up, Steered, "app0", &there),
    );
    let begun = "a/0 prio 0 packet to SERVICE drop";
    all.push(
        begin(
            "an earlier rule is one for a flow that cannot be forwarded",
            &passes,
        )
        .original("access0", &up, Reason::Passthrough)
        .rules(family, &[begun, forwards[0]])
        .discarded("access0", &up, Reason::RuleDrop)
        .rules(family, &forwards)
        .original("access0", &up, NoDownlinkTunnel),
    );
}

/// Who sends an error about a flow gets nothing of that flow, and moves none of it.
fn complaint(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let there = to_app(&world, "app0", &inner).ttl(63);
    let reply = answer(&there);
    let restored = reply.clone().ttl(63);
    let injected = interface.injected(RAN, DOWN, &restored, &up);
    let complaint = |from| Packet::error(from, IcmpError::Unreachable, &inner.reversed(), 200);
    // All of an IPv6 prefix is one UE.
    let stranger = complaint(if family.is_v4() {
        family.other_ue
    } else {
        "2001:db8:46::8"
    });
    let to_stranger = interface.downlink(OTHER_RAN, OTHER_DOWN, &stranger.reversed());
    let of_stranger = interface.uplink(OTHER_RAN, &stranger);
    let own = complaint(family.ue);
    let [of_stranger_there, own_there] =
        [&stranger, &own].map(|it| to_app(&world, "app0", it).ttl(63));
    all.push(
        Scenario::new(
            "an error about a flow leaves it where it is",
            family,
            &[RULE],
        )
        .original(
            "core0",
            &interface.downlink(RAN, DOWN, &inner.reversed()),
            NoRule,
        )
        .original("core0", &to_stranger, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .sent("access0", &of_stranger, Steered, "app0", &of_stranger_there)
        .sent("app0", &reply, Replied, "access0", &injected)
        .sent(
            "access0",
            &interface.uplink(RAN, &own),
            Steered,
            "app0",
            &own_there,
        )
        .sent("app0", &reply, Replied, "access0", &injected),
    );
}

/// An application in the middle gets packets without tunnels, and gives them back without.
fn inline(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let (there, back) = (
        to_app(&world, "app0", &inner),
        to_app(&world, "app1", &inner.reversed()),
    );
    let given = inner
        .clone()
        .macs([2, 0, 0, 0, 0xa, 2], world.port("app1").mac);
    let given_back = inner
        .reversed()
        .macs([2, 0, 0, 0, 0xa, 1], world.port("app0").mac);
    all.push(
        Scenario::new(
            "an inline application is between two tunnels",
            family,
            &[
                "a/1 prio 1 flow to SERVICE zone 0 forward mac 02:00:00:00:0a:01 via app0 \
                and mac 02:00:00:00:0a:02 via app1",
            ],
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .sent(
            "app1",
            &given,
            Continued,
            "core0",
            &interface.continued(RAN, &inner, &up),
        )
        .sent("core0", &down, Steered, "app1", &back)
        .sent(
            "app0",
            &given_back,
            Replied,
            "access0",
            &interface.injected(RAN, DOWN, &inner.reversed(), &up),
        ),
    );
    all.push(
        Scenario::new(
            "an inline application gives back what came by the only tunnel to the core",
            family,
            &[
                "a/1 prio 1 flow to SERVICE zone 0 forward mac 02:00:00:00:0a:01 via app0 \
                and mac 02:00:00:00:0a:02 via app1",
            ],
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        // On S1-U, by another bearer.
        .sent(
            "core0",
            &interface.downlink(RAN, OTHER_DOWN, &inner.reversed()),
            Steered,
            "app1",
            &back,
        )
        .sent(
            "app1",
            &given,
            Continued,
            "core0",
            &interface.continued(RAN, &inner, &up),
        ),
    );
}

/// An application sends first.
fn initiated(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(9);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let first = answer(&to_app(&world, "app0", &family.udp(5060)));
    let restored = Packet {
        ttl: 63,
        ..first.clone()
    };
    let injected = interface.injected(RAN, DOWN, &restored, &up);
    all.push(
        Scenario::new("an application may send first", family, &[RULE])
            .original("app0", &first, NoRule)
            .original("access0", &up, NoDownlinkTunnel)
            .original("app0", &first, NoDownlinkTunnel)
            .original("core0", &down, NoRule)
            .sent("app0", &first, AppInitiated, "access0", &injected),
    );
    relinked(family, interface, all);
}

/// The router of the stations gets another address on the link, and an application sends by the new one.
fn relinked(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let there = to_app(&world, "app0", &inner).ttl(63);
    let first = answer(&to_app(&world, "app0", &family.udp(5060)));
    let sent = |to: &Packet| interface.injected(RAN, DOWN, &first.clone().ttl(63), to);
    let mut scenario = Scenario::new(
        "an application sends by the newest link layer",
        family,
        &[RULE],
    )
    .original("core0", &down, NoRule)
    .sent("access0", &up, Steered, "app0", &there)
    .sent("access0", &up, Steered, "app0", &there)
    .sent("app0", &first, AppInitiated, "access0", &sent(&up));
    let other = up.clone().macs([2, 0, 0, 0, 0, 7], up.destination_mac);
    let gateway = up.clone().macs(up.source_mac, [2, 0, 0, 0, 0, 8]);
    let tagged = up.clone().tag(0x8100, 9);
    for link in [&other, &gateway, &tagged, &up] {
        scenario = scenario
            .sent("access0", link, Steered, "app0", &there)
            .sent("app0", &first, AppInitiated, "access0", &sent(link))
            .sent("access0", link, Steered, "app0", &there)
            .sent("app0", &first, AppInitiated, "access0", &sent(link));
    }
    all.push(scenario);
}

/// Rules that leave a packet in its tunnel, or cannot.
pub(super) fn in_tunnels(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = Interface::N3.uplink(RAN, &inner);
    let down = Interface::N3.downlink(RAN, DOWN, &inner.reversed());
    let there = to_app(&world, "app0", &up);
    let back = Packet {
        source_mac: up.destination_mac,
        destination_mac: up.source_mac,
        ..down.clone()
    };
    let from_app = Packet {
        source_mac: there.destination_mac,
        destination_mac: there.source_mac,
        ..down.clone()
    };
    all.push(
        Scenario::new(
            "a packet may keep its tunnel",
            family,
            &["a/1 prio 1 flow to SERVICE forward encapsulated mac 02:00:00:00:0a:01 via app0"],
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .sent("app0", &from_app, Replied, "access0", &back),
    );
    let long = Gtpu::pdu(UP, inner.network_bytes()).extension(UDP_PORT, &[0; 150]);
    let long = Interface::N3.between(&long, RAN, CORE);
    all.push(
        Scenario::new(
            "what is not done to a packet in a tunnel is said",
            family,
            &[
                "a/1 prio 1 packet to SERVICE proto udp duplicate mac 02:00:00:00:0a:01 via app0",
                "a/2 prio 2 flow to SERVICE forward encapsulated ip APP0 nat via app0",
            ],
        )
        .original("core0", &down, NoRule)
        .original("access0", &long, Reason::TunnelUnsupported)
        .original(
            "access0",
            &Interface::N3.uplink(RAN, &family.tcp(443)),
            Reason::TunnelUnsupported,
        ),
    );
    all.push(
        Scenario::new(
            "rules that discard or let pass apply inside of tunnels",
            family,
            &[
                "a/1 prio 1 flow to SERVICE proto udp drop",
                "a/2 prio 2 flow to SERVICE passthrough",
            ],
        )
        .discarded("access0", &up, Reason::RuleDrop)
        .original(
            "access0",
            &Interface::S1u.uplink(RAN, &family.tcp(443)),
            Reason::Passthrough,
        ),
    );
}
