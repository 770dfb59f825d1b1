//! Random rule sets, and packets that come near their edges.
//!
//! Addresses, ports and priorities are drawn from small universes, so that rules overlap, tie and
//! shadow one another, and packets stand on the first and last value of ranges and just beside them.

mod rules;
mod tunnels;
mod vips;

use std::{fmt, net::IpAddr};

use dataplane_user::{Binding, rule::Rule};
use proptest::{prelude::*, sample::select};

pub(crate) use rules::Change;
use rules::Ues;
pub use tunnels::cases as mobile_cases;

use super::{
    Frame,
    envelope::{Envelope, Tunnel},
};
use crate::packet::{Extension, IcmpError, Packet, Transport, describe};

/// A rule set and the packets that meet it, in order.
#[derive(Clone)]
pub struct Case {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The packets.
    pub arrivals: Vec<Arrival>,
}

/// What arrives. Some of it depends on what arrived or came out so many packets before.
#[derive(Clone)]
pub enum Arrival {
    /// This one, by this port.
    Packet(&'static str, Packet),
    /// This one in a tunnel, or a message between the ends of tunnels.
    Tunneled(&'static str, Box<(Packet, Envelope)>),
    /// This one from a peer, by this port.
    Peered(&'static str, Packet),
    /// One that arrived before, by this tunnel if it came by one, with this QFI.
    Elsewhere(usize, Tunnel, Option<u8>),
    /// Not a packet: what is said of a UE.
    Said(Binding),
    /// Not a packet: nothing is said of a UE any more.
    Withdrawn(u16, IpAddr),
    /// One that arrived before, changed.
    Again(usize, Again),
    /// What came out of a port, by that port or by another, as it is or turned into the answer.
    Back(usize, Option<&'static str>, Turn),
    /// Not the packet that this is, but its fragments, in this order.
    Fragments(Box<Self>, &'static [usize]),
    /// Not a packet: seconds pass, where time is ours.
    Wait(u32),
    /// Not a packet: from here on, the rules are others.
    Rules(Change),
}

/// What is different when a packet arrives again.
#[derive(Clone, Copy, Debug)]
pub struct Again {
    /// The class.
    pub class: u8,
    /// Whether the UE has moved.
    pub moved: bool,
    /// Whether a TCP connection begins.
    pub begins: bool,
}

/// How what came out of a port comes back.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// As it is, as from an application in line.
    Same,
    /// As the answer to it.
    Answer,
    /// As an ICMP error about it, from its destination or a router; see [`super::Frame::error`].
    Error(IcmpError, bool, Option<bool>),
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &self.rules {
            write!(f, "\n  {rule}")?;
        }
        for (index, arrival) in self.arrivals.iter().enumerate() {
            write!(f, "\n  {index}: {arrival:?}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(port, packet) => write!(f, "{port}: {}", describe(&packet.bytes())),
            Self::Tunneled(port, inside) => {
                let (packet, envelope) = (**inside).clone();
                write!(f, "{port}: {}", Frame::from(packet).within(Some(envelope)))
            }
            Self::Peered(port, packet) => {
                write!(f, "{port}, from a peer: {}", describe(&packet.bytes()))
            }
            Self::Elsewhere(index, tunnel, qfi) => {
                write!(f, "what arrived {index} before, by {tunnel:?}, QFI {qfi:?}")
            }
            Self::Said(binding) => write!(f, "said: {binding:?}"),
            Self::Withdrawn(zone, ue) => write!(f, "nothing said of {ue} in zone {zone}"),
            Self::Again(index, again) => write!(f, "what arrived {index} before, {again:?}"),
            Self::Back(index, port, turn) => {
                write!(f, "{turn:?} of what came out {index} before")?;
                port.map_or(Ok(()), |port| write!(f, ", by {port}"))
            }
            Self::Fragments(whole, order) => write!(f, "fragments {order:?} of {whole:?}"),
            Self::Wait(seconds) => write!(f, "{seconds} s pass"),
            Self::Rules(change) => write!(f, "now {change:?}"),
        }
    }
}

const UES: [&str; 4] = ["10.45.0.1", "10.45.0.2", "10.45.0.3", "10.46.0.0"];
const SERVICES: [&str; 4] = [
    "203.0.113.7",
    "203.0.113.8",
    "203.0.113.9",
    "255.255.255.254",
];
const UES6: [&str; 3] = ["2001:db8:45::1", "2001:db8:45::2", "2001:db8:45:0:8000::"];
const SERVICES6: [&str; 3] = ["2001:db8:203::8", "2001:db8:203::9", "2001:db8:204::"];
const PORTS: [u16; 8] = [0, 79, 80, 81, 443, 1023, 1024, 65535];
const CLASSES: [u8; 4] = [0, 1, 46 << 2, 46 << 2 | 1];

/// Cases with up to `rules` rules and up to `arrivals` arrivals.
pub fn cases(rules: usize, arrivals: usize) -> impl Strategy<Value = Case> {
    let cases = |rules, [changes, changes_of_vips]: [u32; 2]| {
        let arrival = prop_oneof![
            94 => arrival(),
            4 => fragments_of(arrival()),
            changes => rules::change(rules, Ues::Plain).prop_map(Arrival::Rules),
            changes_of_vips => vips::change(Ues::Plain).prop_map(Arrival::Rules),
            2 => vips::wait(),
        ];
        let arrivals = prop::collection::vec(arrival, 1..=arrivals);
        (rules::rule_set(rules, Ues::Plain), arrivals)
            .prop_map(|(rules, arrivals)| Case { rules, arrivals })
    };
    prop_oneof![
        2 => cases(rules, [1, 1]),
        1 => cases(1, [1, 12]).prop_map(Case::with_few),
    ]
}

impl Case {
    /// The same with packets to one service of each IP version only, so that flows last over many changes of it.
    fn with_few(mut self) -> Self {
        for arrival in &mut self.arrivals {
            arrival.send_to_few();
        }
        self
    }
}

impl Arrival {
    fn send_to_few(&mut self) {
        match self {
            Self::Packet(_, packet) | Self::Peered(_, packet) => send_to_few(packet),
            Self::Tunneled(_, inside) => send_to_few(&mut inside.0),
            Self::Fragments(whole, _) => whole.send_to_few(),
            Self::Elsewhere(..)
            | Self::Said(_)
            | Self::Withdrawn(..)
            | Self::Again(..)
            | Self::Back(..)
            | Self::Wait(_)
            | Self::Rules(_) => {}
        }
    }
}

fn send_to_few(packet: &mut Packet) {
    let is_service = |address: IpAddr| {
        let mut services = SERVICES.iter().chain(&SERVICES6);
        services.any(|it| it.parse() == Ok(address))
    };
    let few = |packet: &Packet| {
        let service = if packet.source.is_ipv4() {
            SERVICES[0]
        } else {
            SERVICES6[0]
        };
        let port = packet.ports().map_or(0, |(from, _)| from % 2);
        packet.clone().to(service).to_port(80).from_port(port + 79)
    };
    if is_service(packet.destination) {
        *packet = few(packet);
    } else if is_service(packet.source) {
        *packet = few(&packet.reversed()).reversed();
    }
}

fn fragments_of(whole: impl Strategy<Value = Arrival>) -> impl Strategy<Value = Arrival> {
    const ORDERS: [&[usize]; 5] = [&[0, 1, 2], &[0, 2], &[2, 0, 1], &[1], &[0]];
    (whole, select(&ORDERS[..]))
        .prop_map(|(whole, order)| Arrival::Fragments(Box::new(whole), order))
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let port = |choices: &'static [&'static str]| select(choices);
    let before = || 0..24usize;
    let any = port(&["app0", "app1", "app0", "app1", "core0", "access0"]);
    let by = prop_oneof![2 => Just(None), 1 => any.prop_map(Some)];
    prop_oneof![
        6 => (port(&["access0", "access0", "access1", "access2"]), upstream())
            .prop_map(|(port, packet)| Arrival::Packet(port, packet)),
        1 => (port(&["core0", "app0", "app1"]), upstream())
            .prop_map(|(port, packet)| Arrival::Packet(port, packet.reversed())),
        2 => again(before()),
        5 => (before(), by, turn()).prop_map(|(before, by, turn)| Arrival::Back(before, by, turn)),
    ]
}

fn again(before: impl Strategy<Value = usize>) -> impl Strategy<Value = Arrival> {
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    let parts = (before, select(&CLASSES[..]), flags);
    parts.prop_map(|(before, class, (moved, begins))| {
        let again = Again {
            class,
            moved,
            begins,
        };
        Arrival::Again(before, again)
    })
}

fn turn() -> impl Strategy<Value = Turn> {
    let kinds = vec![
        IcmpError::Unreachable,
        IcmpError::TooBig(1300),
        IcmpError::TimeExceeded,
    ];
    let error = (
        select(kinds),
        prop::bool::ANY,
        select(vec![None, Some(true), Some(false)]),
    );
    prop_oneof![
        3 => Just(Turn::Answer),
        1 => Just(Turn::Same),
        1 => error.prop_map(|(kind, router, quote)| Turn::Error(kind, router, quote)),
    ]
}

/// A packet from a UE to a service.
fn upstream() -> impl Strategy<Value = Packet> {
    from_any_of(&UES, &UES6)
}

/// The same, from one of these UEs.
fn from_any_of(
    ues: &'static [&'static str],
    ues6: &'static [&'static str],
) -> impl Strategy<Value = Packet> {
    let address = |choices: &'static [&'static str]| select(choices);
    let addresses = prop_oneof![
        2 => (address(ues), address(&SERVICES)),
        1 => (address(ues6), address(&SERVICES6)),
    ];
    let ports = || select(&PORTS[..]);
    let transport = (0..6u8, ports(), ports()).prop_map(|(kind, source, destination)| match kind {
        0 | 1 => Transport::Tcp {
            source,
            destination,
            flags: crate::packet::ACK,
        },
        2 => Transport::Udp {
            source,
            destination,
            checksum: true,
        },
        3 => Transport::Sctp {
            source,
            destination,
        },
        4 => Transport::Echo {
            reply: false,
            id: source,
            sequence: destination,
        },
        _ => Transport::Other(if source % 2 == 0 { 50 } else { 255 }),
    });
    // Once in a while a packet has been on the way too long.
    let ttl = prop_oneof![20 => Just(64), 1 => 0..=2u8];
    let shape = (0..3usize, 0..3usize, select(&CLASSES[..]), ttl);
    (addresses, transport, shape).prop_map(|((from, to), transport, (tags, extra, class, ttl))| {
        let mut packet = Packet::new(
            from.parse().expect("an address"),
            to.parse().expect("an address"),
            transport,
        )
        .class(class)
        .ttl(ttl);
        for (protocol, vlan) in [(0x88a8, 100), (0x8100, 5)].into_iter().skip(2 - tags) {
            packet = packet.tag(protocol, vlan);
        }
        if packet.source.is_ipv4() {
            packet.options(extra)
        } else {
            let extensions = [Extension::HopByHop, Extension::DestinationOptions];
            extensions
                .into_iter()
                .take(extra)
                .fold(packet, Packet::extension)
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::{
        strategy::{Strategy, ValueTree as _},
        test_runner::TestRunner,
    };

    use super::*;
    use crate::packet::verify;

    #[test]
    fn generated_rules_are_valid_and_packets_well_formed() {
        let mut runner = TestRunner::deterministic();
        for number in 0..400 {
            let case = if number % 2 == 0 {
                cases(8, 64).new_tree(&mut runner).unwrap().current()
            } else {
                mobile_cases(8, 64).new_tree(&mut runner).unwrap().current()
            };
            let mut rules = case.rules;
            check(&rules);
            for arrival in &case.arrivals {
                match arrival {
                    Arrival::Packet(_, packet) | Arrival::Peered(_, packet) => {
                        verify(&packet.bytes())
                            .unwrap_or_else(|error| panic!("{arrival:?}: {error}"))
                    }
                    Arrival::Rules(change) => {
                        change.apply(&mut rules);
                        check(&rules);
                    }
                    Arrival::Tunneled(_, inside) => {
                        let (packet, envelope) = (**inside).clone();
                        let frame = Frame::from(packet).within(Some(envelope));
                        verify(&frame.bytes())
                            .unwrap_or_else(|error| panic!("{arrival:?}: {error}"));
                    }
                    Arrival::Elsewhere(..)
                    | Arrival::Said(..)
                    | Arrival::Withdrawn(..)
                    | Arrival::Again(..)
                    | Arrival::Back(..)
                    | Arrival::Wait(_)
                    | Arrival::Fragments(..) => {}
                }
            }
        }
    }

    fn check(rules: &[Rule]) {
        for rule in rules {
            rule.check()
                .unwrap_or_else(|error| panic!("{rule}: {error}"));
            assert_eq!(rule.to_string().parse::<Rule>().unwrap(), *rule);
        }
    }
}
