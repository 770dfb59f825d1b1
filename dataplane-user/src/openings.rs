//! Tunnels that answers come back by, as packets find them.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData, MapError};
use dataplane_core::flow::FlowKey;

use crate::{Error, flows::Entry};

/// The table of them: what packets are known by, and the cell of the tunnel.
pub(crate) struct Openings(HashMap<MapData, Entry<FlowKey>, u32>);

impl Openings {
    pub(crate) const fn new(table: HashMap<MapData, Entry<FlowKey>, u32>) -> Self {
        Self(table)
    }

    /// Makes the table what it should be.
    pub(crate) fn follow(&mut self, wanted: &BTreeMap<FlowKey, u32>) -> Result<(), Error> {
        let failed =
            |error: MapError| Error::kernel("cannot note which tunnels answers come by", &error);
        let Self(table) = self;
        let there = table
            .iter()
            .map(|entry| entry.map(|(Entry(key), cell)| (key, cell)))
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map_err(failed)?;
        for key in there.keys().filter(|key| !wanted.contains_key(key)) {
            table.remove(&Entry(*key)).map_err(failed)?;
        }
        for (key, cell) in wanted {
            if there.get(key) != Some(cell) {
                table.insert(Entry(*key), cell, 0).map_err(failed)?;
            }
        }
        Ok(())
    }
}
