//! Tunnels that rules send into: what goes into them, and what comes back.

use dataplane_core::{
    Reason::{
        MalformedInner, MtuExceeded, NoDownlinkTunnel, NoRule, NotIp, Replied, Steered, TtlExpired,
        WrongSide,
    },
    flow::{FlowKey, KeyRest},
    parse::mapped,
};

use super::{
    Family, FlowCount, Scenario, Then, V4, V6,
    addressing::at,
    mobile::{DOWN, Interface, RAN},
    to_app, to_ue,
};
use crate::{
    packet::{
        GTPU_PORT, Gre, Gtpu, Packet, Session, Transport, Tunnel, VXLAN_PORT, Vxlan, open, verify,
    },
    world::{OWN, World},
};

const TEID: u32 = 0x0102_0304;
const KEY: u32 = 0xfedc_ba98;
const VNI: u32 = 0x00ab_cdef;
const MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 9];

/// A kind of tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gtpu,
    GtpuWithQfi,
    Gre,
    GreWithKey,
    Vxlan,
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Gtpu,
        Self::GtpuWithQfi,
        Self::Gre,
        Self::GreWithKey,
        Self::Vxlan,
    ];

    /// As a destination, between addresses of this family.
    fn rule(self, outer: &Family) -> String {
        let ends = format!("{} from {}", outer.app0, own(outer));
        match self {
            Self::Gtpu => format!("gtpu {ends} teid {TEID}"),
            Self::GtpuWithQfi => format!("gtpu {ends} teid {TEID} qfi 5"),
            Self::Gre => format!("gre {ends}"),
            Self::GreWithKey => format!("gre {ends} key {KEY}"),
            Self::Vxlan => format!("vxlan {ends} vni {VNI} mac 02:00:00:00:ff:09"),
        }
    }

    /// `inner` on its way to the other end, out of `app0`.
    fn sent(self, world: &World, outer: &Family, inner: &Packet, flow: &Packet) -> Packet {
        let inner = &inner.clone().macs(world.port("app0").mac, MAC);
        let packet = self.between(own(outer), outer.app0, inner, source_port(flow));
        let is_udp = matches!(packet.transport, Transport::Udp { .. });
        let packet = if is_udp && outer.is_v4() {
            packet.without_checksum()
        } else {
            packet
        };
        let class = inner.class & 0xfc;
        to_app(world, "app0", &packet.dont_fragment())
            .identification(0)
            .class(class)
    }

    /// `inner` on its way back from the other end.
    fn answered(self, outer: &Family, inner: &Packet) -> Packet {
        self.between(outer.app0, own(outer), inner, 40_000)
    }

    fn between(self, from: &str, to: &str, inner: &Packet, source_port: u16) -> Packet {
        let gtpu = |gtpu: Gtpu| gtpu.over(&at(from, GTPU_PORT), &at(to, GTPU_PORT));
        let pdu = Gtpu::pdu(TEID, inner.network_bytes());
        match self {
            Self::Gtpu => gtpu(pdu),
            Self::GtpuWithQfi => gtpu(pdu.session(Session::Uplink(5))),
            Self::Gre => Gre::new(inner).over(from, to),
            Self::GreWithKey => Gre::new(inner).key(KEY).over(from, to),
            Self::Vxlan => Vxlan::new(VNI, inner).over(&at(from, source_port), &at(to, VXLAN_PORT)),
        }
    }
}

/// The address of the host.
fn own(family: &Family) -> &'static str {
    OWN[usize::from(!family.is_v4())]
}

/// The UDP source port of what is sent of a flow.
pub(crate) fn source_port(packet: &Packet) -> u16 {
    flow_key(packet).source_port_outside()
}

