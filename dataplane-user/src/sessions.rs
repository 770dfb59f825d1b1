//! Sessions: reading them, saying what they are, and forgetting those that are over.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aya::Ebpf;
use dataplane_core::{
    Word,
    flow::SharedKey,
    session::{self, BEARERS, Bearer as Place, Before, QOS_FLOWS, Session as Record, SessionRef},
    table::{CHANGES, Cells, ENDPOINTS, Endpoints, SessionTable, Side},
    tunnel::Tunnel,
};

pub use dataplane_core::session::Status as SessionStatus;

use crate::{
    Error, Gtpu,
    clock::Clock,
    compile,
    flows::address,
    memory,
    records::{Free, Keys, Records},
    shared::Shared,
};

/// The tunnels of a UE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Zone of the UE.
    pub zone: u16,
    /// The UE's address.
    pub ue: IpAddr,
    /// Endpoint in the RAN: eNB or gNB.
    pub ran: IpAddr,
    /// Endpoint in the core: SGW or UPF.
    pub core: IpAddr,
    /// Whether answers reach the UE.
    pub status: SessionStatus,
    /// Bearers of which something is known; on N3 there is one.
    pub bearers: Vec<Tunnels>,
    /// QFI of the latest uplink packet, where a PDU Session Container told it.
    pub qfi: Option<u8>,
    /// QoS flows whose 5QI was provisioned.
    pub qos_flows: Vec<QosFlow>,
    /// Whether it was provisioned, not learned.
    pub provisioned: bool,
    /// When the last packet came, if one did.
    pub last_seen: Option<SystemTime>,
}

/// The tunnels of a bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// TEID towards the core.
    pub uplink: Option<u32>,
    /// TEID towards the UE, while something may be sent by it.
    pub downlink: Option<u32>,
    /// QCI, where it was provisioned.
    pub qci: Option<u8>,
}

/// The tunnels of a UE as somebody says them who knows. They outrank what packets teach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Zone of the UE.
    pub zone: u16,
    /// The UE's address.
    pub ue: IpAddr,
    /// Endpoint in the RAN: eNB or gNB.
    pub ran: IpAddr,
    /// Endpoint in the core: SGW or UPF.
    pub core: IpAddr,
    /// At least one and [`Binding::BEARERS`] at most; on N3 there is one.
    pub bearers: Vec<Bearer>,
    /// [`Binding::QOS_FLOWS`] at most.
    pub qos_flows: Vec<QosFlow>,
}

/// A bearer: a tunnel in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bearer {
    /// TEID towards the core.
    pub uplink: u32,
    /// TEID towards the UE.
    pub downlink: u32,
    /// QCI, from 1 on.
    pub qci: Option<u8>,
}

/// What a QFI means (3GPP TS 23.501, 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QosFlow {
    /// QFI, up to 63.
    pub qfi: u8,
    /// 5QI, from 1 on.
    pub five_qi: u8,
}

/// Sessions of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCount {
    /// Whether answers reach the UE.
    pub status: SessionStatus,
    /// Whether they were provisioned.
    pub provisioned: bool,
    /// How many there are.
    pub sessions: u64,
}

/// Which sessions are asked for: those that have all of this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionFilter {
    /// Zone of the UE.
    pub zone: Option<u16>,
    /// The UE's address.
    pub ue: Option<IpAddr>,
    /// Whether answers reach the UE.
    pub status: Option<SessionStatus>,
}

impl SessionFilter {
    fn matches(&self, record: &Record) -> bool {
        let Self { zone, ue, status } = self;
        zone.is_none_or(|zone| u64::from(zone) == record.zone.get())
            && status.is_none_or(|status| status == record.status())
            && ue.is_none_or(|ue| compile::words(ue) == words(&record.ue))
    }
}

impl Binding {
    /// Bearers at most.
    pub const BEARERS: usize = BEARERS;
    /// QoS flows at most.
    pub const QOS_FLOWS: usize = QOS_FLOWS;

