//! Nodes of the tree, as this process remembers them.

use std::sync::Arc;

use dataplane_core::{
    classify::AHEAD,
    table::{Index, STEPS, Split},
};

use super::{
    Item,
    split::{self, Cut},
};

/// A list longer than this is split, if a split makes walks shorter.
pub(super) const LEAF: usize = 3;

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
    /// The lowest rank from here on.
    pub(super) rank: u64,
}

/// What a node is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Leaf(Vec<Arc<Item>>),
    Fork(Fork),
}

/// A split.
#[derive(Debug, Clone)]
pub(super) struct Fork {
    pub(super) cut: Cut,
    pub(super) ways: [Arc<Node>; Split::WAYS],
    /// What would be on most ways.
    pub(super) also: Arc<Node>,
    /// Its weight when the cut was chosen.
    built: usize,
}

/// Where in the tree a node is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// Forks that something may be left at for later.
    ahead: usize,
    depth: u32,
    /// What room is worth beside time.
    thrift: f64,
}

impl Place {
    /// The root of a tree.
    pub(super) const fn root(thrift: f64) -> Self {
        Self {
            ahead: 0,
            depth: 0,
            thrift,
        }
    }

    /// Whether there may be something besides at a fork that is here.
    const fn has_sides(self) -> bool {
        self.ahead < AHEAD
    }

    pub(super) const fn along(self) -> Self {
        Self {
            ahead: self.ahead + 1,
            depth: self.depth + 1,
            ..self
        }
    }

    pub(super) const fn also(self) -> Self {
        Self {
            depth: self.depth + 1,
            ..self
        }
    }
}

impl Fork {
    /// Whether it is so much heavier or lighter than it was that another cut may be better.
    pub(super) const fn is_stale(&self, weight: usize) -> bool {
        weight > 2 * self.built + 4 * LEAF || weight * 4 < self.built
    }

    pub(super) fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.ways.iter().chain([&self.also])
    }
}

impl Node {
    pub(super) fn leaf(items: Vec<Arc<Item>>) -> Self {
        Self {
            height: items.len() as u32,
            weight: items.len(),
            rank: items.first().map_or(u64::MAX, |item| item.order.0),
            kind: Kind::Leaf(items),
            cells: None,
        }
    }

    /// A tree of items in order.
    pub(super) fn build(items: Vec<Arc<Item>>, place: Place) -> Self {
        // What is as deep is too deep, however it ends.
        if items.len() <= LEAF || place.depth > STEPS {
            return Self::leaf(items);
        }
        let Some(cut) = split::best(&items, place.has_sides(), place.thrift) else {
            return Self::leaf(items);
        };
        let parts = cut.part(&items);
        // What looked good on a sample may be no good for all.
        let longest = parts.ways.iter().chain([&parts.also]).map(Vec::len).max();
        if longest == Some(items.len()) {
            return Self::leaf(items);
        }
        drop(items);
        let fork = Fork {
            cut,
            ways: parts
                .ways
                .map(|items| Arc::new(Self::build(items, place.along()))),
            also: Arc::new(Self::build(parts.also, place.also())),
            built: 0,
        };
        let mut node = Self {
            kind: Kind::Fork(fork),
            cells: None,
            height: 0,
            weight: 0,
            rank: 0,
        };
        node.measure();
        if let Kind::Fork(fork) = &mut node.kind {
            fork.built = node.weight;
        }
        node
    }

    pub(super) fn measure(&mut self) {
        match &mut self.kind {
            Kind::Leaf(items) => *self = Self::leaf(std::mem::take(items)),
            Kind::Fork(fork) => {
                let highest = fork.ways.iter().map(|way| way.height).max().unwrap_or(0);
                self.height = 1 + highest + fork.also.height;
                self.weight = fork.nodes().map(|node| node.weight).sum();
                self.rank = fork.nodes().map(|node| node.rank).min().unwrap_or(0);
            }
        }
    }

    /// The items of the tree in order, once each.
    pub(super) fn items(&self) -> Vec<Arc<Item>> {
        let mut all = Vec::with_capacity(self.weight);
        self.collect(&mut all);
        all.sort_unstable_by_key(|item| item.order);
        all.dedup_by_key(|item| item.order);
        all
    }

    fn collect(&self, all: &mut Vec<Arc<Item>>) {
        match &self.kind {
            Kind::Leaf(items) => all.extend(items.iter().cloned()),
            Kind::Fork(fork) => fork.nodes().for_each(|node| node.collect(all)),
        }
    }
}
