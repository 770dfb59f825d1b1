//! Ethernet II and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32, U64},
};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Ethernet header.
///
/// Both addresses are in two words, since the BPF back end turns a copy of six bytes into a call.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination address, and the first two octets of the source address.
    upper: U64,
    /// The rest of the source address.
    lower: U32,
    /// EtherType of what follows.
    pub ethertype: U16,
}

impl Ethernet {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();

    /// Destination address, in the lower 48 bits.
    #[must_use]
    pub const fn destination(&self) -> u64 {
        self.upper.get() >> 16
    }

    /// Source address, in the lower 48 bits.
    #[must_use]
    pub const fn source(&self) -> u64 {
        (self.upper.get() & 0xffff) << 32 | self.lower.get() as u64
    }

    /// Both addresses as they lie in the frame, in the words that they are read and written in: the second is of 32 bits.
    #[inline(always)]
    #[must_use]
    pub const fn raw(&self) -> [u64; 2] {
        [
            u64::from_ne_bytes(self.upper.to_bytes()),
            u32::from_ne_bytes(self.lower.to_bytes()) as u64,
        ]
    }

    /// What [`Self::raw`] is with these addresses, which are in the lower 48 bits.
    #[must_use]
    pub const fn raw_of(destination: u64, source: u64) -> [u64; 2] {
        let (upper, lower) = (destination << 16 | source >> 32, source as u32);
        [upper.to_be(), lower.to_be() as u64]
    }

    /// Sets both addresses; of the second word the lower half counts.
    #[inline(always)]
    pub const fn set_raw(&mut self, [upper, lower]: [u64; 2]) {
        self.upper = U64::from_bytes(upper.to_ne_bytes());
        self.lower = U32::from_bytes((lower as u32).to_ne_bytes());
    }

    /// Sets both addresses, which are in the lower 48 bits.
    pub fn set_addresses(&mut self, destination: u64, source: u64) {
        self.upper.set(destination << 16 | source >> 32);
        self.lower.set(source as u32);
    }
}

/// VLAN tag, as it follows an EtherType that announces it.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Vlan {
    /// Priority, drop eligibility and VLAN identifier.
    pub tci: U16,
    /// EtherType of what follows.
    pub ethertype: U16,
}

impl Vlan {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();

    /// Whether `ethertype` announces a VLAN tag: C-tag, S-tag, or the older QinQ value.
    #[must_use]
    pub const fn announced_by(ethertype: u16) -> bool {
        matches!(ethertype, 0x8100 | 0x88a8 | 0x9100)
    }
}
