//! Sessions: reading them, and forgetting those that are over.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use aya::maps::{HashMap, MapData, Stack};
use dataplane_core::{
    Word,
    flow::FlowKey,
    session::{self, BEARERS, Bearer, Session as Record, SessionRef},
    table::{ENDPOINTS, Endpoints, Side},
};

pub use dataplane_core::session::Status as SessionStatus;

use crate::{
    Error, Gtpu,
    clock::Clock,
    compile,
    flows::{Entry, address},
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
    /// Whether it was provisioned, not learned.
    pub provisioned: bool,
    /// When the last packet came.
    pub last_seen: SystemTime,
}

/// The tunnels of a bearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnels {
    /// TEID towards the core.
    pub uplink: Option<u32>,
    /// TEID towards the UE, while something may be sent by it.
    pub downlink: Option<u32>,
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
    records: Shared<Record>,
    keys: HashMap<MapData, Entry<FlowKey>, u64>,
    free: Stack<MapData, u32>,
}

impl Sessions {
    pub(crate) const fn new(
        records: Shared<Record>,
        keys: HashMap<MapData, Entry<FlowKey>, u64>,
        free: Stack<MapData, u32>,
    ) -> Self {
        Self {
            records,
            keys,
            free,
        }
    }

    /// Makes all records free; for tables that are new.
    pub(crate) fn fill(&mut self) -> Result<(), aya::maps::MapError> {
        for id in (0..self.records.len() as u32).rev() {
            self.free.push(id, 0)?;
        }
        Ok(())
    }

    fn live(&self) -> impl Iterator<Item = (u32, &Record)> {
        (0..)
            .zip(self.records.iter())
            .filter(|(_, record)| record.live.get() != 0)
    }

    /// All sessions.
    pub(crate) fn snapshot(&self, clock: &Clock) -> Vec<Session> {
        self.live()
            .map(|(_, record)| describe(record, clock))
            .collect()
    }

    /// Forgets sessions that no packet came in for `patience`, and that none of the flows in `used`
    /// needs. Answers how many.
    pub(crate) fn expire(
        &mut self,
        patience: Duration,
        clock: &Clock,
        used: impl Fn(SessionRef) -> bool,
        settle: impl FnOnce(),
    ) -> usize {
        let now = clock.jiffies();
        let over: Vec<u32> = self
            .live()
            .filter(|(id, record)| {
                let idle = clock.duration(now.saturating_sub(record.last_seen.get()));
                let known = SessionRef::new(*id, record.generation.get() as u32);
                record.live.get() == Record::LEARNED && idle >= patience && !used(known)
            })
            .map(|(id, _)| id)
            .collect();
        if over.is_empty() {
            return 0;
        }
        for id in &over {
            self.close(*id);
        }
        // After this no packet looks at these records any more.
        settle();
        for id in &over {
            if let Some(record) = self.records.get(*id as usize) {
                record.live.set(0);
            }
            // There is room for every record; without it, the record would only be lost.
            let _ = self.free.push(*id, 0);
        }
        over.len()
    }

    /// Lets nothing lead to a record any more.
    fn close(&mut self, id: u32) {
        let Some(record) = self.records.get(id as usize) else {
            return;
        };
        let generation = (record.generation.get() as u32).wrapping_add(1).max(1);
        record.generation.set(generation.into());
        let zone = record.zone.get() as u16;
        let mut keys = vec![session::key(words(&record.ue), zone)];
        for place in 0..BEARERS {
            let word = record.bearer(place).downlink.get();
            if word & Bearer::KNOWN != 0 {
                let (ran, core) = (words(&record.ran), words(&record.core));
                keys.push(session::tunnel_key(ran, core, word as u32, zone));
            }
        }
        for key in keys.into_iter().map(Entry) {
            let leads_here = |word| SessionRef::from(word).id() == id;
            if self.keys.get(&key, 0).is_ok_and(leads_here) {
                // A packet may have removed it first.
                let _ = self.keys.remove(&key);
            }
        }
    }
}

fn words(words: &[Word; 2]) -> [u64; 2] {
    [words[0].get(), words[1].get()]
}

fn describe(record: &Record, clock: &Clock) -> Session {
    let known = |word: u64| (word & Bearer::KNOWN != 0).then_some(word as u32);
    let bearers = (0..BEARERS).map(|place| {
        let bearer = record.bearer(place);
        Tunnels {
            uplink: known(bearer.uplink.get()),
            downlink: bearer.live(),
        }
    });
    let qfi = record.qfi.get() as u8;
    Session {
        zone: record.zone.get() as u16,
        ue: address(words(&record.ue)),
        ran: address(words(&record.ran)),
        core: address(words(&record.core)),
        status: record.status(),
        bearers: bearers
            .filter(|it| it.uplink.is_some() || it.downlink.is_some())
            .collect(),
        qfi: (qfi & 0x40 != 0).then_some(qfi & 0x3f),
        provisioned: record.live.get() == Record::PROVISIONED,
        last_seen: clock.time(record.last_seen.get()),
    }
}
