//! Tuple space search (Srinivasan et al., SIGCOMM 1999): a hash table for each combination of prefix lengths, asked
//! in the order of the best filter in each, until none can hold a better one.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use dataplane_core::{classify::Query, table::Filter};

use super::{FIELDS, Find, Range, ranges, values};

type Key = [[u64; 2]; FIELDS];

/// The tables.
#[derive(Debug)]
pub struct Tuples {
    filters: Vec<Filter>,
    tables: Vec<Table>,
}

#[derive(Debug)]
struct Table {
    masks: Key,
    /// The first filter of all in here.
    first: u32,
    lists: HashMap<Key, Vec<u32>, BuildHasherDefault<Mixed>>,
}

/// As cheap a hash as will do.
#[derive(Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_ne_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Find for Tuples {
    const NAME: &'static str = "tuple space";

    fn build(filters: &[Filter]) -> Option<Self> {
        let mut tables: Vec<Table> = Vec::new();
        let mut known: HashMap<Key, usize> = HashMap::new();
        for (filter, place) in filters.iter().zip(0..) {
            let ranges = ranges(filter);
            let masks = ranges.map(mask);
            let table = *known.entry(masks).or_insert_with(|| {
                tables.push(Table {
                    masks,
                    first: place,
                    lists: HashMap::default(),
                });
                tables.len() - 1
            });
            let key = masked(ranges.map(|[first, _]| first), masks);
            tables[table].lists.entry(key).or_default().push(place);
        }
        Some(Self {
            filters: filters.to_vec(),
            tables,
        })
    }

    fn find(&self, query: &Query) -> Option<u32> {
        let values = values(query);
        let mut best = u32::MAX;
        for table in &self.tables {
            if table.first > best {
                break;
            }
            let Some(list) = table.lists.get(&masked(values, table.masks)) else {
                continue;
            };
            let before = list.iter().take_while(|place| **place < best);
            let mut matching = before.filter(|place| query.meets(&self.filters[**place as usize]));
            if let Some(place) = matching.next() {
                best = *place;
            }
        }
        (best != u32::MAX).then_some(best)
    }

    fn size(&self) -> usize {
        let lists: usize = self.tables.iter().map(|table| table.lists.len()).sum();
        size_of_val(&*self.filters) + 4 * self.filters.len() + lists * size_of::<(Key, Vec<u32>)>()
    }
}

/// The bits that all of a range have in common; none in one that is no prefix of half its length.
fn mask([first, last]: Range) -> [u64; 2] {
    let wide = |[high, low]: [u64; 2]| u128::from(high) << 64 | u128::from(low);
    let differ = wide(first) ^ wide(last);
    let mask = u128::MAX
        .checked_shl(128 - differ.leading_zeros())
        .unwrap_or(0);
    [(mask >> 64) as u64, mask as u64]
}

fn masked(mut key: Key, masks: Key) -> Key {
    for (value, mask) in key.as_flattened_mut().iter_mut().zip(masks.as_flattened()) {
        *value &= mask;
    }
    key
}
