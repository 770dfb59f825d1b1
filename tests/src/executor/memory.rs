//! The tables of the data path in the memory of a test.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::atomic::Ordering::Relaxed,
    time::UNIX_EPOCH,
};

use dataplane_core::{
    Reason, Verdict, Word,
    classify::{self, Answer, InTunnel, Query, Walk},
    flow::{self, Bucket, FlowKey, Record, SharedKey},
    parse,
    session::{self, Session, SessionRef},
    table::{
        self, AffinityKey, CacheSet, Cells, Direction, Endpoints, Filter, FlowRef, FlowTable,
        FragmentKey, Hop, Inserted, Names, Passage, Port, RuleAction, RuleCount, RuleTables,
        SessionTable, Side, Split, State, Tables, Target, Trace, TunnelFilter,
    },
};
use dataplane_user::{Count, Flow, HostTables, Limits, rule::AddressRange};

use crate::world;

const CACHE: usize = 16;
const BUCKETS: usize = 128;
const LIMITS: Limits = Limits {
    flows: 256,
    filters: 16_384,
    rules: 64,
    fragments: 64,
    sessions: 64,
    vips: 2,
};

/// Jiffies in a second, as tables that are in no kernel take it.
const HZ: u64 = 1000;

/// Tables for one CPU.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) tables: HostTables,
    pub(super) counted: RefCell<Vec<Reason>>,
    ports: Vec<Port>,
    rules: Vec<RuleCount>,
    records: Vec<Record>,
    cache: Vec<CacheSet>,
    buckets: Vec<Bucket>,
    free: Word,
    sessions: Vec<Session>,
    session_keys: RefCell<HashMap<FlowKey, SessionRef>>,
    free_sessions: RefCell<Vec<u32>>,
    session_changes: Word,
    pub(super) session_updates: Cell<u64>,
    /// Flows whose backend was gone.
    pub(super) rechosen: Cell<u64>,
    endpoints: Vec<Endpoints>,
    fragments: RefCell<HashMap<FragmentKey, u32>>,
    affinities: Vec<(Cell<Option<AffinityKey>>, Word)>,
    /// Whoever looks for the first of these keys reads what there is for the second.
    pub(super) reused: Cell<Option<[FlowKey; 2]>>,
    told: Word,
    clock: Word,
}

impl Memory {
    pub(super) fn new(ports: Vec<Port>) -> Self {
        let memory = Self {
            tables: HostTables::new(LIMITS),
            counted: RefCell::default(),
            ports,
            rules: (0..LIMITS.rules).map(|_| RuleCount::default()).collect(),
            records: (0..LIMITS.flows).map(|_| Record::default()).collect(),
            cache: (0..CACHE).map(|_| CacheSet::default()).collect(),
            buckets: (0..BUCKETS).map(|_| Bucket::default()).collect(),
            free: Word::default(),
            sessions: (0..LIMITS.sessions).map(|_| Session::default()).collect(),
            session_keys: RefCell::default(),
            free_sessions: RefCell::new((0..LIMITS.sessions).collect()),
            session_changes: Word::default(),
            session_updates: Cell::default(),
            rechosen: Cell::default(),
            endpoints: endpoints(),
            fragments: RefCell::default(),
            affinities: (0..64).map(|_| Default::default()).collect(),
            reused: Cell::default(),
            told: Word::default(),
            clock: Word::default(),
        };
        (0..LIMITS.flows).for_each(|id| flow::release(&memory, id));
        memory
    }

    /// Lets a jiffy pass.
    pub(super) fn tick(&self) {
        self.clock.add(1);
    }

    /// Lets seconds pass.
    pub(super) fn wait(&self, seconds: u32) {
        self.clock.add(u64::from(seconds) * HZ);
    }

    /// Has the entry of the session of one UE in zone 0 given to that of another while somebody looks for it, as the
    /// kernel does when it is removed just then.
    pub(super) fn reuse_session(&self, of: IpAddr, by: IpAddr) {
        let key = |ue| session::key(words(ue), 0);
        self.reused.set(Some([of, by].map(key)));
    }

    /// The key whose value is read by who looks for `key`.
    fn read(&self, key: FlowKey) -> FlowKey {
        match self.reused.get() {
            Some([of, by]) if of == key => by,
            _ => key,
        }
    }

