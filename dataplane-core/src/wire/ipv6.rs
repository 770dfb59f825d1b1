//! IPv6 header and extension headers (RFC 8200, RFC 4302).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32, U64},
};

/// IPv6 header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class and flow label.
    pub version_class_label: U32,
    /// Octets after this header.
    pub payload_length: U16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [U64; 2],
    /// Destination address.
    pub destination: [U64; 2],
}

impl Ipv6 {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Offset of the source address.
    pub const SOURCE: usize = 8;
    /// Offset of the destination address.
    pub const DESTINATION: usize = 24;

    /// Traffic class.
    #[must_use]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }
}

/// What all extension headers but the fragment header begin with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Extension {
    /// Type of the next header.
    pub next_header: u8,
    /// Length beyond the first 8 octets, in units of 8 (authentication header: beyond 8, in units of 4).
    pub length: u8,
}

/// Fragment header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Fragment {
    /// Type of the next header.
    pub next_header: u8,
    reserved: u8,
    /// Offset in the upper 13 bits, and the more-fragments bit.
    pub offset: U16,
    /// Identification of the datagram.
    pub identification: U32,
}

impl Fragment {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
}

/// Next-header values that the walk knows.
pub mod next {
    /// Hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Routing header.
    pub const ROUTING: u8 = 43;
    /// Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication header.
    pub const AUTHENTICATION: u8 = 51;
    /// Destination options.
    pub const DESTINATION: u8 = 60;
}
