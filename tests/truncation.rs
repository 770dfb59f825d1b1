//! Every shape of packet cut at every length: nothing panics, and nothing is taken for what the whole
//! packet is not.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use dataplane_core::Reason;
use tests::{
    executor::{Host, Kernel, SHORTEST},
    packet::{Extension, IcmpError, Packet, describe},
    scenario::{Executor, Family, V4, V6},
};

/// Matches every shape as it was sent, and nothing that is made of zeros or of the payload.
fn rules(family: &Family) -> Vec<String> {
    [
        "decoy/1 prio 0 packet sport 0 drop",
        "decoy/2 prio 0 packet dport 0 drop",
        "decoy/3 prio 0 packet sport 257-4999 drop",
        "decoy/4 prio 0 packet proto 0,43,44,51,59,60 drop",
        "decoy/5 prio 0 packet from 0.0.0.0,:: drop",
        "decoy/6 prio 0 packet to 0.0.0.0,:: drop",
        "whole/1 prio 1 packet from UES to SERVICE passthrough",
    ]
    .map(|rule| family.fill_in(rule))
    .into()
}

fn shapes(family: &Family) -> Vec<Packet> {
    let mut shapes = family.each();
    let answer = family.tcp(443).reversed();
    for kind in [IcmpError::Unreachable, IcmpError::TooBig(1400)] {
        let mut error = Packet::error(family.ue, kind, &answer, 128);
        error.destination = family.udp(1).destination;
        shapes.push(error);
    }
    let headed: Vec<Packet> = if family.is_v4() {
        shapes
            .iter()
            .map(|packet| packet.clone().options(10))
            .collect()
    } else {
        use Extension::{AtomicFragment, Authentication, DestinationOptions, HopByHop, Routing};
        let chain = [
            HopByHop,
            DestinationOptions,
            Routing,
            AtomicFragment,
            Authentication,
        ];
        let extended = |packet: &Packet| chain.into_iter().fold(packet.clone(), Packet::extension);
        shapes.iter().map(extended).collect()
    };
    shapes.extend(headed);
    let tagged = |packet: &Packet| packet.clone().tag(0x88a8, 100).tag(0x8100, 5);
    let tagged: Vec<Packet> = shapes.iter().map(tagged).collect();
    shapes.extend(tagged);
    shapes
}

#[test]
fn host() {
    cut_everything(&mut Host::new(), 0);
}

/// Shorter frames than the test run takes come from no driver here either (packet sockets, tap and live
/// frames refuse them, veth drops what AF_XDP sends), so [`host`] stands for what the program does then.
#[test]
fn kernel() {
    cut_everything(&mut Kernel::new().unwrap(), SHORTEST);
}

fn cut_everything(executor: &mut impl Executor, shortest: usize) {
    for family in [&V4, &V6] {
        let rules = rules(family);
        let rules = rules.iter().map(|rule| rule.parse().unwrap());
        executor.prepare(&rules.collect()).unwrap();
        for packet in shapes(family) {
            let frame = packet.bytes();
            assert_eq!(
                arrive(executor, &frame),
                (Reason::Passthrough, "whole".to_owned()),
                "{}",
                describe(&frame)
            );
            for length in shortest..frame.len() {
                let (reason, app) = arrive(executor, &frame[..length]);
                let context = || format!("{length} of {}", describe(&frame));
                assert!(reason.is_malformed(), "{reason:?}: {}", context());
                assert_eq!(app, "", "{}", context());
            }
            let header = if packet.source.is_ipv4() { 20 } else { 40 };
            for length in packet.network_offset() + header..frame.len() {
                let (reason, app) = arrive(executor, &shortened(&packet, length));
                let context = || format!("{length}, shortened, of {}", describe(&frame));
                if reason == Reason::Passthrough {
                    assert_eq!(app, "whole", "{}", context());
                } else {
                    assert!(reason.is_malformed(), "{reason:?}: {}", context());
                }
            }
        }
    }
}

/// The packet cut at `length`, with an IP header that says so.
fn shortened(packet: &Packet, length: usize) -> Vec<u8> {
    let mut frame = packet.bytes();
    frame.truncate(length);
    let ip = packet.network_offset();
    let (field, octets) = if packet.source.is_ipv4() {
        (ip + 2, length - ip)
    } else {
        (ip + 4, length - ip - 40)
    };
    frame[field..field + 2].copy_from_slice(&(octets as u16).to_be_bytes());
    frame
}

/// The reason, and the application whose rule was counted, if one was.
fn arrive(executor: &mut impl Executor, frame: &[u8]) -> (Reason, String) {
    let seen = executor.arrive("access0", frame).unwrap();
    let [reason] = seen.reasons[..] else {
        panic!("counted as {:?}: {}", seen.reasons, describe(frame));
    };
    let apps: Vec<String> = seen.rules.iter().map(|rule| rule.app.to_string()).collect();
    (reason, apps.join(" "))
}
