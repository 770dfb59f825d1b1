//! Sessions that are said, not learned: they outrank what packets teach.

use super::{
    BEARERS, Bearer, Session, SessionRef, Status, get, key, of,
    record::{get_address, is_v6, same, set},
    tunnel_key,
};
use crate::{
    flow::{FlowKey, SharedKey},
    table::SessionTable,
};

/// Who writes in [`Session::writer`], where that is no CPU.
pub const USER_SPACE: u64 = u64::MAX;

/// QoS flows of a session at most.
pub const QOS_FLOWS: usize = 8;

/// The tunnels of a UE as they are said, in the words of the tables.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Binding {
    /// The UE's address.
    pub ue: [u64; 2],
    /// Its zone.
    pub zone: u16,
    /// Endpoint in the RAN.
    pub ran: [u64; 2],
    /// Endpoint in the core.
    pub core: [u64; 2],
    /// As in [`Bearer`]: downlink and uplink; 0 where there is none.
    pub bearers: [[u64; 2]; BEARERS],
    /// As in [`Session::qos`].
    pub qos: [u64; 2],
}

impl Binding {
    /// Makes the bearer in `place` one with these TEIDs, and this QCI unless that is 0.
    pub fn set_bearer(&mut self, place: usize, uplink: u32, downlink: u32, qci: u8) {
        if let Some(words) = self.bearers.get_mut(place) {
            let uplink = u64::from(qci) << Bearer::QCI | u64::from(uplink);
            *words = [Bearer::KNOWN | u64::from(downlink), Bearer::KNOWN | uplink];
        }
    }

    /// Makes the QoS flow in `place` one with this QFI, as in [`Tunnel::qfi`](crate::tunnel::Tunnel::qfi),
    /// and this 5QI.
    pub const fn set_qos(&mut self, place: usize, qfi: u8, five_qi: u8) {
        if place < QOS_FLOWS {
            let pair = (qfi as u64) << 8 | five_qi as u64;
            self.qos[place / 4] |= pair << (place % 4 * 16);
        }
    }

    /// The keys that its tunnels are found by.
    fn keys(&self) -> impl Iterator<Item = FlowKey> {
        let Self {
            ue,
            zone,
            ran,
            core,
            bearers,
            ..
        } = *self;
        let tunnels = bearers
            .into_iter()
            .flat_map(move |[downlink, uplink]| [(ran, downlink), (core, uplink)]);
        let known = tunnels.filter(|(_, word)| word & Bearer::KNOWN != 0);
        known.map(move |(endpoint, word)| tunnel_key(endpoint, word as u32, zone, is_v6(ue)))
    }
}

impl Session {
    /// What was said of it, whatever packets did since.
    #[must_use]
    pub fn binding(&self) -> Binding {
        let ended = Bearer::ENDED;
        let mut bearers = [[0; 2]; BEARERS];
        for (place, words) in bearers.iter_mut().enumerate() {
            let bearer = self.bearer(place);
            *words = [bearer.downlink.get() & !ended, bearer.uplink.get()];
        }
        Binding {
            ue: get_address(&self.ue),
            zone: self.zone.get() as u16,
            ran: get_address(&self.ran),
            core: get_address(&self.core),
            bearers,
            qos: get_address(&self.qos),
        }
    }

    fn write(&self, binding: &Binding) {
        set(&self.ue, binding.ue);
        self.set_endpoints(binding.ran, binding.core);
        for (place, [downlink, uplink]) in binding.bearers.into_iter().enumerate() {
            let bearer = self.bearer(place);
            bearer.downlink.set(downlink);
            bearer.uplink.set(uplink);
        }
        set(&self.qos, binding.qos);
        self.live.set(Self::PROVISIONED);
    }
}

/// What was said of a session before, if something was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before(pub Option<Binding>);

