//! GTP-U octet by octet (TS 29.281, clauses 5 and 7; TS 38.415, clause 5.5.2): what is understood, and what is sent.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use dataplane_core::Reason::{
    self, AppInitiated, Continued, GtpuEcho, GtpuEndMarker, GtpuErrorIndication,
    GtpuSupportedExtensionHeaders, NoDownlinkTunnel, NoRule, Passthrough, Steered,
};
use tests::{
    executor::{Host, Kernel},
    packet::Packet,
    scenario::Executor,
};

const RAN: &str = "192.0.2.1:2152";
const CORE: &str = "198.51.100.1:2152";
/// A datagram of four octets from a UE, without a UDP checksum, and one to it.
const UP: &str = "45000020000040004011269e 0a2d0002 0a000001 04d20050000c0000 61626364";
const DOWN: &str = "45000020000040004011269e 0a000001 0a2d0002 005004d2000c0000 61626364";
/// Headers of G-PDUs that carry one of them, on S1-U and on N3.
const PLAIN: &str = "30ff0020 00001234";
const DOWNLINK: &str = "34ff0028 00001234 00000085 01000900";
const UPLINK: &str = "34ff0028 00001234 00000085 01100900";

#[test]
fn host() {
    all(&mut Host::new());
}

#[test]
fn kernel() {
    all(&mut Kernel::mobile().unwrap());
}

fn all(executor: &mut impl Executor) {
    packets_are_understood(executor);
    messages_are_understood(executor);
    answers_are_built(executor);
    packets_are_put_back(executor);
}

/// The packet inside is found whatever is before it.
fn packets_are_understood(executor: &mut impl Executor) {
    let rules = [
        "a/1 prio 1 packet from 10.45.0.2 to 10.0.0.1 proto udp sport 1234 dport 80 passthrough",
        "a/2 prio 2 packet any drop",
    ];
    prepare(executor, &rules);
    for header in [
        PLAIN,
        DOWNLINK,
        UPLINK,
        "32ff0024 00001234 abcd0000",
        "31ff0024 00001234 00000700",
        // The type of the next header counts only with its flag.
        "32ff0024 00001234 abcd0085",
        "37ff0028 00001234 00010785 01103f00",
        // PDU Session Container, then UDP port.
        "34ff002c 00001234 00000085 01000940 01086800",
        // Downlink: paging policy and reflective QoS; a sequence number; a time stamp.
        "34ff002c 00001234 00000085 0200c9e0 00000000",
        "34ff002c 00001234 00000085 02040900 00010000",
        "34ff0034 00001234 00000085 04080901 02030405 06070800 00000000",
        // Uplink: three time stamps, and the bits beside the QFI.
        "34ff0040 00001234 00000085 07180901 02030405 06070801 02030405 06070801 02030405 06070800",
        "34ff0028 00001234 00000085 0110c900",
    ] {
        for port in ["access0", "core0"] {
            expect(executor, port, &[header, UP], Passthrough);
        }
    }
    for (header, reason) in [
        // Another version, GTP', and extension headers of no length, beyond the end, or that have to be known.
        ("50ff0020 00001234", Reason::GtpuOther),
        ("20ff0020 00001234", Reason::GtpuOther),
        ("34ff0028 00001234 00000085 00000900", Reason::MalformedGtpu),
        ("34ff0028 00001234 00000085 20000900", Reason::MalformedGtpu),
        ("34ff0028 00001234 000000c0 01000000", Reason::GtpuExtension),
        ("30ff0021 00001234", Reason::MalformedGtpu),
        ("30ff001f 00001234", Reason::MalformedInner),
    ] {
        expect(executor, "access0", &[header, UP], reason);
    }
}

