//! What the data path looks things up in: the layout of every map, and access to them.
//!
//! User space shares these types and maps most of the tables into its memory. What both sides change
//! while packets flow is atomic; everything else is immutable for as long as packets can reach it.
//! (zerocopy knows no atomics where the compiler has no compare-and-swap, hence `cfg_attr` on those.)

pub(crate) mod balance;
mod cache;
mod count;
mod names;
mod ports;
mod rules;

use core::cell::Cell;

#[cfg(not(target_arch = "bpf"))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use crate::{
    classify::{Answer, InTunnel, Query, Walk},
    flow::{Bucket, FlowKey, Record, SharedKey},
    session::{Session, SessionRef},
    verdict::Verdict,
    word::Word,
};

pub use balance::{Affinity, AffinityKey, Backend, CHOICES};
pub use cache::{CacheSet, CacheWay, Direction, FlowRef, FragmentKey, Inserted};
pub use count::{Count, Passage, PortCounts, REASONS, RuleCount};
pub use names::Names;
pub use ports::{Endpoints, Port, Role, SharedPort, Side, port, side};
pub use rules::{
    Filter, Hop, Image, Index, RuleAction, Split, Target, TunnelFilter, encapsulation, field, flag,
    kind, verb,
};

/// Version of everything in here. State pinned under another version is not touched.
pub const LAYOUT: u32 = 2;

/// Longest walk from the root of a rule set to its verdict: splits and filters looked at.
pub const STEPS: u32 = 512;

/// Ports at most.
pub const PORTS: u32 = 64;

/// Ranges of endpoint addresses at most.
pub const ENDPOINTS: u32 = 16;

/// Next hops with cells below this one are ends of tunnels, each described by a [`Target`] in the same cell.
pub const TARGETS: u32 = 1024;

/// Interface indexes that may be ports are below this one.
pub const INTERFACES: u32 = 65_536;

/// Counters of changes of sessions, a power of two.
pub const CHANGES: u32 = 4096;

/// A port that is not there, where a slot is expected.
pub const NO_PORT: u16 = u16::MAX;

/// A port whose interface takes no packets, where a slot is expected.
pub const DOWN: u16 = NO_PORT - 1;

/// Words that several CPUs and user space change.
pub trait Cells {
    /// Makes `cell` `new` if it is `expected`. Answers what it was.
    fn exchange(&self, cell: &Word, expected: u64, new: u64) -> u64;
    /// Adds to a number.
    fn add(&self, sum: &Word, value: u64);

    /// Makes `owner` the value of `cell` if it is 0. Answers the value that it has then.
    fn claim(&self, cell: &Word, owner: u64) -> u64 {
        match self.exchange(cell, 0, owner) {
            0 => owner,
            found => found,
        }
    }
}

/// The flow table, as packets and user space see it.
pub trait FlowTable: Cells {
    /// What keys are hashed with.
    fn seed(&self) -> u64;
    /// A bucket. As many bits of `number` count as the table's size has.
    fn bucket(&self, number: u32) -> Option<&Bucket>;
    /// A record.
    fn record(&self, id: u32) -> Option<&Record>;
    /// The number of the first free record, plus 1, or 0; in the upper half how often that has changed.
    fn free(&self) -> Option<&Word>;
}

/// The session table, as packets and user space see it.
pub trait SessionTable: Cells {
    /// What the session table has for `key`.
    fn session(&self, key: &SharedKey) -> Option<SessionRef>;
    /// Adds `key` to the session table. `false`: it is there, or there is no room.
    fn add_session(&self, key: &SharedKey, session: SessionRef) -> bool;
    /// Sets what the session table has for `key`. `false`: there is no room.
    fn set_session(&self, key: &SharedKey, session: SessionRef) -> bool;
    /// Removes `key` from the session table.
    fn remove_session(&self, key: &SharedKey);
    /// Takes a free session.
    fn allocate_session(&self) -> Option<u32>;
    /// Gives a session back that no key has ever led to.
    fn release_session(&self, id: u32);
    /// A session.
    fn session_record(&self, id: u32) -> Option<&Session>;
    /// Has packets look again at a session, which has changed.
    fn session_changed(&self, id: u32);
}

/// The rule sets, as packets see them.
pub trait RuleTables {
    /// Whether packets are looked for in tunnels.
    const TUNNELS: bool;

    /// What is there besides tables.
    fn state(&self) -> Option<&State>;
    /// The rule set in force.
    fn image(&self) -> Image {
        self.state().map_or_else(|| 0.into(), State::image)
    }
    /// A cell of it.
    fn split(&self, cell: u32) -> Option<&Split>;
    /// A cell of it.
    fn filter(&self, cell: u32) -> Option<&Filter>;
    /// A cell of it.
    fn tunnel_filter(&self, cell: u32) -> Option<&TunnelFilter>;
    /// A cell of it.
    fn action(&self, cell: u32) -> Option<&RuleAction>;
    /// A next hop, if it is resolved.
    fn hop(&self, index: u32) -> Option<Hop>;
    /// The tunnel that ends at a next hop.
    fn target(&self, cell: u32) -> Option<&Target>;
}

/// The tables, as packets see them.
pub trait Tables: SessionTable + FlowTable + RuleTables {
    /// Whether nothing may be changed or counted: the packet is only asked about.
    fn read_only(&self) -> bool;

