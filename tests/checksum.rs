//! The UDP checksum over IPv6 of what is sent into tunnels, of random packets: what the data path knows without
//! looking at all octets, against the sum of all octets.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::cell::RefCell;

use dataplane_core::Reason;
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, any, prop_oneof},
    test_runner::{Config, TestRunner},
};
use tests::{
    executor::{Host, Kernel, Rig},
    packet::{Extension, Gtpu, Packet, Session, Transport},
    scenario::{Executor, Family, V4, V6},
};

const RAN: &str = "[2001:db8:2::1]:2152";
const CORE: &str = "[2001:db8:51::1]:2152";
/// Where the checksum of what is sent is.
const CHECKSUM: usize = 14 + 40 + 6;

#[test]
fn host() {
    sums_are_right(&mut Host::new(), 20_000);
}

#[test]
fn kernel() {
    sums_are_right(&mut Kernel::mobile().unwrap(), 5_000);
}

/// Frames longer than a page come in several buffers.
#[test]
fn of_long_frames() {
    let mut kernel = Kernel::mobile().unwrap();
    let Rig {
        bench, dataplane, ..
    } = &mut kernel.rig;
    let longer = "link set access0 mtu 9000
link set app0 mtu 9000";
    bench.host.ip(longer).unwrap();
    bench.host.enter(|| dataplane.refresh()).unwrap();
    teach(&mut kernel);
    for family in [&V4, &V6] {
        for packet in family.each() {
            for length in [4000, 8191, 8800] {
                let packet = packet.reversed().payload(length);
                right_sum(&mut kernel, &packet.bytes());
            }
        }
    }
}

/// Zero would say that there is none (RFC 768).
#[test]
fn a_sum_of_zero_is_sent_as_ones() {
    let mut host = Host::new();
    teach(&mut host);
    for family in [&V4, &V6] {
        let packet = like(family, Transport::Other(50));
        let with = |word: [u8; 2]| {
            let payload = word.to_vec();
            let packet = Packet {
                payload,
                ..packet.clone()
            };
            packet.bytes()
        };
        let sent = arrive(&mut host, "app0", &with([0, 0]));
        // What is added to the octets is taken from the checksum, so this leaves nothing of it.
        let checksum = *sent.split_at(CHECKSUM).1.first_chunk().unwrap();
        let sent = arrive(&mut host, "app0", &with(checksum));
        assert_eq!(
            sent[CHECKSUM..CHECKSUM + 2],
            [0xff, 0xff],
            "{}",
            family.name
        );
    }
}

/// The datagram ends before the packet does: its checksum tells nothing of what follows.
#[test]
fn octets_behind_a_datagram_are_summed_up() {
    let mut host = Host::new();
    teach(&mut host);
    let mut frame = V6.udp(9).reversed().payload(20).bytes();
    frame.extend([0x12, 0x34, 0x56, 0x78]);
    let length = 14 + 4..14 + 6;
    let room = u16::try_from(frame.len() - 14 - 40).unwrap();
    frame[length].copy_from_slice(&room.to_be_bytes());
    right_sum(&mut host, &frame);
}

fn sums_are_right(executor: &mut impl Executor, cases: u32) {
    teach(executor);
    let executor = RefCell::new(executor);
    let mut runner = TestRunner::new(Config::with_cases(cases));
    let frames = packets().prop_map(|(packet, cut)| match cut {
        Some(words) => packet.fragments(words * 8),
        None => vec![packet.bytes()],
    });
    let checked = runner.run(&frames, |frames| {
        for frame in frames {
            right_sum(&mut **executor.borrow_mut(), &frame);
        }
        Ok(())
    });
    checked.unwrap();
}

/// Sends the frame to the UE, and looks at what comes out.
fn right_sum(executor: &mut impl Executor, frame: &[u8]) {
    let sent = arrive(executor, "app0", frame);
    assert_ne!(sent[CHECKSUM..CHECKSUM + 2], [0, 0]);
    assert_eq!(sum(&sent), 0xffff, "{sent:02x?}");
}

