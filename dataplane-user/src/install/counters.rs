//! Where rules are counted, and how they are known again after a restart.

use dataplane_core::table::RuleCount;

use super::{Rules, transaction::Taken};
use crate::{
    Error,
    memory::{self, Memory},
    rule::{Backend, BackendId, RuleId},
};

impl Rules {
    /// A counter for what is known by `identity`: the one it had before a restart, or a new one.
    pub(super) fn take_slot(
        &mut self,
        memory: &Memory,
        identity: u64,
        taken: &mut Taken,
    ) -> Result<u32, Error> {
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
            let sum = rule.slots().map(|slot| self.sum(memory, slot));
            let (packets, bytes, last) =
                sum.fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2.max(b.2)));
            (id, packets, bytes, last)
        })
    }

    /// Backends, or what was chosen without, by the rules of VIPs: with packets, bytes, and the jiffy of the last packet.
    pub(crate) fn backend_counters<'a>(
        &'a self,
        memory: &'a Memory,
    ) -> impl Iterator<Item = (&'a RuleId, Option<&'a Backend>, (u64, u64, u64))> {
        self.installed.iter().flat_map(move |(id, rule)| {
            let backends = rule.backends();
            backends.map(move |(slot, backend)| (id, backend, self.sum(memory, slot)))
        })
    }

    /// What was counted in `slot`: packets, bytes, and the jiffy of the last packet.
    fn sum(&self, memory: &Memory, slot: u32) -> (u64, u64, u64) {
        let mut sum = (0, 0, 0);
        for count in self.counts(memory, slot) {
            sum.0 += count.count.packets.get();
            sum.1 += count.count.bytes.get();
            sum.2 = count.last_hit.get().max(sum.2);
        }
        sum
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
pub(super) fn identity(id: &RuleId) -> u64 {
    hash(id, [].into_iter())
}

/// The same of a backend of a rule; without a name, of what is chosen without any.
pub(super) fn identity_of_backend(id: &RuleId, backend: Option<&BackendId>) -> u64 {
    let name = backend.map_or("", |id| id.as_ref());
    hash(id, [0].into_iter().chain(name.bytes()))
}

fn hash(id: &RuleId, more: impl Iterator<Item = u8>) -> u64 {
    let rule = id.rule.as_ref().bytes();
    let bytes = id.app.as_ref().bytes().chain([0]).chain(rule).chain(more);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash.max(1)
}
