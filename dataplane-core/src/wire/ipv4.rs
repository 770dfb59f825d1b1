//! IPv4 header (RFC 791).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

/// IPv4 header without options.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Octets of header and payload.
    pub total_length: U16,
    /// Identification of the datagram a fragment belongs to.
    pub identification: U16,
    /// Flags and fragment offset.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: U16,
    /// Source address.
    pub source: U32,
    /// Destination address.
    pub destination: U32,
}

impl Ipv4 {
    /// Octets without options.
    pub const LEN: usize = size_of::<Self>();
    /// Offset of the source address.
    pub const SOURCE: usize = 12;
    /// Offset of the destination address.
    pub const DESTINATION: usize = 16;
    /// `fragment`: more fragments follow.
    pub const MORE_FRAGMENTS: u16 = 0x2000;
    /// Flag: routers may not fragment it.
    pub const DONT_FRAGMENT: u16 = 0x4000;
    /// `fragment`: the offset, in units of 8 octets.
    pub const FRAGMENT_OFFSET: u16 = 0x1fff;

    /// Octets of the header with its options; below [`Self::LEN`] it is malformed.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.version_ihl & 0xf) as usize * 4
    }
}
