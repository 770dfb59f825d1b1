//! Which addresses rules name, roughly: enough to know of most packets that no rule is about them.

#[cfg(not(target_arch = "bpf"))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::{parse::is_mapped, word::Word};

/// A set of addresses, and of blocks of them: /24 of IPv4, /64 of IPv6. Each has a bit, which it may share. If a rule
/// is about packets from or to an address, or translates to it, the address is in the set or its block is.
/// Where every bit is set, some rule is about packets of any address.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Names {
    /// The bits.
    pub words: [Word; Self::WORDS],
}

impl Names {
    /// Words of 64 bits, a power of two: some five bits for each of 100,000 rules.
    pub const WORDS: usize = 1 << 13;

    /// The word and the bit of an address.
    #[must_use]
    pub const fn of_address([high, low]: [u64; 2]) -> (usize, u64) {
        place(high.rotate_left(32) ^ low)
    }

    /// The number of the block that an address is in. Those of a range follow one another.
    #[must_use]
    pub const fn block(address: [u64; 2]) -> u64 {
        let [high, low] = address;
        if is_mapped(address) { low >> 8 } else { high }
    }

    /// The word and the bit of a block.
    #[must_use]
    pub const fn of_block(block: u64) -> (usize, u64) {
        place(!block)
    }

    /// Whether a rule may be about packets from or to there.
    #[must_use]
    pub fn has(&self, address: [u64; 2]) -> bool {
        let is_set = |(word, bit): (usize, u64)| self.words[word].get() & bit != 0;
        is_set(Self::of_address(address)) || is_set(Self::of_block(Self::block(address)))
    }
}

const fn place(value: u64) -> (usize, u64) {
    let mixed = value.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (
        (mixed >> 51) as usize % Names::WORDS,
        1 << (mixed >> 45 & 63),
    )
}