    /// In the words of the tables.
    ///
    /// # Errors
    ///
    /// It has no bearers, or too many of something.
    pub fn words(&self) -> Result<session::Binding, Error> {
        let Self {
            zone,
            ue,
            ran,
            core,
            bearers,
            qos_flows,
        } = self;
        if !(1..=BEARERS).contains(&bearers.len()) || qos_flows.len() > QOS_FLOWS {
            return Err(Error::Options(format!(
                "the session of {ue} needs 1 to {BEARERS} bearers, and has {QOS_FLOWS} QoS flows at the most"
            )));
        }
        let mut words = session::Binding {
            ue: compile::words(*ue),
            zone: *zone,
            ran: compile::words(*ran),
            core: compile::words(*core),
            ..session::Binding::default()
        };
        for (place, bearer) in bearers.iter().enumerate() {
            let qci = bearer.qci.unwrap_or(0);
            words.set_bearer(place, bearer.uplink, bearer.downlink, qci);
        }
        for (place, QosFlow { qfi, five_qi }) in qos_flows.iter().enumerate() {
            words.set_qos(place, Tunnel::CONTAINER | qfi, *five_qi);
        }
        Ok(words)
    }
}

/// The list of endpoints that packets are compared with.
pub(crate) fn endpoints(gtpu: &Gtpu) -> Result<[Endpoints; ENDPOINTS as usize], Error> {
    let mut list = [Endpoints::default(); ENDPOINTS as usize];
    let ran = gtpu.ran.iter().map(|range| (range, Side::Ran));
    let core = gtpu.core.iter().map(|range| (range, Side::Core));
    let wanted = gtpu.ran.len() + gtpu.core.len();
    if wanted > list.len() {
        return Err(Error::Options(format!(
            "[gtpu] ran and core have {wanted} ranges, which are too many: there can be {ENDPOINTS}; \
             prefixes take one each"
        )));
    }
    for (place, (range, side)) in list.iter_mut().zip(ran.chain(core)) {
        *place = Endpoints {
            first: compile::words(range.first()),
            last: compile::words(range.last()),
            side: side as u64,
        };
    }
    Ok(list)
}

/// The session table as user space sees it.
pub(crate) struct Sessions {
    records: Records<Record>,
    keys: Keys,
    free: Free,
    /// How often sessions have changed, as in [`SessionTable::session_changed`].
    changes: Shared<Word>,
    /// The status of each session when it was last looked for changes.
    seen: Vec<SessionStatus>,
}

impl Sessions {
    /// Those in the maps of a program, which an earlier process may have been killed in the middle of writing.
    pub(crate) fn take(ebpf: &mut Ebpf) -> Result<Self, Error> {
        let records = Records::<Record>::take(ebpf, "SESSION_RECORDS")?;
        for (_, record) in records.live() {
            if record.writer.get() == session::USER_SPACE {
                record.writer.set(0);
            }
        }
        Ok(Self {
            records,
            keys: Keys::take(ebpf, "SESSIONS")?,
            free: Free::take(ebpf, "FREE_SESSIONS")?,
            changes: memory::table(ebpf, "CHANGES")?,
            seen: Vec::new(),
        })
    }

    /// Makes all records free; for tables that are new.
    pub(crate) fn fill(&self) -> Result<(), Error> {
        (0..self.records.len() as u32)
            .rev()
            .try_for_each(|id| self.free.push(id))
    }

    /// All sessions.
    pub(crate) fn snapshot(&self, clock: &Clock) -> Vec<Session> {
        self.records
            .live()
            .map(|(_, record)| describe(record, clock))
            .collect()
    }

    /// A part of them, in the order of their records.
    pub(crate) fn page(
        &self,
        filter: &SessionFilter,
        from: u32,
        limit: usize,
        clock: &Clock,
    ) -> (Vec<Session>, Option<u32>) {
        let mut found = Vec::new();
        if let (Some(zone), Some(ue)) = (filter.zone, filter.ue) {
            let one = self
                .find(zone, compile::words(ue))
                .map(|(_, record)| record);
            let one = one.filter(|record| from == 0 && filter.matches(record));
            found.extend(one.map(|record| describe(record, clock)));
            return (found, None);
        }
        for id in from..self.records.len() as u32 {
            let record = self.records.get(id);
            let Some(record) = record.filter(|it| it.live.get() != 0 && filter.matches(it)) else {
                continue;
            };
            if found.len() == limit {
                return (found, Some(id));
            }
            found.push(describe(record, clock));
        }
        (found, None)
    }

    fn find(&self, zone: u16, ue: [u64; 2]) -> Option<(u32, &Record)> {
        let word = self.keys.find(session::key(ue, zone))?;
        let id = SessionRef::from(word).id();
        Some((id, self.records.get(id)?))
    }