/// The key of a packet in zone 0.
pub(crate) fn flow_key(packet: &Packet) -> FlowKey {
    let words = |address| match address {
        std::net::IpAddr::V4(address) => mapped(address.into()),
        std::net::IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    };
    let (source, destination) = packet.flow_ports();
    let ports = u32::from(source) << 16 | u32::from(destination);
    FlowKey {
        source: words(packet.source),
        destination: words(packet.destination),
        rest: KeyRest::new(ports, 0, packet.protocol()),
    }
}

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

/// Only what comes from the other end of a tunnel, and by that tunnel, is looked into.
fn strangers(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let up = family.udp(443);
    let inner = up.clone().ttl(63);
    let answer = up.reversed();
    let (here, there) = (own(&V4), V4.app0);
    let keyed = Kind::GreWithKey.rule(&V4);
    let sent = Kind::GreWithKey.sent(&world, &V4, &inner, &up);
    let gre = Gre::new(&answer);
    let reply = gre.clone().key(KEY).over(there, here);
    let back = to_ue(&answer.clone().ttl(63), &up);
    let start = || {
        Scenario::new(
            "who answers by another tunnel is not heard",
            family,
            &[
                &format!("a/1 prio 1 flow to SERVICE proto udp forward {keyed} via app0"),
                &format!(
                    "a/2 prio 1 flow to SERVICE forward gre {there} from {here} key 7 via app0"
                ),
            ],
        )
        .sent("access0", &up, Steered, "app0", &sent)
    };
    let mut scenario = start();
    for stranger in [
        gre.over(there, here),
        gre.clone().key(1).over(there, here),
        gre.clone().key(KEY).checksum().over(there, here),
        gre.clone().key(KEY).over(V4.router, here),
        gre.clone().key(KEY).over(there, V4.nobody),
        Kind::Vxlan.answered(&V4, &answer),
        Kind::Gtpu.answered(&V4, &answer),
    ] {
        scenario = scenario.original("app0", &stranger, NoRule);
    }
    let numbered = gre.clone().key(KEY).sequence(9).over(there, here);
    all.push(
        scenario
            .original("app0", &gre.key(7).over(there, here), WrongSide)
            // What was sent is not an answer.
            .original(
                "app0",
                &Gre::new(&inner).key(KEY).over(there, here),
                WrongSide,
            )
            .original("app0", &ended(&reply), TtlExpired)
            .sent("app0", &reply, Replied, "access0", &back)
            .sent("app0", &numbered, Replied, "access0", &back)
            .sent("app1", &reply, Replied, "access0", &back),
    );
    let vxlan = format!(
        "a/1 prio 1 flow to SERVICE forward {} via app0",
        Kind::Vxlan.rule(&V4)
    );
    let mut asking = Vxlan::new(VNI, &answer);
    asking.content[12..14].copy_from_slice(&[8, 6]);
    let asking = asking.over(&at(there, 4000), &at(here, VXLAN_PORT));
    all.push(
        Scenario::new("ARP in a tunnel is left alone", family, &[&vxlan])
            .original("app0", &asking, NotIp),
    );
    too_long(family, &world, all);
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

/// What is no tunnel of the kind that is known, or only a piece of one.
fn unopened(family: &Family, world: &World, all: &mut Vec<Scenario>) {
    let up = family.udp(443);
    let answer = up.reversed().payload(100);
    let summed = Gre::new(&answer).checksum().over(V4.app0, own(&V4)).bytes();
    let mut numberless = Kind::Vxlan.answered(&V4, &answer);
    // The flag that there is a VNI.
    numberless.payload[0] = 0;
    let piece = |kind: Kind| kind.answered(&V4, &answer).fragments(64).swap_remove(0);
    let inside = |name: &str| {
        let rule = format!(
            "a/1 prio 1 flow to SERVICE forward {} via app0",
            Kind::Gre.rule(&V6)
        );
        let there = Kind::Gre.sent(world, &V6, &up.clone().ttl(63), &up);
        Scenario::new(name, family, &[&rule]).sent("access0", &up, Steered, "app0", &there)
    };
    let mut longer = Kind::Gre.answered(&V6, &answer).bytes();
    let length = u16::from_be_bytes([longer[18], longer[19]]) - 8;
    longer[18..20].copy_from_slice(&length.to_be_bytes());
    all.push(
        inside("a packet is not longer than the tunnel that it is in").frame(
            "app0",
            longer,
            MalformedInner,
            Then::Original,
        ),
    );
    all.push(inside("an answer comes by whichever port").sent(
        "core0",
        &Kind::Gre.answered(&V6, &answer),
        Replied,
        "access0",
        &to_ue(&answer.clone().ttl(63), &up),
    ));
    let other = family.udp(444);
    all.push(inside("what comes out of a tunnel is no UE's").original(
        "access0",
        &Kind::Gre.answered(&V6, &other),
        NoRule,
    ));
    for (kind, reply) in [
        (Kind::Gre, summed),
        (Kind::Vxlan, numberless.bytes()),
        (Kind::Gre, piece(Kind::Gre)),
        (Kind::Vxlan, piece(Kind::Vxlan)),
    ] {
        let rule = format!(
            "a/1 prio 1 flow to SERVICE forward {} via app0",
            kind.rule(&V4)
        );
        let there = kind.sent(world, &V4, &up.clone().ttl(63), &up);
        all.push(
            Scenario::new(
                "what is no whole tunnel is not looked into",
                family,
                &[&rule],
            )
            .sent("access0", &up, Steered, "app0", &there)
            .frame("app0", reply, NoRule, Then::Original),
        );
    }
}

/// `reply` with a packet inside that may go no further.
fn ended(reply: &Packet) -> Packet {
    let mut reply = reply.clone();
    let ttl = 8 + if reply.payload[8] >> 4 == 4 { 8 } else { 7 };
    reply.payload[ttl] = 1;
    if reply.payload[8] >> 4 == 4 {
        // 63 less in the upper octet of its word.
        let sum = u16::from_be_bytes([reply.payload[18], reply.payload[19]]);
        let (sum, carry) = sum.overflowing_add(63 << 8);
        let sum = sum + u16::from(carry);
        reply.payload[18..20].copy_from_slice(&sum.to_be_bytes());
    }
    reply
}

/// The headers of the tunnel take of the room.
fn too_long(family: &Family, world: &World, all: &mut Vec<Scenario>) {
    let room = 1400 - 28;
    let headers = family.udp(443).network_bytes().len() - family.udp(443).payload.len();
    let fits = family.udp(443).dont_fragment().payload(room - headers);
    let exceeds = family.udp(443).dont_fragment().payload(room + 1 - headers);
    let rule = format!(
        "a/1 prio 1 flow to SERVICE forward gre {} from {} key {KEY} via app1",
        V4.app1,
        own(&V4)
    );
    let inner = fits.clone().ttl(63);
    let gre = Gre::new(&inner).key(KEY).over(own(&V4), V4.app1);
    let there = to_app(world, "app1", &gre.dont_fragment()).identification(0);
    let check = if family.is_v4() {
        |frame: &[u8]| told(frame, &frame[34..36], &[3, 4], &frame[40..42])
    } else {
        |frame: &[u8]| told(frame, &frame[54..56], &[2, 0], &frame[60..62])
    };
    all.push(
        Scenario::new("who sends too much for a tunnel is told", family, &[&rule])
            .sent("access0", &fits, Steered, "app1", &there)
            .frame(
                "access0",
                exceeds.bytes(),
                MtuExceeded,
                Then::Answered(check),
            ),
    );
}

fn told(frame: &[u8], kind: &[u8], expected: &[u8], mtu: &[u8]) -> Result<(), String> {
    verify(frame)?;
    if kind != expected || mtu != 1372_u16.to_be_bytes() {
        return Err(format!("ICMP {kind:?} with MTU {mtu:?}"));
    }
    Ok(())
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
