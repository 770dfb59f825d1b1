//! What the data path looks things up in: the layout of every map, and access to them.
//!
//! User space shares these types and maps most of the tables into its memory. What both sides change
//! while packets flow is atomic; everything else is immutable for as long as packets can reach it.
//! (zerocopy knows no atomics where the compiler has no compare-and-swap, hence `cfg_attr` on those.)

use core::cell::Cell;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    classify::{Answer, InTunnel, Query, within},
    flow::{FlowKey, KeyRest, Record, SharedKey},
    session::{Session, SessionRef},
    verdict::{Action, Reason, Verdict},
    word::Word,
};

/// Version of everything in this file. State pinned under another version is not touched.
pub const LAYOUT: u32 = 2;

/// Longest walk from the root of a rule set to its verdict: splits and filters looked at.
pub const STEPS: u32 = 128;

/// Ports at most.
pub const PORTS: u32 = 64;

/// Ranges of endpoint addresses at most.
pub const ENDPOINTS: u32 = 16;

/// Next hops with cells below this one are ends of tunnels, each described by a [`Target`] in the same cell.
pub const TARGETS: u32 = 1024;

/// Interface indexes that may be ports are below this one.
pub const INTERFACES: u32 = 65_536;

/// A port that is not there, where a slot is expected.
pub const NO_PORT: u16 = u16::MAX;

/// A port whose interface takes no packets, where a slot is expected.
pub const DOWN: u16 = NO_PORT - 1;

/// A configured interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Port {
    /// MAC address, in the lower 48 bits.
    pub mac: u64,
    /// Largest L3 packet that may leave here.
    pub mtu: u32,
    /// Place among the ports.
    pub slot: u16,
    /// Slot of the other end of the wire, [`DOWN`] while that takes no packets, or [`NO_PORT`] when
    /// the kernel routes what is not steered.
    pub pair: u16,
    /// Address space of the UEs behind it.
    pub zone: u16,
    /// A [`Role`].
    pub role: u8,
    /// Any of [`port`].
    pub flags: u8,
    /// Index of the interface.
    pub ifindex: u32,
}

/// What a port faces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Role {
    /// UEs or the radio access network.
    Access = 0,
    /// The UPF or SGW, the data network: the other end of the same wire.
    Core = 1,
    /// A local application.
    App = 2,
    /// Another MEC host.
    Peer = 3,
}

/// What [`Port::flags`] can hold.
pub mod port {
    /// The entry is in use.
    pub const PRESENT: u8 = 1;
    /// GTP-U between endpoints of the RAN and the core is looked into.
    pub const GTPU: u8 = 2;
    /// TCP connections that begin with packets from here, in tunnels or into them, get no larger MSS than
    /// fits.
    pub const MSS_CLAMP: u8 = 4;
}

/// Where the endpoints of tunnels with addresses in a range are.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Endpoints {
    /// The first address.
    pub first: [u64; 2],
    /// The last.
    pub last: [u64; 2],
    /// A [`Side`]; 0 ends the list.
    pub side: u64,
}

/// A side of N3 or S1-U.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Side {
    /// Neither: tunnels of these addresses are nobody's.
    None = 0,
    /// eNB or gNB.
    Ran = 1,
    /// SGW or UPF.
    Core = 2,
}

/// Which side the endpoints with `address` are on.
#[must_use]
pub fn side(endpoints: &[Endpoints], address: [u64; 2]) -> Side {
    for range in endpoints {
        if range.side == Side::None as u64 {
            break;
        }
        if within(address, &[range.first, range.last]) {
            return if range.side == Side::Ran as u64 {
                Side::Ran
            } else {
                Side::Core
            };
        }
    }
    Side::None
}

impl Port {
    /// Whether the entry is in use.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        self.flags & port::PRESENT != 0
    }

    /// Whether GTP-U is looked into.
    #[must_use]
    pub const fn sees_gtpu(&self) -> bool {
        self.flags & port::GTPU != 0
    }

    /// Whether the MSS of TCP connections in tunnels is lowered.
    #[must_use]
    pub const fn clamps_mss(&self) -> bool {
        self.flags & port::MSS_CLAMP != 0
    }

    /// Whether packets from here are upstream: from a UE.
    #[must_use]
    pub const fn is_upstream(&self) -> bool {
        self.role == Role::Access as u8 || self.role == Role::Peer as u8
    }

    /// Whether the core network sends here.
    #[must_use]
    pub const fn is_core(&self) -> bool {
        self.role == Role::Core as u8
    }

    /// Whether an application sends here.
    #[must_use]
    pub const fn is_app(&self) -> bool {
        self.role == Role::App as u8
    }
}

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

/// A fork in the walk: below the threshold one way, from it on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Split {
    /// The smallest value that goes [`Self::high`].
    pub threshold: [u64; 2],
    /// Which fact is compared: one of [`field`].
    pub field: u32,
    /// Where smaller values go.
    pub low: Index,
    /// Where the others go.
    pub high: Index,
    /// Keeps the size a multiple of the alignment.
    pub padding: u32,
}

