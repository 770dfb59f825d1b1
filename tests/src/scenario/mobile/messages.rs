//! GTP-U that carries no packet of a UE's, and what only looks like it.

use dataplane_core::Reason::{
    self, GtpuEcho, GtpuEndMarker, GtpuErrorIndication, GtpuExtension, GtpuNotIp,
    GtpuSupportedExtensionHeaders, GtpuUnconfigured, MalformedGtpu, NoRule,
};

use super::{CORE, OTHER_RAN, QFI, RAN, UP, gtpu};
use crate::{
    packet::{Gtpu, Packet, Session},
    scenario::{self, Family, Scenario, Then},
};

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    messages(family, all);
    not_tunnels(family, all);
    wrong_way(family, all);
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

/// What goes to a UE does not come from its station.
fn wrong_way(family: &Family, all: &mut Vec<Scenario>) {
    let rule = "a/1 prio 1 flow to SERVICE forward ip APP0 via app0";
    let packet = Gtpu::pdu(UP, family.udp(443).network_bytes()).over(&gtpu(CORE), &gtpu(RAN));
    all.push(
        Scenario::new(
            "a packet to a station, from stations, is no UE's",
            family,
            &[rule],
        )
        .original("access0", &packet, NoRule),
    );
}

/// A UE may talk to the port of GTP-U too.
fn not_tunnels(family: &Family, all: &mut Vec<Scenario>) {
    let inner = family.udp(443).network_bytes();
    let own = |from: &str, to: &str| Gtpu::pdu(UP, inner.clone()).over(&gtpu(from), &gtpu(to));
    let (ue, service) = (scenario::V4.ue, scenario::V4.service);
    all.push(
        Scenario::new(
            "what is not between endpoints is no tunnel",
            family,
            &["a/1 prio 1 flow to SERVICE drop"],
        )
        .original("access0", &own(ue, "203.0.113.77"), GtpuUnconfigured)
        .original("access0", &own(ue, CORE), GtpuUnconfigured)
        .original("access0", &own(RAN, OTHER_RAN), NoRule)
        .original("core0", &own(CORE, ue), GtpuUnconfigured)
        // It is a rule's, or no G-PDU at all.
        .original(
            "access0",
            &Gtpu::end_marker(UP).over(&gtpu(ue), &gtpu(CORE)),
            NoRule,
        )
        .original("access0", &Packet::udp(&gtpu(ue), &gtpu(CORE)), NoRule),
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
