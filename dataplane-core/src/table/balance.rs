//! Backends that flows are balanced over.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::maglev;

/// Words of a table of choices: two places in each, the even one in the lower half. The value of a place is the cell of
/// a backend's action plus 1.
pub const CHOICES: u32 = maglev::SIZE.div_ceil(2) as u32;

/// The place of packets with `hash` in a table of choices: the word, and how far to the right it is shifted.
#[must_use]
pub(crate) const fn place(hash: u32) -> (u32, u32) {
    let place = hash % maglev::SIZE as u32;
    (place / 2, place % 2 * 32)
}

/// A backend as flows know it, by where it is counted: of which VIP it is, its action, and its state. One word, so
/// that it changes at once; 0 when there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backend(u64);

impl Backend {
    const DRAINING: u64 = 1;
    const UP: u64 = 2;

    /// A backend of the VIP that is counted in slot `vip`, which is below 2^30, with the action in `cell`. It keeps its
    /// flows, and gets new ones of UEs that it is known to if it is `up`.
    #[must_use]
    pub const fn new(vip: u32, cell: u32, up: bool) -> Self {
        let state = if up { Self::UP } else { Self::DRAINING };
        Self((vip as u64) << 34 | (cell as u64) << 2 | state)
    }

    /// Where its VIP is counted.
    #[must_use]
    pub const fn vip(self) -> u32 {
        (self.0 >> 34) as u32
    }

    /// The cell of its action.
    #[must_use]
    pub const fn cell(self) -> u32 {
        (self.0 >> 2) as u32
    }

    /// Whether it keeps flows.
    #[must_use]
    pub const fn lives(self) -> bool {
        self.0 & 3 != 0
    }

    /// Whether new flows may come to it.
    #[must_use]
    pub const fn is_up(self) -> bool {
        self.0 & 3 == Self::UP
    }
}

impl From<u64> for Backend {
    fn from(word: u64) -> Self {
        Self(word)
    }
}

impl From<Backend> for u64 {
    fn from(backend: Backend) -> Self {
        backend.0
    }
}

/// A UE that a backend was chosen for.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct AffinityKey {
    /// Its address.
    pub ue: [u64; 2],
    /// Where the VIP is counted.
    pub vip: u32,
    /// Address space.
    pub zone: u32,
}

/// Where the backend is counted that was chosen for a UE, and until when that holds without another flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Affinity {
    /// The backend, below 2^30.
    pub slot: u32,
    /// The end, in units of [`Self::UNIT`].
    pub until: u64,
}

impl Affinity {
    /// Jiffies; so that the time of decades fits.
    pub(crate) const UNIT: u64 = 64;
    const UNTIL: u32 = 34;
}

impl From<u64> for Affinity {
    fn from(word: u64) -> Self {
        Self {
            slot: (word >> Self::UNTIL) as u32,
            until: word & ((1 << Self::UNTIL) - 1),
        }
    }
}

impl From<Affinity> for u64 {
    fn from(affinity: Affinity) -> Self {
        Self::from(affinity.slot) << Affinity::UNTIL | affinity.until
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use crate::flow::{FlowKey, KeyRest};

    #[test]
    fn words_hold_what_was_put_in() {
        let backend = Backend::new(0x3fff_ffff, u32::MAX - 1, true);
        assert_eq!((backend.vip(), backend.cell()), (0x3fff_ffff, u32::MAX - 1));
        assert!(backend.is_up() && backend.lives());
        let draining = Backend::new(1, 2, false);
        assert!(!draining.is_up() && draining.lives());
        assert!(!Backend::from(0).lives());
        let affinity = Affinity {
            slot: 0x3fff_ffff,
            until: (1 << 34) - 1,
        };
        assert_eq!(Affinity::from(u64::from(affinity)), affinity);
    }

    /// Flows as there are: UEs with addresses and ports one after the other, all to one VIP.
    #[test]
    fn a_million_flows_are_spread_by_weight() {
        const FLOWS: u64 = 1_000_000;
        let key = |flow: u64, v4: bool| {
            let (ue, port) = (flow / 20, 32_768 + flow % 20 * 2);
            let (source, destination) = if v4 {
                let address = |low: u64| [0, 0xffff << 32 | low];
                (address(0x0a2d_0000 + ue), address(0xcb00_7109))
            } else {
                let address = |high: u64, low: u64| [0x2001_0db8_0000_0000 | high, low];
                (address(0x45_0000 + ue, 1), address(0x203, 9))
            };
            let rest = KeyRest::new((port as u32) << 16 | 443, 0, 6);
            FlowKey {
                source,
                destination,
                rest,
            }
        };
        for weights in [&[10_u16; 10][..], &[1, 2, 3, 4], &[100, 1]] {
            let names = weights.iter().zip(b'a'..);
            let mut members: std::vec::Vec<_> = names
                .map(|(weight, name)| maglev::Member::new(&[name], *weight))
                .collect();
            let mut table = std::boxed::Box::new([0; maglev::SIZE]);
            maglev::fill(&mut members, &mut table);
            let total: u64 = weights.iter().map(|it| u64::from(*it)).sum();
            for v4 in [true, false] {
                let mut shares = std::vec![0_u64; weights.len()];
                for flow in 0..FLOWS {
                    let (word, shift) = place(key(flow, v4).spread());
                    shares[usize::from(table[(word * 2 + shift / 32) as usize])] += 1;
                }
                for (share, weight) in shares.iter().zip(weights) {
                    let ideal = FLOWS * u64::from(*weight) / total;
                    let most = ideal / 50;
                    assert!(share.abs_diff(ideal) <= most, "{weights:?}: {shares:?}");
                }
            }
        }
    }

    #[test]
    fn every_place_is_in_the_table() {
        assert_eq!(place(maglev::SIZE as u32 - 1), (CHOICES - 1, 0));
        assert_eq!(place(1), (0, 32));
        assert_eq!(place(maglev::SIZE as u32), (0, 0));
    }
}
