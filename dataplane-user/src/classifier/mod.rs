//! The tree of splits and filters that packets are led through.
//!
//! A tree that packets can reach is never changed. A transaction copies the nodes on the way to what it
//! changes, writes the copies into free cells, and ends in a new root; the nodes that the copies replace
//! are free once no packet can be under way in the old tree.

mod cells;
mod node;
mod split;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, sync::Arc};

use dataplane_core::table::{Filter, Index, STEPS, Split, TunnelFilter};

use self::{
    cells::{Cells, reachable},
    node::{Kind, Node, Place},
};
use crate::{Error, shared::Shared};

/// A filter, and its place in the order of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    /// Place in the order, then among the filters of its rule.
    pub(crate) order: (u64, u32),
    /// What packets are compared with.
    pub(crate) filter: Filter,
    /// What their tunnels are compared with.
    pub(crate) tunnel: Option<Arc<TunnelFilter>>,
}

/// The tree in force and the cells it is written in.
#[derive(Debug)]
pub(crate) struct Classifier {
    splits: Cells<Split>,
    filters: Cells<Filter>,
    root: Arc<Node>,
    /// Filters at most, repetitions included.
    limit: usize,
    /// Which [`THRIFT`] the tree was built with.
    thrift: usize,
}

/// What room is worth beside time: the more, the fewer repetitions, and the longer walks. What does not fit is built
/// with the next.
const THRIFT: [f64; 3] = [0.2, 1.0, 4.0];

impl Classifier {
    /// An empty tree, in cells of which those that lead from `root` are in use by packets until the
    /// first publication.
    pub(crate) fn new(
        splits: Shared<Split>,
        filters: Shared<Filter>,
        root: Index,
        limit: u32,
    ) -> Self {
        let (used_splits, used_filters) = reachable(&splits, &filters, root);
        Self {
            splits: Cells::new(splits, used_splits),
            filters: Cells::new(filters, used_filters),
            root: Arc::new(Node::leaf(Vec::new())),
            limit: limit as usize,
            thrift: 0,
        }
    }

    /// A cell.
    pub(crate) fn split(&self, cell: u32) -> Option<&Split> {
        self.splits.memory.get(cell as usize)
    }

    /// A cell.
    pub(crate) fn filter(&self, cell: u32) -> Option<&Filter> {
        self.filters.memory.get(cell as usize)
    }

