//! Maglev hashing: a table in which each backend has places in proportion to its weight, most of which stay its own
//! when others come and go ("Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4).
//!
//! The table follows from the backends' names and weights alone, so every host builds the same.

/// Places in a table: a prime.
pub const SIZE: usize = 65_537;

/// In a table: nobody's.
pub const NOBODY: u16 = u16::MAX;

/// A backend while a table is filled.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    weight: u64,
    /// How often it has been its turn.
    turns: u64,
    /// The next place that it would take.
    next: usize,
    skip: usize,
}

impl Member {
    /// The backend of that name. With weight 0 it gets no place.
    #[must_use]
    pub fn new(name: &[u8], weight: u16) -> Self {
        let hash = fnv(name);
        Self {
            weight: weight.into(),
            turns: 0,
            next: (mix(hash) % SIZE as u64) as usize,
            skip: (mix(!hash) % (SIZE as u64 - 1)) as usize + 1,
        }
    }
}

/// Fills the table with the numbers of members, which are in the order of their names. Nobody is in a table
/// that nobody has weight for.
pub fn fill(members: &mut [Member], table: &mut [u16; SIZE]) {
    table.fill(NOBODY);
    let heaviest = members.iter().map(|it| it.weight).max().unwrap_or(0);
    if heaviest == 0 {
        return;
    }
    let mut left = SIZE;
    // The heaviest takes a place in each round, others in their share of rounds.
    for round in 1.. {
        for (member, number) in members.iter_mut().zip(0..NOBODY) {
            if round * member.weight <= member.turns * heaviest {
                continue;
            }
            member.turns += 1;
            while table[member.next] != NOBODY {
                member.step();
            }
            table[member.next] = number;
            member.step();
            left -= 1;
            if left == 0 {
                return;
            }
        }
    }
}

impl Member {
    fn step(&mut self) {
        self.next += self.skip;
        if self.next >= SIZE {
            self.next -= SIZE;
        }
    }
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Spreads what names that are much alike differ in over all bits (the finalizer of SplitMix64).
const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{boxed::Box, format, vec::Vec};

    use super::*;

    fn table(weights: &[(&str, u16)]) -> Box<[u16; SIZE]> {
        let mut members: Vec<Member> = weights
            .iter()
            .map(|(name, weight)| Member::new(name.as_bytes(), *weight))
            .collect();
        let mut table = Box::new([0; SIZE]);
        fill(&mut members, &mut table);
        table
    }

    fn shares(table: &[u16; SIZE], members: usize) -> Vec<usize> {
        let mut shares = std::vec![0; members];
        for number in table {
            shares[usize::from(*number)] += 1;
        }
        shares
    }

    #[test]
    fn places_are_in_proportion_to_weights() {
        for weights in [
            &[1, 1, 1][..],
            &[1, 2, 3],
            &[65_535, 1, 300],
            &[0, 5, 0, 5],
            &[7; 100],
        ] {
            let names: Vec<_> = (0..weights.len()).map(|at| format!("app-{at}")).collect();
            let named = names.iter().map(|it| &**it).zip(weights.iter().copied());
            let named: Vec<_> = named.collect();
            let total: u64 = weights.iter().map(|it| u64::from(*it)).sum();
            let shares = shares(&table(&named), weights.len());
            for (share, weight) in shares.iter().zip(weights) {
                let ideal = (u64::from(*weight) * SIZE as u64).div_ceil(total);
                assert!(
                    share.abs_diff(ideal as usize) <= 1,
                    "{weights:?}: {shares:?}"
                );
            }
        }
    }

    #[test]
    fn nobody_is_chosen_when_nobody_has_weight() {
        assert!(table(&[]).iter().all(|it| *it == NOBODY));
        assert!(table(&[("a", 0)]).iter().all(|it| *it == NOBODY));
    }

    /// Of the places of those that stay, few change hands. (Each that does is a new flow's choice, never a flow's
    /// that has a backend.)
    #[test]
    fn a_change_of_one_disturbs_few_of_the_others() {
        for count in [2_usize, 3, 5, 10, 50, 200] {
            let names: Vec<_> = (0..count).map(|at| format!("10.0.{at}.1")).collect();
            let all: Vec<(&str, u16)> = names.iter().map(|it| (&**it, 10)).collect();
            let before = table(&all);
            for gone in [0, count / 2, count - 1] {
                let mut weights = all.clone();
                weights[gone].1 = 0;
                let after = table(&weights);
                let others = before.iter().filter(|it| usize::from(**it) != gone);
                let moved = before
                    .iter()
                    .zip(after.iter())
                    .filter(|(old, new)| usize::from(**old) != gone && old != new);
                let moved = moved.count() as f64 / others.count().max(1) as f64;
                assert!(
                    moved <= 0.03,
                    "{count} less one: {moved:.4} of the others' places moved"
                );
            }
        }
    }
}
