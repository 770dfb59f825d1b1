//! UEs behind tunnels: what is learned from G-PDUs, how answers go back, and when they must not.

use dataplane_core::Reason::{
    self, AppInitiated, DownlinkPending, GtpuEcho, GtpuEndMarker, GtpuErrorIndication,
    GtpuExtension, GtpuNotIp, GtpuSupportedExtensionHeaders, MalformedGtpu, NoDownlinkTunnel,
    NoRule, Replied, Steered,
};

use super::{Family, Scenario, Then, answer, to_app};
use crate::{
    packet::{GTPU_PORT, Gtpu, Packet, Session},
    world::World,
};

const RAN: &str = "192.0.2.1";
const OTHER_RAN: &str = "192.0.2.2";
const CORE: &str = "198.51.100.1";
/// TEIDs towards the core, and towards the UE at each of its places.
const UP: u32 = 0x1234;
const DOWN: u32 = 0x5678;
const OTHER_DOWN: u32 = 0x9abc;
const QFI: u8 = 9;
const RULE: &str = "a/1 prio 1 flow to SERVICE proto udp forward ip APP0 via app0";

/// Whether the tunnels are those of N3, with PDU Session Containers, or of S1-U.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    N3,
    S1u,
}

impl Interface {
    fn uplink(self, from: &str, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(UP, inner.network_bytes());
        let pdu = match self {
            Self::N3 => pdu.session(Session::Uplink(QFI)),
            // Some stations number their packets.
            Self::S1u => pdu.sequence(7),
        };
        pdu.over(&gtpu(from), &gtpu(CORE))
    }

    fn downlink(self, to: &str, teid: u32, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(teid, inner.network_bytes());
        let pdu = match self {
            Self::N3 => pdu.session(Session::Downlink(QFI)),
            Self::S1u => pdu,
        };
        pdu.over(&gtpu(CORE), &gtpu(to))
    }

    /// What is sent to the UE in answer to `question`.
    fn injected(self, to: &str, teid: u32, inner: &Packet, question: &Packet) -> Packet {
        let packet = self.downlink(to, teid, inner).dont_fragment();
        Packet {
            identification: 0,
            source_mac: question.destination_mac,
            destination_mac: question.source_mac,
            ..packet
        }
        .without_checksum()
    }
}

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    for interface in [Interface::N3, Interface::S1u] {
        life(family, interface, all);
        handover(family, interface, all);
        initiated(family, interface, all);
    }
    kept(family, all);
    messages(family, all);
    not_tunnels(family, all);
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
    let marker = Gtpu::end_marker(DOWN).over(&gtpu(CORE), &gtpu(RAN));
    let missing = Gtpu::error_indication(DOWN, RAN).over(&gtpu(RAN), &gtpu(CORE));
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

