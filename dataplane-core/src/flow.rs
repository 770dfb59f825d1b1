//! Flows: their key, and the record of both directions.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute};

use crate::{
    parse::Link,
    table::{CacheSet, CacheWay, Direction, FlowRef, Tables},
    wire::transport::Tcp,
    word::Word,
};

/// What tells one flow from another, as seen in one direction.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
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
pub struct FlowKey {
    /// Source address; IPv4 in mapped form.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// What there is besides addresses.
    pub rest: KeyRest,
}

/// Ports, address space and protocol. One word, because reading several small fields at once, just
/// after they were written one by one, makes a CPU wait.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
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
#[repr(transparent)]
pub struct KeyRest(u64);

impl KeyRest {
    /// `ports` has that of the source in its upper half; an ICMP echo has its identifier in both.
    #[must_use]
    pub const fn new(ports: u32, zone: u16, protocol: u8) -> Self {
        Self((ports as u64) << 32 | (zone as u64) << 16 | protocol as u64)
    }

    /// Both ports, the source in the upper half.
    #[must_use]
    pub const fn ports(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Source port, or the identifier of an ICMP echo.
    #[must_use]
    pub const fn source_port(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// Destination port, or the identifier of an ICMP echo.
    #[must_use]
    pub const fn destination_port(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Address space.
    #[must_use]
    pub const fn zone(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Protocol.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        self.0 as u8
    }
}

impl FlowKey {
    /// The key of packets that answer those with this key.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            rest: KeyRest::new(
                self.rest.ports().rotate_left(16),
                self.rest.zone(),
                self.rest.protocol(),
            ),
        }
    }

    /// A UDP source port for tunnels of such packets, so that flows are told apart by those who spread
    /// them on the way (RFC 7348, section 5): one of those that are nobody's (RFC 6335, section 6).
    #[must_use]
    pub const fn source_port_outside(&self) -> u16 {
        0xc000 | (hash(&self.words(), self.rest.ports()) >> 18) as u16
    }

    /// What flows are spread by, the same on every host.
    #[must_use]
    pub const fn spread(&self) -> u32 {
        hash(&self.words(), self.rest.ports())
    }

    /// As words, which can be compared and stored one by one.
    #[must_use]
    pub const fn words(self) -> [u64; 5] {
        transmute!(self)
    }
}

/// A key in a record, which packets on other CPUs and user space may read meanwhile.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(transparent)]
pub struct SharedKey([Word; 5]);

impl SharedKey {
    /// The key.
    #[must_use]
    pub fn get(&self) -> FlowKey {
        let [a, b, c, d, rest] = &self.0;
        transmute!([a.get(), b.get(), c.get(), d.get(), rest.get()])
    }

    /// Whether it is the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let mut pairs = self.0.iter().zip(&other.0);
        pairs.all(|(cell, other)| cell.get() == other.get())
    }

    /// Whether it is this key.
    pub(crate) fn has(&self, key: &FlowKey) -> bool {
        let mut pairs = self.0.iter().zip(key.words());
        pairs.all(|(cell, word)| cell.get() == word)
    }

    /// Makes it the same.
    pub(crate) fn copy(&self, other: &Self) {
        for (cell, other) in self.0.iter().zip(&other.0) {
            cell.set(other.get());
        }
    }

    /// Sets the key.
    pub fn set(&self, key: &FlowKey) {
        for (cell, word) in self.0.iter().zip(key.words()) {
            cell.set(word);
        }
    }

    /// The destination address.
    #[must_use]
    pub fn destination(&self) -> [u64; 2] {
        let [_, _, high, low, _] = &self.0;
        [high.get(), low.get()]
    }
}

/// Mixes addresses and ports. Fast rather than unguessable: it only picks a set of the flow cache. The rest
/// of the key is left out, since the zone comes late.
const fn hash(words: &[u64; 5], ports: u32) -> u32 {
    // Products that do not wait for each other.
    let [a, b, c, d, _] = *words;
    let addresses = (a ^ c.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ (b ^ d.rotate_left(17)).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    let mixed = (addresses ^ addresses >> 32 ^ ports as u64).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed >> 32) as u32
}

/// The flow that a packet belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its record.
    pub record: &'a Record,
    /// The record's number, and the packet's direction.
    pub flow: FlowRef,
    /// 1 if the flow cache did not have it. (A truth value would become the tag of an option, and the kernel
    /// refuses tags that do not come first.)
    pub missed: u64,
}

