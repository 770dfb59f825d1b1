//! Splits: what they do with a list, and which is good.

use std::sync::Arc;

use dataplane_core::table::{Split, field, kind};

use super::{Item, node::LEAF};

/// Filters looked at to find a good split of many.
const SAMPLE: usize = 256;
/// What a step costs, in nanoseconds, as far as that decides which split is the better one.
const SPLIT: f64 = 14.0;
/// The same for a filter of a list.
const FILTER: f64 = 7.0;
/// The same for what is looked at besides.
const ALSO: f64 = 8.0;
/// Of so few filters copies are few, even if one is on every way.
const FEW: usize = 16;

/// First and last value of a word that a filter matches.
type Range = [u32; 2];

const ALL: Range = [0, u32::MAX];

/// A list longer than this has to be parted.
const LONG: usize = 32;

/// The first [`OF_FLOW`] are the same in all packets of a flow.
const FIELDS: [u8; 22] = [
    field::DESTINATION[0],
    field::DESTINATION[1],
    field::DESTINATION[2],
    field::DESTINATION[3],
    field::SOURCE[0],
    field::SOURCE[1],
    field::SOURCE[2],
    field::SOURCE[3],
    field::DESTINATION_PORT,
    field::SOURCE_PORT,
    field::PROTOCOL,
    field::ZONE,
    field::TOS,
    field::TUNNEL_SOURCE[0],
    field::TUNNEL_SOURCE[1],
    field::TUNNEL_SOURCE[2],
    field::TUNNEL_SOURCE[3],
    field::TUNNEL_TARGET[0],
    field::TUNNEL_TARGET[1],
    field::TUNNEL_TARGET[2],
    field::TUNNEL_TARGET[3],
    field::QCI,
];

const OF_FLOW: usize = 12;

/// Where a list is parted, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) field: u8,
    /// In order; none is 0.
    pub(super) thresholds: Vec<u32>,
    /// Whether PACKET filters are parted by what differs from one packet of a flow to the next. No decision about
    /// a packet that passes here holds for another, so it is done only where walks would be far too long.
    pub(super) sensitive: bool,
    /// A filter that would be on more ways than this is looked at besides.
    span: usize,
}

/// A list that was parted.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub(super) ways: [Vec<Arc<Item>>; Split::WAYS],
    pub(super) also: Vec<Arc<Item>>,
}

impl Cut {
    /// Parts a list.
    pub(super) fn part(&self, items: &[Arc<Item>]) -> Parts {
        let mut parts = Parts::default();
        for item in items {
            let [first, last] = self.ways(range(item, self.field, self.sensitive));
            if last - first < self.span {
                for way in &mut parts.ways[first..=last] {
                    way.push(Arc::clone(item));
                }
            } else {
                parts.also.push(Arc::clone(item));
            }
        }
        parts
    }

    /// The first and the last way that a filter would be on.
    fn ways(&self, range: Range) -> [usize; 2] {
        range.map(|value| {
            let reached = self
                .thresholds
                .iter()
                .filter(|threshold| **threshold <= value);
            reached.count()
        })
    }

    /// What a walk through a list of `count` costs once it is cut so, if `ways` are typical of it. `None`: no
    /// less than without.
    fn cost(&self, ways_of: &[[usize; 2]], count: usize, thrift: f64) -> Option<Cost> {
        let (mut ways, mut also) = ([0; Split::WAYS], 0);
        for [first, last] in ways_of {
            if last - first < self.span {
                for way in &mut ways[*first..=*last] {
                    *way += 1;
                }
            } else {
                also += 1;
            }
        }
        let scale = count as f64 / ways_of.len() as f64;
        let along: usize = ways.iter().sum();
        // Packets go a way as often as filters do.
        let total = |walk: &dyn Fn(f64) -> f64| {
            let mean: f64 = ways
                .iter()
                .map(|way| walk(*way as f64 * scale) * *way as f64)
                .sum();
            let besides = match also {
                0 => 0.0,
                also => ALSO + walk(also as f64 * scale),
            };
            SPLIT + mean / along.max(1) as f64 + besides
        };
        if total(&list) >= list(count as f64) {
            return None;
        }
        let longest = ways.iter().copied().max().unwrap_or(0).max(also);
        // Copies take room, and more of it the more there is below.
        let copies = (along + also) as f64 / ways_of.len() as f64;
        let below = (count as f64).ln();
        Some(Cost {
            lopsided: longest * 4 > ways_of.len() * 3,
            walk: total(&tree) * (1.0 + (copies - 1.0) * thrift * below),
        })
    }
}

/// What a cut comes to; the less, the better.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Cost {
    /// Whether most are still together.
    lopsided: bool,
    /// Nanoseconds, made more where there are copies.
    walk: f64,
}

/// What a walk through `count` items costs that are looked at one after the other.
fn list(count: f64) -> f64 {
    count * FILTER
}

