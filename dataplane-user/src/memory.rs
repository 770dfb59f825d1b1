//! All tables that are shared with the program, mapped into this process.

use aya::{
    Ebpf,
    maps::{Map, MapData},
};
use dataplane_core::{
    Word, flow,
    table::{
        CHOICES, Count, Explanation, Filter, Fixed, INTERFACES, Image, Names, PortCounts,
        RuleAction, RuleCount, SharedPort, Split, State, TARGETS, Target, TunnelFilter,
    },
};
use std::{collections::BTreeMap, mem::offset_of, os::fd::AsFd as _};
use zerocopy::FromBytes;

use crate::{Error, Limits, fixed, shared::Shared};

/// The tables.
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) state: Shared<State>,
    pub(crate) tunnel_filters: Shared<TunnelFilter>,
    pub(crate) actions: Shared<RuleAction>,
    pub(crate) hops: Shared<Word>,
    pub(crate) choices: Shared<Word>,
    pub(crate) backends: Shared<Word>,
    pub(crate) names: Shared<Names>,
    pub(crate) interfaces: Shared<SharedPort>,
    pub(crate) targets: Shared<Target>,
    pub(crate) counts: Shared<PortCounts>,
    pub(crate) rule_counts: Shared<RuleCount>,
    pub(crate) explanation: Shared<Explanation>,
}

/// The number of entries of each map whose size is decided at load.
pub(crate) fn sizes(limits: &Limits, cpus: u32) -> Vec<(&'static str, u32)> {
    // Twice as many as can be in use: after a restart the whole rule set is built anew beside the old one.
    let actions = limits.rules * 2 + 1;
    vec![
        ("SPLITS", limits.filters + 2),
        ("FILTERS", limits.filters * 2 + 1),
        ("TUNNEL_FILTERS", actions),
        ("ACTIONS", actions),
        ("HOPS", TARGETS + limits.rules * 4),
        ("CHOICES", limits.vips * 2 * CHOICES),
        ("BACKENDS", counters(limits)),
        ("AFFINITIES", limits.flows.div_ceil(4)),
        ("CACHE", cache_sets(limits, cpus) * cpus),
        ("FLOWS", buckets(limits)),
        ("RECORDS", limits.flows),
        ("SESSIONS", session_keys(limits)),
        ("SESSION_RECORDS", limits.sessions),
        ("FREE_SESSIONS", limits.sessions),
        ("FRAGMENTS", limits.fragments),
        ("COUNTS", cpus),
        ("RULE_COUNTS", cpus * counters(limits)),
        ("TOLD", cpus),
        ("SCRATCH", cpus),
        ("CHUNKS", cpus),
    ]
}

/// Sets of the flow cache for each CPU, a power of two: both keys of all flows find room, if CPUs share the flows evenly.
pub(crate) const fn cache_sets(limits: &Limits, cpus: u32) -> u32 {
    limits
        .flows
        .saturating_mul(2)
        .div_ceil(cpus)
        .next_power_of_two()
}

/// Buckets of the flow table, a power of two: half of the entries at the most are in use, if all flows are translated.
pub(crate) const fn buckets(limits: &Limits) -> u32 {
    let buckets = limits
        .flows
        .saturating_mul(4)
        .div_ceil(flow::ENTRIES as u32)
        .next_power_of_two();
    if buckets < 16 { 16 } else { buckets }
}

/// Counters of rules: a rule that takes the place of another needs its own before the other's is free.
pub(crate) const fn counters(limits: &Limits) -> u32 {
    limits.rules * 2
}

/// Keys of sessions: one for the UE, and on average not more than three for its tunnels.
pub(crate) const fn session_keys(limits: &Limits) -> u32 {
    limits.sessions * 4
}

