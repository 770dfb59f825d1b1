//! From a rule to the ranges that the data path compares packets with.

use std::net::{IpAddr, Ipv6Addr};

use dataplane_core::{
    classify::NO_PORTS,
    parse::mapped,
    table::{Filter, Index, kind},
};

use crate::rule::{self, AddressRange, FilterType, PortRange, Rule};

/// Filters that one rule may become at most.
pub const FILTERS_PER_RULE: usize = 4096;

type Range<T> = [T; 2];

const ALL_ADDRESSES: Range<[u64; 2]> = [[0; 2], [u64::MAX; 2]];
/// IPv4-mapped addresses (RFC 4291, 2.5.5.2), which stand for IPv4 in the tables.
const MAPPED: Range<[u64; 2]> = [mapped(0), mapped(u32::MAX)];

/// The filters of a rule: whatever any of them matches, the rule matches. Lists in an attribute multiply. A rule
/// that translates addresses matches packets of the IP version that it translates to.
///
/// # Errors
///
/// When there would be more than [`FILTERS_PER_RULE`].
pub fn compile(rule: &Rule) -> Result<Vec<Filter>, String> {
    let kind = match rule.filter_type {
        FilterType::Flow => kind::FLOW,
        FilterType::Packet => kind::PACKET,
    };
    let version = rule.action.translates_to().map(|to| to.is_ipv4());
    let mut filters = Vec::new();
    for filter in &rule.filters {
        expand(filter, kind, version, &mut filters)?;
    }
    Ok(filters)
}

/// `v4` is the only IP version that is meant, if there is one: whether it is IPv4.
fn expand(
    filter: &rule::Filter,
    kind: u8,
    v4: Option<bool>,
    filters: &mut Vec<Filter>,
) -> Result<(), String> {
    let sources = addresses(&filter.src, v4);
    let destinations = addresses(&filter.dst, v4);
    let source_ports = ports(&filter.src_port);
    let destination_ports = ports(&filter.dst_port);
    let protocols = protocols(&filter.protocol);
    let classes = classes(filter.dscp, filter.traffic_class, v4);
    let factors = [
        sources.len(),
        destinations.len(),
        source_ports.len(),
        destination_ports.len(),
        protocols.len(),
        classes.len(),
    ];
    let product = factors
        .iter()
        .try_fold(1, |product: usize, len| product.checked_mul(*len));
    if product.is_none_or(|product| filters.len() + product > FILTERS_PER_RULE) {
        return Err(format!(
            "its lists of addresses, ports and protocols multiply to more than {FILTERS_PER_RULE} combinations: \
             write ranges or prefixes, or split the rule"
        ));
    }
    let zone = filter.zone.map_or([0, u16::MAX], |zone| [zone, zone]);
    for source in &sources {
        for destination in destinations
            .iter()
            .filter(|other| same_family(source, other))
        {
            for source_port in &source_ports {
                for destination_port in &destination_ports {
                    for protocol in &protocols {
                        filters.extend(classes.iter().map(|tos| Filter {
                            source: *source,
                            destination: *destination,
                            source_port: *source_port,
                            destination_port: *destination_port,
                            tos: *tos,
                            zone,
                            protocol: *protocol,
                            kind,
                            padding: 0,
                            action: 0,
                            next: Index::END,
                            padding2: 0,
                        }));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Whether a packet can have both addresses.
fn same_family(one: &Range<[u64; 2]>, other: &Range<[u64; 2]>) -> bool {
    let is_v4 = |range: &Range<[u64; 2]>| MAPPED[0] <= range[0] && range[1] <= MAPPED[1];
    *one == ALL_ADDRESSES || *other == ALL_ADDRESSES || is_v4(one) == is_v4(other)
}

fn addresses(ranges: &[AddressRange], v4: Option<bool>) -> Vec<Range<[u64; 2]>> {
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

fn ports(ranges: &[PortRange]) -> Vec<Range<u32>> {
    if ranges.is_empty() {
        return vec![[0, NO_PORTS]];
    }
    let ranges = ranges
        .iter()
        .map(|range| [range.first().into(), range.last().into()]);
    merge(ranges.collect(), |port| port + 1)
}

fn protocols(protocols: &[u8]) -> Vec<Range<u8>> {
    if protocols.is_empty() {
        return vec![[0, u8::MAX]];
    }
    let single = protocols.iter().map(|protocol| [*protocol, *protocol]);
    merge(single.collect(), |protocol| protocol.saturating_add(1))
}

/// Every class of IPv4, and of IPv6: DSCP is a matter of one, traffic class of the other; they are apart in
/// one number.
const CLASSES: [Range<u16>; 2] = [[0, 255], [256, 511]];

fn classes(dscp: Option<u8>, traffic_class: Option<u8>, v4: Option<bool>) -> Vec<Range<u16>> {
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
fn merge<T: Copy + Ord>(mut ranges: Vec<Range<T>>, after: impl Fn(T) -> T) -> Vec<Range<T>> {
    ranges.sort_unstable();
    let mut merged: Vec<Range<T>> = Vec::with_capacity(ranges.len());
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
    fn addresses_are_translated_within_a_version() {
        let filters = |text: &str, address: &str| {
            compile(
                &format!("a/r prio 1 flow {text} forward ip {address} nat")
                    .parse()
                    .unwrap(),
            )
            .unwrap()
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
    fn too_many_combinations_are_refused() {
        let list = (0..70)
            .map(|n| format!("10.0.{n}.1"))
            .collect::<Vec<_>>()
            .join(",");
        let text = format!("a/r prio 1 packet from {list} to {list} drop");
        assert!(
            compile(&text.parse().unwrap())
                .unwrap_err()
                .contains("4096")
        );
    }
}
