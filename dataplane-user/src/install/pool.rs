//! Cells that are free.

use std::collections::{BTreeSet, VecDeque};

use crate::Error;

/// Cells that are free.
#[derive(Debug)]
pub(super) struct Pool {
    free: VecDeque<u32>,
    /// In use by the rule set of an earlier process.
    pub(super) inherited: Vec<u32>,
}

impl Pool {
    pub(super) fn new(len: usize, used: BTreeSet<u32>) -> Self {
        Self {
            free: (0..len as u32)
                .filter(|cell| !used.contains(cell))
                .collect(),
            inherited: used
                .into_iter()
                .filter(|cell| (*cell as usize) < len)
                .collect(),
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

    pub(super) fn give_back(&mut self, cell: u32) {
        self.free.push_back(cell);
    }
}