    /// Packets counted in each slot for rules.
    pub(super) fn rule_packets(&self) -> Vec<u64> {
        self.rules
            .iter()
            .map(|rule| rule.count.packets.get())
            .collect()
    }

    /// Forgets the session of a UE.
    pub(super) fn withdraw(&self, zone: u16, ue: IpAddr) -> bool {
        let key = session::key(words(ue), zone);
        let known = self.session_keys.borrow().get(&key).copied();
        let Some(record) = known.and_then(|known| self.session_record(known.id())) else {
            return false;
        };
        let id = known.map_or(0, SessionRef::id);
        session::close(self, id);
        record.live.set(0);
        self.release_session(id);
        true
    }

    /// What the records hold, as user space would read it.
    pub(super) fn flows(&self) -> Vec<Flow> {
        let live = self.records.iter().filter(|record| record.live.get() != 0);
        live.map(flow).collect()
    }
}

fn flow(record: &Record) -> Flow {
    let key = record.key.get();
    let count = |direction| {
        let [packets, bytes, wire_bytes] = record.counted(direction);
        Count {
            packets,
            bytes,
            wire_bytes,
        }
    };
    Flow {
        source: address(key.source),
        destination: address(key.destination),
        protocol: key.rest.protocol(),
        source_port: key.rest.source_port(),
        destination_port: key.rest.destination_port(),
        zone: key.rest.zone(),
        rule: None,
        backend: None,
        ingress: String::new(),
        target: None,
        upstream: count(Direction::Upstream),
        downstream: count(Direction::Downstream),
        first_seen: UNIX_EPOCH,
        last_seen: UNIX_EPOCH,
        tcp_flags: [0; 2],
    }
}

/// The list that user space makes of the endpoints of the world.
fn endpoints() -> Vec<Endpoints> {
    let gtpu = world::gtpu();
    let side = |ranges: Vec<AddressRange>, side: Side| {
        ranges.into_iter().map(move |range| Endpoints {
            first: words(range.first()),
            last: words(range.last()),
            side: side as u64,
        })
    };
    side(gtpu.ran, Side::Ran)
        .chain(side(gtpu.core, Side::Core))
        .collect()
}

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => parse::mapped(address.into()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    }
}

fn address([high, low]: [u64; 2]) -> IpAddr {
    let address = Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low));
    address
        .to_ipv4_mapped()
        .map_or(IpAddr::V6(address), IpAddr::V4)
}

impl SessionTable for Memory {
    fn session(&self, key: &SharedKey) -> Option<SessionRef> {
        let key = self.read(key.get());
        self.session_keys.borrow().get(&key).copied()
    }

    fn add_session(&self, key: &SharedKey, session: SessionRef) -> bool {
        let free = !self.session_keys.borrow().contains_key(&key.get());
        free && self.set_session(key, session)
    }

    fn set_session(&self, key: &SharedKey, session: SessionRef) -> bool {
        self.session_updates.set(self.session_updates.get() + 1);
        self.session_keys.borrow_mut().insert(key.get(), session);
        true
    }

    fn remove_session(&self, key: &SharedKey) {
        self.session_keys.borrow_mut().remove(&key.get());
    }

    fn allocate_session(&self) -> Option<u32> {
        self.free_sessions.borrow_mut().pop()
    }

    fn release_session(&self, id: u32) {
        self.free_sessions.borrow_mut().push(id);
    }

    fn session_record(&self, id: u32) -> Option<&Session> {
        self.sessions.get(id as usize)
    }

    fn session_changed(&self, _: u32) {
        self.session_changes.add(1);
    }
}

impl Cells for Memory {
    fn exchange(&self, cell: &Word, expected: u64, new: u64) -> u64 {
        cell.exchange(expected, new)
    }

    fn add(&self, sum: &Word, value: u64) {
        sum.add(value);
    }
}

impl FlowTable for Memory {
    fn seed(&self) -> u64 {
        7
    }

    fn bucket(&self, number: u32) -> Option<&Bucket> {
        self.buckets.get(number as usize % BUCKETS)
    }

    fn record(&self, id: u32) -> Option<&Record> {
        self.records.get(id as usize)
    }

    fn free(&self) -> Option<&Word> {
        Some(&self.free)
    }
}

impl RuleTables for Memory {
    const TUNNELS: bool = true;

    fn state(&self) -> Option<&State> {
        self.tables.state()
    }

    fn split(&self, cell: u32) -> Option<&Split> {
        self.tables.split(cell)
    }

