//! The flow table: crowded, against a plain map, and with several who write at once.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Barrier,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use dataplane_core::{
    Word,
    flow::{self, Bucket, FlowHash, FlowKey, KeyRest, Record},
    table::{Cells, Direction, FlowTable, Inserted},
};
use proptest::prelude::*;

const SEED: u64 = 0x5eed;
const ME: u64 = 1;

struct Table {
    buckets: Vec<Bucket>,
    records: Vec<Record>,
    free: Word,
}

impl Table {
    fn new(buckets: usize, records: usize) -> Self {
        Self {
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            records: (0..records).map(|_| Record::default()).collect(),
            free: Word::default(),
        }
    }

    /// Has a record, which is free, lead from these keys.
    fn add(&self, me: u64, id: u32, [key, reply]: [FlowKey; 2]) -> Inserted {
        let record = &self.records[id as usize];
        record.live.set(0);
        record.key.set(&key);
        record.reply.set(&reply);
        flow::add(self, me, id)
    }

    /// As it is when a flow is over.
    fn remove(&self, id: u32) {
        let record = &self.records[id as usize];
        for key in [record.reply.get(), record.key.get()] {
            flow::remove(self, id, FlowHash::new(&key, SEED));
        }
    }

    fn find(&self, key: &FlowKey) -> Option<(u32, Direction)> {
        flow::look_up(self, key).map(|flow| (flow.id(), flow.direction()))
    }

    fn entries(&self) -> usize {
        let entries = self.buckets.iter().flat_map(|bucket| &bucket.entries);
        entries.filter(|entry| entry.get() != 0).count()
    }

    fn beyond(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.beyond.get()).sum()
    }
}

impl Cells for Table {
    fn exchange(&self, cell: &Word, expected: u64, new: u64) -> u64 {
        cell.exchange(expected, new)
    }

    fn add(&self, sum: &Word, value: u64) {
        sum.add(value);
    }
}

impl FlowTable for Table {
    fn seed(&self) -> u64 {
        SEED
    }

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize % self.buckets.len())
    }

    fn record(&self, id: u32) -> Option<&Record> {
        self.records.get(id as usize)
    }

    fn free(&self) -> Option<&Word> {
        Some(&self.free)
    }
}

fn key(source: u64, destination: u64, ports: u32) -> FlowKey {
    FlowKey {
        source: [0, 0xffff_0a00_0000 | source],
        destination: [0, 0xffff_0a00_0000 | destination],
        rest: KeyRest::new(ports, 0, 17),
    }
}

/// The keys of a flow, whose answers come from elsewhere if it is translated.
fn keys(flow: u8, translated: bool) -> [FlowKey; 2] {
    let key = key(flow.into(), 9, 5000 << 16 | 443);
    let mut reply = key.reversed();
    if translated {
        reply.source = [0, 0xffff_ac10_0001];
    }
    [key, reply]
}

