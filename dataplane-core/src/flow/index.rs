//! The flow table: from the key of a packet to the record of its flow.
//!
//! It is an open hash table of buckets that are a line of the CPU's cache each. An entry is a part of the key's hash and the
//! number of the record, which has the keys. Both directions of a flow have the same hash, unless addresses are translated or
//! zones differ: one entry leads to it then. Packets that add an entry take turns where it belongs, so that no key is there twice;
//! who looks or removes waits for nobody.

#[cfg(not(target_arch = "bpf"))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{FlowKey, Record, SharedKey};
use crate::{
    table::{Direction, FlowRef, FlowTable, Inserted},
    word::Word,
};

/// Entries of a bucket.
pub const ENTRIES: usize = 6;

/// Buckets in which an entry may be: that where it belongs, and those after it.
const REACH: u32 = 4;

/// How often to ask for a turn. Who has it keeps it for some tens of nanoseconds, unless its CPU is taken away.
const PATIENCE: u32 = 256;

/// Entries that lead to records.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Bucket {
    /// The CPU, plus 1, that adds an entry which belongs here; or 0.
    pub turn: Word,
    /// How many entries that belong here are in buckets after it. It may be more than there are, not less.
    pub beyond: Word,
    /// In the upper half what [`FlowHash::entry`] says, in the lower one the record; or 0.
    pub entries: [Word; ENTRIES],
}

const _: () = assert!(size_of::<Bucket>() == 64);

/// What the place of a key is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowHash(u64);

impl FlowHash {
    /// That of `key`, and of the key that answers it. Nobody who does not know `seed` can tell which keys have the
    /// same place.
    #[must_use]
    pub const fn new(key: &FlowKey, seed: u64) -> Self {
        let ports = key.rest.ports() as u64;
        let ends = end(key.source, ports >> 16, seed).wrapping_add(end(
            key.destination,
            ports & 0xffff,
            seed,
        ));
        let mixed = (ends ^ ends >> 32 ^ key.rest.space()).wrapping_mul(0xff51_afd7_ed55_8ccd);
        Self(mixed ^ mixed >> 29)
    }

    /// The number of the bucket so far after that where the entry belongs. The table's size takes as many bits of it as it has.
    const fn place(self, distance: u32) -> u32 {
        (self.0 as u32).wrapping_add(distance)
    }

    /// An entry that leads to the record `id`. It is not 0.
    const fn entry(self, id: u32) -> u64 {
        (self.0 | 1 << 63) >> 32 << 32 | id as u64
    }

    /// Whether an entry may be of a key with this hash.
    const fn is_of(self, entry: u64) -> bool {
        (entry ^ self.entry(0)) >> 32 == 0
    }
}

/// Mixes an address with a port.
const fn end([high, low]: [u64; 2], port: u64, seed: u64) -> u64 {
    let mixed = (high ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32 ^ low).wrapping_mul(0xc2b2_ae3d_27d4_eb4f);
    (mixed ^ mixed >> 29 ^ port ^ seed.rotate_left(32)).wrapping_mul(0x9fb2_1c65_1e98_df25)
}

/// The flow that the packets with `key` belong to.
pub fn find<T: FlowTable>(table: &T, key: &FlowKey) -> Option<FlowRef> {
    let hash = FlowHash::new(key, table.seed());
    for distance in 0..REACH {
        let bucket = table.bucket(hash.place(distance))?;
        for index in 0..ENTRIES {
            let entry = bucket.entries[index].get();
            if !hash.is_of(entry) {
                continue;
            }
            let Some(record) = table.record(entry as u32) else {
                continue;
            };
            if record.key.has(key) {
                return Some(FlowRef::new(entry as u32, Direction::Upstream));
            }
            if record.reply.has(key) {
                return Some(FlowRef::new(entry as u32, Direction::Downstream));
            }
        }
        if distance == 0 && bucket.beyond.get() == 0 {
            return None;
        }
    }
    None
}