    /// The port that packets of the interface `ifindex` come from.
    fn port(&self, ifindex: u32) -> Option<&Port>;
    /// The port in `slot`.
    fn port_in(&self, slot: u16) -> Option<&Port>;

    /// The first rule that matches, by a walk that has just begun. (In the kernel a function that is verified on its own.)
    fn classify(&self, query: &Cell<Query>, tunnel: &Cell<InTunnel>, walk: &Walk) -> Answer;

    /// How often the session `id` has changed, or another that shares its counter.
    fn session_changes(&self, id: u32) -> u64;

    /// What the rules name.
    fn names(&self) -> Option<&Names>;
    /// The cell of a tunnel that packets with this [`Target::key`] come by.
    fn opening(&self, key: &FlowKey) -> Option<u32>;

    /// A word of a table of [`CHOICES`].
    fn choice(&self, table: u32, word: u32) -> Option<&Word>;
    /// The [`Backend`] that is counted in `slot`.
    fn backend(&self, slot: u32) -> Option<&Word>;
    /// The [`Affinity`] of a UE.
    fn affinity(&self, key: &AffinityKey) -> Option<&Word>;
    /// Remembers it. Others may be forgotten for want of room.
    fn remember_affinity(&self, key: &AffinityKey, affinity: u64);

    /// The set for `hash` in this CPU's flow cache.
    fn cache(&self, hash: u32) -> Option<&CacheSet>;
    /// [`look_up`](crate::flow::look_up). In the kernel a function that is verified on its own, as the next are.
    fn flow(&self, key: &FlowKey) -> Option<FlowRef>;
    /// The same, where the key is shared.
    fn flow_at(&self, key: &SharedKey) -> Option<FlowRef>;
    /// [`add`](crate::flow::add), for this CPU.
    fn add_flow(&self, id: u32) -> Inserted;
    /// [`forget`](crate::flow::forget).
    fn forget_flow(&self, id: u32, key: &SharedKey);

    /// Which side of N3 or S1-U the endpoints with an address are on.
    fn side(&self, address: &[u64; 2]) -> Side;
    /// The ports of the datagram that a later fragment belongs to: source in the upper half.
    fn fragment(&self, key: &FragmentKey) -> Option<u32>;
    /// Remembers them.
    fn remember_fragment(&self, key: &FragmentKey, ports: u32);

    /// Counts a packet of `bytes` bytes that came by the port in `slot`, and may leave by another.
    fn count(&self, slot: u16, verdict: Verdict, bytes: u64);
    /// The same of a packet that leaves by another.
    fn count_passage(&self, passage: Passage, bytes: u64);
    /// Counts a packet of a flow that this CPU's flow cache does not have.
    fn missed(&self);
    /// Counts a flow whose backend is gone, and another one chosen.
    fn rechosen(&self);
    /// A rule's counter on this CPU.
    fn rule(&self, rule: u32) -> Option<&RuleCount> {
        self.rule_at(self.rule_place(rule))
    }
    /// Where that is.
    fn rule_place(&self, rule: u32) -> u32;
    /// What is there.
    fn rule_at(&self, place: u32) -> Option<&RuleCount>;
    /// When this CPU last told a sender of an MTU, in jiffies.
    fn told(&self) -> Option<&Word>;

    /// The value of `word`, read now.
    fn again(&self, word: &Word) -> u64;
    /// Sets bits in a number that several CPUs write.
    fn set_bits(&self, bits: &Word, value: u64);

    /// Now, in jiffies.
    fn now(&self) -> u64;
    /// This CPU.
    fn cpu(&self) -> u32;
    /// What was decided about a packet that is only asked about.
    fn explain(&self, trace: Trace);
}

/// What is there besides tables.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct State {
    /// An [`Image`].
    pub image: Word,
    /// Changes after next hops and ports have, in the lower half.
    pub links: Word,
    /// The [`LAYOUT`] of all tables.
    pub layout: Word,
    /// Packets of flows that have ended, counted by user space.
    pub ended: Word,
    /// What flows are hashed with: a number that nobody else knows.
    pub seed: Word,
}

impl State {
    /// The rule set in force.
    #[must_use]
    pub fn image(&self) -> Image {
        self.image.get().into()
    }

    /// A word that is another when rules, next hops or ports are. It is not 0 once there are rules.
    #[must_use]
    pub fn validity(&self) -> u64 {
        // Every rule set has an epoch of its own, in the upper half.
        self.image.get() ^ self.links.get()
    }
}

/// What has its place in memory, where packets find it without looking it up. Only user space changes it: it is written anew,
/// as it is, whenever a program is loaded.
#[derive(Debug)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Fixed {
    /// What is there besides tables.
    pub state: State,
    /// What the rules name.
    pub names: Names,
    /// Ports by the index of their interface, to come in by.
    pub interfaces: [SharedPort; INTERFACES as usize],
}

/// What became of a packet that was only asked about.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Explanation {
    /// As in [`Trace`].
    pub flow: Word,
    /// As in [`Trace`].
    pub action: Word,
    /// The number of the [`Reason`](crate::verdict::Reason).
    pub reason: Word,
    /// The slot of the port it would leave by, plus 1; 0 when it would not be redirected.
    pub sent: Word,
    /// The time, in jiffies.
    pub now: Word,
}

/// What was found on the way of a packet that is only asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Trace {
    /// The action taken, plus 1; 0 when no rule matched.
    pub action: u32,
    /// The flow it belongs to, as one word plus 1; 0 when there is none.
    pub flow: u64,
}