    /// Cells for filters: in use and in all.
    pub(crate) const fn pressure(&self) -> [(&'static str, usize, usize); 2] {
        [
            ("filters", self.filters.used(), self.limit),
            ("splits", self.splits.used(), self.splits.memory.len() - 1),
        ]
    }

    /// Writes a tree without the filters `removed` and with the items `added`. Its root takes the place
    /// of the old one when [`Self::publish`] follows; on an error, and with [`Self::roll_back`], nothing
    /// has changed.
    pub(crate) fn change(
        &mut self,
        removed: &[Arc<Item>],
        added: Vec<Arc<Item>>,
    ) -> Result<Change, Error> {
        let before = Change {
            root: Index::END,
            before: Arc::clone(&self.root),
            thrift: self.thrift,
        };
        let mut root = Arc::clone(&self.root);
        self.remove(&mut root, removed, Place::root(THRIFT[self.thrift]));
        self.insert(&mut root, added, Place::root(THRIFT[self.thrift]));
        let mut fits = self.fits(&root);
        while fits.is_err() && self.thrift + 1 < THRIFT.len() {
            self.thrift += 1;
            let items = root.items();
            self.discard(&root);
            root = Arc::new(Node::build(items, Place::root(THRIFT[self.thrift])));
            fits = self.fits(&root);
        }
        match fits.and_then(|()| self.write(&mut root)) {
            Ok(index) => {
                if root.weight == 0 {
                    self.thrift = 0;
                }
                self.root = root;
                Ok(Change {
                    root: index,
                    ..before
                })
            }
            Err(error) => {
                self.roll_back(before);
                Err(error)
            }
        }
    }

    /// Whether there is room for a tree, and packets walk through it in time.
    fn fits(&self, root: &Node) -> Result<(), Error> {
        if root.weight > self.limit {
            Err(self.full(root.weight))
        } else if root.height >= STEPS {
            Err(Error::TooDeep {
                steps: root.height,
                limit: STEPS - 1,
            })
        } else {
            Ok(())
        }
    }

    /// The last change is in force. Answers what is left of the tree before.
    pub(crate) fn publish(&mut self) -> Remains {
        Remains {
            splits: self.splits.publish(),
            filters: self.filters.publish(),
        }
    }

    /// No packet can be under way in these any more.
    pub(crate) fn reclaim(&mut self, remains: Remains) {
        self.splits.free.extend(remains.splits);
        self.filters.free.extend(remains.filters);
    }

    /// Undoes a change that was not published.
    pub(crate) fn roll_back(&mut self, change: Change) {
        self.root = change.before;
        self.thrift = change.thrift;
        self.splits.roll_back();
        self.filters.roll_back();
    }

    /// A node that may be changed: a copy, if packets can reach it.
    fn own<'a>(&mut self, node: &'a mut Arc<Node>) -> &'a mut Node {
        self.abandon(node);
        let node = Arc::make_mut(node);
        node.cells = None;
        node
    }

    /// Marks all that is written of a tree as out of reach soon.
    fn discard(&mut self, node: &Node) {
        self.abandon(node);
        if let Kind::Fork(fork) = &node.kind {
            fork.nodes().for_each(|node| self.discard(node));
        }
    }

    /// Marks the cells of a node as out of reach soon.
    fn abandon(&mut self, node: &Node) {
        if let Some((index, list)) = &node.cells {
            if !index.is_filter() && *index != Index::END {
                self.splits.old.push(index.cell());
            }
            self.filters.old.extend(list);
        }
    }

    fn remove(&mut self, node: &mut Arc<Node>, items: &[Arc<Item>], place: Place) {
        if items.is_empty() {
            return;
        }
        let owned = self.own(node);
        match &mut owned.kind {
            Kind::Leaf(list) => {
                let orders: BTreeSet<_> = items.iter().map(|item| item.order).collect();
                list.retain(|item| !orders.contains(&item.order));
            }
            Kind::Fork(fork) => {
                let parts = fork.cut.part(items);
                for (way, items) in fork.ways.iter_mut().zip(&parts.ways) {
                    self.remove(way, items, place.along());
                }
                self.remove(&mut fork.also, &parts.also, place.also());
            }
        }
        owned.measure();
        self.renew(owned, place);
    }

    fn insert(&mut self, node: &mut Arc<Node>, items: Vec<Arc<Item>>, place: Place) {
        if items.is_empty() {
            return;
        }
        let owned = self.own(node);
        if items.len() > owned.weight {
            return self.build(owned, items, place);
        }
        match &mut owned.kind {
            Kind::Leaf(_) => return self.build(owned, items, place),
            Kind::Fork(fork) => {
                let parts = fork.cut.part(&items);
                for (way, items) in fork.ways.iter_mut().zip(parts.ways) {
                    self.insert(way, items, place.along());
                }
                self.insert(&mut fork.also, parts.also, place.also());
            }
        }
        owned.measure();
        self.renew(owned, place);
    }

    /// Builds a tree anew that has become another than it was built for: so none becomes lopsided, however it
    /// grows, and what that costs is spread over the changes that make it necessary.
    fn renew(&mut self, node: &mut Node, place: Place) {
        if let Kind::Fork(fork) = &node.kind
            && fork.is_stale(node.weight)
        {
            self.build(node, Vec::new(), place);
        }
    }

    /// Builds a tree anew, with some items more.
    fn build(&mut self, node: &mut Node, items: Vec<Arc<Item>>, place: Place) {
        let mut all = node.items();
        if !items.is_empty() {
            all.extend(items);
            all.sort_unstable_by_key(|item| item.order);
        }
        if let Kind::Fork(fork) = &node.kind {
            fork.nodes().for_each(|node| self.discard(node));
        }
        *node = Node::build(all, place);
    }

    /// Writes the nodes that are not written yet, from the leaves to the root.
    fn write(&mut self, node: &mut Arc<Node>) -> Result<Index, Error> {
        if let Some((index, _)) = &node.cells {
            return Ok(*index);
        }
        let node = Arc::make_mut(node);
        let mut list = Vec::new();
        let index = match &mut node.kind {
            Kind::Leaf(items) => {
                let mut next = Index::END;
                for item in items.iter().rev() {
                    let cell = self.filters.write(Filter {
                        next,
                        ..item.filter
                    });
                    let Some(cell) = cell else {
                        return Err(self.full(self.limit + 1));
                    };
                    list.push(cell);
                    next = Index::filter(cell);
                }
                next
            }
            Kind::Fork(fork) => {
                let mut split = Split {
                    also: self.write(&mut fork.also)?,
                    field: fork.cut.field,
                    sensitive: fork.cut.sensitive.into(),
                    also_rank: (fork.also.rank >> 48) as u16,
                    rank: (node.rank >> 32) as u32,
                    thresholds: [0; Split::WAYS - 1],
                    ways: [Index::END; Split::WAYS],
                };
                for (complement, threshold) in split.thresholds.iter_mut().zip(&fork.cut.thresholds)
                {
                    *complement = threshold.wrapping_neg();
                }
                for (index, way) in split.ways.iter_mut().zip(&mut fork.ways) {
                    *index = self.write(way)?;
                }
                let Some(cell) = self.splits.write(split) else {
                    return Err(self.full(self.limit + 1));
                };
                Index::split(cell)
            }
        };
        node.cells = Some((index, list));
        Ok(index)
    }

    const fn full(&self, wanted: usize) -> Error {
        Error::TooMany {
            what: "filters",
            wanted,
            limit: self.limit,
            option: "filters",
        }
    }
}

/// Cells of a tree that was replaced.
#[derive(Debug)]
pub(crate) struct Remains {
    splits: Vec<u32>,
    filters: Vec<u32>,
}

/// A tree that is written and not published.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its root.
    pub(crate) root: Index,
    before: Arc<Node>,
    thrift: usize,
}
