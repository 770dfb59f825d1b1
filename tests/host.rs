//! The scenarios on the host: the core, a packet in memory and tables in memory.

use std::collections::HashSet;

use tests::{
    executor::Host,
    packet::{Tunnel, open},
    scenario::{self, Then},
    tshark,
};

#[test]
fn scenarios() {
    scenario::run_all(scenario::plain(), &mut Host::new());
}

#[test]
fn scenarios_behind_tunnels() {
    scenario::run_all(scenario::mobile(), &mut Host::new());
}

/// The scenarios see to it that these are the packets that come out.
#[test]
fn wireshark_has_nothing_to_say_against_what_goes_into_tunnels() {
    let steps = scenario::mobile().into_iter().flat_map(|it| it.steps);
    let sent = steps.filter_map(|step| match step.then {
        Then::Sent(_, frame) => Some(frame),
        Then::Discarded
        | Then::Original
        | Then::Copied(..)
        | Then::Routed(_)
        | Then::Answered(_) => None,
    });
    let in_tunnel = |frame: &Vec<u8>| {
        let Ok(opened) = open(frame) else {
            return false;
        };
        let inner = opened.tunnel.content();
        // Other protocols and options are in scenarios with nothing sensible inside.
        let is_sensible = match inner[0] {
            0x45 => [1, 6, 17].contains(&inner[9]),
            0x60 => [6, 17, 58].contains(&inner[6]),
            _ => false,
        };
        matches!(opened.tunnel, Tunnel::Gtpu(_)) && is_sensible
    };
    let frames: Vec<Vec<u8>> = sent.filter(in_tunnel).collect();
    let fields = [
        "gtp.message",
        "gtp.ext_hdr.pdu_ses_con.pdu_type",
        "ip.version",
    ];
    let seen = tshark::dissect(&frames, &fields).unwrap();
    let kinds: HashSet<Vec<String>> = seen.into_iter().collect();
    // On S1-U there is no container; on N3 one of each direction, over both IP versions.
    for (container, versions) in [
        ("", "4,4"),
        ("", "4,6"),
        ("0", "4,4"),
        ("0", "4,6"),
        ("0", "6,4"),
        ("0", "6,6"),
        ("1", "4,4"),
        ("1", "4,6"),
        ("1", "6,4"),
        ("1", "6,6"),
    ] {
        let kind = ["0xff", container, versions];
        assert!(
            kinds.contains(&kind.map(str::to_owned)[..]),
            "no {kind:?} in {kinds:?}"
        );
    }
}
