//! Records that packets make and leave, those of flows and those of sessions alike, keys that lead to them, and which are free.

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

/// All records of a kind.
pub(crate) struct Records<R>(Shared<R>);

impl<R: Record> Records<R> {
    /// Those in the map `name`.
    pub(crate) fn take(ebpf: &Ebpf, name: &'static str) -> Result<Self, Error> {
        memory::table(ebpf, name).map(Self)
    }

    /// How many there can be.
    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// A record.
    pub(crate) fn get(&self, id: u32) -> Option<&R> {
        self.0.get(id as usize)
    }

    /// Records in use.
    pub(crate) fn live(&self) -> impl Iterator<Item = (u32, &R)> {
        (0..)
            .zip(self.0.iter())
            .filter(|(_, record)| record.live().get() != 0)
    }
}

/// Numbers of records that are free.
pub(crate) struct Free(RefCell<Stack<MapData, u32>>);

impl Free {
    /// Those in the map `name`.
    pub(crate) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, Error> {
        let map = Stack::try_from(take(ebpf, name)?).map_err(|error| failed(&error))?;
        Ok(Self(RefCell::new(map)))
    }

    /// Takes the first.
    pub(crate) fn pop(&self) -> Option<u32> {
        self.0.borrow_mut().pop(0).ok()
    }

    /// Adds one.
    pub(crate) fn push(&self, id: u32) -> Result<(), Error> {
        let pushed = self.0.borrow_mut().push(id, 0);
        pushed.map_err(|error| failed(&error))
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
