//! A tree of binary splits (as HyperSplit): at each, what is below a threshold goes one way, the rest the other,
//! and filters that reach over it are on both.

use dataplane_core::{classify::Query, table::Filter};

use super::{FIELDS, Find, Range, after, ranges, values};

/// A list longer than this is split, if a split makes both sides shorter.
const LEAF: usize = 8;
/// A list longer than this is split even if that puts many filters on both sides.
const LONG: usize = 64;
/// Filters looked at to find a good split of many.
const SAMPLE: usize = 256;
/// Filters at most, repetitions included, for each that there is.
const COPIES: usize = 64;

/// The tree.
#[derive(Debug)]
pub struct Binary {
    filters: Vec<Filter>,
    root: Node,
    weight: usize,
}

#[derive(Debug)]
enum Node {
    Leaf(Vec<u32>),
    Split {
        field: usize,
        threshold: [u64; 2],
        sides: Box<[Self; 2]>,
    },
}

impl Find for Binary {
    const NAME: &'static str = "binary splits";

    fn build(filters: &[Filter]) -> Option<Self> {
        let all: Vec<[Range; FIELDS]> = filters.iter().map(ranges).collect();
        let mut room = (filters.len() * COPIES).min(40_000_000);
        let before = room;
        let root = node(&all, (0..filters.len() as u32).collect(), 0, &mut room)?;
        Some(Self {
            filters: filters.to_vec(),
            root,
            weight: before - room,
        })
    }

    fn find(&self, query: &Query) -> Option<u32> {
        let values = values(query);
        let mut at = &self.root;
        loop {
            match at {
                Node::Split {
                    field,
                    threshold,
                    sides,
                } => at = &sides[usize::from(values[*field] >= *threshold)],
                Node::Leaf(list) => {
                    let mut list = list.iter().copied();
                    return list.find(|place| query.meets(&self.filters[*place as usize]));
                }
            }
        }
    }

    fn size(&self) -> usize {
        // As cells in a table: a filter for each repetition, and a split of 32 octets for each leaf.
        self.weight * (size_of::<Filter>() + 32 / 4)
    }
}

fn node(all: &[[Range; FIELDS]], items: Vec<u32>, depth: u32, room: &mut usize) -> Option<Node> {
    let split = (items.len() > LEAF && depth < 128)
        .then(|| best(all, &items))
        .flatten();
    if let Some((field, threshold)) = split {
        let side = |keep: &dyn Fn(Range) -> bool| -> Vec<u32> {
            let kept = items.iter().copied();
            kept.filter(|item| keep(all[*item as usize][field]))
                .collect()
        };
        let low = side(&|[first, _]| first < threshold);
        let high = side(&|[_, last]| last >= threshold);
        if low.len() < items.len() && high.len() < items.len() {
            drop(items);
            let sides = [
                node(all, low, depth + 1, room)?,
                node(all, high, depth + 1, room)?,
            ];
            return Some(Node::Split {
                field,
                threshold,
                sides: Box::new(sides),
            });
        }
    }
    *room = room.checked_sub(items.len())?;
    Some(Node::Leaf(items))
}

/// The split that leaves the least on its longer side without having too many filters on both.
fn best(all: &[[Range; FIELDS]], items: &[u32]) -> Option<(usize, [u64; 2])> {
    let step = items.len().div_ceil(SAMPLE);
    let sampled = items.iter().step_by(step);
    let sample: Vec<&[Range; FIELDS]> = sampled.map(|item| &all[*item as usize]).collect();
    let mut best: Option<((usize, usize), usize, [u64; 2])> = None;
    for field in 0..FIELDS {
        let ranges: Vec<Range> = sample.iter().map(|ranges| ranges[field]).collect();
        let mut edges: Vec<_> = ranges
            .iter()
            .flat_map(|[first, last]| [*first, after(*last)])
            .collect();
        edges.sort_unstable();
        edges.dedup();
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
