//! The addresses that the rules in force name, for packets that no rule is about.

use std::collections::HashMap;

use dataplane_core::{
    parse::is_mapped,
    table::{Filter, Names},
};

use super::Installed;
use crate::{
    compile::{MAPPED, words},
    memory::Memory,
    rule::Endpoint,
};

/// Addresses that a filter may be about, at most, to be known by each.
const ADDRESSES: u64 = 8;
/// Blocks of addresses that it may be about, at most, to be known by them.
const BLOCKS: u64 = 256;

/// What a rule names, by its words and bits; `None`: more than can be told.
pub(super) type Marks = Option<Vec<(usize, u64)>>;

/// What the rules name that packets can see, and how many times.
#[derive(Debug, Default)]
pub(super) struct Named {
    bits: HashMap<(usize, u64), u32>,
    /// How often it is more than can be told.
    everywhere: u32,
}

impl Installed {
    /// What packets are about that this rule, or the flows that it makes, are about.
    pub(super) fn names(&self) -> impl Iterator<Item = Marks> {
        let translated = self
            .rule
            .action
            .endpoints()
            .filter_map(Endpoint::translates_to);
        let translated = translated.map(|address| Some(vec![Names::of_address(words(address))]));
        let filters = self.items.iter().map(|item| of(&item.filter));
        filters.chain(translated)
    }
}

/// Where all packets are from that the filter matches, or where all are sent to: whichever is less.
fn of(filter: &Filter) -> Marks {
    [&filter.source, &filter.destination]
        .into_iter()
        .filter_map(within)
        .min_by_key(Vec::len)
}

fn within([first, last]: &[[u64; 2]; 2]) -> Marks {
    let ([high, from], [last_high, to]) = (*first, *last);
    if high == last_high && to - from < ADDRESSES {
        return Some(
            (from..=to)
                .map(|low| Names::of_address([high, low]))
                .collect(),
        );
    }
    let blocks = Names::block(*first)..=Names::block(*last);
    let few = blocks.end().checked_sub(*blocks.start())? < BLOCKS;
    let alike = (is_mapped(*first) && is_mapped(*last)) || *last < MAPPED[0] || *first > MAPPED[1];
    (few && alike).then(|| blocks.map(Names::of_block).collect())
}

impl Named {
    /// Adds what rules name that packets will see from now on.
    pub(super) fn add(&mut self, memory: &Memory, names: impl Iterator<Item = Marks>) {
        for marks in names {
            let Some(marks) = marks else {
                self.everywhere += 1;
                if self.everywhere == 1 {
                    self.show(memory);
                }
                continue;
            };
            for (word, bit) in marks {
                *self.bits.entry((word, bit)).or_default() += 1;
                change(memory, word, |bits| bits | bit);
            }
        }
    }

    /// Removes what rules named that no packet can see any more.
    pub(super) fn remove(&mut self, memory: &Memory, names: Vec<Marks>) {
        for marks in names {
            let Some(marks) = marks else {
                self.everywhere -= 1;
                if self.everywhere == 0 {
                    self.show(memory);
                }
                continue;
            };
            for (word, bit) in marks {
                let Some(count) = self.bits.get_mut(&(word, bit)) else {
                    continue;
                };
                *count -= 1;
                if *count == 0 {
                    self.bits.remove(&(word, bit));
                    if self.everywhere == 0 {
                        change(memory, word, |bits| bits & !bit);
                    }
                }
            }
        }
    }

    /// Writes all of it, in the place of what an earlier process has left.
    pub(super) fn show(&self, memory: &Memory) {
        let mut words = vec![if self.everywhere > 0 { u64::MAX } else { 0 }; Names::WORDS];
        for (word, bit) in self.bits.keys() {
            words[*word] |= bit;
        }
        for (word, bits) in words.into_iter().enumerate() {
            change(memory, word, |_| bits);
        }
    }
}

fn change(memory: &Memory, word: usize, change: impl FnOnce(u64) -> u64) {
    if let Some(word) = memory.names.get(0).and_then(|names| names.words.get(word)) {
        let (before, after) = (word.get(), change(word.get()));
        if before != after {
            word.set(after);
        }
    }
}

#[cfg(test)]
mod tests {
    use dataplane_core::parse::mapped;

    use super::*;

    #[test]
    fn few_addresses_are_named_each_and_more_by_blocks() {
        let v4 = |first, last| within(&[mapped(first), mapped(last)]);
        let block = |block: u32| Names::of_block(Names::block(mapped(block)));
        let address = |address| Names::of_address(mapped(address));
        assert_eq!(v4(1, 2), Some(vec![address(1), address(2)]));
        assert_eq!(v4(0x0a2d_0000, 0x0a2d_00ff), Some(vec![block(0x0a2d_0000)]));
        assert_eq!(v4(0x0a2d_0000, 0x0a2d_ffff).unwrap().len(), 256);
        assert_eq!(v4(0x0a2d_0000, 0x0a2e_0000), None);
        assert_eq!(v4(0, u32::MAX), None);
        let v6 = |first, last| within(&[[first, 0], [last, u64::MAX]]);
        assert_eq!(
            v6(9, 10),
            Some(vec![Names::of_block(9), Names::of_block(10)])
        );
        assert_eq!(v6(9, u64::MAX), None);
        // Some of it is IPv4, and some is not.
        assert_eq!(v6(0, 0), None);
    }
}
