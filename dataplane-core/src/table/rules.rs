//! Cells of a rule set, and where packets are sent.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::flow::{FlowKey, KeyRest};

/// The rule set in force: where to begin, and its number. One word, so that it changes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// The first node or filter.
    pub root: Index,
    /// Grows with each rule set.
    pub epoch: u32,
}

impl From<u64> for Image {
    fn from(word: u64) -> Self {
        Self {
            root: Index(word as u32),
            epoch: (word >> 32) as u32,
        }
    }
}

impl From<Image> for u64 {
    fn from(image: Image) -> Self {
        Self::from(image.epoch) << 32 | Self::from(image.root.0)
    }
}

/// Where a walk through the rule set goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(transparent)]
pub struct Index(pub u32);

impl Index {
    /// Nowhere: no rule matches.
    pub const END: Self = Self(0);
    const FILTER: u32 = 1 << 31;

    /// The split in cell `cell`, which is not 0.
    #[must_use]
    pub const fn split(cell: u32) -> Self {
        Self(cell)
    }

    /// The filter in cell `cell`.
    #[must_use]
    pub const fn filter(cell: u32) -> Self {
        Self(cell | Self::FILTER)
    }

    /// Whether a filter is there, not a split.
    #[must_use]
    pub const fn is_filter(self) -> bool {
        self.0 & Self::FILTER != 0
    }

    /// The cell, in the table that [`Self::is_filter`] tells.
    #[must_use]
    pub const fn cell(self) -> u32 {
        self.0 & !Self::FILTER
    }
}

/// A fork in the walk, as long as a line of the CPU's cache: one field is compared with thresholds, in order,
/// and the walk goes on by the way between the two that the value is between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Split {
    /// Where to look as well, after the way: filters that would be on most ways.
    pub also: Index,
    /// Which fact is compared: one of [`field`].
    pub field: u8,
    /// 1 if the way depends on more than the flow, and PACKET filters are on it.
    pub sensitive: u8,
    /// The upper 16 bits of the lowest [`Filter::rank`] of [`Self::also`].
    pub also_rank: u16,
    /// The upper half of the lowest [`Filter::rank`] from here on, [`Self::also`] included.
    pub rank: u32,
    /// 2^32 less each threshold, which is the smallest value that goes the way after it; 0 for thresholds that no
    /// value reaches. So the sum with a value tells by its carry which is greater, and no branch is taken.
    pub thresholds: [u32; Self::WAYS - 1],
    /// Where to go on.
    pub ways: [Index; Self::WAYS],
}

impl Split {
    /// Ways that the walk can go on at a fork.
    pub const WAYS: usize = 7;

    /// The way that a value goes.
    #[must_use]
    pub const fn way(&self, value: u32) -> usize {
        let value = value as u64;
        let [a, b, c, d, e, f] = self.thresholds;
        // Summed up before the carries are looked at, or the compiler makes branches of it.
        let carries = ((value + a as u64) & Self::CARRY)
            + ((value + b as u64) & Self::CARRY)
            + ((value + c as u64) & Self::CARRY)
            + ((value + d as u64) & Self::CARRY)
            + ((value + e as u64) & Self::CARRY)
            + ((value + f as u64) & Self::CARRY);
        (carries >> 32) as usize
    }

    const CARRY: u64 = 1 << 32;
}

/// What a [`Split`] can compare: words of a [`Query`](crate::classify::Query), and of an
/// [`InTunnel`](crate::classify::InTunnel) from [`TUNNEL`](field::TUNNEL) on.
pub mod field {
    /// Destination address, its first 32 bits and the others. They lie in two words of the CPU, lower half first.
    pub const DESTINATION: [u8; 4] = [1, 0, 3, 2];
    /// Source address.
    pub const SOURCE: [u8; 4] = [5, 4, 7, 6];
    /// Destination port.
    pub const DESTINATION_PORT: u8 = 8;
    /// Source port.
    pub const SOURCE_PORT: u8 = 9;
    /// Protocol.
    pub const PROTOCOL: u8 = 10;
    /// Zone.
    pub const ZONE: u8 = 11;
    /// DSCP or traffic class.
    pub const TOS: u8 = 12;
    /// What is about the tunnel has this bit set.
    pub const TUNNEL: u8 = 16;
    /// Source address of the outer header.
    pub const TUNNEL_SOURCE: [u8; 4] = [17, 16, 19, 18];
    /// Its destination address.
    pub const TUNNEL_TARGET: [u8; 4] = [21, 20, 23, 22];
    /// QCI or 5QI.
    pub const QCI: u8 = 24;
}

/// One conjunction of ranges, all inclusive. A list of them, in order of precedence, ends a walk. Two lines of the CPU's
/// cache, of which the first tells most packets that they do not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Filter {
    /// [`RuleAction::rank`] of the action.
    pub rank: u64,
    /// Destination addresses: upper and lower half of the first and of the last.
    pub destination: [[u64; 2]; 2],
    /// Destination ports; [`NO_PORTS`](crate::classify::NO_PORTS) is the value of packets without.
    pub destination_port: [u32; 2],
    /// Protocols.
    pub protocol: [u8; 2],
    /// One of [`kind`].
    pub kind: u8,
    /// Whether packets of one flow, alike in everything but the class, may differ in that they match: bit 0 of
    /// those of IPv4, bit 1 of IPv6.
    pub minds: u8,
    /// Where to go on with a packet that does not match.
    pub next: Index,
    /// What to do with one that matches.
    pub action: u32,
    /// The [`TunnelFilter`] that has to match as well, plus 1; 0 when there is none.
    pub tunnel: u32,
    /// Source addresses.
    pub source: [[u64; 2]; 2],
    /// Source ports.
    pub source_port: [u32; 2],
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: [u16; 2],
    /// Zones.
    pub zone: [u16; 2],
    /// Fills the lines.
    pub padding: [u64; 2],
}

