//! What flows are told apart by.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::word::Word;

/// What tells one flow from another, as seen in one direction.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(C)]
pub struct FlowKey {
    /// Source address; IPv4 in mapped form.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// What there is besides addresses.
    pub rest: KeyRest,
}

/// Ports, address space and protocol. One word, because reading several small fields at once, just
/// after they were written one by one, makes a CPU wait.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
)]
#[repr(transparent)]
pub struct KeyRest(u64);

impl KeyRest {
    /// `ports` has that of the source in its upper half; an ICMP echo has its identifier in both.
    #[must_use]
    pub const fn new(ports: u32, zone: u16, protocol: u8) -> Self {
        Self((ports as u64) << 32 | (zone as u64) << 16 | protocol as u64)
    }

    /// Both ports, the source in the upper half.
    #[must_use]
    pub const fn ports(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Source port, or the identifier of an ICMP echo.
    #[must_use]
    pub const fn source_port(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Destination port, or the identifier of an ICMP echo.
    #[must_use]
    pub const fn destination_port(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Address space and protocol, which are the same in both directions of most flows.
    pub(super) const fn space(self) -> u64 {
        self.0 & 0xffff_ffff
    }

    /// Address space.
    #[must_use]
    pub const fn zone(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Protocol.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.0 as u8
    }
}

impl FlowKey {
    /// The key of packets that answer those with this key.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            rest: KeyRest::new(
                self.rest.ports().rotate_left(16),
                self.rest.zone(),
                self.rest.protocol(),
            ),
        }
    }

    /// A UDP source port for tunnels of such packets, so that flows are told apart by those who spread
    /// them on the way (RFC 7348, section 5): one of those that are nobody's (RFC 6335, section 6).
    #[must_use]
    pub const fn source_port_outside(&self) -> u16 {
        0xc000 | (hash(&self.words(), self.rest.ports()) >> 18) as u16
    }

    /// What flows are spread by, the same on every host.
    #[must_use]
    pub const fn spread(&self) -> u32 {
        hash(&self.words(), self.rest.ports())
    }

    /// As words, which can be compared and stored one by one.
    #[must_use]
    pub const fn words(self) -> [u64; 5] {
        transmute!(self)
    }
}

/// A key in a record, which packets on other CPUs and user space may read meanwhile.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(transparent)]
pub struct SharedKey([Word; 5]);

impl SharedKey {
    /// The key.
    #[must_use]
    pub fn get(&self) -> FlowKey {
        let [a, b, c, d, rest] = &self.0;
        transmute!([a.get(), b.get(), c.get(), d.get(), rest.get()])
    }

    /// Whether it is the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        pairs.all(|(cell, other)| cell.get() == other.get())
    }

    /// Whether it is this key.
    pub(crate) fn has(&self, key: &FlowKey) -> bool {
        let mut pairs = self.0.iter().zip(key.words());
        pairs.all(|(cell, word)| cell.get() == word)
    }

    /// Makes it the same.
    pub(crate) fn copy(&self, other: &Self) {
        for (cell, other) in self.0.iter().zip(&other.0) {
            cell.set(other.get());
        }
    }

    /// Sets the key.
    pub fn set(&self, key: &FlowKey) {
        for (cell, word) in self.0.iter().zip(key.words()) {
            cell.set(word);
        }
    }

    /// The destination address.
    #[must_use]
    pub fn destination(&self) -> [u64; 2] {
        let [_, _, high, low, _] = &self.0;
        [high.get(), low.get()]
    }
}

/// Mixes addresses and ports. Fast rather than unguessable: it only spreads flows. The rest of the key is left out.
const fn hash(words: &[u64; 5], ports: u32) -> u32 {
    // Products that do not wait for each other.
    let [a, b, c, d, _] = *words;
    let addresses = (a ^ c.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (b ^ d.rotate_left(17)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let mixed = (addresses ^ addresses >> 32 ^ ports as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> 32) as u32
}