    fn filter(&self, cell: u32) -> Option<&Filter> {
        self.tables.filter(cell)
    }

    fn tunnel_filter(&self, cell: u32) -> Option<&TunnelFilter> {
        self.tables.tunnel_filter(cell)
    }

    fn action(&self, cell: u32) -> Option<&RuleAction> {
        self.tables.action(cell)
    }

    fn hop(&self, index: u32) -> Option<Hop> {
        self.tables.hop(index)
    }

    fn target(&self, cell: u32) -> Option<&Target> {
        self.tables.target(cell)
    }
}

impl Tables for Memory {
    fn read_only(&self) -> bool {
        false
    }

    /// Interface indexes are slots plus 1.
    fn port(&self, ifindex: u32) -> Option<&Port> {
        self.ports.get(ifindex.checked_sub(1)? as usize)
    }

    fn port_in(&self, slot: u16) -> Option<&Port> {
        self.ports.get(usize::from(slot))
    }

    fn classify(&self, query: &Cell<Query>, tunnel: &Cell<InTunnel>, walk: &Walk) -> Answer {
        classify::to_the_end(|| classify::walk(self, &query.get(), &tunnel.get(), walk))
    }

    fn session_changes(&self, _: u32) -> u64 {
        self.session_changes.get()
    }

    fn names(&self) -> Option<&Names> {
        self.tables.names()
    }

    fn opening(&self, key: &FlowKey) -> Option<u32> {
        self.tables.opening(key)
    }

    fn choice(&self, table: u32, word: u32) -> Option<&Word> {
        self.tables.choice(table, word)
    }

    fn backend(&self, slot: u32) -> Option<&Word> {
        self.tables.backend(slot)
    }

    fn affinity(&self, key: &AffinityKey) -> Option<&Word> {
        let known = self.affinities.iter().find(|it| it.0.get() == Some(*key));
        known.map(|(_, word)| word)
    }

    fn remember_affinity(&self, key: &AffinityKey, affinity: u64) {
        let is_key = |it: &&(Cell<Option<AffinityKey>>, Word)| it.0.get() == Some(*key);
        let is_free = |it: &&(Cell<Option<AffinityKey>>, Word)| it.0.get().is_none();
        let mut all = self.affinities.iter();
        let place = all.clone().find(is_key).or_else(|| all.find(is_free));
        if let Some((place, word)) = place {
            place.set(Some(*key));
            word.set(affinity);
        }
    }

    fn cache(&self, hash: u32) -> Option<&CacheSet> {
        self.cache.get(hash as usize % CACHE)
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowRef> {
        flow::look_up(self, key)
    }

    fn flow_at(&self, key: &SharedKey) -> Option<FlowRef> {
        self.flow(&key.get())
    }

    fn add_flow(&self, id: u32) -> Inserted {
        flow::add(self, 1, id)
    }

    fn forget_flow(&self, id: u32, key: &SharedKey) {
        flow::forget(self, id, &key.get());
    }

    fn side(&self, address: &[u64; 2]) -> Side {
        table::side(&self.endpoints, *address)
    }

    fn fragment(&self, key: &FragmentKey) -> Option<u32> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember_fragment(&self, key: &FragmentKey, ports: u32) {
        self.fragments.borrow_mut().insert(*key, ports);
    }

    fn count(&self, _slot: u16, verdict: Verdict, _bytes: u64) {
        self.counted
            .borrow_mut()
            .push(Reason::ALL[usize::from(verdict.reason())]);
    }

    fn count_passage(&self, passage: Passage, bytes: u64) {
        self.count(0, passage.verdict(), bytes);
    }

    fn missed(&self) {}

    fn rechosen(&self) {
        self.rechosen.set(self.rechosen.get() + 1);
    }

    fn rule_place(&self, rule: u32) -> u32 {
        rule
    }

    fn rule_at(&self, place: u32) -> Option<&RuleCount> {
        self.rules.get(place as usize)
    }

    fn told(&self) -> Option<&Word> {
        Some(&self.told)
    }

    fn again(&self, word: &Word) -> u64 {
        word.get()
    }

    fn set_bits(&self, bits: &Word, value: u64) {
        bits.atomic().fetch_or(value, Relaxed);
    }

    fn now(&self) -> u64 {
        self.clock.get()
    }

    fn cpu(&self) -> u32 {
        0
    }

    fn explain(&self, _trace: Trace) {}
}
