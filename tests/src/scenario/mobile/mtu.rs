//! Who sends what is too long for the way through a tunnel, or out of one, is told what fits.

use dataplane_core::Reason::{
    GtpuEndMarker, MtuExceeded, MtuExceededUntold, NeedsFragmentation, NoRule, Replied, Steered,
};

use super::{CORE, DOWN, Interface, QFI, RAN, RULE, UP};
use crate::{
    packet::{Gtpu, IcmpError, Packet, Session, verify},
    scenario::{Family, Scenario, Then, answer, to_app},
    world::World,
};

/// Octets of a packet that an error quotes.
const QUOTE: usize = 256;

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    answers(family, interface, all);
    questions(family, interface, all);
    if interface != Interface::S1u {
        kept(family, interface, all);
        from_the_core(family, interface, all);
    }
}

/// The application sends more than fits into the tunnel: over IPv4 it is told whether or not routers may
/// fragment, since none is on the way.
fn answers(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let up = interface.uplink(RAN, &family.udp(443));
    let down = interface.downlink(RAN, DOWN, &family.udp(443).reversed());
    let there = to_app(&World::new(), "app0", &family.udp(443)).ttl(63);
    let fits = 1500 - interface.overhead();
    let reply = |length| long(&answer(&there), length);
    let told =
        |packet: &Packet| error(packet, fits).macs(packet.destination_mac, packet.source_mac);
    let most = reply(fits);
    let scenario = || {
        Scenario::new("an application is told what fits", family, &[RULE])
            .original("core0", &down, NoRule)
            .sent("access0", &up, Steered, "app0", &there)
    };
    let injected = interface.injected(RAN, DOWN, &most.clone().ttl(63), &up);
    all.push(scenario().sent("app0", &most, Replied, "access0", &injected));
    // One at a time, since not more are told in a moment.
    for packet in [
        reply(fits + 1),
        reply(fits + 1).dont_fragment(),
        reply(1500),
    ] {
        all.push(scenario().sent("app0", &packet, MtuExceeded, "app0", &told(&packet)));
    }
    if family.is_v4() {
        let pieces = reply(4000).fragments(1480);
        let [first, later, _] = &pieces[..] else {
            unreachable!("4000 octets make three pieces");
        };
        // One answer is enough for a packet.
        all.push(
            scenario()
                .frame("app0", first.clone(), MtuExceeded, Then::Answered(verify))
                .frame("app0", later.clone(), MtuExceededUntold, Then::Discarded),
        );
    }
}

/// The UE sends more than the application's port takes.
fn questions(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let rule = "a/1 prio 1 flow to SERVICE proto udp forward ip APP1 via app1";
    let down = interface.downlink(RAN, DOWN, &family.udp(443).reversed());
    let fits = long(&family.udp(443), 1400).dont_fragment();
    let exceeds = long(&family.udp(443), 1401).dont_fragment();
    let there = to_app(&World::new(), "app1", &fits).ttl(63);
    let up = |packet: &Packet| interface.uplink(RAN, packet);
    let carrying = interface.carrying(RAN, DOWN, error(&exceeds, 1400).network_bytes());
    let told = interface.sent(carrying.class(control(family)), &up(&exceeds));
    let marker = interface.between(&Gtpu::end_marker(DOWN), CORE, RAN);
    let mut scenario = Scenario::new("a UE is told what fits", family, &[rule])
        .original("core0", &down, NoRule)
        .sent("access0", &up(&fits), Steered, "app1", &there)
        .sent("access0", &up(&exceeds), MtuExceeded, "access0", &told);
    if family.is_v4() {
        let fragile = long(&family.udp(443), 1401);
        scenario = scenario.original("access0", &up(&fragile), NeedsFragmentation);
    }
    // By a tunnel that has ended, it cannot be.
    let scenario = scenario.original("core0", &marker, GtpuEndMarker).original(
        "access0",
        &up(&exceeds),
        NeedsFragmentation,
    );
    all.push(scenario);
}

/// The tunnel counts where it stays.
fn kept(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let rule = "a/1 prio 1 flow to SERVICE forward encapsulated mac 02:00:00:00:0a:02 via app1";
    let down = interface.downlink(RAN, DOWN, &family.udp(443).reversed());
    let most = 1400 - interface.overhead();
    let fits = interface.uplink(RAN, &long(&family.udp(443), most));
    let exceeds = long(&family.udp(443), most + 1).dont_fragment();
    let up = interface.uplink(RAN, &exceeds);
    let carrying = interface.carrying(RAN, DOWN, error(&exceeds, most).network_bytes());
    let told = interface.sent(carrying.class(control(family)), &up);
    all.push(
        Scenario::new("with its tunnel, less fits", family, &[rule])
            .original("core0", &down, NoRule)
            .sent(
                "access0",
                &fits,
                Steered,
                "app1",
                &to_app(&World::new(), "app1", &fits),
            )
            .sent("access0", &up, MtuExceeded, "access0", &told),
    );
}

/// Who sends to the UE is told through the core.
fn from_the_core(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let rule = "a/1 prio 1 flow to SERVICE proto udp zone 0 forward mac 02:00:00:00:0a:01 via app0 \
                and mac 02:00:00:00:0a:02 via app1";
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let exceeds = long(&inner.reversed(), 1401).dont_fragment();
    let long_down = interface.downlink(RAN, DOWN, &exceeds);
    let pdu = Gtpu::pdu(UP, error(&exceeds, 1400).network_bytes());
    let carrying = interface.between(&pdu.session(Session::Uplink(QFI)), RAN, CORE);
    let told = interface.sent(carrying.class(control(family)), &long_down);
    all.push(
        Scenario::new(
            "a server behind the core is told what fits",
            family,
            &[rule],
        )
        .original("core0", &down, NoRule)
        .sent(
            "access0",
            &up,
            Steered,
            "app0",
            &to_app(&World::new(), "app0", &inner),
        )
        .sent("core0", &long_down, MtuExceeded, "core0", &told),
    );
}

/// The packet, `length` octets long.
fn long(packet: &Packet, length: usize) -> Packet {
    let headers = packet.clone().payload(0).network_bytes().len();
    packet.clone().payload(length - headers)
}

/// What is answered to the packet: so much fits.
fn error(packet: &Packet, mtu: usize) -> Packet {
    let kind = IcmpError::TooBig(mtu as u16);
    let from = packet.destination.to_string();
    Packet::error(&from, kind, packet, QUOTE)
        .identification(0)
        .class(if packet.source.is_ipv4() { 0xc0 } else { 0 })
}

/// Class of the tunnel of an answer.
fn control(family: &Family) -> u8 {
    if family.is_v4() { 0xc0 } else { 0 }
}