fn messages_are_understood(executor: &mut impl Executor) {
    prepare(executor, &["a/1 prio 1 packet any drop"]);
    for (message, reason) in [
        ("32010004 00000000 00070000", GtpuEcho),
        ("32020006 00000000 00070000 0e00", GtpuEcho),
        (
            "321a0010 00000000 00000000 1000001234 850004c0a80001",
            GtpuErrorIndication,
        ),
        ("30fe0000 00001234", GtpuEndMarker),
        ("34fe0008 00001234 00000085 01000900", GtpuEndMarker),
        (
            "321f0007 00000000 00000000 8d0185",
            GtpuSupportedExtensionHeaders,
        ),
    ] {
        for port in ["access0", "core0"] {
            expect(executor, port, &[message], reason);
        }
    }
    // Those that end a tunnel are about the one that they name.
    for (port, message, reason, ends) in [
        ("core0", "30fe0000 00001234", GtpuEndMarker, true),
        (
            "core0",
            "34fe0008 00001234 00000085 01000900",
            GtpuEndMarker,
            true,
        ),
        ("core0", "30fe0000 00001235", GtpuEndMarker, false),
        (
            "access0",
            "321a0010 00000000 00000000 1000001234 850004c0a80001",
            GtpuErrorIndication,
            true,
        ),
        (
            "access0",
            "321a0010 00001234 00000000 1000001235 850004c0a80001",
            GtpuErrorIndication,
            false,
        ),
    ] {
        prepare(executor, &[]);
        expect(executor, "access0", &[UPLINK, UP], NoRule);
        expect(executor, "core0", &[DOWNLINK, DOWN], NoRule);
        expect(executor, port, &[message], reason);
        let then = if ends { NoDownlinkTunnel } else { AppInitiated };
        let (reason, _) = arrive(executor, "app0", &frame("10.0.0.1:80", "10.45.0.2:1234"));
        assert_eq!(reason, then, "{message}");
    }
}

/// With the QFI of the UE's latest packet on N3, without any on S1-U.
fn answers_are_built(executor: &mut impl Executor) {
    for (up, down) in [
        (UPLINK, DOWNLINK),
        ("34ff0028 00001234 00000085 0110c900", DOWNLINK),
        (PLAIN, PLAIN),
        ("32ff0024 00001234 abcd0000", PLAIN),
    ] {
        prepare(executor, &[]);
        expect(executor, "access0", &[up, UP], NoRule);
        expect(executor, "core0", &[down, DOWN], NoRule);
        let answer = frame("10.0.0.1:80", "10.45.0.2:1234");
        let (reason, sent) = arrive(executor, "app0", &answer);
        assert_eq!(reason, AppInitiated);
        let mut inside = hex(DOWN);
        // Routed: one hop less.
        inside[8] -= 1;
        inside[10] += 1;
        assert_eq!(sent[14 + 20 + 8..], [hex(down), inside].concat(), "{up}");
    }
}

/// An application in line gives back what it got, and that goes on as it came.
fn packets_are_put_back(executor: &mut impl Executor) {
    for (up, down) in [(UPLINK, DOWNLINK), (PLAIN, PLAIN)] {
        let rule = "a/1 prio 1 flow to 10.0.0.1 zone 0 forward mac 02:00:00:00:0a:01 via app0 \
                    and mac 02:00:00:00:0a:02 via app1";
        prepare(executor, &[rule]);
        expect(executor, "core0", &[down, DOWN], NoRule);
        expect(executor, "access0", &[up, UP], Steered);
        let given_back = frame("10.45.0.2:1234", "10.0.0.1:80");
        let (reason, sent) = arrive(executor, "app1", &given_back);
        assert_eq!(reason, Continued);
        assert_eq!(sent[14 + 20 + 8..], [hex(up), hex(UP)].concat());
    }
}

fn prepare(executor: &mut impl Executor, rules: &[&str]) {
    let rules = rules.iter().map(|rule| rule.parse().unwrap());
    executor.prepare(&rules.collect()).unwrap();
}

/// A message from the side of the port ends for this reason.
fn expect(executor: &mut impl Executor, port: &str, message: &[&str], reason: Reason) {
    let (from, to) = if port == "core0" {
        (CORE, RAN)
    } else {
        (RAN, CORE)
    };
    let packet = Packet {
        payload: hex(&message.concat()),
        ..Packet::udp(from, to)
    };
    let (found, _) = arrive(executor, port, &packet.bytes());
    assert_eq!(found, reason, "{port}: {message:?}");
}

fn arrive(executor: &mut impl Executor, port: &str, frame: &[u8]) -> (Reason, Vec<u8>) {
    let seen = executor.arrive(port, frame).unwrap();
    let [reason] = seen.reasons[..] else {
        panic!("{seen:?}");
    };
    let out = seen.out.into_iter().next();
    (reason, out.map(|(_, frame)| frame).unwrap_or_default())
}

/// The datagram of four octets, without tunnel.
fn frame(from: &str, to: &str) -> Vec<u8> {
    let packet = Packet {
        payload: b"abcd".to_vec(),
        ..Packet::udp(from, to).identification(0).dont_fragment()
    };
    packet.without_checksum().bytes()
}

fn hex(text: &str) -> Vec<u8> {
    let digits = text.chars().filter_map(|digit| digit.to_digit(16));
    let digits: Vec<u8> = digits.map(|digit| digit as u8).collect();
    let pairs = digits.chunks(2);
    pairs.map(|pair| pair[0] << 4 | pair[1]).collect()
}
