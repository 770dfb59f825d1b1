//! ICMP errors: those that belong to a flow, and those that the data path sends itself.

use dataplane_core::Reason::{
    MtuExceeded, MtuExceededUntold, NeedsFragmentation, NoRule, Passthrough, Replied, Steered,
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};

use super::{Family, Scenario, Then, answer, to_app, to_ue};
use crate::{
    packet::{IcmpError, Packet, verify},
    world::World,
};

/// How much of a packet an error quotes at least: its IPv4 header and 8 octets.
const SHORT: usize = 28;

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    for up in [
        family.udp(443),
        family.tcp(443),
        family.sctp(443),
        family.echo(),
    ] {
        about_answers(&world, family, &up, all);
        about_questions(&world, family, &up, all);
    }
    let stray = Packet::error(family.router, IcmpError::TimeExceeded, &family.udp(9), 200);
    all.push(
        Scenario::new(
            "an error about nothing known is a packet like any other",
            family,
            &["a/1 prio 1 flow to SERVICE drop"],
        )
        .original("core0", &stray, NoRule),
    );
    let udp = family.udp(443);
    let there = to_app(&world, "app0", &udp);
    let reply = answer(&there);
    let restored = to_ue(&reply, &udp);
    let complaint = Packet::error(family.ue, IcmpError::Unreachable, &restored, 200);
    let unknown = Packet {
        source: family.udp(9).destination,
        ..family.udp(9).reversed()
    };
    let stray = Packet::error(family.ue, IcmpError::Unreachable, &unknown, 200);
    all.push(
        Scenario::new(
            "an error follows the flow it quotes, whatever errors before it were about",
            family,
            &[
                "a/1 prio 1 flow to SERVICE proto udp dport 443 forward mac 02:00:00:00:0a:01 via app0",
                "a/2 prio 2 flow any passthrough",
            ],
        )
        .original("access0", &stray, Passthrough)
        .sent("access0", &udp, Steered, "app0", &there)
        .sent("app0", &reply, Replied, "access0", &restored)
        .sent("access0", &complaint, Steered, "app0", &to_app(&world, "app0", &complaint)),
    );
    mtu(&world, family, all);
}

/// The UE complains about what the application sent.
fn about_answers(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    for (nat, rule) in [
        (
            true,
            "a/1 prio 1 flow to SERVICE forward ip APP0 nat via app0",
        ),
        (false, "a/1 prio 1 flow to SERVICE forward ip APP0 via app0"),
    ] {
        let there = |packet: &Packet| {
            let packet = to_app(world, "app0", packet).ttl(63);
            if nat { packet.to(family.app0) } else { packet }
        };
        let reply = answer(&there(up));
        let restored = to_ue(&reply, up).ttl(63);
        for length in [SHORT + if family.is_v4() { 0 } else { 20 }, 548] {
            let complaint = Packet::error(family.ue, IcmpError::Unreachable, &restored, length);
            // What the application is told is about the packet that it sent.
            let sent = Packet {
                ttl: 63,
                ..reply.clone()
            };
            let told = Packet::error_about_translated(
                family.ue,
                IcmpError::Unreachable,
                &sent,
                &restored,
                length,
            );
            let told = if nat { told.to(family.app0) } else { told };
            all.push(
                Scenario::new(
                    &format!(
                        "errors about answers reach the application, protocol {}, nat {nat}, \
                         quoting {length}",
                        up.protocol()
                    ),
                    family,
                    &[rule],
                )
                .sent("access0", up, Steered, "app0", &there(up))
                .sent("app0", &reply, Replied, "access0", &restored)
                .sent(
                    "access0",
                    &complaint,
                    Steered,
                    "app0",
                    &to_app(world, "app0", &told).ttl(63),
                ),
            );
        }
    }
}

/// The application, or a router before it, complains about what the UE sent.
fn about_questions(world: &World, family: &Family, up: &Packet, all: &mut Vec<Scenario>) {
    let there = to_app(world, "app0", up).ttl(63).to(family.app0);
    let link = answer(&there);
    for from in [family.app0, family.router] {
        let complaint = Packet::error(from, IcmpError::TooBig(1300), &there, 548)
            .macs(link.source_mac, link.destination_mac);
        // The quoted TTL is that of the packet on its way: only addresses are put back.
        let quoted = Packet {
            ttl: 63,
            ..up.clone()
        };
        let seen_from = if from == family.app0 {
            family.service
        } else {
            from
        };
        let kind = IcmpError::TooBig(1300);
        let told = Packet::error_about_translated(seen_from, kind, &quoted, &there, 548)
            .macs(up.destination_mac, up.source_mac)
            .ttl(63);
        all.push(
            Scenario::new(
                &format!(
                    "errors about questions reach the UE, protocol {}, from {from}",
                    up.protocol()
                ),
                family,
                &["a/1 prio 1 flow to SERVICE forward ip APP0 nat via app0"],
            )
            .sent("access0", up, Steered, "app0", &there)
            .sent("app0", &complaint, Replied, "access0", &told),
        );
    }
}

