//! Where rules are counted, and how they are known again after a restart.

use dataplane_core::table::RuleCount;

use super::{Rules, transaction::Taken};
use crate::{
    Error,
    memory::{self, Memory},
    rule::RuleId,
};

impl Rules {
    /// A counter for a rule: the one it had before a restart, or a new one.
    pub(super) fn take_slot(
        &mut self,
        memory: &Memory,
        id: &RuleId,
        taken: &mut Taken,
    ) -> Result<u32, Error> {
        let identity = identity(id);
        if let Some(slot) = self.adopted.get(&identity) {
            return Ok(*slot);
        }
        let slot = self.slots.take(self.limits.rules)?;
        taken.slots.push(slot);
        for count in self.counts(memory, slot) {
            count.count.packets.set(0);
            count.count.bytes.set(0);
            count.last_hit.set(0);
        }
        if let Some(first) = memory.rule_counts.get(slot as usize) {
            first.identity.set(identity);
        }
        Ok(slot)
    }

    /// Rules, with packets, bytes, and the jiffy of the last packet.
    pub(crate) fn counters<'a>(
        &'a self,
        memory: &'a Memory,
    ) -> impl Iterator<Item = (&'a RuleId, u64, u64, u64)> {
        self.installed.iter().map(|(id, rule)| {
            let mut sum = (id, 0, 0, 0);
            for count in self.counts(memory, rule.slot) {
                sum.1 += count.count.packets.get();
                sum.2 += count.count.bytes.get();
                sum.3 = count.last_hit.get().max(sum.3);
            }
            sum
        })
    }

    /// The counters in `slot`, one for each CPU.
    fn counts<'a>(&self, memory: &'a Memory, slot: u32) -> impl Iterator<Item = &'a RuleCount> {
        let stride = memory::counters(&self.limits) as usize;
        (0..self.cpus as usize)
            .filter_map(move |cpu| memory.rule_counts.get(cpu * stride + slot as usize))
    }
}

/// After a restart, nobody knows any more which rule was counted in `slot`.
pub(super) fn forget(memory: &Memory, slot: u32) {
    if let Some(first) = memory.rule_counts.get(slot as usize) {
        first.identity.set(0);
    }
}

/// A number that tells rules apart, the same in every process: FNV-1a of the ids, apart by a zero.
fn identity(id: &RuleId) -> u64 {
    let bytes = id
        .app
        .as_ref()
        .bytes()
        .chain([0])
        .chain(id.rule.as_ref().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash.max(1)
}