/// The tunnels of the UEs.
fn teach(executor: &mut impl Executor) {
    executor.prepare(&[].into_iter().collect()).unwrap();
    for family in [&V4, &V6] {
        let inner = family.udp(9);
        let up = Gtpu::pdu(1, inner.network_bytes()).session(Session::Uplink(9));
        arrive(executor, "access0", &up.over(RAN, CORE).bytes());
        let down = Gtpu::pdu(2, inner.reversed().network_bytes());
        arrive(executor, "core0", &down.over(CORE, RAN).bytes());
    }
}

/// The frame that comes of one that goes on.
fn arrive(executor: &mut impl Executor, port: &str, frame: &[u8]) -> Vec<u8> {
    let seen = executor.arrive(port, frame).unwrap();
    let expected = if port == "app0" {
        Reason::AppInitiated
    } else {
        Reason::NoRule
    };
    assert_eq!(seen.reasons, [expected], "{frame:02x?}");
    let [(_, sent)] = &seen.out[..] else {
        panic!("{seen:?}");
    };
    sent.clone()
}

/// The one's complement sum of a UDP datagram over IPv6 and its pseudo-header, one word after the other.
fn sum(frame: &[u8]) -> u16 {
    let ip = frame.split_at(14).1;
    let (addresses, datagram) = ip.split_at(8).1.split_at(32);
    let length = u32::try_from(datagram.len()).unwrap();
    let numbers = [length, 17].map(u32::to_be_bytes).concat();
    let mut sum = 0;
    for part in [addresses, &numbers, datagram] {
        for word in part.chunks(2) {
            sum += u32::from(word[0]) << 8 | word.get(1).map_or(0, |octet| u32::from(*octet));
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    sum as u16
}

/// Packets from an application to the UE, and in which pieces they come, if not at once.
fn packets() -> impl Strategy<Value = (Packet, Option<usize>)> {
    let payload = prop_oneof![
        vec(any::<u8>(), 0..1300),
        vec(prop_oneof![Just(0), Just(0xff)], 0..64),
    ];
    let family = prop_oneof![Just(&V4), Just(&V6)];
    let looks = (any::<u8>(), any::<u32>(), 2..255_u8, 0..3_usize);
    let pieces = prop_oneof![3 => Just(None), 1 => (4..160_usize).prop_map(Some)];
    (family, transports(), payload, looks, pieces).prop_map(
        |(family, transport, payload, (class, identification, ttl, headers), pieces)| {
            let mut packet = like(family, transport);
            packet.payload = payload;
            packet = packet.class(class).identification(identification).ttl(ttl);
            packet = if family.is_v4() {
                packet.options(headers)
            } else {
                let extensions = [Extension::HopByHop, Extension::Routing];
                extensions
                    .into_iter()
                    .take(headers)
                    .fold(packet, Packet::extension)
            };
            // Of what has no ports, later pieces cannot be told to be of the same packet.
            (packet.clone(), pieces.filter(|_| packet.ports().is_some()))
        },
    )
}

fn like(family: &Family, transport: Transport) -> Packet {
    let packet = family.udp(9).reversed();
    // Over IPv6, UDP has a checksum.
    let transport = if let (
        false,
        Transport::Udp {
            source,
            destination,
            ..
        },
    ) = (family.is_v4(), &transport)
    {
        Transport::Udp {
            source: *source,
            destination: *destination,
            checksum: true,
        }
    } else {
        transport
    };
    Packet::new(packet.source, packet.destination, transport)
}

fn transports() -> impl Strategy<Value = Transport> {
    (0..6, any::<u16>(), any::<u16>(), any::<u8>()).prop_map(
        |(kind, source, destination, octet)| {
            match kind {
                0 => Transport::Tcp {
                    source,
                    destination,
                    flags: octet & 0x17,
                },
                1 => Transport::Udp {
                    source,
                    destination,
                    checksum: octet & 1 != 0,
                },
                2 => Transport::Sctp {
                    source,
                    destination,
                },
                3 => Transport::Echo {
                    reply: octet & 1 != 0,
                    id: source,
                    sequence: destination,
                },
                // Protocols of which nothing is known; and ICMP where it does not belong.
                4 => Transport::Other(if octet & 1 == 0 { 47 } else { 50 }),
                _ => Transport::Other(140 + octet % 100),
            }
        },
    )
}
