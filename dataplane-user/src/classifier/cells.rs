//! Cells of a table: which are free, and those that will be.

use std::{collections::BTreeSet, mem};

use dataplane_core::table::{Filter, Index, Split};
use zerocopy::FromBytes;

use crate::shared::Shared;

/// A table and what its cells are used for.
#[derive(Debug)]
pub(super) struct Cells<T> {
    pub(super) memory: Shared<T>,
    pub(super) free: Vec<u32>,
    /// Written since the last publication.
    new: Vec<u32>,
    /// Out of reach after the next one.
    pub(super) old: Vec<u32>,
    /// In use by the tree of an earlier process: also out of reach after the next publication.
    inherited: Vec<u32>,
}

impl<T: FromBytes> Cells<T> {
    pub(super) fn new(memory: Shared<T>, used: BTreeSet<u32>) -> Self {
        // Cell 0 stands for nothing.
        let free = (1..memory.len() as u32)
            .rev()
            .filter(|cell| !used.contains(cell))
            .collect();
        Self {
            memory,
            free,
            new: Vec::new(),
            old: Vec::new(),
            inherited: used.into_iter().collect(),
        }
    }

    pub(super) fn write(&mut self, value: T) -> Option<u32> {
        let cell = self.free.pop()?;
        self.memory.write(cell as usize, value);
        self.new.push(cell);
        Some(cell)
    }

    /// Keeps what was written. Answers the cells that packets can reach until they have settled.
    pub(super) fn publish(&mut self) -> Vec<u32> {
        self.new.clear();
        self.old.append(&mut self.inherited);
        mem::take(&mut self.old)
    }

    pub(super) fn roll_back(&mut self) {
        self.old.clear();
        self.free.append(&mut self.new);
    }

    /// How many are not free.
    pub(super) const fn used(&self) -> usize {
        self.memory.len() - 1 - self.free.len()
    }
}

/// The cells that lead from `root`.
pub(super) fn reachable(
    splits: &Shared<Split>,
    filters: &Shared<Filter>,
    root: Index,
) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut in_splits, mut in_filters) = (BTreeSet::new(), BTreeSet::new());
    let mut ahead = vec![root];
    while let Some(index) = ahead.pop() {
        let cell = index.cell();
        if index == Index::END {
            continue;
        }
        if index.is_filter() {
            if let Some(filter) = filters.get(cell as usize)
                && in_filters.insert(cell)
            {
                ahead.push(filter.next);
            }
        } else if let Some(split) = splits.get(cell as usize)
            && in_splits.insert(cell)
        {
            ahead.push(split.also);
            ahead.extend(split.ways);
        }
    }
    (in_splits, in_filters)
}
