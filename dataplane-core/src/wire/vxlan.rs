//! VXLAN (RFC 7348, section 5).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, network_endian::U32};

/// UDP port that packets are sent to.
pub const PORT: u16 = 4789;

/// The header, in front of an Ethernet frame.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Vxlan {
    /// [`Self::VALID`]; the rest is 0.
    pub flags: U32,
    /// VXLAN network identifier, in the upper 24 bits.
    pub vni: U32,
}

impl Vxlan {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Flag: there is a VNI.
    pub const VALID: u32 = 0x0800_0000;
}
