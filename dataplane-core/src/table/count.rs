//! What is counted, besides flows.

#[cfg(not(target_arch = "bpf"))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{PORTS, Tables};
use crate::{
    verdict::{Action, Reason, Verdict},
    word::Word,
};

/// Packets and bytes.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Count {
    /// Packets.
    pub packets: Word,
    /// Bytes.
    pub bytes: Word,
}

impl Count {
    /// Counts a packet, in an entry that no other CPU writes.
    pub fn add(&self, bytes: u64) {
        self.packets.set(self.packets.get() + 1);
        self.bytes.set(self.bytes.get() + bytes);
    }
}

/// What one CPU counts of ports, by slot, and of its flow cache.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct PortCounts {
    /// Packets that came in, by the reason they ended for.
    pub ended: [[Count; REASONS]; PORTS as usize],
    /// Packets that went out.
    pub sent: [Count; PORTS as usize],
    /// Packets of flows that the CPU's flow cache did not have.
    pub missed: Word,
    /// Flows whose backend was gone, so that another was chosen.
    pub rechosen: Word,
}

impl PortCounts {
    /// Counts a packet of `bytes` bytes that came by the port in `slot`.
    pub fn add(&self, slot: u16, verdict: Verdict, bytes: u64) {
        // Both are powers of two: a verifier knows what remains, whatever a comparison would tell it.
        let port = |slot| usize::from(slot) % PORTS as usize;
        self.ended[port(slot)][usize::from(verdict.reason()) % REASONS].add(bytes);
        if let Action::Redirect(slot) = verdict.action() {
            self.sent[port(slot)].add(bytes);
        }
    }
}

/// Room for reasons in [`PortCounts`].
pub const REASONS: usize = 64;
const _: () = assert!(Reason::ALL.len() <= REASONS && PORTS.is_power_of_two());

/// A rule's counter on one CPU.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct RuleCount {
    /// Packets and bytes.
    pub count: Count,
    /// When the last one came, in jiffies.
    pub last_hit: Word,
    /// On the first CPU: which rule it is, so that it is found again after a restart. Else 0.
    pub identity: Word,
}

impl RuleCount {
    /// Counts a packet of `bytes` bytes on this CPU.
    pub(crate) fn add<T: Tables>(&self, tables: &T, bytes: u64) {
        self.count.add(bytes);
        self.last_hit.set(tables.now());
    }
}
