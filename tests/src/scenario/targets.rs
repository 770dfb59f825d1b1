//! Tunnels that rules send into: what goes into them, and what comes back.

mod kind;
mod own_port;
mod strangers;

use dataplane_core::Reason::{MtuExceeded, NoDownlinkTunnel, NoRule, Replied, Steered, WrongSide};

use super::{
    Family, FlowCount, Scenario, Then, V4, V6,
    mobile::{DOWN, Interface, RAN},
    to_ue,
};
use crate::{
    packet::{Packet, Tunnel, open, verify},
    world::World,
};
use kind::{KEY, Kind};
pub(crate) use kind::{flow_key, source_port};
use strangers::{strangers, unopened};

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    for outer in [&V4, &V6] {
        for kind in Kind::ALL {
            plain(family, outer, kind, all);
            behind_tunnels(family, outer, kind, all);
        }
    }
    nested(family, all);
    told_by_tunnel(family, all);
    strangers(family, all);
    shared(family, all);
    own_port::scenarios(family, all);
}

/// A UE without tunnel.
fn plain(family: &Family, outer: &Family, kind: Kind, all: &mut Vec<Scenario>) {
    let world = World::new();
    // One kind of tunnel stands for all in what it does to other protocols.
    let each = if kind == Kind::GreWithKey {
        family.each()
    } else {
        vec![family.udp(443)]
    };
    for up in each {
        let up = up.class(0xb8).tag(0x8100, 5);
        let inner = up.clone().untagged().ttl(63);
        let there = kind.sent(&world, outer, &inner, &up);
        let answer = up.reversed().untagged().ttl(60);
        let reply = kind.answered(outer, &answer);
        let back = to_ue(&answer.clone().ttl(59), &up);
        let rule = format!(
            "a/1 prio 1 flow to SERVICE forward {} via app0",
            kind.rule(outer)
        );
        let flow = FlowCount::new(&up, 2, &reply, 2).answered_with(&answer);
        let mut scenario = Scenario::new(
            &format!("into a tunnel over {} and back", outer.name),
            family,
            &[&rule],
        )
        .original("app0", &reply, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &back)
        .sent("app0", &reply, Replied, "access0", &back)
        .sent("access0", &up, Steered, "app0", &there);
        scenario.flows.push(flow);
        all.push(scenario);
    }
}

/// A UE behind a tunnel of its own.
fn behind_tunnels(family: &Family, outer: &Family, kind: Kind, all: &mut Vec<Scenario>) {
    let world = World::new();
    for interface in [Interface::N3, Interface::S1u] {
        let inner = family.udp(443);
        let up = interface.uplink(RAN, &inner);
        let down = interface.downlink(RAN, DOWN, &inner.reversed());
        let there = kind.sent(&world, outer, &inner.clone().ttl(63), &inner);
        let answer = inner.reversed().ttl(60);
        let reply = kind.answered(outer, &answer);
        let injected = interface.injected(RAN, DOWN, &answer.ttl(59), &up);
        let rule = format!(
            "a/1 prio 1 flow to SERVICE forward {} via app0",
            kind.rule(outer)
        );
        all.push(
            Scenario::new("from tunnel to tunnel and back", family, &[&rule])
                .original("access0", &up, NoDownlinkTunnel)
                .original("core0", &down, NoRule)
                .sent("access0", &up, Steered, "app0", &there)
                .sent("app0", &reply, Replied, "access0", &injected),
        );
    }
}

/// What is too long for the tunnel of the UE is said by the tunnel that it came by.
fn told_by_tunnel(family: &Family, all: &mut Vec<Scenario>) {
    let interface = Interface::N3;
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let there = Kind::GreWithKey.sent(&World::new(), &V4, &inner.clone().ttl(63), &inner);
    let long = inner.reversed().dont_fragment().payload(1400);
    let length = long.network_bytes().len();
    let long = long.payload(1400 + 1460 - length);
    let rule = format!(
        "a/1 prio 1 flow to SERVICE forward {} via app0",
        Kind::GreWithKey.rule(&V4)
    );
    let check = |frame: &[u8]| {
        let opened = open(frame)?;
        let by_tunnel = matches!(&opened.tunnel, Tunnel::Gre(gre) if gre.key == Some(KEY));
        if !by_tunnel || opened.destination.to_string() != V4.app0 {
            return Err(format!("{opened:?}"));
        }
        verify(frame)
    };
    all.push(
        Scenario::new(
            "who answers too much by a tunnel is told by it",
            family,
            &[&rule],
        )
        .original("core0", &down, NoRule)
        .sent("access0", &up, Steered, "app0", &there)
        .frame(
            "app0",
            Kind::GreWithKey.answered(&V4, &long).bytes(),
            MtuExceeded,
            Then::Answered(check),
        ),
    );
}