impl Memory {
    /// Tables for one CPU in memory of this process, without what packets count, and cells for the tree.
    pub(crate) fn heap(limits: &Limits) -> (Self, Shared<Split>, Shared<Filter>) {
        let sizes: BTreeMap<_, _> = sizes(limits, 1).into_iter().collect();
        let len = |name| sizes.get(name).map_or(0, |size| *size as usize);
        let memory = Self {
            state: Shared::heap(1),
            tunnel_filters: Shared::heap(len("TUNNEL_FILTERS")),
            actions: Shared::heap(len("ACTIONS")),
            hops: Shared::heap(len("HOPS")),
            choices: Shared::heap(len("CHOICES")),
            backends: Shared::heap(len("BACKENDS")),
            names: Shared::heap(1),
            interfaces: Shared::heap(0),
            targets: Shared::heap(TARGETS as usize),
            counts: Shared::heap(0),
            rule_counts: Shared::heap(len("RULE_COUNTS")),
            explanation: Shared::heap(0),
        };
        (
            memory,
            Shared::heap(len("SPLITS")),
            Shared::heap(len("FILTERS")),
        )
    }

    pub(crate) fn map(ebpf: &Ebpf) -> Result<Self, Error> {
        Ok(Self {
            state: state(ebpf)?,
            tunnel_filters: table(ebpf, "TUNNEL_FILTERS")?,
            actions: table(ebpf, "ACTIONS")?,
            hops: table(ebpf, "HOPS")?,
            choices: table(ebpf, "CHOICES")?,
            backends: table(ebpf, "BACKENDS")?,
            names: fixed(ebpf, offset_of!(Fixed, names), 1)?,
            interfaces: fixed(ebpf, offset_of!(Fixed, interfaces), INTERFACES)?,
            targets: table(ebpf, "TARGETS")?,
            counts: table(ebpf, "COUNTS")?,
            rule_counts: table(ebpf, "RULE_COUNTS")?,
            explanation: table(ebpf, "EXPLANATION")?,
        })
    }
}

impl Memory {
    /// The rule set in force.
    pub(crate) fn image(&self) -> Image {
        self.state.get(0).map_or_else(|| 0.into(), State::image)
    }

    /// Has packets look again at next hops and ports, which have changed.
    pub(crate) fn links_changed(&self) {
        if let Some(state) = self.state.get(0) {
            let changes = state.links.get() as u32;
            state.links.set(changes.wrapping_add(1).into());
        }
    }

    /// The packets and bytes that all CPUs counted of ports; `of` tells which.
    pub(crate) fn sum(&self, of: impl Fn(&PortCounts) -> Option<&Count>) -> (u64, u64) {
        self.counts
            .iter()
            .filter_map(of)
            .fold((0, 0), |sum, count| {
                (sum.0 + count.packets.get(), sum.1 + count.bytes.get())
            })
    }
}

/// The array `name`.
fn data<'a>(ebpf: &'a Ebpf, name: &'static str) -> Result<&'a MapData, Error> {
    let missing = || Error::Kernel {
        what: format!("cannot find the map {name}"),
        reason: "the program has none of that name".to_owned(),
        hint: "",
    };
    // Nothing but arrays is looked for.
    if let Map::Array(data) = ebpf.map(name).ok_or_else(missing)? {
        Ok(data)
    } else {
        Err(missing())
    }
}

/// Elements of [`Fixed`].
fn fixed<T: FromBytes>(ebpf: &Ebpf, offset: usize, len: u32) -> Result<Shared<T>, Error> {
    let map = data(ebpf, fixed::SECTION)?.fd().as_fd();
    Shared::part(fixed::NAME, map, offset, len as usize)
}

/// What is there besides tables.
pub(crate) fn state(ebpf: &Ebpf) -> Result<Shared<State>, Error> {
    fixed(ebpf, offset_of!(Fixed, state), 1)
}

/// The entries of the array `name`.
pub(crate) fn table<T: FromBytes>(ebpf: &Ebpf, name: &'static str) -> Result<Shared<T>, Error> {
    let map = data(ebpf, name)?;
    let info = map
        .info()
        .map_err(|error| Error::kernel(format!("cannot look at the map {name}"), &error))?;
    Shared::map(name, map.fd().as_fd(), info.max_entries() as usize)
}
