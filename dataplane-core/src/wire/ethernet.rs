//! Ethernet II and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, network_endian::U16};

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;

/// Ethernet header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination address.
    pub destination: Mac,
    /// Source address.
    pub source: Mac,
    /// EtherType of what follows.
    pub ethertype: U16,
}

impl Ethernet {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
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

/// MAC address. Three words, because the BPF back end turns a copy of six bytes into a call.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub struct Mac([U16; 3]);

impl From<Mac> for u64 {
    fn from(mac: Mac) -> Self {
        let [a, b, c] = mac.0;
        Self::from(a.get()) << 32 | Self::from(b.get()) << 16 | Self::from(c.get())
    }
}

impl From<u64> for Mac {
    fn from(bits: u64) -> Self {
        Self([
            U16::new((bits >> 32) as u16),
            U16::new((bits >> 16) as u16),
            U16::new(bits as u16),
        ])
    }
}