/// The flow that this CPU's flow cache has for a key.
pub(crate) struct Cached<'a> {
    pub(crate) way: &'a CacheWay,
    pub(crate) record: &'a Record,
    pub(crate) flow: FlowRef,
}

/// What this CPU's flow cache has for a key, in words; `ports` are those in the key.
#[inline(always)]
pub(crate) fn cached<'a, T: Tables>(
    tables: &'a T,
    words: &[u64; 5],
    ports: u32,
) -> Option<Cached<'a>> {
    in_set(tables, tables.cache(hash(words, ports))?, words)
}

#[inline(always)]
fn in_set<'a, T: Tables>(tables: &'a T, set: &'a CacheSet, words: &[u64; 5]) -> Option<Cached<'a>> {
    let [first, second] = &set.ways;
    for way in [first, second] {
        if way.holds(words) {
            let flow = FlowRef::from(way.flow.get());
            let record = tables.record(flow.id())?;
            if record.is_meant_by(flow) {
                return Some(Cached { way, record, flow });
            }
        }
    }
    None
}

/// The flow of packets with `key`; `ports` are those in the key.
#[inline(always)]
pub fn find<'a, T: Tables>(tables: &'a T, key: &FlowKey, ports: u32) -> Option<Found<'a>> {
    let words = key.words();
    let set = tables.cache(hash(&words, ports))?;
    if let Some(Cached { record, flow, .. }) = in_set(tables, set, &words) {
        return Some(Found {
            record,
            flow,
            missed: 0,
        });
    }
    let [first, second] = &set.ways;
    let (flow, record) = listed(tables, key)?;
    if !tables.read_only() {
        second.replace_by(first);
        first.set(&words, flow);
    }
    Some(Found {
        record,
        flow,
        missed: 1,
    })
}

/// The flow that the flow table has for a key. Its entry may have become that of another key when it is read:
/// the kernel does not wait for those who look at an entry before it uses it again.
#[inline(always)]
pub(crate) fn listed<'a, T: Tables>(tables: &'a T, key: &FlowKey) -> Option<(FlowRef, &'a Record)> {
    let flow = tables.flow(key)?;
    let record = tables.record(flow.id())?;
    let own = match flow.direction() {
        Direction::Upstream => &record.key,
        Direction::Downstream => &record.reply,
    };
    (record.is_meant_by(flow) && own.has(key)).then_some((flow, record))
}

impl CacheWay {
    fn holds(&self, words: &[u64; 5]) -> bool {
        let [a, b, c, d, rest] = &self.key;
        rest.get() == words[4]
            && b.get() == words[1]
            && d.get() == words[3]
            && a.get() == words[0]
            && c.get() == words[2]
    }

    fn set(&self, words: &[u64; 5], flow: FlowRef) {
        for (cell, word) in self.key.iter().zip(words) {
            cell.set(*word);
        }
        self.flow.set(flow.into());
        self.valid.set(0);
    }

    fn replace_by(&self, other: &Self) {
        for (cell, word) in self.key.iter().zip(&other.key) {
            cell.set(word.get());
        }
        self.flow.set(other.flow.get());
        self.valid.set(0);
    }
}

/// A decision that holds for one epoch: an action, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The rule set it was taken under.
    pub epoch: u32,
    /// The action.
    pub action: Option<u32>,
    /// Whether it depends on more than the key, so that each packet needs a look of its own.
    pub sensitive: bool,
}

impl Decision {
    /// Whether the decision in `word` was taken in `epoch`, and for all packets.
    #[must_use]
    pub const fn holds(word: u64, epoch: u32) -> bool {
        word >> 31 == (epoch as u64) << 1
    }
}

impl From<u64> for Decision {
    fn from(word: u64) -> Self {
        let action = word as u32 & 0x7fff_ffff;
        Self {
            epoch: (word >> 32) as u32,
            action: if action == 0 { None } else { Some(action - 1) },
            sensitive: word & 0x8000_0000 != 0,
        }
    }
}

impl From<Decision> for u64 {
    fn from(decision: Decision) -> Self {
        let action = match decision.action {
            Some(action) => action + 1,
            None => 0,
        };
        Self::from(decision.epoch) << 32 | Self::from(decision.sensitive) << 31 | Self::from(action)
    }
}

/// The way back to the UE: the link layer of the latest upstream packet, turned round.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Path {
    /// MAC address of the UE's side, and the slot of the port in the lower 16 bits.
    pub ue: Word,
    /// MAC address that upstream packets are sent to.
    pub core: Word,
    /// VLAN tags.
    pub tags: Word,
}