/// The same if they can be parted well.
fn tree(count: f64) -> f64 {
    let leaf = LEAF as f64;
    if count <= leaf {
        list(count)
    } else {
        list(leaf) + SPLIT * (count / leaf).log(Split::WAYS as f64 - 2.0)
    }
}

/// The cut that makes walks the shortest, if one makes them shorter. `sides`: there may be items besides; otherwise
/// they are on every way that they reach. The more `thrift`, the more room is worth beside time.
pub(super) fn best(items: &[Arc<Item>], sides: bool, thrift: f64) -> Option<Cut> {
    let step = items.len().div_ceil(SAMPLE);
    let sample: Vec<&Item> = items.iter().step_by(step).map(|item| &**item).collect();
    // Of few, copies are few.
    let few = items.len() <= FEW;
    let spans: &[usize] = match (sides, few) {
        (false, _) => &[Split::WAYS],
        (true, false) => &[2, 4, Split::WAYS - 1],
        (true, true) => &[2, 4, Split::WAYS - 1, Split::WAYS],
    };
    let among = |fields: &[u8], sensitive| {
        let mut best: Option<(Cost, Cut)> = None;
        let mut ranges: Vec<Range> = Vec::with_capacity(sample.len());
        for field in fields {
            ranges.clear();
            ranges.extend(sample.iter().map(|item| range(item, *field, sensitive)));
            // Most fields tell nothing.
            if ranges.iter().all(|range| *range == ranges[0]) {
                continue;
            }
            for thresholds in candidates(&ranges) {
                let mut cut = Cut {
                    field: *field,
                    thresholds,
                    sensitive,
                    span: 0,
                };
                let ways: Vec<_> = ranges.iter().map(|range| cut.ways(*range)).collect();
                for span in spans {
                    cut.span = *span;
                    if let Some(cost) = cut.cost(&ways, items.len(), thrift)
                        && best.as_ref().is_none_or(|(least, _)| cost < *least)
                    {
                        best = Some((cost, cut.clone()));
                    }
                }
            }
        }
        best.map(|(_, cut)| cut)
    };
    among(&FIELDS, false).or_else(|| {
        let long = items.len() > LONG;
        long.then(|| among(&FIELDS[OF_FLOW..], true)).flatten()
    })
}

/// Thresholds that may be good for these ranges.
fn candidates(ranges: &[Range]) -> [Vec<u32>; 2] {
    let mut edges: Vec<u32> = ranges
        .iter()
        .flat_map(|[first, last]| [*first, last.wrapping_add(1)])
        .filter(|edge| *edge != 0)
        .collect();
    edges.sort_unstable();
    // Where edges are many, the ways are narrow; or they are as wide, wherever the edges are.
    let often = quantiles(&edges);
    edges.dedup();
    [often, quantiles(&edges)]
}

/// Thresholds with about as many of the edges between each.
fn quantiles(edges: &[u32]) -> Vec<u32> {
    let mut thresholds: Vec<u32> = (1..Split::WAYS)
        .filter_map(|place| edges.get(place * edges.len() / Split::WAYS).copied())
        .collect();
    thresholds.dedup();
    thresholds
}

/// First and last value of a field that an item matches. A walk has to come by all PACKET filters that another
/// packet of the flow might match, unless the cut is `sensitive`.
fn range(item: &Item, of: u8, sensitive: bool) -> Range {
    let filter = &item.filter;
    let apart = sensitive || filter.kind == kind::FLOW;
    let tunnel = item.tunnel.as_deref().filter(|_| apart);
    // Words of an address lie in pairs, the lower half first.
    let place = (of & 3) ^ 1;
    match of {
        0..4 => word(filter.destination, place),
        4..8 => word(filter.source, place),
        field::DESTINATION_PORT => filter.destination_port,
        field::SOURCE_PORT => filter.source_port,
        field::PROTOCOL => filter.protocol.map(u32::from),
        field::ZONE => filter.zone.map(u32::from),
        field::TOS if apart => filter.tos.map(u32::from),
        16..20 => tunnel.map_or(ALL, |tunnel| word(tunnel.source, place)),
        20..24 => tunnel.map_or(ALL, |tunnel| word(tunnel.target, place)),
        field::QCI => tunnel.map_or(ALL, |tunnel| tunnel.qci.map(u32::from)),
        _ => ALL,
    }
}

/// The range in one word of an address: all of it, where the words before differ.
fn word(range: [[u64; 2]; 2], place: u8) -> Range {
    let [first, last] = range.map(|[high, low]| u128::from(high) << 64 | u128::from(low));
    let below = 96 - 32 * u32::from(place);
    if place > 0 && first >> (below + 32) != last >> (below + 32) {
        return ALL;
    }
    [(first >> below) as u32, (last >> below) as u32]
}