/// What keeps its tunnel goes into another with it, and may be answered with one.
fn nested(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    for kind in Kind::ALL {
        let inner = family.udp(443);
        let up = Interface::N3.uplink(RAN, &inner);
        let down = Interface::N3.downlink(RAN, DOWN, &inner.reversed());
        let there = kind.sent(&world, &V4, &up.clone().ttl(63), &inner);
        let reply = kind.answered(&V4, &down);
        let back = Packet {
            source_mac: up.destination_mac,
            destination_mac: up.source_mac,
            ..down.clone()
        };
        let rule = |what: &str| {
            let tunnel = kind.rule(&V4);
            format!("a/1 prio 1 flow to SERVICE forward {what}{tunnel} via app0")
        };
        all.push(
            Scenario::new("a tunnel in a tunnel", family, &[&rule("encapsulated ")])
                .original("core0", &down, NoRule)
                .sent("access0", &up, Steered, "app0", &there)
                .sent("app0", &reply, Replied, "access0", &back.ttl(63)),
        );
        // What was sent without is not answered with one.
        all.push(
            Scenario::new("no tunnel is made up in a tunnel", family, &[&rule("")])
                .original("core0", &down, NoRule)
                .sent(
                    "access0",
                    &up,
                    Steered,
                    "app0",
                    &kind.sent(&world, &V4, &inner.clone().ttl(63), &inner),
                )
                .original("app0", &reply, WrongSide),
        );
    }
}

/// Two rules send into one tunnel, each in its own way, and what comes back by it answers both.
fn shared(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let rules = [(Kind::Gtpu, "udp"), (Kind::GtpuWithQfi, "tcp")].map(|(kind, protocol)| {
        format!(
            "a/{protocol} prio 1 flow to SERVICE proto {protocol} forward {} via app0",
            kind.rule(&V4)
        )
    });
    let mut scenario = Scenario::new(
        "two rules share a tunnel",
        family,
        &rules.each_ref().map(|rule| &**rule),
    );
    for (kind, up) in [
        (Kind::Gtpu, family.udp(443)),
        (Kind::GtpuWithQfi, family.tcp(443)),
    ] {
        let there = kind.sent(&world, &V4, &up.clone().ttl(63), &up);
        let answer = up.reversed();
        scenario = scenario.sent("access0", &up, Steered, "app0", &there).sent(
            "app0",
            &Kind::Gtpu.answered(&V4, &answer),
            Replied,
            "access0",
            &to_ue(&answer.clone().ttl(63), &up),
        );
    }
    all.push(scenario);
    unopened(family, &world, all);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet::describe, tshark};

    #[test]
    fn what_is_sent_into_tunnels_is_sound_to_wireshark() {
        let mut all = Vec::new();
        for family in [&V4, &V6] {
            scenarios(family, &mut all);
        }
        let steps = all.into_iter().flat_map(|scenario| scenario.steps);
        let sent = steps.filter_map(|step| match step.then {
            Then::Sent(_, frame) => Some(frame),
            Then::Discarded
            | Then::Original
            | Then::Copied(..)
            | Then::Routed(_)
            | Then::Answered(_) => None,
        });
        // What UEs send of GRE and SCTP holds no more than a header.
        let is_whole = |frame: &Vec<u8>| {
            let text = describe(frame);
            !text.contains("GRE with flags") && !text.contains("protocol 132")
        };
        let frames: Vec<_> = sent
            .filter(|frame| open(frame).is_ok() && is_whole(frame))
            .collect();
        assert!(frames.len() > 100, "{}", frames.len());
        let fields = ["gtp.teid", "gre.key", "vxlan.vni"];
        let seen = tshark::dissect(&frames, &fields).unwrap();
        for value in ["0x01020304", "0xfedcba98", "11259375"] {
            assert!(seen.iter().flatten().any(|it| it == value), "{value}");
        }
    }
}