fn steps() -> impl Strategy<Value = Vec<(u8, bool, bool)>> {
    prop::collection::vec((0..96u8, any::<bool>(), any::<bool>()), 1..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// With less room than flows want, every key leads where a plain map says, and nothing is left in the end.
    #[test]
    fn keys_lead_where_they_should(steps in steps()) {
        let table = Table::new(16, 256);
        let mut model: BTreeMap<u8, [FlowKey; 2]> = BTreeMap::new();
        for (flow, translated, adds) in steps {
            let keys = keys(flow, translated);
            if !adds {
                if model.remove(&flow).is_some() {
                    table.remove(flow.into());
                }
                prop_assert_eq!(table.find(&keys[0]), None);
                continue;
            }
            let known = model.contains_key(&flow);
            // Another CPU may be about to make the same flow.
            let record = u32::from(flow) + if known { 128 } else { 0 };
            match table.add(ME, record, keys) {
                Inserted::Done => {
                    prop_assert!(!known);
                    model.insert(flow, keys);
                }
                Inserted::Exists => prop_assert!(known),
                Inserted::Full => prop_assert!(table.entries() > 48, "{} entries", table.entries()),
            }
        }
        let mut ways = HashMap::new();
        for (flow, [key, reply]) in &model {
            ways.insert(*key, (u32::from(*flow), Direction::Upstream));
            ways.insert(*reply, (u32::from(*flow), Direction::Downstream));
        }
        for flow in 0..96 {
            for key in [keys(flow, false), keys(flow, true)].as_flattened() {
                prop_assert_eq!(table.find(key), ways.get(key).copied());
            }
        }
        for flow in model.keys() {
            table.remove(u32::from(*flow));
        }
        prop_assert_eq!((table.entries(), table.beyond()), (0, 0));
    }

    /// When the source of answers changes, both directions are found by the keys that they have now only.
    #[test]
    fn answers_may_come_from_elsewhere(steps in steps()) {
        let table = Table::new(64, 96);
        let mut model: BTreeMap<u8, bool> = BTreeMap::new();
        for (flow, translated, _) in steps {
            let (id, [key, reply]) = (u32::from(flow), keys(flow, translated));
            if let Some(before) = model.insert(flow, translated) {
                let old = keys(flow, before)[1];
                table.records[usize::from(flow)].reply.set(&reply);
                prop_assert_eq!(flow::add(&table, ME, id), Inserted::Done);
                flow::forget(&table, id, &old);
                prop_assert_eq!(table.find(&old).is_some(), before == translated);
            } else {
                prop_assert_eq!(table.add(ME, id, [key, reply]), Inserted::Done);
            }
            prop_assert_eq!(table.find(&key), Some((id, Direction::Upstream)));
            prop_assert_eq!(table.find(&reply), Some((id, Direction::Downstream)));
            let entries: usize = model.values().map(|translated| 1 + usize::from(*translated)).sum();
            prop_assert_eq!(table.entries(), entries);
        }
    }
}

/// Of several who make the same flow at once, one does, whoever removes others meanwhile.
#[test]
fn a_flow_is_made_once() {
    const WRITERS: u32 = 4;
    const FLOWS: u8 = 96;
    let table = Table::new(64, 512);
    for round in 0..50 {
        let (translated, begin) = (round % 2 == 1, Barrier::new(WRITERS as usize));
        let made: Vec<AtomicU32> = (0..FLOWS).map(|_| AtomicU32::new(u32::MAX)).collect();
        let write = |writer: u32| {
            begin.wait();
            for flow in 0..FLOWS {
                let id = writer * u32::from(FLOWS) + u32::from(flow);
                let me = u64::from(writer) + 1;
                // Who has the turn may have lost its CPU.
                let added = (0..).map(|_| table.add(me, id, keys(flow, translated)));
                match { added }.find(|it| *it != Inserted::Full) {
                    Some(Inserted::Done) => {
                        assert_eq!(made[usize::from(flow)].swap(id, Relaxed), u32::MAX);
                    }
                    other => assert_eq!(other, Some(Inserted::Exists)),
                }
            }
        };
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let write = &write;
                scope.spawn(move || write(writer));
            }
        });
        for (flow, made) in (0..).zip(&made) {
            let (id, [key, reply]) = (made.load(Relaxed), keys(flow, translated));
            assert_eq!(table.find(&key), Some((id, Direction::Upstream)));
            assert_eq!(table.find(&reply), Some((id, Direction::Downstream)));
        }
        thread::scope(|scope| {
            for writer in 0..WRITERS {
                let (table, made) = (&table, &made);
                scope.spawn(move || {
                    let ids = made.iter().map(|made| made.load(Relaxed));
                    ids.filter(|id| id % WRITERS == writer)
                        .for_each(|id| table.remove(id));
                });
            }
        });
        assert_eq!((table.entries(), table.beyond()), (0, 0));
    }
}

/// Who cannot have a turn, since another has it and its CPU was taken away, goes on without a flow.
#[test]
fn nobody_waits_for_ever() {
    let table = Table::new(16, 1);
    for bucket in &table.buckets {
        bucket.turn.set(7);
    }
    assert_eq!(table.add(ME, 0, keys(1, false)), Inserted::Full);
    assert_eq!(table.entries(), 0);
}

/// Nobody could tell its directions.
#[test]
fn no_flow_answers_itself() {
    let table = Table::new(16, 1);
    let itself = key(1, 1, 80 << 16 | 80);
    assert_eq!(
        table.add(ME, 0, [itself, itself.reversed()]),
        Inserted::Exists
    );
    assert_eq!(table.entries(), 0);
}

/// Several who take records and give them back never have the same one, and none is lost.
#[test]
fn a_record_is_free_once() {
    const RECORDS: u32 = 8;
    let table = Table::new(16, RECORDS as usize);
    (0..RECORDS).for_each(|id| flow::release(&table, id));
    let taken: Vec<AtomicU32> = (0..RECORDS).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let ids = [flow::allocate(&table), flow::allocate(&table)];
                    let taken = |id: u32| &taken[id as usize];
                    for id in ids.into_iter().flatten() {
                        assert_eq!(taken(id).fetch_add(1, Relaxed), 0, "{id} was taken");
                    }
                    for id in ids.into_iter().flatten() {
                        taken(id).store(0, Relaxed);
                        flow::release(&table, id);
                    }
                }
            });
        }
    });
    let mut ids: Vec<u32> = std::iter::from_fn(|| flow::allocate(&table)).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..RECORDS).collect::<Vec<_>>());
}
