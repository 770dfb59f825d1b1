//! What is not opened, or not let through.

use dataplane_core::Reason::{
    MalformedInner, MtuExceeded, NoRule, NotIp, Replied, Steered, TtlExpired, WrongSide,
};

use super::kind::{KEY, Kind, VNI, own};
use crate::scenario::{Family, Scenario, Then, V4, V6, addressing::at, to_app, to_ue};
use crate::{
    packet::{Gre, Packet, VXLAN_PORT, Vxlan, verify},
    world::World,
};

/// Only what comes from the other end of a tunnel, and by that tunnel, is looked into.
pub(super) fn strangers(family: &Family, all: &mut Vec<Scenario>) {
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

/// What is no tunnel of the kind that is known, or only a piece of one.
pub(super) fn unopened(family: &Family, world: &World, all: &mut Vec<Scenario>) {
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
