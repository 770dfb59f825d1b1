//! ICMP and ICMPv6 (RFC 792, RFC 4443).

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, network_endian::U16};

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;

/// ICMP header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Icmp {
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
    /// Checksum.
    pub checksum: U16,
    /// Echo: identifier. "Fragmentation needed": unused.
    pub identifier: U16,
    /// Echo: sequence number. "Fragmentation needed": the MTU of the next hop (RFC 1191).
    pub sequence: U16,
}

impl Icmp {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Offset of the checksum.
    pub const CHECKSUM: usize = 2;

    /// The identifier in the place of both ports.
    #[must_use]
    pub const fn ports(&self) -> u32 {
        let identifier = self.identifier.get() as u32;
        identifier << 16 | identifier
    }

    /// Whether this is an echo request or reply, whose identifier tells one exchange from another.
    #[must_use]
    pub const fn is_echo(&self, protocol: u8) -> bool {
        match protocol {
            ICMP => matches!(self.kind, 0 | 8),
            _ => matches!(self.kind, 128 | 129),
        }
    }

    /// Whether this keeps the link itself going: neighbor discovery (RFC 4861) and multicast listener
    /// discovery (RFC 2710, RFC 3810).
    #[must_use]
    pub const fn is_of_the_link(&self, protocol: u8) -> bool {
        protocol == ICMPV6 && matches!(self.kind, 130..=137 | 143)
    }

    /// Whether this is an error, which quotes the packet that caused it.
    #[must_use]
    pub const fn is_error(&self, protocol: u8) -> bool {
        match protocol {
            ICMP => matches!(self.kind, 3 | 4 | 5 | 11 | 12),
            _ => self.kind < 128,
        }
    }
}
