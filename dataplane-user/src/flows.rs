//! Reading flows, and forgetting those that are over.

mod expiry;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::SystemTime,
};

use aya::Ebpf;
use dataplane_core::{
    Word,
    flow::{self, Bucket, Half, Record},
    session::SessionRef,
    table::{Cells, Direction, FlowRef, FlowTable, State},
};
use zerocopy::{FromBytes, IntoBytes};

use self::expiry::Sweep;
use crate::{
    Error,
    clock::Clock,
    compile,
    install::{Counted, Released},
    memory,
    records::Records,
    rule::{BackendId, Rule, RuleId},
    shared::Shared,
};

pub use self::expiry::Expired;

/// A flow and what was counted of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The UE's address.
    pub source: IpAddr,
    /// The address that the UE sends to.
    pub destination: IpAddr,
    /// IP protocol.
    pub protocol: u8,
    /// The UE's port, or the identifier of an echo.
    pub source_port: u16,
    /// The port that the UE sends to, or the identifier of an echo.
    pub destination_port: u16,
    /// Address space of the UE.
    pub zone: u16,
    /// The rule it comes under, or came under last; none if that went while another process was there.
    pub rule: Option<RuleId>,
    /// The backend of it that the flow has, if it is a VIP's.
    pub backend: Option<BackendId>,
    /// The port that its latest upstream packet came by.
    pub ingress: String,
    /// The application's address, where the rule names one.
    pub target: Option<String>,
    /// Packets from the UE.
    pub upstream: Count,
    /// Packets to the UE.
    pub downstream: Count,
    /// When the first packet came.
    pub first_seen: SystemTime,
    /// When the last packet came.
    pub last_seen: SystemTime,
    /// TCP control bits seen upstream and downstream, in the latest connection.
    pub tcp_flags: [u8; 2],
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
    /// Bytes of the frames, link-layer header included.
    pub wire_bytes: u64,
}

/// Bytes as a map takes them.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(crate) struct Entry<T>(pub(crate) T);

// SAFETY: `IntoBytes` proves that there is no padding, `FromBytes` that any bytes are a value.
unsafe impl<T: IntoBytes + FromBytes + Copy + 'static> aya::Pod for Entry<T> {}

/// The flow table as user space sees it.
pub(crate) struct Flows {
    records: Records<Record>,
    /// Which record is the first that is free.
    free: Shared<Word>,
    buckets: Shared<Bucket>,
    state: Shared<State>,
    /// Rules that flows came under last and that are gone, by the flow's record.
    former: HashMap<u32, Arc<Rule>>,
    sweep: Sweep,
}

/// Which flows are asked for: those that have all of this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// An address of one of the ends.
    pub ue: Option<IpAddr>,
    /// The application of the rule that they come under.
    pub app: Option<String>,
    /// That rule, with its application or without.
    pub rule: Option<String>,
}

impl FlowFilter {
    fn matches<'a>(
        &self,
        record: &Record,
        comes_under: impl FnOnce() -> Option<&'a RuleId>,
    ) -> bool {
        let Self { ue, app, rule } = self;
        let is_end = |ue: IpAddr| {
            let (key, ue) = (record.key.get(), compile::words(ue));
            key.source == ue || key.destination == ue
        };
        let is_of = |id: &RuleId| {
            let is_it = |rule: &String| rule == id.rule.as_ref() || *rule == id.to_string();
            app.as_ref().is_none_or(|app| app == id.app.as_ref()) && rule.as_ref().is_none_or(is_it)
        };
        ue.is_none_or(is_end)
            && (app.is_none() && rule.is_none() || comes_under().is_some_and(is_of))
    }
}

/// What flows are described with.
pub(crate) struct Context<'a> {
    pub(crate) clock: &'a Clock,
    /// Names of ports by slot.
    pub(crate) ports: BTreeMap<u16, String>,
    /// Rules by where they are counted.
    pub(crate) rules: BTreeMap<u32, Counted<'a>>,
}

impl Flows {
    /// Those in the maps of a program.
    pub(crate) fn take(ebpf: &Ebpf) -> Result<Self, Error> {
        Ok(Self {
            records: Records::take(ebpf, "RECORDS")?,
            free: memory::table(ebpf, "FREE")?,
            buckets: memory::table(ebpf, "FLOWS")?,
            state: memory::state(ebpf)?,
            former: HashMap::new(),
            sweep: Sweep::default(),
        })
    }

    /// Makes all records free, and makes up what keys are hashed with; for tables that are new.
    pub(crate) fn fill(&self) {
        if let Some(state) = self.state.get(0) {
            state.seed.set(RandomState::new().hash_one(()));
        }
        (0..self.records.len() as u32)
            .rev()
            .for_each(|id| flow::release(self, id));
    }

    fn live(&self) -> impl Iterator<Item = (u32, &Record)> {
        self.records.live()
    }

    /// How many there are, and their packets.
    pub(crate) fn count(&self) -> (usize, u64) {
        self.live().fold((0, 0), |(flows, sum), (_, record)| {
            (flows + 1, sum + packets(record))
        })
    }

    /// All flows.
    pub(crate) fn snapshot(&self, context: &Context<'_>) -> Vec<Flow> {
        self.live()
            .map(|(id, record)| self.describe(id, record, context))
            .collect()
    }