/// Port `app1` of the world takes 1400 octets.
fn mtu(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let headers = family.udp(443).payload(0).network_bytes().len();
    let fits = family.udp(443).payload(1400 - headers).dont_fragment();
    let exceeds = family
        .udp(443)
        .payload(1401 - headers)
        .dont_fragment()
        .tag(0x8100, 5);
    let there = to_app(world, "app1", &fits).ttl(63);
    let check: fn(&[u8]) -> Result<(), String> = if family.is_v4() {
        check_too_long_v4
    } else {
        check_too_long_v6
    };
    all.push(
        Scenario::new(
            "who sends too much for the way to go is told",
            family,
            &["a/1 prio 1 flow to SERVICE forward ip APP1 via app1"],
        )
        .sent("access0", &fits, Steered, "app1", &there)
        .frame(
            "access0",
            exceeds.bytes(),
            MtuExceeded,
            Then::Answered(check),
        ),
    );
    let untagged = Packet {
        tags: Vec::new(),
        ..exceeds
    };
    all.push(
        Scenario::new(
            "also without VLAN tags",
            family,
            &["a/1 prio 1 flow to SERVICE forward ip APP1 via app1"],
        )
        .frame(
            "access0",
            untagged.bytes(),
            MtuExceeded,
            Then::Answered(verify),
        ),
    );
    if family.is_v4() {
        let too_long = family.udp(443).payload(1401 - headers);
        let first = &too_long.clone().payload(1440).fragments(1424)[0];
        let for_many = too_long.clone().to("224.0.1.9").dont_fragment();
        all.push(
            Scenario::new(
                "what routers may fragment goes its original path, and of what is for many nobody is told",
                family,
                &["a/1 prio 1 flow any forward ip APP1 via app1"],
            )
            .original("access0", &too_long, NeedsFragmentation)
            .frame("access0", first.clone(), NeedsFragmentation, Then::Original)
            .discarded("access0", &for_many, MtuExceededUntold),
        );
    }
}

fn check_too_long_v4(frame: &[u8]) -> Result<(), String> {
    let packet = well_formed(frame)?;
    let Some(NetSlice::Ipv4(ip)) = &packet.net else {
        return Err("not IPv4".into());
    };
    let Some(TransportSlice::Icmpv4(icmp)) = &packet.transport else {
        return Err("not ICMP".into());
    };
    let addressed = (
        ip.header().destination_addr().to_string(),
        icmp.type_u8(),
        icmp.code_u8(),
    );
    if addressed != (super::V4.ue.to_owned(), 3, 4) {
        return Err(format!("{addressed:?}"));
    }
    if ip.header().total_len() > 576 {
        return Err("quotes too much".into());
    }
    mtu_and_quote(&icmp.bytes5to8(), icmp.payload(), &super::V4)
}

fn check_too_long_v6(frame: &[u8]) -> Result<(), String> {
    let packet = well_formed(frame)?;
    let Some(NetSlice::Ipv6(ip)) = &packet.net else {
        return Err("not IPv6".into());
    };
    let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else {
        return Err("not ICMPv6".into());
    };
    let addressed = (
        ip.header().destination_addr().to_string(),
        icmp.type_u8(),
        icmp.code_u8(),
    );
    if addressed != (super::V6.ue.to_owned(), 2, 0) {
        return Err(format!("{addressed:?}"));
    }
    mtu_and_quote(&icmp.bytes5to8(), icmp.payload(), &super::V6)
}

/// The answer goes to where the packet came from, in its VLAN, with right checksums.
fn well_formed(frame: &[u8]) -> Result<SlicedPacket<'_>, String> {
    verify(frame)?;
    let sent = super::V4.udp(1);
    if frame[..6] != sent.source_mac || frame[6..12] != sent.destination_mac {
        return Err("sent to the wrong link-layer address".into());
    }
    if frame[12..14] != [0x81, 0] || frame[15] != 5 {
        return Err("not in the VLAN of the sender".into());
    }
    SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())
}

fn mtu_and_quote(rest: &[u8], quote: &[u8], family: &Family) -> Result<(), String> {
    if rest != [0, 0, 5, 120] {
        return Err(format!("the MTU told is {rest:?}, not 1400"));
    }
    let headers = family.udp(443).payload(0).network_bytes().len();
    let offending = family
        .udp(443)
        .payload(1401 - headers)
        .dont_fragment()
        .network_bytes();
    if quote.len() < SHORT || !offending.starts_with(quote) {
        return Err("does not quote the packet as it was sent".into());
    }
    Ok(())
}
