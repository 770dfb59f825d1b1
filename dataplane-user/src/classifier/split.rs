//! Splits: what they do with a list, and which is good.

use dataplane_core::table::field;

use super::Item;
use crate::compile::after;

/// A list longer than this is split even if that puts many items on both sides: it would be too long a walk.
const LONG: usize = 64;
/// Filters looked at to find a good split of many.
const SAMPLE: usize = 256;

const FIELDS: [u32; 6] = [
    field::DESTINATION,
    field::SOURCE,
    field::DESTINATION_PORT,
    field::SOURCE_PORT,
    field::PROTOCOL,
    field::ZONE,
];

/// First and last value of a field that an item matches.
fn range(item: &Item, of: u32) -> [[u64; 2]; 2] {
    let narrow = |range: [u64; 2]| range.map(|value| [0, value]);
    let filter = &item.filter;
    match of {
        field::DESTINATION => filter.destination,
        field::SOURCE => filter.source,
        field::DESTINATION_PORT => narrow(filter.destination_port.map(u64::from)),
        field::SOURCE_PORT => narrow(filter.source_port.map(u64::from)),
        field::PROTOCOL => narrow(filter.protocol.map(u64::from)),
        _ => narrow(filter.zone.map(u64::from)),
    }
}

/// The items on each side of a split; those that reach over it are on both.
pub(super) fn part(items: &[Item], field: u32, threshold: [u64; 2]) -> (Vec<Item>, Vec<Item>) {
    let side = |keep: &dyn Fn([[u64; 2]; 2]) -> bool| {
        items
            .iter()
            .filter(|item| keep(range(item, field)))
            .copied()
            .collect()
    };
    (
        side(&|[first, _]| first < threshold),
        side(&|[_, last]| last >= threshold),
    )
}

/// The split that leaves the least on its longer side without having too many items on both.
pub(super) fn best(items: &[Item]) -> Option<(u32, [u64; 2])> {
    let step = items.len().div_ceil(SAMPLE);
    let sample: Vec<&Item> = items.iter().step_by(step).collect();
    let mut best: Option<((usize, usize), u32, [u64; 2])> = None;
    for field in FIELDS {
        let ranges: Vec<_> = sample.iter().map(|item| range(item, field)).collect();
        let mut edges: Vec<_> = ranges
            .iter()
            .flat_map(|[first, last]| [*first, after(*last)])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        // The first and the last edge leave everything on one side.
        for at in [edges.len() / 2, edges.len() / 3, 2 * edges.len() / 3] {
            let Some(threshold) = edges.get(at).copied() else {
                continue;
            };
            let low = ranges
                .iter()
                .filter(|[first, _]| *first < threshold)
                .count();
            let high = ranges.iter().filter(|[_, last]| *last >= threshold).count();
            let (longer, both) = (low.max(high), low + high);
            let worth = if items.len() > LONG {
                longer * 8 <= sample.len() * 7
            } else {
                longer < sample.len() && both * 2 <= sample.len() * 3
            };
            if worth && best.is_none_or(|(cost, ..)| (longer, both) < cost) {
                best = Some(((longer, both), field, threshold));
            }
        }
    }
    best.map(|(_, field, threshold)| (field, threshold))
}