    /// How many sessions there are of each kind, and how many keys lead to them.
    pub(crate) fn count(&self) -> (Vec<SessionCount>, usize) {
        let mut counts = Vec::new();
        for provisioned in [false, true] {
            for status in STATUSES {
                counts.push(SessionCount {
                    status,
                    provisioned,
                    sessions: 0,
                });
            }
        }
        let mut keys = 0;
        for (_, record) in self.records.live() {
            let provisioned = record.live.get() == Record::PROVISIONED;
            let place = usize::from(provisioned) * STATUSES.len() + record.status() as usize;
            counts[place].sessions += 1;
            keys += 1 + tunnels(record);
        }
        (counts, keys)
    }

    /// Sessions to which nothing can be sent any more, since the last call; the first only looks.
    pub(crate) fn lost(&mut self, clock: &Clock) -> Vec<Session> {
        let first = self.seen.is_empty();
        let mut lost = Vec::new();
        for (id, record) in self.records.live() {
            let (place, now) = (id as usize, record.status());
            if self.seen.len() <= place {
                self.seen.resize(place + 1, SessionStatus::Uplink);
            }
            let before = std::mem::replace(&mut self.seen[place], now);
            let is_lost = matches!(now, SessionStatus::Pending | SessionStatus::Ended);
            if is_lost && before != now && !first {
                lost.push(describe(record, clock));
            }
        }
        lost
    }

    /// Puts what is said in force, all of it or nothing.
    pub(crate) fn provision(
        &self,
        bindings: &[Binding],
        settle: impl FnOnce(),
    ) -> Result<(), Error> {
        let words: Vec<_> = bindings
            .iter()
            .map(Binding::words)
            .collect::<Result<_, _>>()?;
        let mut done = Vec::with_capacity(words.len());
        for binding in &words {
            if let Some(Before(before)) = session::provision(self, binding) {
                done.push((binding, before));
                continue;
            }
            let refused = Error::TooMany {
                what: "sessions, those learned included,",
                wanted: self.records.live().count() + words.len() - done.len(),
                limit: self.records.len(),
                option: "sessions",
            };
            let mut new = Vec::new();
            for (binding, before) in done.iter().rev() {
                match before {
                    Some(before) => _ = session::provision(self, before),
                    None => new.extend(self.find(binding.zone, binding.ue).map(|(id, _)| id)),
                }
            }
            self.free(&new, settle);
            return Err(refused);
        }
        Ok(())
    }

    /// Forgets the provisioned sessions of these UEs. Answers how many there were.
    pub(crate) fn withdraw(&self, ues: &[(u16, IpAddr)], settle: impl FnOnce()) -> usize {
        let provisioned = ues.iter().filter_map(|(zone, ue)| {
            let (id, record) = self.find(*zone, compile::words(*ue))?;
            (record.live.get() == Record::PROVISIONED).then_some(id)
        });
        self.free(&provisioned.collect::<Vec<_>>(), settle)
    }

    /// Makes `wanted` all that is provisioned. What is so already stays as packets left it.
    pub(crate) fn reprovision(&self, wanted: &[Binding], settle: impl Fn()) -> Result<(), Error> {
        let mut missing = HashMap::with_capacity(wanted.len());
        for binding in wanted {
            let words = binding.words()?;
            missing.insert((words.zone, words.ue), (binding, words));
        }
        let mut over = Vec::new();
        let provisioned = self.records.live();
        let provisioned =
            provisioned.filter(|(_, record)| record.live.get() == Record::PROVISIONED);
        for (id, record) in provisioned {
            let key = (record.zone.get() as u16, words(&record.ue));
            let is_found = self
                .find(key.0, key.1)
                .is_some_and(|(found, _)| found == id);
            match missing.get(&key) {
                Some((_, words)) if is_found && record.holds(words) => _ = missing.remove(&key),
                Some(_) if is_found => {}
                _ => over.push(id),
            }
        }
        self.free(&over, &settle);
        let missing: Vec<_> = missing.into_values().map(|(it, _)| it.clone()).collect();
        self.provision(&missing, settle)
    }

