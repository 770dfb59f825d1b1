//! The Internet checksum and its incremental update (RFC 1071, RFC 1624).
//!
//! Updating keeps a checksum that only covers the pseudo-header (as a local sender leaves it for the
//! network card to finish) as partial as it was; computing it anew would break it.

/// The difference that replacing some words makes to a checksum over them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delta(u32);

impl Delta {
    /// Also replaces the 16-bit word `old` by `new`.
    #[must_use]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + !old as u32 + new as u32)
    }

    /// Also replaces the aligned 64 bits `old` by `new`.
    #[must_use]
    pub const fn words(self, old: u64, new: u64) -> Self {
        Self(self.0 + halves(!old) + halves(new))
    }

    /// The difference, in 16 bits.
    #[must_use]
    pub const fn folded(self) -> u16 {
        fold(self.0)
    }

    /// The checksum that was `checksum` before the words were replaced.
    #[must_use]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(!checksum as u32 + self.0)
    }
}

/// The checksum that was `checksum` before the words were replaced whose [`Delta::folded`] is `change`. Both may be in the other order of
/// octets, as they lie in a packet.
#[must_use]
pub const fn update(checksum: u16, change: u16) -> u16 {
    let sum = !checksum as u32 + change as u32;
    !(sum + (sum >> 16)) as u16
}

/// The sum of the four 16-bit words in `bits`.
#[must_use]
pub const fn halves(bits: u64) -> u32 {
    (bits >> 48) as u32
        + (bits >> 32 & 0xffff) as u32
        + (bits >> 16 & 0xffff) as u32
        + (bits & 0xffff) as u32
}

/// One's complement sum in 16 bits.
#[must_use]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum >> 16) + (sum & 0xffff);
    ((sum >> 16) + sum) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_equals_computing_anew() {
        let words = [
            0x4500_u16, 0x1234, 0xffff, 0x0000, 0xabcd, 0x0001, 0xfffe, 0x8000,
        ];
        let sum = |words: &[u16]| !fold(words.iter().map(|word| u32::from(*word)).sum());
        for at in 0..words.len() {
            for new in [0x0000, 0x0001, 0x7fff, 0xfffe, 0xffff] {
                let mut changed = words;
                changed[at] = new;
                let updated = Delta::default().word(words[at], new).apply(sum(&words));
                assert_eq!(updated, sum(&changed), "word {at} to {new:#06x}");
                let change = Delta::default().word(words[at], new).folded();
                assert_eq!(update(sum(&words), change), updated);
                let swapped = update(sum(&words).swap_bytes(), change.swap_bytes());
                assert_eq!(swapped.swap_bytes(), updated);
            }
        }
    }

    #[test]
    fn sixty_four_bits_are_four_words() {
        let (old, new) = (0x0102_0304_0506_0708, 0xfff0_0000_1234_8001);
        let mut delta = Delta::default();
        for shift in [48, 32, 16, 0] {
            delta = delta.word((old >> shift) as u16, (new >> shift) as u16);
        }
        assert_eq!(
            Delta::default().words(old, new).apply(0x1c46),
            delta.apply(0x1c46)
        );
    }
}
