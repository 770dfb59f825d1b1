//! From a key to its flow: the flow cache first, then the flow table.

use super::{FlowKey, Record, key::hash};
use crate::table::{CacheSet, CacheWay, Direction, FlowRef, Tables};

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