    /// Forgets sessions that no packet came in for `patience`, and that none of the flows in `used`
    /// needs. Answers how many.
    pub(crate) fn expire(
        &self,
        patience: Duration,
        clock: &Clock,
        used: impl Fn(u32) -> bool,
        settle: impl FnOnce(),
    ) -> usize {
        let now = clock.jiffies();
        let over = self.records.live().filter(|(id, record)| {
            let idle = clock.duration(now.saturating_sub(record.last_seen.get()));
            record.live.get() == Record::LEARNED && idle >= patience && !used(*id)
        });
        let over: Vec<u32> = over.map(|(id, _)| id).collect();
        self.free(&over, settle)
    }

    fn free(&self, ids: &[u32], settle: impl FnOnce()) -> usize {
        if ids.is_empty() {
            return 0;
        }
        for id in ids {
            session::close(self, *id);
        }
        // After this no packet looks at these records any more.
        settle();
        for id in ids {
            // A packet may have learned something while the record was closed.
            session::unlink(self, *id);
            self.release_session(*id);
        }
        ids.len()
    }
}

impl SessionTable for Sessions {
    fn session(&self, key: &SharedKey) -> Option<SessionRef> {
        self.keys.find(key.get()).map(SessionRef::from)
    }

    fn add_session(&self, key: &SharedKey, session: SessionRef) -> bool {
        self.keys.add(key.get(), session.into())
    }

    fn set_session(&self, key: &SharedKey, session: SessionRef) -> bool {
        self.keys.set(key.get(), session.into())
    }

    fn remove_session(&self, key: &SharedKey) {
        self.keys.remove(key.get());
    }

    fn allocate_session(&self) -> Option<u32> {
        self.free.pop()
    }

    fn release_session(&self, id: u32) {
        if let Some(record) = self.records.get(id) {
            record.live.set(0);
            // There is room for every record; without it, the record would only be lost.
            let _: Result<(), Error> = self.free.push(id);
        }
    }

    fn session_record(&self, id: u32) -> Option<&Record> {
        self.records.get(id)
    }

    fn session_changed(&self, id: u32) {
        if let Some(changes) = self.changes.get((id % CHANGES) as usize) {
            changes.add(1);
        }
    }
}

impl Cells for Sessions {
    fn exchange(&self, cell: &Word, expected: u64, new: u64) -> u64 {
        cell.exchange(expected, new)
    }

    fn add(&self, sum: &Word, value: u64) {
        sum.add(value);
    }
}

const STATUSES: [SessionStatus; 4] = [
    SessionStatus::Uplink,
    SessionStatus::Active,
    SessionStatus::Pending,
    SessionStatus::Ended,
];

fn words(words: &[Word; 2]) -> [u64; 2] {
    [words[0].get(), words[1].get()]
}

/// Tunnels, to the UE and to the core, that keys are about.
fn tunnels(record: &Record) -> usize {
    let bearers = (0..BEARERS).map(|place| record.bearer(place));
    let words = bearers.flat_map(|bearer| [bearer.downlink.get(), bearer.uplink.get()]);
    words.filter(|word| word & Place::KNOWN != 0).count()
}

fn describe(record: &Record, clock: &Clock) -> Session {
    let known = |word: u64| (word & Place::KNOWN != 0).then_some(word as u32);
    let bearers = (0..BEARERS).map(|place| {
        let bearer = record.bearer(place);
        Tunnels {
            uplink: known(bearer.uplink.get()),
            downlink: bearer.live(),
            qci: Some((bearer.uplink.get() >> Place::QCI) as u8).filter(|qci| *qci != 0),
        }
    });
    let pairs =
        (0..QOS_FLOWS).map(|place| (record.qos[place / 4].get() >> (place % 4 * 16)) as u16);
    let qfi = record.qfi.get() as u8;
    let last_seen = record.last_seen.get();
    Session {
        zone: record.zone.get() as u16,
        ue: address(words(&record.ue)),
        ran: address(words(&record.ran)),
        core: address(words(&record.core)),
        status: record.status(),
        bearers: bearers
            .filter(|it| it.uplink.is_some() || it.downlink.is_some())
            .collect(),
        qfi: (qfi & Tunnel::CONTAINER != 0).then_some(qfi & 0x3f),
        qos_flows: pairs
            .filter(|pair| *pair != 0)
            .map(|pair| QosFlow {
                qfi: (pair >> 8) as u8 & 0x3f,
                five_qi: pair as u8,
            })
            .collect(),
        provisioned: record.live.get() == Record::PROVISIONED,
        last_seen: (last_seen != 0).then(|| clock.time(last_seen)),
    }
}
