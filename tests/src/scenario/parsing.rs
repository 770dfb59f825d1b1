//! Frames that are no ordinary packets: each has its own reason.

use dataplane_core::Reason::{
    self, FragmentUnknown, HeaderChain, MalformedEthernet, MalformedIcmp, MalformedIpv4,
    MalformedIpv6, MalformedSctp, MalformedTcp, MalformedUdp, MappedAddress, NotIp, RuleDrop,
    TinyFragment,
};

use super::{Family, Scenario, Then, V4, V6};
use crate::packet::{Extension, Packet};

/// What holds for both families.
pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let cut = |packet: Packet, octets: usize| {
        let mut packet = packet;
        let content = packet.transport_bytes();
        packet.transport = crate::packet::Transport::Other(packet.protocol());
        packet.payload = content[..octets].to_vec();
        packet.bytes()
    };
    let with = |packet: &Packet, at: usize, octet: u8| {
        let mut frame = packet.bytes();
        frame[packet.transport_offset() + at] = octet;
        frame
    };
    let (tcp, udp) = (family.tcp(443), family.udp(443));
    let malformed = [
        ("a TCP header cut short", cut(tcp.clone(), 19), MalformedTcp),
        (
            "a TCP data offset below 5",
            with(&tcp, 12, 0x40),
            MalformedTcp,
        ),
        (
            "a TCP header longer than the packet",
            with(&tcp, 12, 0xf0),
            MalformedTcp,
        ),
        ("a UDP header cut short", cut(udp.clone(), 7), MalformedUdp),
        ("a UDP length below 8", with(&udp, 5, 7), MalformedUdp),
        (
            "a UDP length beyond the packet",
            with(&udp, 5, 200),
            MalformedUdp,
        ),
        (
            "an SCTP header cut short",
            cut(family.sctp(1), 11),
            MalformedSctp,
        ),
        (
            "an ICMP header cut short",
            cut(family.echo(), 7),
            MalformedIcmp,
        ),
    ];
    for (name, frame, reason) in malformed {
        all.push(refused(name, family, frame, reason));
    }
    let tiny = tcp.payload(100).fragments(8);
    all.push(
        Scenario::new(
            "a fragment that overlaps the TCP header",
            family,
            &["a/1 prio 1 flow any drop"],
        )
        .frame("access0", tiny[1].clone(), TinyFragment, Then::Discarded)
        .frame(
            "access0",
            // Of a datagram whose first fragment no scenario sends: the kernel remembers them.
            udp.clone().payload(50).identification(6).fragments(8)[2].clone(),
            FragmentUnknown,
            Then::Original,
        ),
    );
    let mut padded = family.udp(443).payload(0).bytes();
    padded.resize(80, 0);
    let mut trailing = udp.bytes();
    trailing.extend([0xaa; 7]);
    all.push(
        Scenario::new(
            "what follows the IP packet is padding",
            family,
            &["a/1 prio 1 flow any drop"],
        )
        .frame("access0", padded, RuleDrop, Then::Discarded)
        .frame("access0", trailing, RuleDrop, Then::Discarded),
    );
}

/// What only one family can get wrong, and frames that are not IP.
pub(super) fn malformed(all: &mut Vec<Scenario>) {
    let with = |packet: &Packet, at: usize, octets: &[u8]| {
        let mut frame = packet.bytes();
        let at = packet.network_offset() + at;
        frame[at..at + octets.len()].copy_from_slice(octets);
        frame
    };
    let (v4, v6) = (V4.udp(443), V6.udp(443));
    for (name, frame, reason) in [
        (
            "a tag cut short",
            v4.clone().tag(0x8100, 5).bytes()[..17].to_vec(),
            MalformedEthernet,
        ),
        (
            "an IPv4 header cut short",
            v4.bytes()[..33].to_vec(),
            MalformedIpv4,
        ),
        (
            "IPv4 of another version",
            with(&v4, 0, &[0x65]),
            MalformedIpv4,
        ),
        (
            "an IPv4 header length below 5",
            with(&v4, 0, &[0x44]),
            MalformedIpv4,
        ),
        (
            "an IPv4 length beyond the frame",
            with(&v4, 2, &[0, 200]),
            MalformedIpv4,
        ),
        (
            "an IPv4 length below its header",
            with(&v4, 2, &[0, 19]),
            MalformedIpv4,
        ),
        (
            "IPv4 options beyond the packet",
            with(&v4.clone().payload(0), 0, &[0x4f]),
            MalformedIpv4,
        ),
    ] {
        all.push(refused(name, &V4, frame, reason));
    }
    let chain = |extension, count| {
        (0..count).fold(V6.udp(443), |packet: Packet, _| packet.extension(extension))
    };
    let mapped = Packet::udp("[::ffff:10.45.0.7]:1", "[2001:db8::1]:2");
    for (name, frame, reason) in [
        (
            "an IPv6 header cut short",
            v6.bytes()[..53].to_vec(),
            MalformedIpv6,
        ),
        (
            "IPv6 of another version",
            with(&v6, 0, &[0x45]),
            MalformedIpv6,
        ),
        (
            "an IPv6 length beyond the frame",
            with(&v6, 4, &[0, 200]),
            MalformedIpv6,
        ),
        (
            "an extension header beyond the packet",
            with(&chain(Extension::DestinationOptions, 1), 41, &[200]),
            MalformedIpv6,
        ),
        ("an IPv4-mapped source", mapped.bytes(), MappedAddress),
        (
            "an IPv4-mapped destination",
            mapped.reversed().bytes(),
            MappedAddress,
        ),
    ] {
        all.push(refused(name, &V6, frame, reason));
    }
    let long = chain(Extension::DestinationOptions, 9).bytes();
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0, 1, 8, 6]);
    arp.extend([0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    let mut lldp = arp.clone();
    lldp[12..14].copy_from_slice(&[0x88, 0xcc]);
    let mut thrice = v4.tag(0x88a8, 1).tag(0x8100, 2).tag(0x8100, 3);
    thrice.ttl = 9;
    all.push(
        Scenario::new(
            "what is not understood goes on",
            &V4,
            &["a/1 prio 1 flow any drop"],
        )
        .frame("access0", arp, NotIp, Then::Original)
        .frame("core0", lldp, NotIp, Then::Original)
        .frame("access0", thrice.bytes(), NotIp, Then::Original)
        .frame("access0", long, HeaderChain, Then::Original)
        .frame(
            "access0",
            chain(Extension::DestinationOptions, 8).bytes(),
            RuleDrop,
            Then::Discarded,
        ),
    );
}

fn refused(name: &str, family: &Family, frame: Vec<u8>, reason: Reason) -> Scenario {
    let rules = ["a/1 prio 1 flow any forward mac 02:00:00:00:0a:01 via app0"];
    Scenario::new(name, family, &rules).frame("access0", frame, reason, Then::Discarded)
}
