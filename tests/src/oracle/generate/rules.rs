//! Random rule sets, and what may be changed in them.

use std::fmt;

use dataplane_user::rule::{
    Action, Destination, Encapsulation, Endpoint, EndpointAddress, Filter, FilterType, Mac, Rule,
    RuleId, Target, Tunnel,
};
use proptest::{
    option,
    prelude::*,
    sample::{select, subsequence},
};

use super::{CLASSES, vips};
use crate::world::PEER_KEY;

/// Ranges that begin and end at addresses of packets, or next to them, or are prefixes over them.
pub(super) const UE_RANGES: [&str; 8] = [
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

/// The same of the ends of tunnels, those of IPv4 first.
const RAN_RANGES: [&str; 5] = [
    "192.0.2.1",
    "192.0.2.0/24",
    "192.0.2.2-192.0.2.9",
    "2001:db8:2::1",
    "2001:db8:2::2-2001:db8:2::9",
];
const CORE_RANGES: [&str; 5] = [
    "198.51.100.1",
    "198.51.100.0/24",
    "198.51.100.2-198.51.100.9",
    "2001:db8:51::1",
    "2001:db8:51::/64",
];
const GTPU_PORT_RANGES: [&str; 3] = ["2152", "2153-65535", "0-2151"];
/// QCI or 5QI.
pub(super) const QCI: [u8; 3] = [1, 5, 255];

/// How UEs are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ues {
    /// As hosts on a wire.
    Plain,
    /// Some are behind tunnels.
    Mobile,
}

/// What changes in a rule set.
#[derive(Clone)]
pub enum Change {
    /// Everything.
    All(Vec<Rule>),
    /// One rule, at this place or, if there are less, counted around.
    One(usize, Edit),
    /// One rule that balances, counted likewise.
    Vip(usize, vips::Edit),
}

/// What changes in a rule.
#[derive(Clone, Debug)]
pub enum Edit {
    /// It goes.
    Remove,
    /// Its place among the others.
    Priority(u8),
    /// Whether addresses are translated, where they can be.
    Translation,
    /// What it does, and where it leads.
    Action(Action),
}

impl Change {
    /// Changes `rules`.
    pub fn apply(&self, rules: &mut Vec<Rule>) {
        match self {
            Self::All(others) => rules.clone_from(others),
            Self::One(at, edit) => {
                let Some(at) = at.checked_rem(rules.len()) else {
                    return;
                };
                if matches!(edit, Edit::Remove) {
                    rules.remove(at);
                } else {
                    edit.apply(&mut rules[at]);
                }
            }
            Self::Vip(at, edit) => edit.apply(*at, rules),
        }
    }
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(rules) => {
                f.write_str("the rules are")?;
                rules.iter().try_for_each(|rule| write!(f, "\n    {rule}"))
            }
            Self::One(at, edit) => write!(f, "of rule {at}: {edit:?}"),
            Self::Vip(at, edit) => write!(f, "of VIP {at}: {edit:?}"),
        }
    }
}

impl Edit {
    fn apply(&self, rule: &mut Rule) {
        match self {
            Self::Remove => {}
            Self::Priority(priority) => rule.priority = *priority,
            Self::Action(action) => {
                rule.action = action.clone();
                in_line_needs_flows(rule);
            }
            Self::Translation => translate(rule),
        }
    }
}

/// A change of a set of up to `most` rules.
pub(super) fn change(most: usize, ues: Ues) -> impl Strategy<Value = Change> {
    let edit = prop_oneof![
        1 => Just(Edit::Remove),
        1 => (0..4u8).prop_map(Edit::Priority),
        3 => Just(Edit::Translation),
        3 => action(ues).prop_map(Edit::Action),
    ];
    prop_oneof![
        1 => rule_set(most, ues).prop_map(Change::All),
        3 => (0..most, edit).prop_map(|(at, edit)| Change::One(at, edit)),
    ]
}

/// Up to `most` rules, and VIPs.
pub(super) fn rule_set(most: usize, ues: Ues) -> impl Strategy<Value = Vec<Rule>> {
    let vips = prop::collection::vec(vips::vip(ues), 0..=vips::MOST);
    (vips, prop::collection::vec(rule(ues), 0..=most)).prop_map(|(mut rules, others)| {
        rules.extend(others);
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.id = id(index);
        }
        rules
    })
}

