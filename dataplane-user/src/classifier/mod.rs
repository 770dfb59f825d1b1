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

use dataplane_core::table::{Filter, Index, STEPS, Split};

use self::{
    cells::{Cells, reachable},
    node::{Kind, Node},
    split::part,
};
use crate::{Error, shared::Shared};

/// A filter, and its place in the order of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// Place in the order, then among the filters of its rule.
    pub(crate) order: (u64, u32),
    /// What packets are compared with.
    pub(crate) filter: Filter,
}

/// The tree in force and the cells it is written in.
#[derive(Debug)]
pub(crate) struct Classifier {
    splits: Cells<Split>,
    filters: Cells<Filter>,
    root: Arc<Node>,
    /// Filters at most, repetitions included.
    limit: usize,
}

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
    pub(crate) fn change(&mut self, removed: &[Item], added: Vec<Item>) -> Result<Change, Error> {
        let before = Arc::clone(&self.root);
        let mut root = Arc::clone(&before);
        self.remove(&mut root, removed);
        self.insert(&mut root, added);
        let items = root.weight;
        if root.height > 24 + 2 * items.max(1).ilog2() {
            // Built bit by bit, it has become lopsided: begin anew.
            let mut all = Vec::new();
            root.collect(&mut all);
            all.sort_unstable_by_key(|item| item.order);
            all.dedup_by_key(|item| item.order);
            self.discard(&root);
            root = Arc::new(Node::build(all));
        }
        let (height, weight) = (root.height, root.weight);
        let written = if weight > self.limit {
            Err(self.full(weight))
        } else if height < STEPS {
            self.write(&mut root)
        } else {
            Err(Error::TooDeep {
                steps: height,
                limit: STEPS - 1,
            })
        };
        match written {
            Ok(index) => {
                self.root = root;
                Ok(Change {
                    root: index,
                    before,
                })
            }
            Err(error) => {
                self.splits.roll_back();
                self.filters.roll_back();
                Err(error)
            }
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
        if let Kind::Split { low, high, .. } = &node.kind {
            self.discard(low);
            self.discard(high);
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

    fn remove(&mut self, node: &mut Arc<Node>, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        let owned = self.own(node);
        match &mut owned.kind {
            Kind::Leaf(list) => {
                let orders: BTreeSet<_> = items.iter().map(|item| item.order).collect();
                list.retain(|item| !orders.contains(&item.order));
            }
            Kind::Split {
                field,
                threshold,
                low,
                high,
            } => {
                let (left, right) = part(items, *field, *threshold);
                self.remove(low, &left);
                self.remove(high, &right);
                if low.is_empty() && high.is_empty() {
                    self.discard(low);
                    self.discard(high);
                    owned.kind = Kind::Leaf(Vec::new());
                }
            }
        }
        owned.measure();
    }

    fn insert(&mut self, node: &mut Arc<Node>, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let owned = self.own(node);
        match &mut owned.kind {
            Kind::Leaf(list) => {
                list.extend(items);
                list.sort_unstable_by_key(|item| item.order);
                *owned = Node::build(std::mem::take(list));
            }
            Kind::Split {
                field,
                threshold,
                low,
                high,
            } => {
                let (left, right) = part(&items, *field, *threshold);
                self.insert(low, left);
                self.insert(high, right);
                owned.measure();
            }
        }
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
            Kind::Split {
                field,
                threshold,
                low,
                high,
            } => {
                let split = Split {
                    threshold: *threshold,
                    field: *field,
                    low: self.write(low)?,
                    high: self.write(high)?,
                    padding: 0,
                };
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
}