/// Has the keys of the record `id` lead to it, if no other record has one of them. From when the first does, that of answers,
/// the record is in use. `me` is not 0, and another for each who may do so at the same time.
pub fn add<T: FlowTable>(table: &T, me: u64, id: u32) -> Inserted {
    let Some(record) = table.record(id) else {
        return Inserted::Full;
    };
    // Nobody could tell the directions.
    if record.key.is(&record.reply) {
        return Inserted::Exists;
    }
    let hash = |key: &SharedKey| FlowHash::new(&key.get(), table.seed());
    let back = hash(&record.reply);
    let inserted = add_entry(table, me, id, record, back);
    if inserted != Inserted::Done {
        return inserted;
    }
    record.live.set(1);
    let forth = hash(&record.key);
    if forth == back {
        return Inserted::Done;
    }
    let inserted = add_entry(table, me, id, record, forth);
    if inserted != Inserted::Done {
        remove(table, id, back);
    }
    inserted
}

/// Has keys with `hash` lead to a record.
#[inline(always)]
fn add_entry<T: FlowTable>(
    table: &T,
    me: u64,
    id: u32,
    record: &Record,
    hash: FlowHash,
) -> Inserted {
    let Some(bucket) = table.bucket(hash.place(0)) else {
        return Inserted::Full;
    };
    for _ in 0..PATIENCE {
        if table.claim(&bucket.turn, me) == me {
            let inserted = add_in_turn(table, id, record, hash);
            bucket.turn.set(0);
            return inserted;
        }
    }
    Inserted::Full
}

#[inline(always)]
fn add_in_turn<T: FlowTable>(table: &T, id: u32, record: &Record, hash: FlowHash) -> Inserted {
    if let Some(inserted) = known(table, id, record, hash) {
        return inserted;
    }
    for distance in 0..REACH {
        let (Some(home), Some(bucket)) = (
            table.bucket(hash.place(0)),
            table.bucket(hash.place(distance)),
        ) else {
            return Inserted::Full;
        };
        if distance == 1 {
            // Before it is there: or somebody does not find it.
            table.add(&home.beyond, 1);
        }
        for index in 0..ENTRIES {
            let (cell, entry) = (&bucket.entries[index], hash.entry(id));
            if cell.get() == 0 && table.claim(cell, entry) == entry {
                return Inserted::Done;
            }
        }
        if distance == REACH - 1 {
            table.add(&home.beyond, u64::MAX);
        }
    }
    Inserted::Full
}

/// What is known of a record's keys where `hash` leads.
#[inline(always)]
fn known<T: FlowTable>(table: &T, id: u32, record: &Record, hash: FlowHash) -> Option<Inserted> {
    for distance in 0..REACH {
        let Some(bucket) = table.bucket(hash.place(distance)) else {
            break;
        };
        for index in 0..ENTRIES {
            let entry = bucket.entries[index].get();
            if !hash.is_of(entry) {
                continue;
            }
            if entry as u32 == id {
                return Some(Inserted::Done);
            }
            let Some(other) = table.record(entry as u32) else {
                continue;
            };
            if other.has_a_key_of(record) {
                return Some(Inserted::Exists);
            }
        }
        if distance == 0 && bucket.beyond.get() == 0 {
            break;
        }
    }
    None
}

/// Removes the entry by which keys with `hash` lead to the record `id`, if there is one.
#[inline(always)]
pub fn remove<T: FlowTable>(table: &T, id: u32, hash: FlowHash) {
    for distance in 0..REACH {
        let (Some(home), Some(bucket)) = (
            table.bucket(hash.place(0)),
            table.bucket(hash.place(distance)),
        ) else {
            return;
        };
        if distance == 1 && home.beyond.get() == 0 {
            return;
        }
        for index in 0..ENTRIES {
            let (cell, entry) = (&bucket.entries[index], hash.entry(id));
            // Another may remove it at the same time.
            if cell.get() == entry && table.exchange(cell, entry, 0) == entry {
                if distance > 0 {
                    table.add(&home.beyond, u64::MAX);
                }
                return;
            }
        }
    }
}

/// Removes what `key` led to the record `id` by, unless one of the keys that the record has now leads by it.
pub fn forget<T: FlowTable>(table: &T, id: u32, key: &FlowKey) {
    let Some(record) = table.record(id) else {
        return;
    };
    let hash = |key: &FlowKey| FlowHash::new(key, table.seed());
    let before = hash(key);
    if before != hash(&record.key.get()) && before != hash(&record.reply.get()) {
        remove(table, id, before);
    }
}