impl Path {
    /// A MAC address of the UE's side, and the slot of the port that it is behind.
    pub(crate) const fn ue(mac: u64, slot: u16) -> u64 {
        mac << 16 | slot as u64
    }
}

/// Packets, and their bytes without and with the link layer.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Sum {
    /// Packets.
    pub packets: Word,
    /// Bytes of the IP packets.
    pub bytes: Word,
    /// Bytes of the frames.
    pub wire_bytes: Word,
}

/// What is counted of one direction of a flow by the CPU that owns it, the one that saw it first.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Half {
    /// Packets and bytes.
    pub owned: Sum,
    /// When the last packet came, on any CPU, in jiffies.
    pub last_seen: Word,
    /// The owner plus 1, or 0.
    pub owner: Word,
    /// TCP control bits seen; see [`Self::tcp_flags`].
    pub tcp_flags: Word,
    /// Of references to the record by packets in this direction. It changes when their key no longer leads here.
    pub generation: Word,
    /// How often the way back or the session has changed.
    pub moves: Word,
}

impl Half {
    /// How far to the left SYN is put aside.
    const ASIDE: u32 = 8;

    /// TCP control bits seen in the latest connection.
    #[must_use]
    pub fn tcp_flags(&self) -> u8 {
        let bits = self.tcp_flags.get();
        (bits | bits >> Self::ASIDE) as u8
    }
}

/// A flow, in lines of the cache: the first and that of its direction are all that most packets touch.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Record {
    /// The [`Decision`] for packets of each direction.
    pub decided: [Word; 2],
    /// Where the rule it comes under, or came under last, is counted, plus 1. User space knows rules by
    /// that, and makes it 0 when the rule is gone.
    pub rule: Word,
    /// Which way back is current: 0 or 1. The one not in use is written, then made current.
    pub path: Word,
    /// The [`SessionRef`](crate::session::SessionRef) of a UE behind a tunnel, or 0.
    pub session: Word,
    /// A way back.
    pub even: Path,
    /// Upstream and downstream.
    pub halves: [Half; 2],
    /// Another way back.
    pub odd: Path,
    /// DSCP or traffic class of the packet that made the flow; in the upper half the UDP ports of the tunnel that
    /// [`Self::session`] was noted with.
    pub tos: Word,
    /// Whether the record is in use.
    pub live: Word,
    /// When the flow began, in jiffies.
    pub first_seen: Word,
    /// The [`Decision`] by FLOW rules alone.
    pub context: Word,
    /// What CPUs counted that do not own the direction, atomically.
    pub others: [Sum; 2],
    /// The key of upstream packets.
    pub key: SharedKey,
    /// The key of downstream packets.
    pub reply: SharedKey,
    /// 1 while a rule forwards the flow, if it is that of a UE behind a tunnel: an application has it.
    pub forwarded: Word,
}

const _: () = assert!(size_of::<Record>() == 6 * 64);

impl Record {
    /// [`Self::rule`] of a connection that was left to the data network, as answers had not arrived.
    pub(crate) const LEFT: u64 = u32::MAX as u64;

    /// The reference to this record, which is `id`, of packets in `direction`.
    #[must_use]
    pub fn reference(&self, id: u32, direction: Direction) -> FlowRef {
        FlowRef::new(id, self.generation(direction), direction)
    }

    /// Whether `flow` was made since the key it is found by leads here.
    fn is_meant_by(&self, flow: FlowRef) -> bool {
        self.generation(flow.direction()) == flow.generation()
    }

    pub(crate) fn generation(&self, direction: Direction) -> u32 {
        self.half(direction).generation.get() as u32
    }

    /// The half of packets in `direction`.
    #[must_use]
    pub const fn half(&self, direction: Direction) -> &Half {
        &self.halves[direction as usize]
    }

    /// The decision for packets in `direction`.
    #[must_use]
    pub const fn decision(&self, direction: Direction) -> &Word {
        match direction {
            Direction::Upstream => &self.decided[0],
            Direction::Downstream => &self.decided[1],
        }
    }

    /// The current way back.
    #[must_use]
    pub fn way_back(&self) -> &Path {
        if self.path.get() == 0 {
            &self.even
        } else {
            &self.odd
        }
    }

    /// Whether the latest upstream packet came by `slot` with this link layer.
    pub(crate) fn came_by(&self, link: &Link, slot: u16) -> bool {
        let current = self.way_back();
        current.ue.get() == Path::ue(link.source, slot)
            && current.core.get() == link.destination
            && current.tags.get() == link.tags
    }