/// Ranges for the tunnel that a packet is in, all inclusive. A packet that is in none does not match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TunnelFilter {
    /// Source addresses of the outer header.
    pub source: [[u64; 2]; 2],
    /// Its destination addresses.
    pub target: [[u64; 2]; 2],
    /// Its UDP source ports.
    pub source_port: [u32; 2],
    /// Its UDP destination ports.
    pub target_port: [u32; 2],
    /// QCI of the bearer or 5QI of the QoS flow; 0 is that of packets of which none is known.
    pub qci: [u8; 2],
    /// Keeps the size a multiple of the alignment.
    pub padding: [u8; 6],
}

/// Which filters a classification looks at; see `filterType` in ETSI GS MEC 011, 7.1.2.2.
pub mod kind {
    /// Those matched against upstream packets, for all their flow.
    pub const FLOW: u8 = 1;
    /// Those matched against each packet on its own.
    pub const PACKET: u8 = 2;
}

/// What a rule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct RuleAction {
    /// Place in the order of all rules: lower comes first.
    pub rank: u64,
    /// New destination address, when [`flag::NAT`] is set.
    pub nat: [u64; 2],
    /// Where the rule is counted.
    pub rule: u32,
    /// Next hop of upstream packets; of [`verb::BALANCE`], its table of choices.
    pub first: u32,
    /// Next hop of downstream packets, when [`flag::INLINE`] is set; with [`flag::BACKEND`] the cell of the action that chose it.
    /// Of [`verb::BALANCE`], for how many jiffies after the last new flow a UE keeps its backend, or 0.
    pub second: u32,
    /// One of [`verb`].
    pub verb: u8,
    /// Any of [`flag`].
    pub flags: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// Keeps the size a multiple of the alignment.
    pub padding: u8,
    /// New destination port of TCP and UDP, or 0.
    pub nat_port: u16,
    /// Keeps the size a multiple of the alignment.
    pub padding_too: [u16; 3],
}

/// What [`RuleAction::verb`] can be; see `action` in ETSI GS MEC 011, 7.1.2.2.
pub mod verb {
    /// Discard.
    pub const DROP: u8 = 0;
    /// As if no rule had matched.
    pub const PASSTHROUGH: u8 = 1;
    /// Send to the next hop.
    pub const FORWARD: u8 = 2;
    /// Send a copy to the next hop.
    pub const DUPLICATE: u8 = 3;
    /// Do what the action of a backend says, which is chosen for each flow.
    pub const BALANCE: u8 = 4;
}

/// What [`RuleAction::flags`] can hold.
pub mod flag {
    /// The destination address is rewritten, and restored in replies.
    pub const NAT: u8 = 1;
    /// The packet is routed: TTL or hop limit is decremented.
    pub const ROUTE: u8 = 2;
    /// Between two interfaces of an application: `first` faces the UE, `second` the core.
    pub const INLINE: u8 = 4;
    /// What comes in a tunnel is sent with it.
    pub const ENCAPSULATED: u8 = 8;
    /// `first` is the end of a tunnel that packets are put into.
    pub const TUNNEL: u8 = 16;
    /// It was chosen for the flow, and another may be.
    pub const BACKEND: u8 = 32;
    /// It was chosen because no backend is there.
    pub const FALLBACK: u8 = 64;
}

/// A tunnel that rules send packets into, and that answers come by.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Target {
    /// Address of this end.
    pub source: [u64; 2],
    /// Address of the other end.
    pub destination: [u64; 2],
    /// MAC address that frames in the tunnel are sent to, for VXLAN.
    pub mac: u64,
    /// TEID, key or VNI.
    pub identifier: u32,
    /// One of [`encapsulation`].
    pub encapsulation: u8,
    /// QFI of what is sent, as in [`Tunnel::qfi`](crate::tunnel::Tunnel::qfi).
    pub qfi: u8,
    /// 1 if the other end is a peer, which sends what UEs have sent.
    pub peer: u8,
    /// Keeps the size a multiple of the alignment.
    pub padding: u8,
}

/// What [`Target::encapsulation`] can be.
pub mod encapsulation {
    /// GTP-U (3GPP TS 29.281).
    pub const GTPU: u8 = 2;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 3;
    /// GRE with a key (RFC 2890).
    pub const GRE_KEY: u8 = 4;
    /// VXLAN (RFC 7348).
    pub const VXLAN: u8 = 5;
}

impl Target {
    /// What packets from the other end are known by.
    #[must_use]
    pub const fn key(&self) -> FlowKey {
        Self::key_of(
            self.destination,
            self.source,
            self.identifier,
            self.encapsulation,
        )
    }

    /// The key of packets between these addresses.
    pub(crate) const fn key_of(
        from: [u64; 2],
        to: [u64; 2],
        identifier: u32,
        encapsulation: u8,
    ) -> FlowKey {
        FlowKey {
            source: from,
            destination: to,
            rest: KeyRest::new(identifier, 0, encapsulation),
        }
    }
}

/// A resolved next hop: MAC address and the slot of the port it is reached by. One word, so that it
/// changes at once; 0 while it is not resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop {
    /// MAC address, in the lower 48 bits.
    pub mac: u64,
    /// Slot of the port.
    pub slot: u16,
}

impl Hop {
    /// The hop in `word`, if it is resolved.
    #[must_use]
    pub const fn of(word: u64) -> Option<Self> {
        if word == 0 {
            return None;
        }
        Some(Self {
            mac: word >> 16,
            slot: word as u16,
        })
    }

    /// As one word.
    #[must_use]
    pub const fn word(self) -> u64 {
        self.mac << 16 | self.slot as u64
    }
}
