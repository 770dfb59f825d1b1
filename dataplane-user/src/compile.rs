//! From a rule to the ranges that the data path compares packets with.

use std::{
    net::{IpAddr, Ipv6Addr},
    ops::Range,
};

use dataplane_core::{
    classify::NO_PORTS,
    parse::mapped,
    table::{Filter, Index, TunnelFilter, kind},
    wire::icmp::{ICMP, ICMPV6},
};

use crate::rule::{self, Action, AddressRange, FilterType, PortRange, Rule};

/// Filters that one rule may become at most.
pub const FILTERS_PER_RULE: usize = 4096;

/// First and last.
type Ends<T> = [T; 2];

const ALL_ADDRESSES: Ends<[u64; 2]> = [[0; 2], [u64::MAX; 2]];
/// IPv4-mapped addresses (RFC 4291, 2.5.5.2), which stand for IPv4 in the tables.
pub(crate) const MAPPED: Ends<[u64; 2]> = [mapped(0), mapped(u32::MAX)];

/// What a rule is compared with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// Whatever any of them matches, the rule matches. [`Filter::tunnel`] is a place in [`Self::tunnels`] plus 1.
    pub filters: Vec<Filter>,
    /// What they want of tunnels.
    pub tunnels: Vec<TunnelFilter>,
}

/// The filters of a rule. Lists in an attribute multiply. A rule that translates addresses matches packets of the IP
/// version that it translates to; one that translates ports matches none to port 0, which is nobody's (RFC 6335, 6) and
/// could not be told from no port in answers.
///
/// # Errors
///
/// When there would be more than [`FILTERS_PER_RULE`].
pub fn compile(rule: &Rule) -> Result<Compiled, String> {
    let kind = match rule.filter_type {
        FilterType::Flow => kind::FLOW,
        FilterType::Packet => kind::PACKET,
    };
    let version = rule.action.translates_to().map(|to| to.is_ipv4());
    let mut compiled = Compiled::default();
    let silent = matches!(&rule.action, Action::Balance(balance) if balance.silent);
    for filter in &rule.filters {
        let quiet = silent.then(|| without_echoes(filter)).flatten();
        compiled.add(quiet.as_ref().unwrap_or(filter), kind, version)?;
    }
    if let Action::Balance(_) = rule.action
        && !silent
    {
        for echo in rule.filters.iter().filter_map(echo) {
            compiled.add(&echo, kind, version)?;
        }
    }
    if rule.action.translates_ports() {
        compiled.leave_port_0();
    }
    Ok(compiled)
}

/// The protocol of echo requests to what a filter is for.
fn protocol_of_echoes(filter: &rule::Filter) -> Option<u8> {
    let v4 = filter.dst.first()?.is_ipv4();
    Some(if v4 { ICMP } else { ICMPV6 })
}

/// The same filter for all but echo requests, if it is for all protocols.
fn without_echoes(filter: &rule::Filter) -> Option<rule::Filter> {
    let icmp = protocol_of_echoes(filter)?;
    filter.protocol.is_empty().then(|| rule::Filter {
        protocol: (0..=u8::MAX).filter(|it| *it != icmp).collect(),
        ..filter.clone()
    })
}

/// A filter for echo requests to the same addresses, unless that is for them as well.
fn echo(filter: &rule::Filter) -> Option<rule::Filter> {
    let icmp = protocol_of_echoes(filter)?;
    (!filter.protocol.is_empty()).then(|| rule::Filter {
        protocol: vec![icmp],
        src_port: Vec::new(),
        dst_port: Vec::new(),
        ..filter.clone()
    })
}

impl Compiled {
    /// Has no filter match packets to port 0.
    fn leave_port_0(&mut self) {
        self.filters.retain_mut(|filter| {
            let [first, last] = &mut filter.destination_port;
            *first = (*first).max(1);
            *first <= *last
        });
    }