/// What a [`Split`] can compare.
pub mod field {
    /// Destination address.
    pub const DESTINATION: u32 = 0;
    /// Source address.
    pub const SOURCE: u32 = 1;
    /// Destination port.
    pub const DESTINATION_PORT: u32 = 2;
    /// Source port.
    pub const SOURCE_PORT: u32 = 3;
    /// Protocol.
    pub const PROTOCOL: u32 = 4;
    /// Zone.
    pub const ZONE: u32 = 5;
}

/// One conjunction of ranges, all inclusive. A list of them, in order of precedence, ends a walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct Filter {
    /// Source addresses: upper and lower half of the first and of the last.
    pub source: [[u64; 2]; 2],
    /// Destination addresses.
    pub destination: [[u64; 2]; 2],
    /// Source ports; [`NO_PORTS`](crate::classify::NO_PORTS) is the value of packets without.
    pub source_port: [u32; 2],
    /// Destination ports.
    pub destination_port: [u32; 2],
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: [u16; 2],
    /// Zones.
    pub zone: [u16; 2],
    /// Protocols.
    pub protocol: [u8; 2],
    /// One of [`kind`].
    pub kind: u8,
    /// Keeps the size a multiple of the alignment.
    pub padding: u8,
    /// What to do with a packet that matches.
    pub action: u32,
    /// Where to go on with one that does not.
    pub next: Index,
    /// The [`TunnelFilter`] that has to match as well, plus 1; 0 when there is none.
    pub tunnel: u32,
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
    /// Next hop of upstream packets.
    pub first: u32,
    /// Next hop of downstream packets, when [`flag::INLINE`] is set.
    pub second: u32,
    /// One of [`verb`].
    pub verb: u8,
    /// Any of [`flag`].
    pub flags: u8,
    /// One of [`kind`].
    pub kind: u8,
    /// Keeps the size a multiple of the alignment.
    pub padding: u8,
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
    /// Keeps the size a multiple of the alignment.
    pub padding: u16,
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

/// Packets and bytes.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: Word,
    /// Bytes.
    pub bytes: Word,
}

impl Count {
    /// Counts a packet, in an entry that no other CPU writes.
    pub fn add(&self, bytes: u64) {
        self.packets.set(self.packets.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }
}

/// What one CPU counts of ports, by slot.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct PortCounts {
    /// Packets that came in, by the reason they ended for.
    pub ended: [[Count; REASONS]; PORTS as usize],
    /// Packets that went out.
    pub sent: [Count; PORTS as usize],
}

impl PortCounts {
    /// Counts a packet of `bytes` bytes that came by the port in `slot`.
    pub fn add(&self, slot: u16, verdict: Verdict, bytes: u64) {
        // Both are powers of two: a verifier knows what remains, whatever a comparison would tell it.
        let port = |slot| usize::from(slot) % PORTS as usize;
        self.ended[port(slot)][usize::from(verdict.reason()) % REASONS].add(bytes);
        if let Action::Redirect(slot) = verdict.action() {
            self.sent[port(slot)].add(bytes);
        }
    }
}

/// Room for reasons in [`PortCounts`].
pub const REASONS: usize = 64;
const _: () = assert!(Reason::ALL.len() <= REASONS && PORTS.is_power_of_two());

/// A rule's counter on one CPU.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct RuleCount {
    /// Packets and bytes.
    pub count: Count,
    /// When the last one came, in jiffies.
    pub last_hit: Word,
    /// On the first CPU: which rule it is, so that it is found again after a restart. Else 0.
    pub identity: Word,
}

impl RuleCount {
    /// Counts a packet of `bytes` bytes on this CPU.
    pub(crate) fn add<T: Tables>(&self, tables: &T, bytes: u64) {
        self.count.add(bytes);
        self.last_hit.set(tables.now());
    }
}

/// A flow in the flow table: which record, which direction, and the record's generation, which
/// changes when the record is freed, so that a stale reference is known as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowRef(u64);

impl FlowRef {
    /// The flow of packets that go in `direction` in the record `id`.
    #[must_use]
    pub const fn new(id: u32, generation: u32, direction: Direction) -> Self {
        Self((generation as u64) << 32 | (direction as u64) << 31 | id as u64)
    }

    /// Index of the record.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }

