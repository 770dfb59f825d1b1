//! Every shape of packet cut at every length: nothing panics, and nothing is taken for what the whole
//! packet is not.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use dataplane_core::Reason;
use tests::{
    executor::{Host, Kernel, SHORTEST},
    packet::{Extension, Gtpu, IcmpError, Packet, Session, describe},
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

/// What comes in a tunnel, and what a tunnel's ends tell each other.
struct Tunnelled {
    port: &'static str,
    packet: Packet,
    /// Octets in front of the packet inside or of the information elements.
    before: usize,
    /// The packet inside.
    inner: Option<Packet>,
    /// What becomes of it whole.
    whole: Reason,
}

fn tunnelled(family: &Family) -> Vec<Tunnelled> {
    let [v4, v6] = [
        ("192.0.2.1:2152", "198.51.100.1:2152"),
        ("[2001:db8:2::1]:2152", "[2001:db8:51::1]:2152"),
    ];
    let kinds: [fn(Gtpu) -> Gtpu; 7] = [
        |pdu| pdu,
        |pdu| pdu.sequence(7),
        |pdu| pdu.npdu(7),
        |pdu| pdu.sequence(7).npdu(7).session(Session::Uplink(9)),
        |pdu| pdu.session(Session::Downlink(9)),
        |pdu| pdu.session(Session::Uplink(9)).udp_port(2152),
        // With a time stamp.
        |pdu| pdu.extension(0x85, &[[8, 9].as_slice(), &[1; 12]].concat()),
    ];
    let mut all = Vec::new();
    for (ran, core) in [v4, v6] {
        let up = |gtpu: Gtpu, inner: Option<&Packet>, whole| {
            let packet = gtpu.over(ran, core);
            Tunnelled {
                port: "access0",
                before: packet.bytes().len() - gtpu.content.len(),
                packet,
                inner: inner.cloned(),
                whole,
            }
        };
        let pdu = |inner: &Packet, kind: fn(Gtpu) -> Gtpu| {
            let gtpu = kind(Gtpu::pdu(0x1234, inner.network_bytes()));
            up(gtpu, Some(inner), Reason::Passthrough)
        };
        let udp = family.udp(443);
        all.extend(kinds.map(|kind| pdu(&udp, kind)));
        all.extend(
            shapes(family)
                .iter()
                .filter(|it| it.tags.is_empty())
                .map(|inner| pdu(inner, kinds[3])),
        );
        let down = pdu(&family.udp(6000).reversed(), kinds[4]);
        all.push(Tunnelled {
            port: "core0",
            packet: down.packet.reversed(),
            ..down
        });
        let marker = Gtpu::end_marker(0x1234);
        for (message, whole) in [
            (marker.clone(), Reason::GtpuEndMarker),
            (marker.session(Session::Downlink(9)), Reason::GtpuEndMarker),
            (
                Gtpu::error_indication(0x1234, family.ue),
                Reason::GtpuErrorIndication,
            ),
            (Gtpu::echo_request(7), Reason::GtpuEcho),
            (Gtpu::echo_response(7), Reason::GtpuEcho),
            (
                Gtpu::supported_extensions(&[0x85]),
                Reason::GtpuSupportedExtensionHeaders,
            ),
        ] {
            all.push(up(message, None, whole));
        }
    }
    let tagged: Vec<Tunnelled> = kinds
        .map(|kind| {
            let inner = family.tcp(443);
            let gtpu = kind(Gtpu::pdu(0x1234, inner.network_bytes()));
            let packet = gtpu.over(v6.0, v6.1).tag(0x88a8, 100).tag(0x8100, 5);
            Tunnelled {
                port: "access0",
                before: packet.bytes().len() - gtpu.content.len(),
                packet,
                inner: Some(inner),
                whole: Reason::Passthrough,
            }
        })
        .into();
    all.extend(tagged);
    all
}

#[test]
fn host_where_tunnels_are() {
    cut_tunnels(&mut Host::new(), 0);
}

#[test]
fn kernel_where_tunnels_are() {
    cut_tunnels(&mut Kernel::mobile().unwrap(), SHORTEST);
}

fn cut_tunnels(executor: &mut impl Executor, shortest: usize) {
    for family in [&V4, &V6] {
        let mut rules = rules(family);
        rules.push(family.fill_in("whole/2 prio 1 packet from SERVICE to UES passthrough"));
        let rules = rules.iter().map(|rule| rule.parse().unwrap());
        executor.prepare(&rules.collect()).unwrap();
        for shape in tunnelled(family) {
            let frame = shape.packet.bytes();
            let app = if shape.inner.is_some() { "whole" } else { "" };
            assert_eq!(
                arrive_by(executor, shape.port, &frame),
                (shape.whole, app.to_owned()),
                "{}",
                describe(&frame)
            );
            for length in shortest..frame.len() {
                let (reason, app) = arrive_by(executor, shape.port, &frame[..length]);
                let context = || format!("{length} of {}", describe(&frame));
                assert!(reason.is_malformed(), "{reason:?}: {}", context());
                assert_eq!(app, "", "{}", context());
            }
            shorten(executor, &shape);
        }
    }
}

/// The tunnel's end comes sooner than it says, and what says so is more and more of the packet; with and without
/// octets behind that, which are padding then.
fn shorten(executor: &mut impl Executor, shape: &Tunnelled) {
    let frame = shape.packet.bytes();
    let (ip, udp) = (
        shape.packet.network_offset(),
        shape.packet.transport_offset(),
    );
    let gtpu = udp + 8;
    let header = match &shape.inner {
        Some(inner) if inner.source.is_ipv4() => 20,
        Some(_) => 40,
        None => 0,
    };
    for (depth, first) in [udp + 8, gtpu + 8, shape.before + header]
        .into_iter()
        .enumerate()
    {
        for length in first..frame.len() {
            let mut short = frame.clone();
            let mut set = |at: usize, octets: usize| {
                short[at..at + 2].copy_from_slice(&(octets as u16).to_be_bytes());
            };
            match shape.packet.source.is_ipv4() {
                true => set(ip + 2, length - ip),
                false => set(ip + 4, length - udp),
            }
            set(udp + 4, length - udp);
            if depth > 0 {
                set(gtpu + 2, length - gtpu - 8);
            }
            match header {
                20 if depth > 1 => set(shape.before + 2, length - shape.before),
                40 if depth > 1 => set(shape.before + 4, length - shape.before - 40),
                _ => {}
            }
            for end in [length, frame.len()] {
                let (reason, app) = arrive_by(executor, shape.port, &short[..end]);
                let context = format!("{reason:?}: {depth}, {length}, {end}: {}", describe(&frame));
                let known = if reason == Reason::Passthrough {
                    depth == 2 && app == "whole"
                } else if reason == Reason::MalformedGtpu {
                    depth < 2 || header == 0
                } else if [Reason::MalformedInner, Reason::GtpuNotIp].contains(&reason) {
                    depth > 0
                } else if reason.is_malformed() {
                    length < gtpu
                } else {
                    // The tunnel that is not there comes before the address, which is not needed.
                    let named = reason != Reason::GtpuErrorIndication || length >= shape.before + 8;
                    reason == shape.whole && depth > 0 && named
                };
                assert!(known, "{context}");
                assert!(reason == Reason::Passthrough || app.is_empty(), "{context}");
            }
        }
    }
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
    arrive_by(executor, "access0", frame)
}

fn arrive_by(executor: &mut impl Executor, port: &str, frame: &[u8]) -> (Reason, String) {
    let seen = executor.arrive(port, frame).unwrap();
    let [reason] = seen.reasons[..] else {
        panic!("counted as {:?}: {}", seen.reasons, describe(frame));
    };
    let apps: Vec<String> = seen.rules.iter().map(|rule| rule.app.to_string()).collect();
    (reason, apps.join(" "))
}