    /// `v4` is the only IP version that is meant, if there is one: whether it is IPv4.
    fn add(&mut self, filter: &rule::Filter, kind: u8, v4: Option<bool>) -> Result<(), String> {
        let sources = addresses(&filter.src, v4);
        let destinations = addresses(&filter.dst, v4);
        let source_ports = ports(&filter.src_port, NO_PORTS);
        let destination_ports = ports(&filter.dst_port, NO_PORTS);
        let protocols = protocols(&filter.protocol);
        let classes = classes(filter.dscp, filter.traffic_class, v4);
        let room = FILTERS_PER_RULE - self.filters.len();
        let tunnels = self.tunnels(filter, room)?;
        let factors = [
            sources.len(),
            destinations.len(),
            source_ports.len(),
            destination_ports.len(),
            protocols.len(),
            classes.len(),
            tunnels.len(),
        ];
        within(room, &factors)?;
        let zone = filter.zone.map_or([0, u16::MAX], |zone| [zone, zone]);
        let pairs = pairs(&sources, &destinations);
        for (source, destination) in pairs {
            for source_port in &source_ports {
                for destination_port in &destination_ports {
                    for protocol in &protocols {
                        for tos in &classes {
                            self.filters.extend(tunnels.clone().map(|tunnel| Filter {
                                rank: 0,
                                source,
                                destination,
                                source_port: *source_port,
                                destination_port: *destination_port,
                                tos: *tos,
                                zone,
                                protocol: *protocol,
                                kind,
                                minds: minds(kind, *tos, tunnel),
                                padding: [0; 2],
                                action: 0,
                                next: Index::END,
                                tunnel,
                            }));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Adds what a filter wants of tunnels. Answers the values of [`Filter::tunnel`] for it.
    fn tunnels(&mut self, filter: &rule::Filter, room: usize) -> Result<Range<u32>, String> {
        if !filter.wants_tunnel() {
            return Ok(0..1);
        }
        let sources = addresses(&filter.tunnel_src, None);
        let targets = addresses(&filter.tunnel_dst, None);
        // Every tunnel has ports.
        let source_ports = ports(&filter.tunnel_src_port, NO_PORTS - 1);
        let target_ports = ports(&filter.tunnel_dst_port, NO_PORTS - 1);
        let factors = [&sources, &targets].map(Vec::len);
        let factors_of_ports = [&source_ports, &target_ports].map(Vec::len);
        within(room, &[factors, factors_of_ports].concat())?;
        let first = self.tunnels.len() as u32 + 1;
        for (source, target) in pairs(&sources, &targets) {
            for source_port in &source_ports {
                self.tunnels
                    .extend(target_ports.iter().map(|target_port| TunnelFilter {
                        source,
                        target,
                        source_port: *source_port,
                        target_port: *target_port,
                        qci: filter.qci.map_or([0, u8::MAX], |qci| [qci, qci]),
                        padding: [0; 6],
                    }));
            }
        }
        Ok(first..self.tunnels.len() as u32 + 1)
    }
}

/// Whether so many combinations fit.
fn within(room: usize, factors: &[usize]) -> Result<(), String> {
    let product = factors
        .iter()
        .try_fold(1, |product: usize, len| product.checked_mul(*len));
    if product.is_none_or(|product| product > room) {
        return Err(format!(
            "its lists of addresses, ports and protocols multiply to more than {FILTERS_PER_RULE} combinations: \
             write ranges or prefixes, or split the rule"
        ));
    }
    Ok(())
}

type Addresses = Ends<[u64; 2]>;

/// The sources, each with every destination that a packet can have as well.
fn pairs(sources: &[Addresses], destinations: &[Addresses]) -> Vec<(Addresses, Addresses)> {
    let pairs = sources.iter().flat_map(|source| {
        let others = destinations
            .iter()
            .filter(|other| same_family(source, other));
        others.map(|destination| (*source, *destination))
    });
    pairs.collect()
}

/// Whether a packet can have both addresses.
fn same_family(one: &Ends<[u64; 2]>, other: &Ends<[u64; 2]>) -> bool {
    let is_v4 = |range: &Ends<[u64; 2]>| MAPPED[0] <= range[0] && range[1] <= MAPPED[1];
    *one == ALL_ADDRESSES || *other == ALL_ADDRESSES || is_v4(one) == is_v4(other)
}

fn addresses(ranges: &[AddressRange], v4: Option<bool>) -> Vec<Ends<[u64; 2]>> {
    if ranges.is_empty() {
        return vec![ALL_ADDRESSES];
    }
    let ranges = ranges
        .iter()
        .filter(|range| v4.is_none_or(|v4| v4 == range.is_ipv4()))
        .map(|range| [words(range.first()), words(range.last())]);
    // An IPv6 range may span the mapped addresses, but none of them is meant.
    let apart = ranges.flat_map(|[first, last]| {
        if first < MAPPED[0] && last > MAPPED[1] {
            vec![[first, before(MAPPED[0])], [after(MAPPED[1]), last]]
        } else {
            vec![[first, last]]
        }
    });
    merge(apart.collect(), after)
}

/// An address as the tables have it.
pub(crate) fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => mapped(address.into()),
        IpAddr::V6(address) => halves(address),
    }
}

const fn halves(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [(bits >> 64) as u64, bits as u64]
}

fn wide(value: [u64; 2]) -> u128 {
    u128::from(value[0]) << 64 | u128::from(value[1])
}

/// The next value, or the same if it is the last.
pub(crate) fn after(value: [u64; 2]) -> [u64; 2] {
    let bits = wide(value).saturating_add(1);
    [(bits >> 64) as u64, bits as u64]
}

fn before(value: [u64; 2]) -> [u64; 2] {
    let bits = wide(value).saturating_sub(1);
    [(bits >> 64) as u64, bits as u64]
}

/// `last` is the highest port of packets that are not asked for theirs.
fn ports(ranges: &[PortRange], last: u32) -> Vec<Ends<u32>> {
    if ranges.is_empty() {
        return vec![[0, last]];
    }
    let ranges = ranges
        .iter()
        .map(|range| [range.first().into(), range.last().into()]);
    merge(ranges.collect(), |port| port + 1)
}

fn protocols(protocols: &[u8]) -> Vec<Ends<u8>> {
    if protocols.is_empty() {
        return vec![[0, u8::MAX]];
    }
    let single = protocols.iter().map(|protocol| [*protocol, *protocol]);
    merge(single.collect(), |protocol| protocol.saturating_add(1))
}

/// Every class of IPv4, and of IPv6: DSCP is a matter of one, traffic class of the other; they are apart in
/// one number.
const CLASSES: [Ends<u16>; 2] = [[0, 255], [256, 511]];

/// What [`Filter::minds`] is. Rules for flows look at one packet only.
fn minds(filter_kind: u8, tos: Ends<u16>, tunnel: u32) -> u8 {
    // DSCP has 6 bits.
    let versions: [Ends<u16>; 2] = [[0, 63], CLASSES[1]];
    let bits = versions
        .into_iter()
        .zip([1, 2])
        .filter(|([first, last], _)| {
            let some = tos[0] <= *last && *first <= tos[1];
            let all = tos[0] <= *first && *last <= tos[1];
            some && (tunnel != 0 || !all)
        });
    match filter_kind {
        kind::PACKET => bits.map(|(_, bit)| bit).sum(),
        _ => 0,
    }
}

fn classes(dscp: Option<u8>, traffic_class: Option<u8>, v4: Option<bool>) -> Vec<Ends<u16>> {
    let dscp = dscp.map(u16::from);
    let traffic_class = traffic_class.map(|class| CLASSES[1][0] + u16::from(class));
    let any = dscp.is_none() && traffic_class.is_none();
    let of_versions = [(true, dscp), (false, traffic_class)]
        .into_iter()
        .zip(CLASSES);
    let meant = of_versions.filter(|((is_v4, _), _)| v4.is_none_or(|v4| v4 == *is_v4));
    let ranges = meant.filter_map(|((_, class), all)| match class {
        Some(class) => Some([class, class]),
        None => any.then_some(all),
    });
    merge(ranges.collect(), |class| class + 1)
}

/// Ranges in order, those that touch made one.
fn merge<T: Copy + Ord>(mut ranges: Vec<Ends<T>>, after: impl Fn(T) -> T) -> Vec<Ends<T>> {
    ranges.sort_unstable();
    let mut merged: Vec<Ends<T>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range[0] <= after(last[1]) => last[1] = last[1].max(range[1]),
            _ => merged.push(range),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(text: &str) -> Vec<Filter> {
        compiled(text).filters
    }

    fn compiled(text: &str) -> Compiled {
        compile(&format!("a/r prio 1 packet {text} drop").parse().unwrap()).unwrap()
    }

    #[test]
    fn lists_multiply_and_neighbors_merge() {
        assert_eq!(filters("dport 1-9,10-20,21").len(), 1);
        assert_eq!(
            filters("from 10.0.0.0/9,10.128.0.0/9 to 1.1.1.1,2.2.2.2 dport 1,3").len(),
            4
        );
        assert_eq!(filters("dscp 46 tc 184").len(), 2);
    }

    #[test]
    fn families_do_not_mix() {
        assert_eq!(
            filters("from 10.0.0.1,2001:db8::1 to 10.0.0.2,2001:db8::2").len(),
            2
        );
        let all_v6 = filters("from ::/0");
        assert_eq!(all_v6.len(), 2);
        assert!(
            all_v6
                .iter()
                .all(|it| it.source[1] < MAPPED[0] || it.source[0] > MAPPED[1])
        );
    }

    #[test]
    fn packets_to_port_0_keep_their_port() {
        for (ports, compiled_to) in [
            ("", vec![[1, NO_PORTS]]),
            ("dport 0-80", vec![[1, 80]]),
            ("dport 0,80", vec![[80, 80]]),
            ("dport 0", vec![]),
        ] {
            let rule =
                format!("a/r prio 1 flow to 1.1.1.1 proto tcp {ports} forward ip 2.2.2.2 nat 8443");
            let compiled = compile(&rule.parse().unwrap()).unwrap();
            let ranges = compiled.filters.iter().map(|it| it.destination_port);
            assert_eq!(ranges.collect::<Vec<_>>(), compiled_to, "{ports}");
        }
    }

    #[test]
    fn addresses_are_translated_within_a_version() {
        let filters = |text: &str, address: &str| {
            compile(
                &format!("a/r prio 1 flow {text} forward ip {address} nat")
                    .parse()
                    .unwrap(),
            )
            .unwrap()
            .filters
        };
        let (v4, v6) = ("198.18.1.2", "2001:db8:a1::2");
        let classes = |filters: &[Filter]| filters.iter().map(|it| it.tos).collect::<Vec<_>>();
        assert_eq!(classes(&filters("any", v4)), [[0, 255]]);
        assert_eq!(classes(&filters("any", v6)), [[256, 511]]);
        assert_eq!(classes(&filters("dscp 46 tc 184", v4)), [[46, 46]]);
        assert_eq!(classes(&filters("dscp 46 tc 184", v6)), [[440, 440]]);
        let of_both = "from 10.0.0.1,2001:db8::1";
        assert_eq!(filters(of_both, v4)[0].source, [mapped(0x0a00_0001); 2]);
        assert_eq!(filters(of_both, v4).len(), 1);
        assert_eq!(filters(of_both, v6).len(), 1);
        assert_eq!(filters(&format!("{of_both} to ::/0"), v6).len(), 2);
    }

    #[test]
    fn what_is_wanted_of_tunnels_is_kept_once() {
        let Compiled { filters, tunnels } = compiled(
            "dport 1,3 tunnel-from 192.0.2.1,192.0.2.3,2001:db8::1 tunnel-to 198.51.100.1 qci 5 or any or qci 7",
        );
        let [one, other, of_qci] = &tunnels[..] else {
            panic!("{tunnels:?}")
        };
        assert_eq!(one.source, [mapped(0xc000_0201); 2]);
        assert_eq!(other.source, [mapped(0xc000_0203); 2]);
        assert_eq!(one.target, [mapped(0xc633_6401); 2]);
        assert_eq!((one.qci, of_qci.qci), ([5, 5], [7, 7]));
        assert_eq!(of_qci.source, ALL_ADDRESSES);
        assert_eq!(of_qci.source_port, [0, NO_PORTS - 1], "a tunnel has ports");
        let wanted: Vec<u32> = filters.iter().map(|filter| filter.tunnel).collect();
        assert_eq!(wanted, [1, 2, 1, 2, 0, 3]);
    }

    #[test]
    fn too_many_combinations_are_refused() {
        let list = (0..70)
            .map(|n| format!("10.0.{n}.1"))
            .collect::<Vec<_>>()
            .join(",");
        for filter in [
            format!("from {list} to {list}"),
            format!("tunnel-from {list} tunnel-to {list}"),
            format!("from {list} tunnel-to {list}"),
        ] {
            let rule = format!("a/r prio 1 packet {filter} drop").parse();
            assert!(compile(&rule.unwrap()).unwrap_err().contains("4096"));
        }
    }
}
