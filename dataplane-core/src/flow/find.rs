//! From a key to its flow.

use super::{FlowKey, Record};
use crate::table::{FlowRef, Tables};

/// The flow that a packet belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its record.
    pub record: &'a Record,
    /// The record's number, and the packet's direction.
    pub flow: FlowRef,
}

/// The flow that the flow table has for a key.
#[inline(always)]
pub fn find<'a, T: Tables>(tables: &'a T, key: &FlowKey) -> Option<Found<'a>> {
    let flow = tables.flow(key)?;
    let record = tables.record(flow.id())?;
    Some(Found { record, flow })
}
