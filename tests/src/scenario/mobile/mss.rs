//! TCP connections through tunnels begin with an MSS that fits, where that is asked for.

use dataplane_core::Reason::{NoRule, Replied, Steered};

use super::{DOWN, Interface, RAN};
use crate::{
    packet::{ACK, Packet, SYN},
    scenario::{Family, Scenario, answer, to_app},
    world::World,
};

const RULE: &str = "a/1 prio 1 flow to SERVICE proto tcp forward ip APP0 nat via app0";
/// Kind and length of the option.
const MSS: [u8; 2] = [2, 4];

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    lowered(family, interface, all);
    left(family, interface, all);
}

/// Both directions, and the option in every place.
fn lowered(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let headers = if family.is_v4() { 40 } else { 60 };
    // Stations may number packets on S1-U, which we do not.
    let numbered = if interface == Interface::S1u { 4 } else { 0 };
    let down = 1500 - interface.overhead() - headers;
    let up = down - numbered;
    let mut scenario = Scenario::new("an MSS is lowered to what fits", family, &[RULE]).original(
        "core0",
        &learned(family, interface),
        NoRule,
    );
    for before in [
        &[][..],
        // Nothing, once, and the value begins in the middle of a word.
        &[1],
        &[1, 1],
        // Window scale, SACK permitted, time stamps.
        &[3, 3, 7],
        &[4, 2, 3, 3, 7],
        &[8, 10, 0, 0, 0, 1, 0, 0, 0, 0],
    ] {
        for mss in [1460, 0xffff, up + 1] {
            let syn = with(&family.tcp(443).flags(SYN), before, mss);
            let there = with(&there(family).flags(SYN), before, up);
            let sent = interface.uplink(RAN, &syn);
            scenario = scenario.sent("access0", &sent, Steered, "app0", &there);
            let accepted = answer(&there).flags(SYN | ACK);
            let restored = accepted.clone().ttl(63).from(family.service);
            let injected = interface.injected(RAN, DOWN, &with(&restored, before, down), &sent);
            let accepted = with(&accepted, before, mss.max(down + 1));
            scenario = scenario.sent("app0", &accepted, Replied, "access0", &injected);
        }
    }
    all.push(scenario);
}

/// Segments that stay as they are.
fn left(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let mut scenario = Scenario::new("no other segment is changed", family, &[RULE]).original(
        "core0",
        &learned(family, interface),
        NoRule,
    );
    let syn = family.tcp(443).flags(SYN);
    let mss = 1460_u16.to_be_bytes();
    for packet in [
        syn.clone(),
        with(&syn, &[], 536),
        with(&syn.clone().flags(ACK), &[], 1460),
        // Of a wrong length, behind the end of the list or too many other options, or cut short.
        syn.clone().tcp_options(&[2, 3, 5, 0xb4]),
        syn.clone().tcp_options(&[2, 0, 5, 0xb4]),
        with(&syn, &[0], 1460),
        with(&syn, &[9, 0], 1460),
        with(&syn, &[9, 1], 1460),
        with(&syn, &[9, 255], 1460),
        with(&syn, &[1; 9], 1460),
        syn.clone().tcp_options(&[1, 2, 4, mss[0]]),
    ] {
        let there = Packet {
            transport: packet.transport.clone(),
            tcp_options: packet.tcp_options.clone(),
            ..there(family)
        };
        let up = interface.uplink(RAN, &packet);
        scenario = scenario.sent("access0", &up, Steered, "app0", &there);
    }
    // Where it is not asked for.
    let syn = with(&syn, &[], 1460);
    let there = with(&there(family).flags(SYN), &[], 1460);
    let up = interface.uplink(RAN, &syn);
    all.push(scenario.sent("access2", &up, Steered, "app0", &there));
}

fn learned(family: &Family, interface: Interface) -> Packet {
    interface.downlink(RAN, DOWN, &family.udp(443).reversed())
}

/// What the application gets.
fn there(family: &Family) -> Packet {
    to_app(&World::new(), "app0", &family.tcp(443))
        .ttl(63)
        .to(family.app0)
}

/// The segment with an MSS behind other options.
fn with(packet: &Packet, before: &[u8], mss: usize) -> Packet {
    let value = (mss as u16).to_be_bytes();
    packet.clone().tcp_options(&[before, &MSS, &value].concat())
}