/// A rule after all others, mostly, that sends all packets that are left to an application.
pub(super) fn forwarding() -> impl Strategy<Value = Option<Rule>> {
    let text = select(vec![
        "z/z prio 4 flow any forward ip 198.18.1.2 via app0",
        "z/z prio 4 flow to 0.0.0.0/0 forward ip 198.18.2.2 nat via app1",
        "z/z prio 4 flow to 0.0.0.0/0 forward encapsulated ip 198.18.2.2 nat via app1",
        "z/z prio 4 flow any forward gre 198.18.1.2 from 198.18.0.1 key 7 via app0",
        "z/z prio 4 flow to 0.0.0.0/0 or to ::/0 forward encapsulated ip 198.18.1.2 via app0",
        "z/z prio 4 flow zone 0 forward mac 02:00:00:00:0a:01 via app0 and mac 02:00:00:00:0a:02 via app1",
    ]);
    option::weighted(0.9, text.prop_map(|text| text.parse().expect("a rule")))
}

/// Ids whose byte order is neither that of their numbers nor of their creation.
pub(super) fn id(index: usize) -> RuleId {
    let app = ["b", "a", "B", "ab"][index % 4];
    RuleId {
        app: app.parse().expect("a short id"),
        rule: format!("{}", 977 * index % 100)
            .parse()
            .expect("a short id"),
    }
}

/// A rule; its id is to be given.
fn rule(ues: Ues) -> impl Strategy<Value = Rule> {
    let filters = prop::collection::vec(filter(ues), 1..=2);
    let kind = prop_oneof![2 => Just(FilterType::Flow), 1 => Just(FilterType::Packet)];
    let parts = (0..4u8, kind, filters, action(ues), prop::bool::ANY);
    parts.prop_map(|(priority, filter_type, filters, action, translated)| {
        let mut rule = Rule {
            id: id(0),
            priority,
            filter_type,
            filters,
            action,
        };
        if translated {
            translate(&mut rule);
        }
        in_line_needs_flows(&mut rule);
        if rule.check().is_err() {
            // DSCP is of IPv4 and traffic class of IPv6, and the addresses are of the other.
            for filter in &mut rule.filters {
                (filter.dscp, filter.traffic_class) = (None, None);
            }
        }
        rule
    })
}

/// What an application in line gives back is told by its flow, which is of its zone.
fn in_line_needs_flows(rule: &mut Rule) {
    if let Action::Forward {
        destination: Destination::Inline { .. },
        ..
    } = rule.action
    {
        rule.filter_type = FilterType::Flow;
        for filter in &mut rule.filters {
            filter.zone = Some(0);
        }
    }
}

/// Turns address translation off, or on where it can be.
fn translate(rule: &mut Rule) {
    toggle_translation(&mut rule.action);
    if rule.action.translates_to().is_some() && rule.check().is_err() {
        toggle_translation(&mut rule.action);
    }
}

fn toggle_translation(action: &mut Action) {
    if let Action::Forward {
        destination: Destination::One(endpoint),
        ..
    } = action
        && let EndpointAddress::Ip { nat, .. } = &mut endpoint.address
    {
        *nat = !*nat;
    }
}

fn filter(ues: Ues) -> impl Strategy<Value = Filter> {
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
        tunnel_filter(ues),
    )
        .prop_map(
            |((src, dst), src_port, dst_port, protocol, dscp, traffic_class, zone, tunnel)| {
                Filter {
                    src: parse(&src),
                    dst: parse(&dst),
                    src_port: parse(&src_port),
                    dst_port: parse(&dst_port),
                    protocol,
                    dscp,
                    traffic_class,
                    // Where no tunnels are looked into, a rule that wants one is refused.
                    zone: zone.filter(|zone| *zone != 65535 || tunnel == Filter::default()),
                    ..tunnel
                }
            },
        )
}

/// What a filter wants of the tunnel.
fn tunnel_filter(ues: Ues) -> BoxedStrategy<Filter> {
    let nothing = Just(Filter::default());
    if ues == Ues::Plain {
        return nothing.boxed();
    }
    let end = |ranges: &'static [&'static str]| {
        prop_oneof![2 => Just(vec![]), 1 => some(ranges, 2)].prop_map(|it| parse(&it))
    };
    let ends = prop_oneof![
        3 => (end(&RAN_RANGES[..3]), end(&CORE_RANGES[..3])),
        3 => (end(&RAN_RANGES[3..]), end(&CORE_RANGES[3..])),
        1 => (end(&CORE_RANGES[..3]), end(&RAN_RANGES[..3])),
    ];
    let port = || prop_oneof![5 => Just(vec![]), 1 => some(&GTPU_PORT_RANGES, 2)];
    let qci = option::weighted(0.3, select(&QCI[..]));
    let parts = (ends, port(), port(), qci);
    let wanted = parts.prop_map(
        |((tunnel_src, tunnel_dst), src_port, dst_port, qci)| Filter {
            tunnel_src,
            tunnel_dst,
            tunnel_src_port: parse(&src_port),
            tunnel_dst_port: parse(&dst_port),
            qci,
            ..Filter::default()
        },
    );
    prop_oneof![3 => nothing, 2 => wanted].boxed()
}

