//! TCP, UDP and SCTP, as far as steering looks at them (RFC 9293, RFC 768, RFC 9260).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of SCTP.
pub const SCTP: u8 = 132;

/// Octets of the SCTP common header.
pub const SCTP_LEN: usize = 12;

/// The ports, which come first in TCP, UDP and SCTP alike: the source in the upper half.
pub type Ports = U32;

/// TCP header without options.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Ports.
    pub ports: Ports,
    /// Sequence number.
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Header length in 32-bit words, in the upper four bits.
    pub data_offset: u8,
    /// Control bits.
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Checksum.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl Tcp {
    /// Octets without options.
    pub const LEN: usize = size_of::<Self>();
    /// Offset of the checksum.
    pub const CHECKSUM: usize = 16;
    /// Octets with options.
    #[must_use]
    pub const fn header_len(&self) -> usize {
        (self.data_offset >> 4) as usize * 4
    }

    /// Control bit: no more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Control bit: synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Control bit: reset the connection.
    pub const RST: u8 = 0x04;
    /// Control bit: the acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}

/// Kinds of TCP options (RFC 9293, 3.2).
pub mod option {
    /// End of the list.
    pub const END: u8 = 0;
    /// One octet of nothing.
    pub const NOP: u8 = 1;
    /// Maximum segment size.
    pub const MSS: u8 = 2;
    /// Octets of that, its kind and length included.
    pub const MSS_LEN: usize = 4;
}

/// UDP header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Ports.
    pub ports: Ports,
    /// Octets of header and payload.
    pub length: U16,
    /// Checksum; zero over IPv4 means that there is none.
    pub checksum: U16,
}

impl Udp {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Offset of the checksum.
    pub const CHECKSUM: usize = 6;
}
