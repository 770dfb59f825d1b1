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
    /// Packets that went out.
    pub sent: [Count; PORTS as usize],
    /// Packets that came in, by the reason they ended for.
    pub ended: [[Count; REASONS]; PORTS as usize],
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

    /// Counts a packet of `bytes` bytes that leaves by another port.
    pub fn add_passage(&self, Passage(word): Passage, bytes: u64) {
        let ended = (word >> Passage::REASON) as usize % (REASONS * PORTS as usize);
        self.ended.as_flattened()[ended].add(bytes);
        self.sent[(word >> Passage::TO) as usize % PORTS as usize].add(bytes);
    }
}

/// Where a packet is counted that leaves by another port: by which port it came, why it ended, and by which one it leaves.
#[derive(Debug, Clone, Copy)]
pub struct Passage(u32);

impl Passage {
    // In the second place from which on it is counted, multiplied by the octets of a count.
    const REASON: u32 = 4;
    const FROM: u32 = Self::REASON + REASONS.ilog2();
    const TO: u32 = Self::FROM + PORTS.ilog2();

    /// That of a packet that came by the port in `from`.
    pub(crate) const fn new(from: u16, to: u16, reason: Reason) -> Self {
        Self(
            (to as u32) << Self::TO | (from as u32) << Self::FROM | (reason as u32) << Self::REASON,
        )
    }

    pub(crate) const fn word(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The port that the packet came by.
    pub(crate) const fn from(self) -> u16 {
        (self.0 >> Self::FROM) as u16 % PORTS as u16
    }

    /// What became of the packet.
    pub const fn verdict(self) -> Verdict {
        let reason = (self.0 >> Self::REASON) as usize % REASONS;
        Verdict::redirected((self.0 >> Self::TO) as u16, reason as u8)
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