/// An action, without address translation.
fn action(ues: Ues) -> impl Strategy<Value = Action> {
    let tunnel = || prop_oneof![Just(Tunnel::Decapsulated), Just(Tunnel::Encapsulated)];
    prop_oneof![
        1 => Just(Action::Drop),
        1 => Just(Action::Passthrough),
        6 => (destination(ues), tunnel()).prop_map(|(destination, tunnel)| Action::Forward { destination, tunnel }),
        1 => (destination(Ues::Plain), tunnel()).prop_map(|(destination, tunnel)| Action::Duplicate { destination, tunnel }),
    ]
}

fn destination(ues: Ues) -> impl Strategy<Value = Destination> {
    let behind_tunnel = u32::from(ues == Ues::Mobile);
    prop_oneof![
        3 => endpoint().prop_map(Destination::One),
        behind_tunnel => far_endpoint().prop_map(Destination::One),
        1 => (endpoint(), endpoint()).prop_map(|(ue, mut core)| {
            if core.port == ue.port {
                core = other_side(&ue);
            }
            Destination::Inline { ue, core }
        }),
    ]
}

/// The interface of the same application behind the other port.
fn other_side(ue: &Endpoint) -> Endpoint {
    let app0 = ue.port.as_deref() == Some("app0");
    let (last, port) = if app0 { (2, "app1") } else { (1, "app0") };
    Endpoint {
        address: EndpointAddress::Mac(Mac::from([2, 0, 0, 0, 0xa, last])),
        port: Some(port.to_owned()),
    }
}

pub(super) fn endpoint() -> impl Strategy<Value = Endpoint> {
    let mac = (prop::bool::ANY, 1..3u8).prop_map(|(first, last)| Endpoint {
        address: EndpointAddress::Mac(Mac::from([2, 0, 0, 0, 0xa, last])),
        port: Some(if first { "app0" } else { "app1" }.to_owned()),
    });
    // 198.18.1.9 is nobody's address: its rules stay unresolved.
    let address = select(vec![
        ("198.18.1.2", "app0"),
        ("198.18.2.2", "app1"),
        ("2001:db8:a1::2", "app0"),
        ("2001:db8:a2::2", "app1"),
        ("198.18.1.9", "app0"),
    ]);
    let ip = address.prop_map(|(address, port)| Endpoint {
        address: EndpointAddress::Ip {
            address: address.parse().expect("an address"),
            nat: false,
            nat_port: None,
        },
        port: Some(port.to_owned()),
    });
    prop_oneof![1 => mac, 2 => ip]
}

/// One behind a tunnel. Some of them differ in what the far end does not tell.
pub(super) fn far_endpoint() -> impl Strategy<Value = Endpoint> {
    let ends = select(vec![
        ("198.18.1.2", "198.18.0.1", "app0"),
        ("198.18.2.2", "198.18.0.1", "app1"),
        ("2001:db8:a2::2", "2001:db8:a0::1", "app1"),
        ("198.18.1.9", "198.18.0.1", "app0"),
        ("198.18.3.2", "198.18.0.1", "access0"),
        ("2001:db8:a3::2", "2001:db8:a0::1", "access0"),
    ]);
    let mac = |last| Mac::from([2, 0, 0, 0, 0xff, last]);
    let encapsulation = select(vec![
        Encapsulation::Gtpu { teid: 7, qfi: None },
        Encapsulation::Gtpu {
            teid: 7,
            qfi: Some(5),
        },
        Encapsulation::Gre { key: None },
        Encapsulation::Gre { key: Some(7) },
        Encapsulation::Gre {
            key: Some(PEER_KEY),
        },
        Encapsulation::Vxlan {
            vni: 7,
            mac: mac(1),
        },
        Encapsulation::Vxlan {
            vni: 7,
            mac: mac(2),
        },
    ]);
    (ends, encapsulation).prop_map(|((far, near, port), encapsulation)| Endpoint {
        address: EndpointAddress::Tunnel(Target {
            encapsulation,
            destination: far.parse().expect("an address"),
            source: Some(near.parse().expect("an address")),
        }),
        port: Some(port.to_owned()),
    })
}

pub(super) fn some(
    values: &[&'static str],
    most: usize,
) -> impl Strategy<Value = Vec<&'static str>> + use<> {
    let most = most.min(values.len());
    subsequence(values.to_vec(), 1..=most)
}

pub(super) fn parse<T: std::str::FromStr<Err: fmt::Debug>>(texts: &[&str]) -> Vec<T> {
    texts
        .iter()
        .map(|text| text.parse().expect("a range"))
        .collect()
}
