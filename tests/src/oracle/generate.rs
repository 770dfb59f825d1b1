//! Random rule sets, and packets that come near their edges.
//!
//! Addresses, ports and priorities are drawn from small universes, so that rules overlap, tie and
//! shadow one another, and packets stand on the first and last value of ranges and just beside them.

use std::fmt;

use dataplane_user::rule::{
    Action, AddressRange, Destination, Endpoint, EndpointAddress, Filter, FilterType, Mac, Rule,
    RuleId, Tunnel,
};
use proptest::{
    option,
    prelude::*,
    sample::{select, subsequence},
};

use crate::packet::{Extension, Packet, Transport, describe};

/// A rule set and the packets that meet it, in order.
#[derive(Clone)]
pub struct Case {
    /// The rules.
    pub rules: Vec<Rule>,
    /// The packets.
    pub arrivals: Vec<Arrival>,
}

/// A packet that arrives.
#[derive(Clone)]
pub enum Arrival {
    /// This one, by this port.
    Packet(&'static str, Packet),
    /// The answer to what came out of a port, this long ago, by that port.
    Reply(usize),
    /// Not a packet: from here on, these rules are in force.
    Rules(Vec<Rule>),
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
            Self::Reply(index) => write!(f, "answer to what came out {index} before"),
            Self::Rules(rules) => {
                f.write_str("now the rules are")?;
                rules.iter().try_for_each(|rule| write!(f, "\n    {rule}"))
            }
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

/// Ranges that begin and end at the addresses above, or next to them, or are prefixes over them.
const UE_RANGES: [&str; 8] = [
    "10.45.0.1",
    "10.45.0.2-10.45.0.3",
    "10.45.0.0/31",
    "10.45.0.0/16",
    "10.45.0.3-10.46.0.0",
    "0.0.0.0/0",
    "2001:db8:45::/65",
    "2001:db8:45::2-2001:db8:45:0:8000::",
];
const SERVICE_RANGES: [&str; 8] = [
    "203.0.113.8",
    "203.0.113.8/31",
    "203.0.113.0-203.0.113.8",
    "203.0.113.9-255.255.255.255",
    "0.0.0.0/0",
    "2001:db8:203::9",
    "2001:db8:203::/48",
    "::/0",
];
const PORT_RANGES: [&str; 7] = [
    "80",
    "79-80",
    "81-1023",
    "0",
    "1024-65535",
    "0-65535",
    "443",
];

/// Cases with up to `rules` rules and up to `arrivals` packets.
pub fn cases(rules: usize, arrivals: usize) -> impl Strategy<Value = Case> {
    let arrival = prop_oneof![100 => arrival(), 1 => rule_set(rules).prop_map(Arrival::Rules)];
    let arrivals = prop::collection::vec(arrival, 1..=arrivals);
    (rule_set(rules), arrivals).prop_map(|(rules, arrivals)| Case { rules, arrivals })
}

fn rule_set(most: usize) -> impl Strategy<Value = Vec<Rule>> {
    prop::collection::vec(rule(), 0..=most).prop_map(|mut rules| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.id = id(index);
        }
        rules
    })
}

/// Ids whose byte order is neither that of their numbers nor of their creation.
fn id(index: usize) -> RuleId {
    let app = ["b", "a", "B", "ab"][index % 4];
    RuleId {
        app: app.parse().expect("a short id"),
        rule: format!("{}", 977 * index % 100)
            .parse()
            .expect("a short id"),
    }
}

fn rule() -> impl Strategy<Value = Rule> {
    let filters = prop::collection::vec(filter(), 1..=2);
    let kind = prop_oneof![2 => Just(FilterType::Flow), 1 => Just(FilterType::Packet)];
    let parts = (0..4u8, kind, filters, action(), prop::bool::ANY);
    parts.prop_map(|(priority, filter_type, filters, mut action, translate)| {
        if translate && filter_type == FilterType::Flow {
            translate_one_family(&filters, &mut action);
        }
        let mut rule = Rule {
            id: id(0),
            priority,
            filter_type,
            filters,
            action,
        };
        if rule.check().is_err() {
            // DSCP is of IPv4 and traffic class of IPv6, and the addresses are of the other.
            for filter in &mut rule.filters {
                (filter.dscp, filter.traffic_class) = (None, None);
            }
        }
        rule
    })
}

/// Turns NAT on where every packet that matches is of the family of the new address.
fn translate_one_family(filters: &[Filter], action: &mut Action) {
    if let Action::Forward {
        destination: Destination::One(endpoint),
        ..
    } = action
        && let EndpointAddress::Ip { address, nat } = &mut endpoint.address
    {
        let of_family = |ranges: &[AddressRange]| {
            !ranges.is_empty()
                && ranges
                    .iter()
                    .all(|range| range.first().is_ipv4() == address.is_ipv4())
        };
        *nat = filters
            .iter()
            .all(|filter| of_family(&filter.src) || of_family(&filter.dst));
    }
}

