//! Peers behind the port that UEs are behind, or backends.

use dataplane_core::Reason::{NoRule, OwnOutput, Replied, Steered, VipLoop, VipPeer};

use super::{from_peer, to_peer};
use crate::{
    packet::{Gre, IcmpError, Packet},
    scenario::{
        Family, Scenario, answer,
        balance::{A, B, is, vip},
        mobile::{DOWN, Interface, RAN},
        to_app, to_ue,
    },
    world::{FAR, OWN, PEER_AT_ACCESS, PEER_KEY, World},
};

/// `inner` as it is sent to a peer behind the port that UEs are behind.
fn to_near_peer(inner: &Packet) -> Packet {
    let gre = Gre::new(inner).key(PEER_KEY).over(OWN[0], PEER_AT_ACCESS);
    to_app(&World::new(), "access0", &gre.dont_fragment()).identification(0)
}

/// `inner` as it comes from there.
fn from_near_peer(inner: &Packet) -> Packet {
    Gre::new(inner).key(PEER_KEY).over(PEER_AT_ACCESS, OWN[0])
}

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    behind_one_port(family, all);
    beside_backends(family, all);
    not_back(family, all);
}

/// UEs and a peer are behind the same port.
fn behind_one_port(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let with = |backend: &str| {
        vip(&format!(
            "{backend} else gre {PEER_AT_ACCESS} from 198.18.0.1 key 77 via access0"
        ))
    };
    let (without, local) = (with(&is(A, "draining")), with(&is(A, "up")));
    for up in [family.udp(443), family.tcp(443)] {
        let there = to_near_peer(&up.clone().ttl(63));
        let reply = up.reversed().ttl(60);
        let back = to_ue(&reply.clone().ttl(59), &up);
        let unreachable = Packet::error(family.router, IcmpError::Unreachable, &up, 200);
        let kind = format!("protocol {}", up.protocol());
        all.push(
            Scenario::new(
                &format!("a UE and the peer that serves it are behind one port, {kind}"),
                family,
                &[&without],
            )
            .sent("access0", &up, VipPeer, "access0", &there)
            .sent(
                "access0",
                &from_near_peer(&reply),
                Replied,
                "access0",
                &back,
            )
            .sent("access0", &up, VipPeer, "access0", &there)
            .sent(
                "access0",
                &from_near_peer(&reply),
                Replied,
                "access0",
                &back,
            )
            .sent(
                "access0",
                &from_near_peer(&unreachable),
                Replied,
                "access0",
                &unreachable
                    .clone()
                    .macs(up.destination_mac, up.source_mac)
                    .ttl(63),
            )
            .discarded("access0", &from_near_peer(&family.other(&up)), VipLoop),
        );
        let came = from_near_peer(&up);
        let there = to_app(&world, "app0", &up).ttl(63);
        let reply = answer(&there);
        let answered =
            to_near_peer(&reply.clone().ttl(63)).macs(came.destination_mac, came.source_mac);
        all.push(
            Scenario::new(
                &format!("a UE of a peer's and others are behind one port, {kind}"),
                family,
                &[&local],
            )
            .sent("access0", &came, Steered, "app0", &there)
            .sent("app0", &reply, Replied, "access0", &answered)
            // It has come to this host, and goes again.
            .sent("access0", &up, Steered, "app0", &there)
            .sent(
                "app0",
                &reply,
                Replied,
                "access0",
                &to_ue(&reply, &up).ttl(63),
            )
            .sent("access0", &came, Steered, "app0", &there)
            .sent("app0", &reply, Replied, "access0", &answered),
        );
    }
    for interface in [Interface::N3, Interface::S1u] {
        let inner = family.udp(443);
        let up = interface.uplink(RAN, &inner);
        let down = interface.downlink(RAN, DOWN, &inner.reversed());
        let there = to_near_peer(&inner.clone().ttl(63));
        let reply = inner.reversed().ttl(60);
        let injected = interface.injected(RAN, DOWN, &reply.clone().ttl(59), &up);
        all.push(
            Scenario::new(
                "a station and a peer are behind one port",
                family,
                &[&without],
            )
            .original("core0", &down, NoRule)
            .sent("access0", &up, VipPeer, "access0", &there)
            .sent(
                "access0",
                &from_near_peer(&reply),
                Replied,
                "access0",
                &injected,
            )
            .sent("access0", &up, VipPeer, "access0", &there),
        );
    }
}

/// A rule that sends to a peer is not for what has come from there, nor when other rules are in force.
fn not_back(family: &Family, all: &mut Vec<Scenario>) {
    let up = family.udp(443);
    let came = from_peer(&up);
    let there = to_app(&World::new(), "app0", &up).ttl(63);
    let local = "a/2 prio 2 flow to SERVICE forward ip APP0 via app0";
    let back = "a/1 prio 1 flow to SERVICE forward gre 198.18.2.2 from 198.18.0.1 key 77 via app1";
    all.push(
        Scenario::new("no rule sends back to a peer", family, &[local])
            .sent("app1", &came, Steered, "app0", &there)
            .rules(family, &[back, local])
            .sent("app1", &came, Steered, "app0", &there)
            .sent(
                "access0",
                &family.other(&up),
                Steered,
                "app1",
                &to_peer(&family.other(&up).ttl(63)),
            ),
    );
}

/// A peer and a backend are behind the same port.
fn beside_backends(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let up = family.udp(443);
    let came = from_peer(&up);
    let there = to_app(&world, "app1", &up).ttl(63);
    let reply = answer(&there);
    let answered = to_peer(&reply.clone().ttl(63)).macs(came.destination_mac, came.source_mac);
    all.push(
        Scenario::new(
            "a peer and the backend that serves its UEs are behind one port",
            family,
            &[&vip(&is(B, "up"))],
        )
        .sent("app1", &came, Steered, "app1", &there)
        .sent("app1", &reply, Replied, "app1", &answered)
        .sent("app1", &came, Steered, "app1", &there),
    );
    let bridged = "backend b weight 1 up mac 02:00:00:00:0a:02 via app1";
    all.push(
        Scenario::new(
            "what is not routed does not leave by its own port",
            family,
            &[&vip(bridged)],
        )
        .original("app1", &came, OwnOutput),
    );
    let behind_ues = format!(
        "backend b weight 1 up ip {} via access0",
        FAR[usize::from(!family.is_v4())]
    );
    all.push(
        Scenario::new(
            "where no application is expected, what a peer has sent does not turn round",
            family,
            &[&vip(&behind_ues)],
        )
        .original("access0", &from_near_peer(&up), OwnOutput),
    );
    // The backend is where the packets come from.
    all.push(
        Scenario::new(
            "a peer is not sent what it has sent",
            family,
            &[&vip(
                "backend b weight 1 up gre 198.18.2.2 from 198.18.0.1 key 77 via app1",
            )],
        )
        .original("app1", &came, OwnOutput)
        .original("access0", &came, OwnOutput),
    );
}
