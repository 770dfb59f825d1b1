//! Flows: their key, and the record of both directions.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    parse::Link,
    table::{Direction, FlowRef, Tables},
};

/// What tells one flow from another, as seen in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct FlowKey {
    /// Source address; IPv4 in mapped form.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Source port, or the identifier of an ICMP echo.
    pub source_port: u16,
    /// Destination port, or the identifier of an ICMP echo.
    pub destination_port: u16,
    /// Address space.
    pub zone: u16,
    /// Protocol.
    pub protocol: u8,
    /// Keeps the size a multiple of the alignment.
    pub padding: u8,
}

impl FlowKey {
    /// The key of packets that answer those with this key.
    #[must_use]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            ..*self
        }
    }

    /// As words; they can be compared and stored one by one.
    #[must_use]
    pub const fn words(&self) -> [u64; 5] {
        let rest = (self.source_port as u64) << 48
            | (self.destination_port as u64) << 32
            | (self.zone as u64) << 16
            | self.protocol as u64;
        let [a, b] = self.source;
        let [c, d] = self.destination;
        [a, b, c, d, rest]
    }

    /// The key of which these are the words.
    #[must_use]
    pub const fn of_words([a, b, c, d, rest]: [u64; 5]) -> Self {
        Self {
            source: [a, b],
            destination: [c, d],
            source_port: (rest >> 48) as u16,
            destination_port: (rest >> 32) as u16,
            zone: (rest >> 16) as u16,
            protocol: rest as u8,
            padding: 0,
        }
    }
}

/// Mixes the words of a key. Fast rather than unguessable: it only picks a set of the flow cache.
fn hash(words: &[u64; 5]) -> u32 {
    const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
    let [a, b, c, d, rest] = *words;
    let mut mixed = (a ^ c.rotate_left(32)).wrapping_mul(MULTIPLIER);
    mixed = (mixed ^ (mixed >> 32) ^ b).wrapping_mul(MULTIPLIER);
    mixed = (mixed ^ (mixed >> 32) ^ d).wrapping_mul(MULTIPLIER);
    mixed = (mixed ^ (mixed >> 32) ^ rest).wrapping_mul(MULTIPLIER);
    (mixed >> 32) as u32
}

/// The record that packets with `key` belong to, and their direction in it.
pub fn find<'a, T: Tables>(tables: &'a T, key: &FlowKey) -> Option<(&'a Record, FlowRef)> {
    let words = key.words();
    let set = tables.cache(hash(&words))?;
    let [first, second] = &set.ways;
    for way in [first, second] {
        if way.holds(&words) {
            let flow = FlowRef::from(way.flow.load(Relaxed));
            let record = tables.record(flow.id)?;
            if record.generation.load(Relaxed) == flow.generation {
                return Some((record, flow));
            }
        }
    }
    let flow = tables.flow(key)?;
    let record = tables.record(flow.id)?;
    if !tables.read_only() {
        second.replace_by(first);
        first.set(&words, flow);
    }
    Some((record, flow))
}

impl crate::table::CacheWay {
    fn holds(&self, words: &[u64; 5]) -> bool {
        let [a, b, c, d, rest] = &self.key;
        rest.load(Relaxed) == words[4]
            && b.load(Relaxed) == words[1]
            && d.load(Relaxed) == words[3]
            && a.load(Relaxed) == words[0]
            && c.load(Relaxed) == words[2]
    }

    fn set(&self, words: &[u64; 5], flow: FlowRef) {
        for (cell, word) in self.key.iter().zip(words) {
            cell.store(*word, Relaxed);
        }
        self.flow.store(flow.into(), Relaxed);
    }

    fn replace_by(&self, other: &Self) {
        for (cell, word) in self.key.iter().zip(&other.key) {
            cell.store(word.load(Relaxed), Relaxed);
        }
        self.flow.store(other.flow.load(Relaxed), Relaxed);
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
        Self::from(decision.epoch) << 32
            | Self::from(decision.sensitive) << 31
            | Self::from(action)
    }
}

/// The way back to the UE: the link layer of the latest upstream packet, turned round.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Path {
    /// MAC address of the UE's side, and the slot of the port in the lower 16 bits.
    pub ue: AtomicU64,
    /// MAC address that upstream packets are sent to.
    pub core: AtomicU64,
    /// VLAN tags.
    pub tags: AtomicU64,
}

/// Packets, and their bytes without and with the link layer.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Sum {
    /// Packets.
    pub packets: AtomicU64,
    /// Bytes of the IP packets.
    pub bytes: AtomicU64,
    /// Bytes of the frames.
    pub wire_bytes: AtomicU64,
}