fn filter() -> impl Strategy<Value = Filter> {
    // A filter that asks for two families at once can match nothing, and is refused as such.
    let addresses = prop_oneof![
        2 => Just((vec![], vec![])),
        2 => some(&UE_RANGES, 2).prop_map(|source| (source, vec![])),
        3 => some(&SERVICE_RANGES, 3).prop_map(|destination| (vec![], destination)),
        3 => (some(&UE_RANGES[..6], 2), some(&SERVICE_RANGES[..5], 2)),
        1 => (some(&UE_RANGES[6..], 2), some(&SERVICE_RANGES[5..], 2)),
    ];
    let ports = || prop_oneof![2 => Just(vec![]), 1 => some(&PORT_RANGES, 2)];
    let protocols = prop_oneof![
        2 => Just(vec![]),
        1 => subsequence(vec![1, 6, 17, 50, 58, 132, 255], 1..=3),
    ];
    (
        addresses,
        ports(),
        ports(),
        protocols,
        option::weighted(0.2, select(CLASSES.map(|class| class >> 2).to_vec())),
        option::weighted(0.2, select(CLASSES.to_vec())),
        option::weighted(0.2, prop_oneof![Just(0), Just(2), Just(65535)]),
    )
        .prop_map(
            |((src, dst), src_port, dst_port, protocol, dscp, traffic_class, zone)| Filter {
                src: parse(&src),
                dst: parse(&dst),
                src_port: parse(&src_port),
                dst_port: parse(&dst_port),
                protocol,
                dscp,
                traffic_class,
                zone,
            },
        )
}

fn action() -> impl Strategy<Value = Action> {
    let tunnel = || prop_oneof![Just(Tunnel::Decapsulated), Just(Tunnel::Encapsulated)];
    let one = || endpoint().prop_map(Destination::One);
    prop_oneof![
        1 => Just(Action::Drop),
        1 => Just(Action::Passthrough),
        5 => (one(), tunnel()).prop_map(|(destination, tunnel)| Action::Forward { destination, tunnel }),
        1 => (one(), tunnel()).prop_map(|(destination, tunnel)| Action::Duplicate { destination, tunnel }),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let mac = (prop::bool::ANY, 1..3u8).prop_map(|(first, last)| Endpoint {
        address: EndpointAddress::Mac(Mac::from([2, 0, 0, 0, 0xa, last])),
        port: Some(if first { "app0" } else { "app1" }.to_owned()),
    });
    // 198.18.1.9 is nobody's address: its rules stay unresolved.
    let address = select(vec![
        ("198.18.1.2", "app0"),
        ("198.18.2.2", "app1"),
        ("2001:db8:a2::2", "app1"),
        ("198.18.1.9", "app0"),
    ]);
    let ip = address.prop_map(|(address, port)| Endpoint {
        address: EndpointAddress::Ip {
            address: address.parse().expect("an address"),
            nat: false,
        },
        port: Some(port.to_owned()),
    });
    prop_oneof![1 => mac, 2 => ip]
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let port = |choices: &[&'static str]| select(choices.to_vec());
    prop_oneof![
        6 => (port(&["access0", "access0", "access1"]), upstream())
            .prop_map(|(port, packet)| Arrival::Packet(port, packet)),
        2 => (port(&["core0", "app0", "app1"]), upstream())
            .prop_map(|(port, packet)| Arrival::Packet(port, packet.reversed())),
        3 => (0..64usize).prop_map(Arrival::Reply),
    ]
}

/// A packet from a UE to a service.
fn upstream() -> impl Strategy<Value = Packet> {
    let address = |choices: &'static [&'static str]| select(choices);
    let addresses = prop_oneof![
        2 => (address(&UES), address(&SERVICES)),
        1 => (address(&UES6), address(&SERVICES6)),
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
    let shape = (0..3usize, 0..3usize, select(&CLASSES[..]));
    (addresses, transport, shape).prop_map(|((from, to), transport, (tags, extra, class))| {
        let mut packet = Packet::new(
            from.parse().expect("an address"),
            to.parse().expect("an address"),
            transport,
        )
        .class(class);
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

fn some(values: &[&'static str], most: usize) -> impl Strategy<Value = Vec<&'static str>> + use<> {
    let most = most.min(values.len());
    subsequence(values.to_vec(), 1..=most)
}

fn parse<T: std::str::FromStr<Err: fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts
        .iter()
        .map(|text| text.parse().expect("a range"))
        .collect()
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
        for _ in 0..200 {
            let case = cases(8, 8).new_tree(&mut runner).unwrap().current();
            for rule in &case.rules {
                rule.check()
                    .unwrap_or_else(|error| panic!("{rule}: {error}"));
                assert_eq!(rule.to_string().parse::<Rule>().unwrap(), *rule);
            }
            for arrival in &case.arrivals {
                if let Arrival::Packet(_, packet) = arrival {
                    verify(&packet.bytes()).unwrap_or_else(|error| panic!("{arrival:?}: {error}"));
                }
            }
        }
    }
}
