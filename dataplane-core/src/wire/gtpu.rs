//! GTP-U, version 1 (3GPP TS 29.281, clauses 5.1 and 5.2), and the PDU Session Container that it carries on
//! N3 (TS 38.415, clause 5.5.2).

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32},
};

/// UDP port that all messages to be received are sent to (TS 29.281, 4.4.2).
pub const PORT: u16 = 2152;

/// The part of the header that is always there.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Gtpu {
    /// Version, protocol type and what else is there.
    pub flags: u8,
    /// One of [`message`].
    pub message: u8,
    /// Octets after these eight.
    pub length: U16,
    /// Tunnel endpoint identifier, given by the receiver.
    pub teid: U32,
}

impl Gtpu {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Version 1 of GTP, not GTP', and nothing else there.
    pub const PLAIN: u8 = 0x30;
    /// An extension header follows.
    pub const EXTENSION: u8 = 0x04;

    /// Whether this is version 1 of GTP. (The version is the upper three bits, the next tells GTP' apart.)
    #[must_use]
    pub const fn is_version_1(&self) -> bool {
        self.flags & 0xf0 == Self::PLAIN
    }

    /// Whether [`Optional`] follows: all of it when any of its fields is there.
    #[must_use]
    pub const fn has_optional(&self) -> bool {
        self.flags & 0x07 != 0
    }

    /// Whether the type of an extension header is there.
    #[must_use]
    pub const fn has_extension(&self) -> bool {
        self.flags & Self::EXTENSION != 0
    }
}

/// Types of messages (TS 29.281, table 6.1-1).
pub mod message {
    /// Is the other end there?
    pub const ECHO_REQUEST: u8 = 1;
    /// It is.
    pub const ECHO_RESPONSE: u8 = 2;
    /// There is no such tunnel.
    pub const ERROR_INDICATION: u8 = 26;
    /// Extension headers that the sender knows.
    pub const SUPPORTED_EXTENSION_HEADERS: u8 = 31;
    /// Nothing more comes by this tunnel.
    pub const END_MARKER: u8 = 254;
    /// A packet of the UE's.
    pub const G_PDU: u8 = 255;
}

/// Fields that may follow the header.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Optional {
    /// Sequence number.
    pub sequence: U16,
    /// N-PDU number.
    pub npdu: u8,
    /// Type of the extension header that follows, or 0.
    pub next_extension: u8,
}

impl Optional {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
}

/// Types of extension headers (TS 29.281, figure 5.2.1-3).
pub mod extension {
    /// None follows.
    pub const NONE: u8 = 0;
    /// PDU Session Container.
    pub const PDU_SESSION_CONTAINER: u8 = 0x85;

    /// Whether the endpoint of a tunnel has to know this type (figure 5.2.1-2).
    #[must_use]
    pub const fn is_required(kind: u8) -> bool {
        kind & 0x80 != 0
    }
}

/// How an extension header begins, and a PDU Session Container as long as one can be short.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Container {
    /// Octets of all of it, in units of 4.
    pub units: u8,
    /// PDU type in the upper four bits: [`Self::DOWNLINK`] or [`Self::UPLINK`].
    pub kind: u8,
    /// QFI in the lower six bits.
    pub qfi: u8,
    /// Type of the extension header that follows, where this is one unit long.
    pub next_extension: u8,
}

impl Container {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// DL PDU SESSION INFORMATION.
    pub const DOWNLINK: u8 = 0x00;
    /// UL PDU SESSION INFORMATION.
    pub const UPLINK: u8 = 0x10;
    /// The bits of the QFI.
    pub const QFI: u8 = 0x3f;
}

/// Information elements of an Error Indication (TS 29.281, clauses 8.3 and 8.4): which tunnel is not there.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Missing {
    /// [`Self::TEID`].
    pub teid_type: u8,
    /// TEID Data I.
    pub teid: U32,
    /// [`Self::ADDRESS`].
    pub address_type: u8,
    /// Octets of the address, which follows: 4 or 16.
    pub address_length: U16,
}

impl Missing {
    /// Octets.
    pub const LEN: usize = size_of::<Self>();
    /// Type of "Tunnel Endpoint Identifier Data I".
    pub const TEID: u8 = 16;
    /// Type of "GTP-U Peer Address".
    pub const ADDRESS: u8 = 133;
}
