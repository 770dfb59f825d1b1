//! Large rule sets of the shapes that ClassBench (Taylor and Turner, IEEE/ACM Transactions on Networking, 2007)
//! found in use, and packets that match them. The same seed makes the same.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use dataplane_user::rule::{
    Action, AddressRange, Filter, FilterType, PortRange, Rule, RuleId, RuleSet,
};

/// Numbers that look random and are the same each time (SplitMix64).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// One of `choices`, as often as its weight says.
    fn choose<T: Copy>(&mut self, choices: &[(T, u64)]) -> T {
        let total = choices.iter().map(|(_, weight)| weight).sum();
        let mut at = self.below(total);
        for (choice, weight) in choices {
            if at < *weight {
                return *choice;
            }
            at -= weight;
        }
        choices[0].0
    }
}

/// What rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each a service of its own, for one pool of UEs: what a MEC platform says.
    Services,
    /// Access control lists.
    Acl,
    /// Firewalls: many wildcards and ranges of ports.
    Fw,
    /// Chains of Linux: exact pairs beside wide prefixes.
    Ipc,
}

/// All of them.
pub const SHAPES: [Shape; 4] = [Shape::Services, Shape::Acl, Shape::Fw, Shape::Ipc];

/// How ports are said.
#[derive(Clone, Copy, Debug)]
enum Ports {
    Any,
    /// 0 to 1023.
    Low,
    /// 1024 to 65535.
    High,
    Exact,
    Range,
}

/// How often what is said: lengths of prefixes are those of IPv4.
struct Distribution {
    source: &'static [(u8, u64)],
    destination: &'static [(u8, u64)],
    source_port: &'static [(Ports, u64)],
    destination_port: &'static [(Ports, u64)],
    /// 0 is any.
    protocol: &'static [(u8, u64)],
}

const WELL_KNOWN: [u16; 24] = [
    80, 443, 53, 22, 25, 123, 161, 110, 143, 993, 995, 1433, 1521, 1723, 3306, 3389, 5060, 5432,
    6789, 8080, 8443, 2049, 389, 636,
];
const RANGES: [(u16, u16); 12] = [
    (20, 21),
    (67, 68),
    (135, 139),
    (161, 162),
    (2300, 2400),
    (5000, 5010),
    (5060, 5061),
    (6000, 6063),
    (6660, 6669),
    (8000, 8999),
    (16384, 32767),
    (49152, 65535),
];

impl Shape {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Acl => "acl",
            Self::Fw => "fw",
            Self::Ipc => "ipc",
        }
    }

    const fn distribution(self) -> Distribution {
        use Ports::{Any, Exact, High, Low, Range};
        match self {
            Self::Services => Distribution {
                source: &[(0, 1)],
                destination: &[(32, 1)],
                source_port: &[(Any, 1)],
                destination_port: &[(Exact, 1)],
                protocol: &[(6, 1), (17, 1)],
            },
            Self::Acl => Distribution {
                source: &[(0, 22), (16, 8), (20, 4), (24, 30), (28, 6), (32, 30)],
                destination: &[
                    (0, 2),
                    (16, 4),
                    (22, 6),
                    (24, 18),
                    (27, 10),
                    (30, 10),
                    (32, 50),
                ],
                source_port: &[(Any, 98), (Exact, 2)],
                destination_port: &[(Exact, 62), (Any, 22), (High, 8), (Range, 8)],
                protocol: &[(6, 80), (17, 12), (1, 3), (0, 5)],
            },
            Self::Fw => Distribution {
                source: &[(0, 42), (8, 4), (16, 6), (24, 14), (32, 34)],
                destination: &[(0, 30), (8, 2), (16, 8), (24, 16), (32, 44)],
                source_port: &[(Any, 62), (High, 30), (Exact, 6), (Range, 2)],
                destination_port: &[(Exact, 44), (Any, 30), (High, 8), (Low, 2), (Range, 16)],
                protocol: &[(6, 60), (17, 25), (1, 5), (0, 10)],
            },
            Self::Ipc => Distribution {
                source: &[
                    (0, 12),
                    (8, 4),
                    (16, 10),
                    (20, 8),
                    (24, 26),
                    (28, 8),
                    (32, 32),
                ],
                destination: &[(0, 12), (8, 3), (16, 10), (20, 8), (24, 25), (32, 42)],
                source_port: &[(Any, 70), (Exact, 20), (Range, 4), (High, 6)],
                destination_port: &[(Exact, 50), (Any, 36), (Range, 8), (High, 6)],
                protocol: &[(6, 55), (17, 30), (0, 12), (1, 3)],
            },
        }
    }
}

/// Makes prefixes that share their first bits with others, as networks do.
#[derive(Debug, Default)]
struct Prefixes(Vec<u32>);

impl Prefixes {
    fn next(&mut self, random: &mut Random, length: u8, v6: bool) -> Vec<AddressRange> {
        if length == 0 {
            return Vec::new();
        }
        let fresh = random.any() as u32;
        let address = if self.0.is_empty() || random.below(8) == 0 {
            fresh
        } else {
            let near = self.0[random.below(self.0.len() as u64) as usize];
            let mask = u32::MAX << random.below(24);
            near & mask | fresh & !mask
        };
        if self.0.len() < 4096 {
            self.0.push(address);
        }
        let (address, length) = if v6 {
            // The network in 32 of the first 64 bits, interfaces below.
            let interface = if length == 32 {
                u128::from(address | 1)
            } else {
                0
            };
            let bits = 0x2001_0db8 << 96 | u128::from(address) << 64 | interface;
            let length = if length == 32 { 128 } else { length + 32 };
            (IpAddr::V6(Ipv6Addr::from_bits(bits)), length)
        } else {
            (IpAddr::V4(Ipv4Addr::from_bits(address)), length)
        };
        AddressRange::prefix(address, length).into_iter().collect()
    }
}

