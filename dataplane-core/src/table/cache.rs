//! References to flows, the flow cache, and fragments.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::word::Word;

/// A flow in the flow table: which record, and which direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowRef(u32);

impl FlowRef {
    /// The flow of packets that go in `direction` in the record `id`.
    #[must_use]
    pub const fn new(id: u32, direction: Direction) -> Self {
        Self((direction as u32) << 31 | id)
    }

    /// Index of the record.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 & 0x7fff_ffff
    }

    /// The direction of packets with this key.
    #[must_use]
    pub const fn direction(self) -> Direction {
        if self.0 & 0x8000_0000 == 0 {
            Direction::Upstream
        } else {
            Direction::Downstream
        }
    }
}

impl From<u32> for FlowRef {
    fn from(word: u32) -> Self {
        Self(word)
    }
}

impl From<FlowRef> for u32 {
    fn from(flow: FlowRef) -> Self {
        flow.0
    }
}

/// Direction of a packet in its flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the UE.
    Upstream = 0,
    /// To the UE.
    Downstream = 1,
}

impl Direction {
    /// The other one.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Upstream => Self::Downstream,
            Self::Downstream => Self::Upstream,
        }
    }
}

/// One way of a set of the flow cache: what tells packets of a flow from others as they lie in their frames, and all there is
/// to know of how they leave. Three lines of the CPU's cache, of which the third is for frames with more headers.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct CacheWay {
    /// Words of a frame, as [`crate::fast`] compares them. Where it compares others, [`LAYOUT`](super::LAYOUT) is another.
    pub seen: [Word; 5],
    /// A [`FlowRef`]; above it, in 16 bits each, which counter of changes the session has, and the sum of what all outer
    /// IP headers have in common.
    pub flow: Word,
    /// What [`State::validity`](super::State::validity) was when this was found out, with the kind of frame. 0 if nothing is known.
    pub valid: Word,
    /// The same of [`Half::generation`](crate::flow::Half::generation).
    pub moves: Word,
    /// The same of what counts changes of the session.
    pub told: Word,
    /// Flags of the action, and others that [`crate::fast`] knows; in the second 16 bits the port that takes the place of
    /// another, or 0. The upper half is where the rule is counted.
    pub how: Word,
    /// MAC addresses to send with, as in [`Ethernet::raw`](crate::wire::ethernet::Ethernet::raw), then the
    /// [`Passage`](super::Passage).
    pub exit: [Word; 2],
    /// The address that takes the place of another. Over IPv4, it is the lower half of the second word, with the port above it, as they
    /// lie in the packet, and the first word has what checksums change by: that of the IP header, then that of TCP or UDP.
    pub address: [Word; 2],
    /// The tunnel to leave by, if there is one. In the upper 16 bits of the second word the largest L3 packet that may leave.
    pub tunnel: [Word; 2],
    /// More of [`Self::seen`].
    pub further: [Word; 8],
}

const _: () = assert!(size_of::<CacheWay>() == 3 * 64);

/// A set of the flow cache. Each CPU has sets of its own.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct CacheSet {
    /// The ways, latest first.
    pub ways: [CacheWay; 2],
}

/// Which datagram a fragment belongs to.
#[derive(
    Debug,
    Clone,
    Copy,
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
pub struct FragmentKey {
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Identification.
    pub identification: u32,
    /// Address space.
    pub zone: u16,
    /// Protocol.
    pub protocol: u8,
    /// Keeps the size a multiple of the alignment.
    pub padding: u8,
}

/// What became of an insertion into the flow table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is there now.
    Done,
    /// Another entry has the key.
    Exists,
    /// There is no room.
    Full,
}