/// What is counted of one direction of a flow.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Half {
    /// Counted by the CPU that owns the direction, the one that saw it first.
    pub owned: Sum,
    /// When the last packet came, in jiffies.
    pub last_seen: AtomicU64,
    /// Counted by all others, atomically.
    pub others: Sum,
    /// The owner plus 1, or 0.
    pub owner: AtomicU32,
    /// TCP control bits seen.
    pub tcp_flags: AtomicU32,
}

/// A flow. The first line of the cache is what every packet needs.
#[derive(Debug, Default, FromBytes, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct Record {
    /// The [`Decision`] for packets of each direction.
    pub decided: [AtomicU64; 2],
    /// The [`Decision`] by FLOW rules alone.
    pub context: AtomicU64,
    /// Changes when the record is freed.
    pub generation: AtomicU32,
    /// Which of the paths is current.
    pub path: AtomicU32,
    /// The way back, and the one before it: the one not in use is written, then made current.
    pub paths: [Path; 2],
    /// DSCP or traffic class of the packet that made the flow.
    pub tos: AtomicU32,
    /// Whether the record is in use.
    pub live: AtomicU32,
    /// When the flow began, in jiffies.
    pub first_seen: AtomicU64,
    /// Upstream and downstream.
    pub halves: [Half; 2],
    /// The key of upstream packets.
    pub key: [AtomicU64; 5],
    /// The key of downstream packets.
    pub reply: [AtomicU64; 5],
}

impl Record {
    /// The half of packets in `direction`.
    #[must_use]
    pub const fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Upstream => &self.halves[0],
            Direction::Downstream => &self.halves[1],
        }
    }

    /// The decision for packets in `direction`.
    #[must_use]
    pub const fn decision(&self, direction: Direction) -> &AtomicU64 {
        match direction {
            Direction::Upstream => &self.decided[0],
            Direction::Downstream => &self.decided[1],
        }
    }

    /// The key of upstream packets.
    #[must_use]
    pub fn upstream_key(&self) -> FlowKey {
        FlowKey::of_words(load(&self.key))
    }

    /// The key of downstream packets.
    #[must_use]
    pub fn reply_key(&self) -> FlowKey {
        FlowKey::of_words(load(&self.reply))
    }

    /// Sets one of the keys.
    pub fn set_key(cells: &[AtomicU64; 5], key: &FlowKey) {
        for (cell, word) in cells.iter().zip(key.words()) {
            cell.store(word, Relaxed);
        }
    }

    /// The current way back.
    #[must_use]
    pub fn way_back(&self) -> &Path {
        if self.path.load(Relaxed) == 0 {
            &self.paths[0]
        } else {
            &self.paths[1]
        }
    }

    /// Remembers that upstream packets now come by `slot` with this link layer.
    pub fn follow(&self, link: &Link, slot: u16) {
        let ue = link.source << 16 | u64::from(slot);
        let current = self.way_back();
        if current.ue.load(Relaxed) == ue
            && current.core.load(Relaxed) == link.destination
            && current.tags.load(Relaxed) == link.tags
        {
            return;
        }
        let (other, index) = if self.path.load(Relaxed) == 0 {
            (&self.paths[1], 1)
        } else {
            (&self.paths[0], 0)
        };
        other.ue.store(ue, Relaxed);
        other.core.store(link.destination, Relaxed);
        other.tags.store(link.tags, Relaxed);
        self.path.store(index, core::sync::atomic::Ordering::Release);
    }
}

impl Half {
    /// Counts a packet on `cpu`.
    pub fn count(&self, cpu: u32, now: u64, bytes: u64, wire_bytes: u64) {
        let me = cpu + 1;
        let mut owner = self.owner.load(Relaxed);
        if owner == 0 {
            owner = match self.owner.compare_exchange(0, me, Relaxed, Relaxed) {
                Ok(_) => me,
                Err(other) => other,
            };
        }
        if owner == me {
            let add = |cell: &AtomicU64, value| cell.store(cell.load(Relaxed) + value, Relaxed);
            add(&self.owned.packets, 1);
            add(&self.owned.bytes, bytes);
            add(&self.owned.wire_bytes, wire_bytes);
        } else {
            self.others.packets.fetch_add(1, Relaxed);
            self.others.bytes.fetch_add(bytes, Relaxed);
            self.others.wire_bytes.fetch_add(wire_bytes, Relaxed);
        }
        if self.last_seen.load(Relaxed) != now {
            self.last_seen.store(now, Relaxed);
        }
    }
}

fn load(cells: &[AtomicU64; 5]) -> [u64; 5] {
    let [a, b, c, d, rest] = cells;
    [
        a.load(Relaxed),
        b.load(Relaxed),
        c.load(Relaxed),
        d.load(Relaxed),
        rest.load(Relaxed),
    ]
}
