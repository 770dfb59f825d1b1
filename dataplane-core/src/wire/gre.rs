//! GRE (RFC 2784), with a key and a sequence number (RFC 2890).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

/// Protocol number.
pub const GRE: u8 = 47;

/// The part of the header that is always there.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Gre {
    /// What else is there, and the version, which is 0.
    pub flags: U16,
    /// EtherType of what follows.
    pub ethertype: U16,
}

/// Key or sequence number.
pub type Field = U32;

impl Gre {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Octets of a key or a sequence number.
    pub const FIELD: usize = size_of::<Field>();
    /// Flag: a key follows.
    pub const KEY: u16 = 0x2000;
    /// Flag: a sequence number follows, behind the key.
    pub const SEQUENCE: u16 = 0x1000;
}
