//! Nodes of the tree, as this process remembers them.

use std::sync::Arc;

use dataplane_core::table::Index;

use super::{Item, split};

/// A list longer than this is split, if a split makes both sides shorter.
const LEAF: usize = 8;

/// A node, and all below it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Where it is written, if it is; with its list of filters.
    pub(super) cells: Option<(Index, Vec<u32>)>,
    /// The most steps from here to the end.
    pub(super) height: u32,
    /// Filters from here on, repetitions included.
    pub(super) weight: usize,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Leaf(Vec<Item>),
    Split {
        field: u32,
        threshold: [u64; 2],
        low: Arc<Node>,
        high: Arc<Node>,
    },
}

impl Node {
    pub(super) const fn leaf(items: Vec<Item>) -> Self {
        Self {
            height: items.len() as u32,
            weight: items.len(),
            kind: Kind::Leaf(items),
            cells: None,
        }
    }

    /// A tree of items in order.
    pub(super) fn build(items: Vec<Item>) -> Self {
        if items.len() <= LEAF {
            return Self::leaf(items);
        }
        let Some((field, threshold)) = split::best(&items) else {
            return Self::leaf(items);
        };
        let (left, right) = split::part(&items, field, threshold);
        // What looked good on a sample may be no good for all.
        if left.len() == items.len() || right.len() == items.len() {
            return Self::leaf(items);
        }
        let mut node = Self {
            kind: Kind::Split {
                field,
                threshold,
                low: Arc::new(Self::build(left)),
                high: Arc::new(Self::build(right)),
            },
            cells: None,
            height: 0,
            weight: 0,
        };
        node.measure();
        node
    }

    pub(super) fn measure(&mut self) {
        (self.height, self.weight) = match &self.kind {
            Kind::Leaf(items) => (items.len() as u32, items.len()),
            Kind::Split { low, high, .. } => {
                (1 + low.height.max(high.height), low.weight + high.weight)
            }
        };
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(&self.kind, Kind::Leaf(items) if items.is_empty())
    }

    pub(super) fn collect(&self, all: &mut Vec<Item>) {
        match &self.kind {
            Kind::Leaf(items) => all.extend(items),
            Kind::Split { low, high, .. } => {
                low.collect(all);
                high.collect(all);
            }
        }
    }
}
