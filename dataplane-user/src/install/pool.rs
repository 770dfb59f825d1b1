//! Cells that are free.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
};

use crate::Error;

/// Cells that are free.
#[derive(Debug)]
pub(super) struct Pool {
    free: VecDeque<u32>,
    /// In use by the rule set of an earlier process.
    pub(super) inherited: Vec<u32>,
}

impl Pool {
    /// The cells in a range, of which some may be in use.
    pub(super) fn new(cells: Range<u32>, used: &BTreeSet<u32>) -> Self {
        let (inherited, free): (Vec<_>, Vec<_>) = cells.partition(|cell| used.contains(cell));
        Self {
            free: free.into(),
            inherited,
        }
    }

    /// The cell that has been free for longest.
    pub(super) fn take(&mut self, limit: u32) -> Result<u32, Error> {
        self.free.pop_front().ok_or(Error::TooMany {
            what: "rules",
            wanted: limit as usize + 1,
            limit: limit as usize,
            option: "rules",
        })
    }

    /// Takes this cell out, so that nobody gets it: not when the rules of an earlier process do without it, either.
    pub(super) fn remove(&mut self, cell: u32) {
        self.free.retain(|free| *free != cell);
        self.inherited.retain(|used| *used != cell);
    }

    pub(super) fn give_back(&mut self, cell: u32) {
        self.free.push_back(cell);
    }
}