    /// Generation of the record.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
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

impl From<u64> for FlowRef {
    fn from(word: u64) -> Self {
        Self(word)
    }
}

impl From<FlowRef> for u64 {
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

/// One way of a set of the flow cache.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct CacheWay {
    /// The key.
    pub key: [Word; 5],
    /// A [`FlowRef`].
    pub flow: Word,
    /// The [`Decision`](crate::flow::Decision) for these packets.
    pub decided: Word,
    /// Makes a set fill two cache lines.
    pub padding: Word,
}

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

/// The session table, as packets and user space see it.
pub trait SessionTable {
    /// What the session table has for `key`.
    fn session(&self, key: &SharedKey) -> Option<SessionRef>;
    /// Adds `key` to the session table. `false`: it is there, or there is no room.
    fn add_session(&self, key: &SharedKey, session: SessionRef) -> bool;
    /// Sets what the session table has for `key`. `false`: there is no room.
    fn set_session(&self, key: &SharedKey, session: SessionRef) -> bool;
    /// Removes `key` from the session table.
    fn remove_session(&self, key: &SharedKey);
    /// Takes a free session.
    fn allocate_session(&self) -> Option<u32>;
    /// Gives a session back that no key has ever led to.
    fn release_session(&self, id: u32);
    /// A session.
    fn session_record(&self, id: u32) -> Option<&Session>;
    /// Makes `owner` the value of `cell` if it is 0. Answers the value that it has then.
    fn claim(&self, cell: &Word, owner: u64) -> u64;
}

/// The tables, as packets see them.
pub trait Tables: SessionTable {
    /// Whether packets are looked for in tunnels.
    const TUNNELS: bool;

    /// Whether nothing may be changed or counted: the packet is only asked about.
    fn read_only(&self) -> bool;

    /// The port that packets of the interface `ifindex` come from.
    fn port(&self, ifindex: u32) -> Option<&Port>;
    /// The port in `slot`.
    fn port_in(&self, slot: u16) -> Option<&Port>;

    /// The rule set in force.
    fn image(&self) -> Image;
    /// A cell of it.
    fn split(&self, cell: u32) -> Option<&Split>;
    /// A cell of it.
    fn filter(&self, cell: u32) -> Option<&Filter>;
    /// A cell of it.
    fn tunnel_filter(&self, cell: u32) -> Option<&TunnelFilter>;
    /// A cell of it.
    fn action(&self, cell: u32) -> Option<&RuleAction>;
    /// The first rule that matches. (In the kernel a function that is verified on its own.)
    fn classify(&self, query: &Cell<Query>, tunnel: &Cell<InTunnel>) -> Answer;
    /// A next hop, if it is resolved.
    fn hop(&self, index: u32) -> Option<Hop>;

    /// The tunnel that ends at a next hop.
    fn target(&self, cell: u32) -> Option<&Target>;
    /// The cell of a tunnel that packets with this [`Target::key`] come by.
    fn opening(&self, key: &FlowKey) -> Option<u32>;

    /// The set for `hash` in this CPU's flow cache.
    fn cache(&self, hash: u32) -> Option<&CacheSet>;
    /// What the flow table has for `key`.
    fn flow(&self, key: &FlowKey) -> Option<FlowRef>;
    /// The same, where the key is shared.
    fn flow_at(&self, key: &SharedKey) -> Option<FlowRef>;
    /// Adds `key` to the flow table.
    fn insert(&self, key: &SharedKey, flow: FlowRef) -> Inserted;
    /// Removes `key` from the flow table.
    fn remove(&self, key: &SharedKey);
    /// Takes a free record.
    fn allocate(&self) -> Option<u32>;
    /// Gives a record back that no key has ever led to.
    fn release(&self, id: u32);
    /// A record.
    fn record(&self, id: u32) -> Option<&Record>;

    /// Which side of N3 or S1-U the endpoints with an address are on.
    fn side(&self, address: &[u64; 2]) -> Side;
    /// The ports of the datagram that a later fragment belongs to: source in the upper half.
    fn fragment(&self, key: &FragmentKey) -> Option<u32>;
    /// Remembers them.
    fn remember_fragment(&self, key: &FragmentKey, ports: u32);

    /// Counts a packet of `bytes` bytes that came by the port in `slot`, and may leave by another.
    fn count(&self, slot: u16, verdict: Verdict, bytes: u64);
    /// A rule's counter on this CPU.
    fn rule(&self, rule: u32) -> Option<&RuleCount>;
    /// When this CPU last told a sender of an MTU, in jiffies.
    fn told(&self) -> Option<&Word>;

    /// The value of `word`, read now.
    fn again(&self, word: &Word) -> u64;
    /// Adds to a number that several CPUs write.
    fn add(&self, sum: &Word, value: u64);
    /// Sets bits in a number that several CPUs write.
    fn set_bits(&self, bits: &Word, value: u64);

    /// Now, in jiffies.
    fn now(&self) -> u64;
    /// This CPU.
    fn cpu(&self) -> u32;
    /// What was decided about a packet that is only asked about.
    fn explain(&self, trace: Trace);
}

/// What is there besides tables.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct State {
    /// An [`Image`].
    pub image: Word,
    /// The [`LAYOUT`] of all tables.
    pub layout: Word,
}

/// What became of a packet that was only asked about.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Explanation {
    /// As in [`Trace`].
    pub flow: Word,
    /// As in [`Trace`].
    pub action: Word,
    /// The number of the [`Reason`].
    pub reason: Word,
    /// The slot of the port it would leave by, plus 1; 0 when it would not be redirected.
    pub sent: Word,
    /// The time, in jiffies.
    pub now: Word,
}

/// What was found on the way of a packet that is only asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    /// The action taken, plus 1; 0 when no rule matched.
    pub action: u32,
    /// The flow it belongs to, as one word plus 1; 0 when there is none.
    pub flow: u64,
}
