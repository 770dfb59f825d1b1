//! Records that packets make and leave, those of flows and those of sessions alike, and keys that lead to them.

use std::cell::RefCell;

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, Stack},
};
use dataplane_core::{Word, flow, session};
use zerocopy::FromBytes;

use crate::{Error, flows::Entry, memory, shared::Shared};

use flow::FlowKey;

/// A record: it says whether it is in use.
pub(crate) trait Record: FromBytes {
    /// 0 when it is not.
    fn live(&self) -> &Word;
}

impl Record for flow::Record {
    fn live(&self) -> &Word {
        &self.live
    }
}

impl Record for session::Session {
    fn live(&self) -> &Word {
        &self.live
    }
}

/// Records, and those that are free.
pub(crate) struct Records<R> {
    records: Shared<R>,
    free: RefCell<Stack<MapData, u32>>,
}

impl<R: Record> Records<R> {
    /// Those in the maps with these names: of records, and of free records.
    pub(crate) fn take(ebpf: &mut Ebpf, [records, free]: [&'static str; 2]) -> Result<Self, Error> {
        let records = memory::table(ebpf, records)?;
        let free = Stack::try_from(take(ebpf, free)?).map_err(|error| failed(&error))?;
        Ok(Self {
            records,
            free: RefCell::new(free),
        })
    }

    /// Makes all records free; for tables that are new.
    pub(crate) fn fill(&self) -> Result<(), Error> {
        let mut free = self.free.borrow_mut();
        for id in (0..self.records.len() as u32).rev() {
            free.push(id, 0).map_err(|error| failed(&error))?;
        }
        Ok(())
    }

    /// How many there can be.
    pub(crate) const fn len(&self) -> usize {
        self.records.len()
    }

    /// A record.
    pub(crate) fn get(&self, id: u32) -> Option<&R> {
        self.records.get(id as usize)
    }

    /// Records in use.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &R)> {
        (0..)
            .zip(self.records.iter())
            .filter(|(_, record)| record.live().get() != 0)
    }

    /// Takes a free record.
    pub(crate) fn allocate(&self) -> Option<u32> {
        self.free.borrow_mut().pop(0).ok()
    }

    /// Makes a record free that no packet can reach.
    pub(crate) fn release(&self, id: u32) {
        if let Some(record) = self.get(id) {
            record.live().set(0);
            // There is room for every record; without it, the record would only be lost.
            let _ = self.free.borrow_mut().push(id, 0);
        }
    }
}

/// Keys that lead to records.
pub(crate) struct Keys(RefCell<HashMap<MapData, Entry<FlowKey>, u64>>);

impl Keys {
    /// Those in the map `name`.
    pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, Error> {
        let map = HashMap::try_from(take(ebpf, name)?).map_err(|error| failed(&error))?;
        Ok(Self(RefCell::new(map)))
    }

    /// What `key` leads to.
    pub(crate) fn find(&self, key: FlowKey) -> Option<u64> {
        self.0.borrow().get(&Entry(key), 0).ok()
    }

    /// Lets `key` lead somewhere. `false`: there is no room.
    pub(crate) fn set(&self, key: FlowKey, word: u64) -> bool {
        self.update(key, word, 0)
    }

    /// The same, if it leads nowhere.
    pub(crate) fn add(&self, key: FlowKey, word: u64) -> bool {
        const BPF_NOEXIST: u64 = 1;
        self.update(key, word, BPF_NOEXIST)
    }

    fn update(&self, key: FlowKey, word: u64, flags: u64) -> bool {
        let mut keys = self.0.borrow_mut();
        keys.insert(Entry(key), word, flags).is_ok()
    }

    pub(crate) fn remove(&self, key: FlowKey) {
        // A packet may have removed it first.
        let _ = self.0.borrow_mut().remove(&Entry(key));
    }
}

/// The map `name`.
pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Map, Error> {
    ebpf.take_map(name)
        .ok_or_else(|| Error::Options(format!("the object has no map {name}")))
}

fn failed(error: &(dyn std::error::Error + 'static)) -> Error {
    Error::kernel("cannot use the maps", error)
}