    /// A part of those that are asked for, in the order of their records, in which a flow keeps its place: those
    /// from the record `from` on, `limit` at most; and where the next part begins. It may have less than there are,
    /// so that no call takes long.
    pub(crate) fn page(
        &self,
        filter: &FlowFilter,
        from: u32,
        limit: usize,
        context: &Context<'_>,
    ) -> (Vec<Flow>, Option<u32>) {
        const LOOKED_AT: u32 = 1 << 16;
        let end = from
            .saturating_add(LOOKED_AT)
            .min(self.records.len() as u32);
        let mut found = Vec::new();
        for id in from..end {
            let Some(record) = self.records.get(id).filter(|it| it.live.get() != 0) else {
                continue;
            };
            let rule = || self.rule(id, record, context).map(|it| &it.rule.id);
            if !filter.matches(record, rule) {
                continue;
            }
            if found.len() == limit {
                return (found, Some(id));
            }
            found.push(self.describe(id, record, context));
        }
        (found, (end < self.records.len() as u32).then_some(end))
    }

    /// One flow.
    pub(crate) fn get(&self, flow: FlowRef, context: &Context<'_>) -> Option<Flow> {
        let record = self.records.get(flow.id())?;
        Some(self.describe(flow.id(), record, context))
    }

    /// The sessions that flows belong to.
    pub(crate) fn sessions(&self) -> BTreeSet<u32> {
        self.live()
            .map(|(_, record)| SessionRef::from(record.session.get()))
            .filter(|session| session.generation() != 0)
            .map(SessionRef::id)
            .collect()
    }

    /// Remembers under which rules flows came, where these are gone and their counters will be those of others.
    pub(crate) fn part(&mut self, released: &Released) {
        if released.is_empty() {
            return;
        }
        for (id, record) in self.records.live() {
            let slot = (record.rule.get() as u32).checked_sub(1);
            if let Some(rule) = slot.and_then(|slot| released.get(&slot)) {
                self.former.extend(rule.clone().map(|rule| (id, rule)));
                record.rule.set(0);
            }
        }
    }

    /// The rule that a flow comes under, or came under last.
    fn rule<'a>(&'a self, id: u32, record: &Record, context: &Context<'a>) -> Option<Counted<'a>> {
        match (record.rule.get() as u32).checked_sub(1) {
            Some(slot) => context.rules.get(&slot).copied(),
            None => self.former.get(&id).map(|rule| Counted {
                rule,
                backend: None,
            }),
        }
    }

    fn describe(&self, id: u32, record: &Record, context: &Context<'_>) -> Flow {
        let key = record.key.get();
        let [up, down] = &record.halves;
        let rule = self.rule(id, record, context);
        let ingress = record.way_back().ue.get() as u16;
        let target = rule.and_then(|it| match it.backend {
            Some(backend) => Some(&backend.endpoint),
            None => it.rule.action.destination()?.endpoints().next(),
        });
        Flow {
            source: address(key.source),
            destination: address(key.destination),
            protocol: key.rest.protocol(),
            source_port: key.rest.source_port(),
            destination_port: key.rest.destination_port(),
            zone: key.rest.zone(),
            rule: rule.map(|it| it.rule.id.clone()),
            backend: rule.and_then(|it| it.backend).map(|it| it.id.clone()),
            ingress: context.ports.get(&ingress).cloned().unwrap_or_default(),
            target: target.map(ToString::to_string),
            upstream: count(record, Direction::Upstream),
            downstream: count(record, Direction::Downstream),
            first_seen: context.clock.time(record.first_seen.get()),
            last_seen: context.clock.time(last_seen(record)),
            tcp_flags: [up, down].map(Half::tcp_flags),
        }
    }
}

impl Cells for Flows {
    fn exchange(&self, cell: &Word, expected: u64, new: u64) -> u64 {
        cell.exchange(expected, new)
    }

    fn add(&self, sum: &Word, value: u64) {
        sum.add(value);
    }
}

impl FlowTable for Flows {
    fn seed(&self) -> u64 {
        self.state.get(0).map_or(0, |state| state.seed.get())
    }

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        let mask = self.buckets.len() - 1;
        self.buckets.get(number as usize & mask)
    }

    fn record(&self, id: u32) -> Option<&Record> {
        self.records.get(id)
    }

    fn free(&self) -> Option<&Word> {
        self.free.get(0)
    }
}

fn last_seen(record: &Record) -> u64 {
    let [up, down] = &record.halves;
    up.last_seen
        .get()
        .max(down.last_seen.get())
        .max(record.first_seen.get())
}

/// Packets in both directions.
fn packets(record: &Record) -> u64 {
    let directions = [Direction::Upstream, Direction::Downstream];
    let packets = directions.map(|direction| record.counted(direction)[0]);
    packets.iter().sum()
}

fn count(record: &Record, direction: Direction) -> Count {
    let [packets, bytes, wire_bytes] = record.counted(direction);
    Count {
        packets,
        bytes,
        wire_bytes,
    }
}

/// The address that the tables hold in this form.
pub(crate) fn address([high, low]: [u64; 2]) -> IpAddr {
    let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}
