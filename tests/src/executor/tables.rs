//! The tables of the data path in the memory of a test.

use std::{cell::{Cell, RefCell}, collections::HashMap, sync::atomic::Ordering::Relaxed};

use dataplane_core::{
    Reason, Word,
    classify::{self, Answer, Query},
    flow::{FlowKey, Record, SharedKey},
    table::{
        CacheSet, Filter, FlowRef, FragmentKey, Hop, Image, Index, Inserted, Port, RuleAction,
        RuleCount, Split, Tables, Trace,
    },
};

const FLOWS: usize = 256;
const CACHE: usize = 16;

/// Tables for one CPU.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) ports: Vec<Port>,
    pub(super) epoch: u32,
    pub(super) root: Index,
    pub(super) splits: Vec<Split>,
    pub(super) filters: Vec<Filter>,
    pub(super) actions: Vec<RuleAction>,
    pub(super) hops: Vec<u64>,
    pub(super) rules: Vec<RuleCount>,
    pub(super) records: Vec<Record>,
    pub(super) counted: RefCell<Vec<Reason>>,
    cache: Vec<CacheSet>,
    flows: RefCell<HashMap<FlowKey, FlowRef>>,
    free: RefCell<Vec<u32>>,
    fragments: RefCell<HashMap<FragmentKey, u32>>,
    told: Word,
    clock: Word,
}

impl Memory {
    pub(super) fn new(ports: Vec<Port>) -> Self {
        Self {
            ports,
            epoch: 0,
            root: Index::END,
            splits: Vec::new(),
            filters: Vec::new(),
            actions: Vec::new(),
            hops: Vec::new(),
            rules: Vec::new(),
            records: (0..FLOWS).map(|_| Record::default()).collect(),
            counted: RefCell::default(),
            cache: (0..CACHE).map(|_| CacheSet::default()).collect(),
            flows: RefCell::default(),
            free: RefCell::new((0..FLOWS as u32).collect()),
            fragments: RefCell::default(),
            told: Word::default(),
            clock: Word::default(),
        }
    }

    /// Lets a jiffy pass.
    pub(super) fn tick(&self) {
        self.clock.add(1);
    }
}

impl Tables for Memory {
    fn read_only(&self) -> bool {
        false
    }

    /// Interface indexes are slots plus 1.
    fn port(&self, ifindex: u32) -> Option<&Port> {
        self.ports.get(ifindex.checked_sub(1)? as usize)
    }

    fn port_in(&self, slot: u16) -> Option<&Port> {
        self.ports.get(usize::from(slot))
    }

    fn image(&self) -> Image {
        Image {
            root: self.root,
            epoch: self.epoch,
        }
    }

    fn split(&self, cell: u32) -> Option<&Split> {
        self.splits.get(cell as usize)
    }

    fn filter(&self, cell: u32) -> Option<&Filter> {
        self.filters.get(cell as usize)
    }

    fn action(&self, cell: u32) -> Option<&RuleAction> {
        self.actions.get(cell as usize)
    }

    fn classify(&self, query: &Cell<Query>) -> Answer {
        classify::first_match(self, &query.get())
    }

    fn hop(&self, index: u32) -> Option<Hop> {
        Hop::of(*self.hops.get(index as usize)?)
    }

    fn cache(&self, hash: u32) -> Option<&CacheSet> {
        self.cache.get(hash as usize % CACHE)
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        self.flows.borrow().get(key).copied()
    }

    fn insert(&self, key: &SharedKey, flow: FlowRef) -> Inserted {
        let mut flows = self.flows.borrow_mut();
        let key = key.get();
        if flows.contains_key(&key) {
            return Inserted::Exists;
        }
        flows.insert(key, flow);
        Inserted::Done
    }

    fn remove(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn allocate(&self) -> Option<u32> {
        self.free.borrow_mut().pop()
    }

    fn release(&self, id: u32) {
        self.free.borrow_mut().push(id);
    }

    fn record(&self, id: u32) -> Option<&Record> {
        self.records.get(id as usize)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<u32> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: u32) {
        self.fragments.borrow_mut().insert(*key, ports);
    }

    fn count(&self, _slot: u16, reason: Reason, _bytes: u64) {
        self.counted.borrow_mut().push(reason);
    }

    fn count_sent(&self, _slot: u16, _bytes: u64) {}

    fn rule(&self, rule: u32) -> Option<&RuleCount> {
        self.rules.get(rule as usize)
    }

    fn told(&self) -> Option<&Word> {
        Some(&self.told)
    }

    fn add(&self, sum: &Word, value: u64) {
        sum.add(value);
    }

    fn set_bits(&self, bits: &Word, value: u64) {
        bits.atomic().fetch_or(value, Relaxed);
    }

    fn claim(&self, cell: &Word, owner: u64) -> u64 {
        match cell.atomic().compare_exchange(0, owner, Relaxed, Relaxed) {
            Ok(_) => owner,
            Err(found) => found,
        }
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn cpu(&self) -> u32 {
        0
    }

    fn explain(&self, _trace: Trace) {}
}
