//! From a key to its flow.

use super::{FlowKey, Record};
use crate::table::{Direction, FlowRef, Tables};

/// The flow that a packet belongs to.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Its record.
    pub record: &'a Record,
    /// The record's number, and the packet's direction.
    pub flow: FlowRef,
}

/// The flow that the flow table has for a key. Its entry may have become that of another key when it is read:
/// the kernel does not wait for those who look at an entry before it uses it again.
#[inline(always)]
pub fn find<'a, T: Tables>(tables: &'a T, key: &FlowKey) -> Option<Found<'a>> {
    let flow = tables.flow(key)?;
    let record = tables.record(flow.id())?;
    let own = match flow.direction() {
        Direction::Upstream => &record.key,
        Direction::Downstream => &record.reply,
    };
    (record.is_meant_by(flow) && own.has(key)).then_some(Found { record, flow })
}