    /// Remembers that upstream packets now come by `slot` with this link layer.
    pub fn follow<T: Tables>(&self, tables: &T, link: &Link, slot: u16) {
        if self.came_by(link, slot) {
            return;
        }
        let (other, index) = if self.path.get() == 0 {
            (&self.odd, 1)
        } else {
            (&self.even, 0)
        };
        other.ue.set(Path::ue(link.source, slot));
        other.core.set(link.destination);
        other.tags.set(link.tags);
        self.path.set(index);
        self.moved(tables);
    }

    /// Remembers the session of the UE, and how it goes through its tunnels.
    pub(crate) fn set_session<T: Tables>(&self, tables: &T, session: u64) {
        if self.session.get() != session {
            self.session.set(session);
            self.moved(tables);
        }
    }

    /// What the flow cache knows of the way that packets take is no longer so.
    pub(crate) fn moved<T: Tables>(&self, tables: &T) {
        for half in &self.halves {
            tables.add(&half.moves, 1);
        }
    }

    /// Counts a packet on this CPU.
    pub fn count<T: Tables>(
        &self,
        tables: &T,
        direction: Direction,
        bytes: u64,
        wire_bytes: u64,
        tcp_flags: u8,
    ) {
        let half = self.half(direction);
        let me = u64::from(tables.cpu()) + 1;
        let owner = half.owner.get();
        if owner == me || owner == 0 && tables.claim(&half.owner, me) == me {
            let add = |cell: &Word, value| cell.set(cell.get() + value);
            add(&half.owned.packets, 1);
            add(&half.owned.bytes, bytes);
            add(&half.owned.wire_bytes, wire_bytes);
            half.last_seen.set(tables.now());
        } else {
            let others = match direction {
                Direction::Upstream => &self.others[0],
                Direction::Downstream => &self.others[1],
            };
            tables.add(&others.packets, 1);
            tables.add(&others.bytes, bytes);
            tables.add(&others.wire_bytes, wire_bytes);
            // The line is the owner's: it is taken from it no more often than it has to be.
            let now = tables.now();
            if half.last_seen.get() != now {
                half.last_seen.set(now);
            }
        }
        let flags = u64::from(tcp_flags);
        if half.tcp_flags.get() & flags != flags {
            self.note_tcp_flags(tables, direction, flags);
        }
    }

    /// Notes TCP control bits that are new. A SYN after the end of a connection begins another with the
    /// same ports (RFC 9293, 3.6.1), of which nothing was seen yet. So that it is new, and no packet before
    /// it costs more, the end of a connection puts SYN aside.
    #[inline(never)]
    fn note_tcp_flags<T: Tables>(&self, tables: &T, direction: Direction, flags: u64) {
        const SYN: u64 = Tcp::SYN as u64;
        const ACK: u64 = Tcp::ACK as u64;
        const ENDS: u64 = (Tcp::FIN | Tcp::RST) as u64;
        let half = self.half(direction);
        let other = self.half(direction.opposite());
        let ended = (half.tcp_flags.get() | other.tcp_flags.get()) & ENDS != 0;
        if flags & (SYN | ACK) == SYN && ended {
            other.last_seen.set(0);
            other.tcp_flags.set(0);
            half.tcp_flags.set(0);
        }
        tables.set_bits(&half.tcp_flags, flags);
        if flags & ENDS != 0 {
            for half in &self.halves {
                let seen = half.tcp_flags.get();
                half.tcp_flags
                    .set(seen & !SYN | (seen & SYN) << Half::ASIDE);
            }
        }
    }

    /// Packets, bytes and bytes on the wire counted in a direction by all CPUs.
    #[must_use]
    pub fn counted(&self, direction: Direction) -> [u64; 3] {
        let owned = &self.half(direction).owned;
        let others = match direction {
            Direction::Upstream => &self.others[0],
            Direction::Downstream => &self.others[1],
        };
        [
            owned.packets.get() + others.packets.get(),
            owned.bytes.get() + others.bytes.get(),
            owned.wire_bytes.get() + others.wire_bytes.get(),
        ]
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        for half in &self.halves {
            half.owned.clear();
            half.last_seen.set(0);
            half.owner.set(0);
            half.tcp_flags.set(0);
        }
        for others in &self.others {
            others.clear();
        }
    }
}

impl Sum {
    fn clear(&self) {
        self.packets.set(0);
        self.bytes.set(0);
        self.wire_bytes.set(0);
    }
}
