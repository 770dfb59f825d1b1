//! Records that no flow has: each says which is next, and what all packets find says which is first.

use crate::table::FlowTable;

/// How often to try: who fails does so because another has just succeeded.
const PATIENCE: u32 = 64;

/// Takes a free record. Out of line, as whoever calls it has no room on the stack.
#[inline(never)]
pub fn allocate<T: FlowTable>(table: &T) -> Option<u32> {
    let first = table.free()?;
    for _ in 0..PATIENCE {
        let word = first.get();
        let id = (word as u32).wrapping_sub(1);
        let next = table.record(id)?.first_seen.get();
        if table.exchange(first, word, after(word, next)) == word {
            return Some(id);
        }
    }
    None
}

/// Makes a record free that no key leads to.
#[inline(always)]
pub fn release<T: FlowTable>(table: &T, id: u32) {
    let (Some(first), Some(record)) = (table.free(), table.record(id)) else {
        return;
    };
    for _ in 0..PATIENCE {
        let word = first.get();
        record.first_seen.set(word & u64::from(u32::MAX));
        if table.exchange(first, word, after(word, u64::from(id) + 1)) == word {
            return;
        }
    }
}

/// What comes after `word`, when `first` is the number of the first record, plus 1. The upper half is another each time: or who was
/// interrupted would not see that the record which was first is so again, with others after it.
const fn after(word: u64, first: u64) -> u64 {
    (word >> 32).wrapping_add(1) << 32 | first
}