fn some_ports(random: &mut Random, choices: &[(Ports, u64)], has_ports: bool) -> Vec<PortRange> {
    let (first, last) = match random.choose(choices) {
        _ if !has_ports => return Vec::new(),
        Ports::Any => return Vec::new(),
        Ports::Low => (0, 1023),
        Ports::High => (1024, 65535),
        Ports::Exact => {
            let port = match random.below(4) {
                0 => random.any() as u16,
                _ => WELL_KNOWN[random.below(WELL_KNOWN.len() as u64) as usize],
            };
            (port, port)
        }
        Ports::Range => RANGES[random.below(RANGES.len() as u64) as usize],
    };
    PortRange::new(first, last).into_iter().collect()
}

fn filter(shape: Shape, random: &mut Random, networks: &mut [Prefixes; 2], v6: bool) -> Filter {
    let of = shape.distribution();
    let protocol = random.choose(of.protocol);
    let has_ports = matches!(protocol, 0 | 6 | 17);
    let [sources, destinations] = networks;
    let (source, destination) = (random.choose(of.source), random.choose(of.destination));
    let pool = if v6 {
        "2001:db8:45::/48"
    } else {
        "10.45.0.0/16"
    };
    Filter {
        src: if shape == Shape::Services {
            vec![pool.parse().expect("a prefix")]
        } else {
            sources.next(random, source, v6)
        },
        dst: destinations.next(random, destination, v6),
        src_port: some_ports(random, of.source_port, has_ports),
        dst_port: some_ports(random, of.destination_port, has_ports),
        protocol: if protocol == 0 {
            Vec::new()
        } else {
            vec![protocol]
        },
        ..Filter::default()
    }
}

/// `count` rules for flows of a shape, no two alike, all with `action`. Those that say more come first, as people
/// write them.
pub fn rules(shape: Shape, count: usize, v6: bool, action: &Action) -> RuleSet {
    let mut random = Random(count as u64 ^ u64::from(v6) << 32);
    let mut networks = <[Prefixes; 2]>::default();
    let mut filters = HashSet::new();
    let mut rules = RuleSet::default();
    while rules.len() < count {
        let filter = filter(shape, &mut random, &mut networks, v6);
        if !filters.insert(filter.clone()) {
            continue;
        }
        let attributes = [
            &filter.src.is_empty(),
            &filter.dst.is_empty(),
            &filter.dst_port.is_empty(),
            &filter.protocol.is_empty(),
        ];
        let wildcards = attributes.into_iter().filter(|it| **it).count() as u64;
        rules.insert(Rule {
            id: id(rules.len()),
            priority: (wildcards * 40 + random.below(80)) as u8,
            filter_type: FilterType::Flow,
            filters: vec![filter],
            action: action.clone(),
        });
    }
    rules
}

fn id(number: usize) -> RuleId {
    let text = format!("app{}/rule{number}", number % 100);
    text.parse().expect("an identity")
}

/// What a packet is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Header {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// TCP, UDP or ICMP.
    pub protocol: u8,
    /// Source port, of TCP and UDP.
    pub source_port: u16,
    /// Destination port, of TCP and UDP.
    pub destination_port: u16,
}

/// `count` packets, each of which some rule matches: for a rule each, taken at random.
pub fn packets(rules: &RuleSet, count: usize, v6: bool) -> Vec<Header> {
    let mut random = Random(count as u64 ^ 0x5eed);
    let filters: Vec<&Filter> = rules.iter().flat_map(|rule| &rule.filters).collect();
    let packet = |_| {
        let filter = filters[random.below(filters.len() as u64) as usize];
        header(&mut random, filter, v6)
    };
    (0..count).map(packet).collect()
}

fn header(random: &mut Random, filter: &Filter, v6: bool) -> Header {
    let mut address = |ranges: &[AddressRange]| {
        let any = u128::from(random.any()) << 64 | u128::from(random.any());
        let bits = |address| match address {
            IpAddr::V4(address) => u128::from(address.to_bits()),
            IpAddr::V6(address) => address.to_bits(),
        };
        let (first, span) = match ranges.first() {
            Some(range) => (
                bits(range.first()),
                bits(range.last()) - bits(range.first()),
            ),
            None if v6 => (0x2001_0db8 << 96, (1 << 96) - 1),
            None => (0, u128::from(u32::MAX)),
        };
        let bits = first + any % (span + 1);
        if v6 {
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        } else {
            IpAddr::V4(Ipv4Addr::from_bits(bits as u32))
        }
    };
    let (source, destination) = (address(&filter.src), address(&filter.dst));
    let mut port = |ranges: &[PortRange]| {
        let (first, last) = ranges
            .first()
            .map_or((0, u16::MAX), |range| (range.first(), range.last()));
        first + random.below(u64::from(last - first) + 1) as u16
    };
    let (source_port, destination_port) = (port(&filter.src_port), port(&filter.dst_port));
    Header {
        source,
        destination,
        protocol: filter.protocol.first().copied().unwrap_or(17),
        source_port,
        destination_port,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn sets_are_as_large_as_asked_and_the_same_each_time() {
        for shape in SHAPES {
            for v6 in [false, true] {
                let set = rules(shape, 300, v6, &Action::Drop);
                assert_eq!(set.len(), 300);
                assert_eq!(set, rules(shape, 300, v6, &Action::Drop));
                let distinct: BTreeSet<_> = packets(&set, 100, v6)
                    .iter()
                    .map(|it| (it.source, it.destination))
                    .collect();
                assert!(distinct.len() > 90, "{shape:?}: {}", distinct.len());
            }
        }
    }
}