/// The UE moves to another station.
fn handover(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let moved = interface.uplink(OTHER_RAN, &inner);
    let forwarded = interface.downlink("192.0.2.3", 0xf, &inner.reversed());
    let arrived = interface.downlink(OTHER_RAN, OTHER_DOWN, &inner.reversed());
    let there = to_app(&world, "app0", &inner).ttl(63);
    let reply = answer(&there);
    let restored = Packet {
        ttl: 63,
        ..reply.clone()
    };
    let before = interface.injected(RAN, DOWN, &restored, &up);
    let after = interface.injected(OTHER_RAN, OTHER_DOWN, &restored, &moved);
    all.push(
        Scenario::new("a UE that moves is answered where it is", family, &[RULE])
            .original("core0", &down, NoRule)
            .sent("access0", &up, Steered, "app0", &there)
            .sent("app0", &reply, Replied, "access0", &before)
            // By a tunnel that leads to where nothing comes from.
            .original("core0", &forwarded, Reason::WrongSide)
            .sent("app0", &reply, Replied, "access0", &before)
            .sent("access0", &moved, Steered, "app0", &there)
            .discarded("app0", &reply, DownlinkPending)
            .original("core0", &down, Reason::WrongSide)
            .original("core0", &forwarded, Reason::WrongSide)
            .discarded("app0", &reply, DownlinkPending)
            .original("core0", &arrived, Reason::WrongSide)
            .sent("app0", &reply, Replied, "access0", &after)
            .original(
                "core0",
                &Gtpu::end_marker(DOWN).over(&gtpu(CORE), &gtpu(RAN)),
                GtpuEndMarker,
            )
            .sent("app0", &reply, Replied, "access0", &after),
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
}

/// Rules that leave a packet in its tunnel, or cannot.
fn kept(family: &Family, all: &mut Vec<Scenario>) {
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
        .original("access0", &up, Reason::TunnelUnsupported)
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

/// What is not a packet of a UE's goes on, each for its own reason.
fn messages(family: &Family, all: &mut Vec<Scenario>) {
    let inner = family.udp(443).network_bytes();
    let pdu = || Gtpu::pdu(UP, inner.clone());
    let mut scenario = Scenario::new(
        "other messages go on",
        family,
        &["a/1 prio 1 flow any drop"],
    );
    for (message, reason) in [
        (Gtpu::echo_request(7), GtpuEcho),
        (Gtpu::echo_response(7), GtpuEcho),
        (
            Gtpu::supported_extensions(&[0x85]),
            GtpuSupportedExtensionHeaders,
        ),
        (Gtpu::error_indication(UP, RAN), GtpuErrorIndication),
        (Gtpu::end_marker(UP), GtpuEndMarker),
        (
            Gtpu {
                message: 253,
                ..pdu()
            },
            Reason::GtpuOther,
        ),
        (Gtpu::pdu(UP, vec![0xff; 40]), GtpuNotIp),
        (pdu().extension(0xc0, &[0, 1]), GtpuExtension),
    ] {
        scenario = scenario.original("access0", &message.over(&gtpu(RAN), &gtpu(CORE)), reason);
        scenario = scenario.original("core0", &message.over(&gtpu(CORE), &gtpu(RAN)), reason);
    }
    let mut endless = pdu()
        .session(Session::Downlink(QFI))
        .over(&gtpu(CORE), &gtpu(RAN))
        .bytes();
    let length = 14 + 20 + 8 + 8 + 4;
    endless[length] = 0;
    scenario = scenario.frame("core0", endless, MalformedGtpu, Then::Original);
    // A length in units of four octets, which once was read as octets.
    let known = pdu()
        .session(Session::Uplink(QFI))
        .udp_port(2152)
        .over(&gtpu(RAN), &gtpu(CORE));
    all.push(scenario.discarded("access0", &known, Reason::RuleDrop));
}

/// A UE may talk to the port of GTP-U too.
fn not_tunnels(family: &Family, all: &mut Vec<Scenario>) {
    let inner = family.udp(443).network_bytes();
    let own = |from: &str, to: &str| Gtpu::pdu(UP, inner.clone()).over(&gtpu(from), &gtpu(to));
    let (ue, service) = (super::V4.ue, super::V4.service);
    all.push(
        Scenario::new(
            "what is not between endpoints is no tunnel",
            family,
            &["a/1 prio 1 flow to SERVICE drop"],
        )
        .original("access0", &own(ue, "203.0.113.77"), NoRule)
        .original("access0", &own(ue, CORE), NoRule)
        .original("access0", &own(RAN, OTHER_RAN), NoRule)
        .original("core0", &own(CORE, ue), NoRule),
    );
    if family.is_v4() {
        let scenario = Scenario::new(
            "its own rules apply",
            family,
            &["a/1 prio 1 flow to SERVICE drop"],
        );
        all.push(scenario.discarded("access0", &own(ue, service), Reason::RuleDrop));
    }
}

/// The port of GTP-U at `address`.
fn gtpu(address: &str) -> String {
    format!("{address}:{GTPU_PORT}")
}