/// Makes the session of a UE what `binding` says, and active, while packets flow. A session that packets
/// taught is taken over, with the flows that know it. Answers what was said before, or `None` when there is
/// no room, and nothing has changed.
pub fn provision<T: SessionTable>(tables: &T, binding: &Binding) -> Option<Before> {
    let shared = SharedKey::default();
    let (known, session) = find(tables, &shared, binding)?;
    // The keys first: what does not fit, changes nothing.
    for key in binding.keys() {
        shared.set(&key);
        let owner = tables.session(&shared);
        let owner = owner.and_then(|it| Some((it.id(), get(tables, it)?)));
        if !tables.set_session(&shared, known) {
            remove(tables, &shared, session, binding.keys(), known);
            return None;
        }
        // The tunnel to the core may be that of both.
        let owner = owner.filter(|_| key.source == binding.ran);
        let other = owner.filter(|(_, it)| !core::ptr::eq(*it, session) && !it.is_provisioned());
        if let Some((id, other)) = other {
            claim(tables, other);
            other.lose(key.rest.ports());
            other.give_back(tables, id);
        }
    }
    claim(tables, session);
    let (said, before) = (session.is_provisioned(), session.binding());
    // Nothing is sent by tunnels that change meanwhile.
    session.set_status(Status::Pending);
    tables.session_changed(known.id());
    session.write(binding);
    session.set_status(Status::Active);
    session.give_back(tables, known.id());
    remove(tables, &shared, session, before.keys(), known);
    Some(Before(said.then_some(before)))
}

/// Waits for a CPU that has the session for a few instructions; an earlier process may have died with it.
fn claim<T: SessionTable>(tables: &T, session: &Session) {
    while tables.claim(&session.writer, USER_SPACE) != USER_SPACE {
        core::hint::spin_loop();
    }
}

/// Removes those of `keys` that lead to the session and are not of its tunnels.
fn remove<T: SessionTable>(
    tables: &T,
    shared: &SharedKey,
    session: &Session,
    keys: impl Iterator<Item = FlowKey>,
    known: SessionRef,
) {
    for key in keys.filter(|key| session.binding().keys().all(|kept| kept != *key)) {
        shared.set(&key);
        if tables.session(shared) == Some(known) {
            tables.remove_session(shared);
        }
    }
}

/// The session of the UE, a new one if none is known.
fn find<'a, T: SessionTable>(
    tables: &'a T,
    shared: &SharedKey,
    binding: &Binding,
) -> Option<(SessionRef, &'a Session)> {
    shared.set(&key(binding.ue, binding.zone));
    let there = || {
        let known = of(tables, shared)?;
        Some((known, get(tables, known)?))
    };
    if let Some(found) = there() {
        return Some(found);
    }
    let id = tables.allocate_session()?;
    let session = tables.session_record(id)?;
    let known = session.begin(id, binding.ue, binding.zone);
    if tables.add_session(shared, known) {
        return Some((known, session));
    }
    // A packet may have been faster.
    session.live.set(0);
    tables.release_session(id);
    there()
}

/// Lets nothing lead to the session any more. Packets that have found it before may still look at it.
pub fn close<T: SessionTable>(tables: &T, id: u32) {
    let Some(session) = tables.session_record(id) else {
        return;
    };
    let generation = session.generation.get() as u32;
    session
        .generation
        .set(generation.wrapping_add(1).max(1).into());
    tables.session_changed(id);
    unlink(tables, id);
}

/// Removes all keys that lead to the record `id`.
pub fn unlink<T: SessionTable>(tables: &T, id: u32) {
    let Some(session) = tables.session_record(id) else {
        return;
    };
    let binding = session.binding();
    let shared = SharedKey::default();
    let ue = key(binding.ue, binding.zone);
    for key in binding.keys().chain([ue]) {
        shared.set(&key);
        if tables
            .session(&shared)
            .is_some_and(|known| known.id() == id)
        {
            tables.remove_session(&shared);
        }
    }
}

impl Session {
    /// Whether packets may be sent to the UE by what was said, as far as packets told since.
    #[must_use]
    pub fn holds(&self, binding: &Binding) -> bool {
        self.live.get() == Self::PROVISIONED
            && same(&self.ue, binding.ue)
            && self.binding() == *binding
    }
}
