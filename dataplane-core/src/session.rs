//! Sessions: which tunnels lead to a UE, learned from the packets in them.
//!
//! A session is that of a UE's address in a zone, or of its IPv6 prefix. It knows one endpoint in the core,
//! one in the RAN, and up to four bearers between them. A downlink G-PDU teaches the tunnel to the UE; an
//! uplink G-PDU from another endpoint of the RAN says that the UE has moved, an End Marker or an Error
//! Indication that a tunnel has ended. Nothing is sent into a tunnel between that and the next downlink
//! G-PDU to where the UE is now. What is said of a session ([`provision`]) outranks what packets teach: they
//! tell whether its tunnels still lead to the UE, and no others.
//!
//! Most tunnels end without a word: the station releases them while the UE is idle, and what was a UE's
//! may be another's soon. So a new tunnel puts those that are known in doubt, until a packet comes by
//! them again.

mod provision;

use core::cell::Cell;

use crate::{
    flow::{FlowKey, KeyRest, Path, SharedKey},
    parse::Facts,
    table::{Port, SessionTable, Tables, encapsulation},
    tunnel::{Tunnel, Way},
    verdict::Reason,
    wire::gtpu::PORT,
    word::Word,
};

pub use provision::{Before, Binding, QOS_FLOWS, USER_SPACE, close, provision, unlink};

/// Bearers at most; a power of two, so that a verifier knows what remains of a place.
pub const BEARERS: usize = 4;

/// A session as a flow knows it: which, the generation of its record, and by which bearer and with which
/// QFI the flow's latest upstream packet came. One word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionRef(u64);

impl SessionRef {
    /// Sessions at most.
    pub const LIMIT: u32 = 1 << 23;

    /// None, of a packet that came by a tunnel all the same.
    pub const UNKNOWN: Self = Self(1);

    /// The session `id`.
    #[must_use]
    pub const fn new(id: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | id as u64)
    }

    /// The same by this bearer, with this QFI as in [`Tunnel::qfi`].
    #[must_use]
    pub const fn by(self, bearer: usize, qfi: u8) -> Self {
        let plain = self.0 & !0xff80_0000;
        Self(plain | (bearer as u64 & 3) << 23 | (qfi as u64 & 0x7f) << 25)
    }

    /// Index of the record.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.0 as u32 & (Self::LIMIT - 1)
    }

    /// Generation of the record.
    #[must_use]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Place of the bearer.
    #[must_use]
    pub const fn bearer(self) -> usize {
        (self.0 >> 23) as usize & 3
    }

    /// QFI, as in [`Tunnel::qfi`].
    #[must_use]
    pub const fn qfi(self) -> u8 {
        (self.0 >> 25) as u8 & 0x7f
    }
}

impl From<u64> for SessionRef {
    fn from(word: u64) -> Self {
        Self(word)
    }
}

impl From<SessionRef> for u64 {
    fn from(session: SessionRef) -> Self {
        session.0
    }
}

/// A bearer: the tunnels of one direction each.
#[derive(Debug, Default)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Bearer {
    /// The TEID towards the UE, and [`Bearer::KNOWN`], [`Bearer::ENDED`] and [`Bearer::DOUBTED`].
    pub downlink: Word,
    /// The TEID towards the core, and [`Bearer::KNOWN`] and [`Bearer::DOUBTED`].
    pub uplink: Word,
}

impl Bearer {
    /// The TEID is known.
    pub const KNOWN: u64 = 1 << 32;
    /// The downlink tunnel with this TEID has ended.
    pub const ENDED: u64 = 1 << 33;
    /// Something newer was seen than this, of which no packet has come since.
    pub const DOUBTED: u64 = 1 << 34;
    /// In [`Self::uplink`], the QCI where it was provisioned: an octet from this bit on.
    pub const QCI: u32 = 40;

    /// The TEID towards the UE, while something may be sent to it.
    #[must_use]
    pub fn live(&self) -> Option<u32> {
        let word = self.downlink.get();
        let flags = Self::KNOWN | Self::ENDED | Self::DOUBTED;
        (word & flags == Self::KNOWN).then_some(word as u32)
    }

    /// Whether it leads to the UE, or has ended, so that a packet by it says nothing new.
    fn is_settled(&self, teid: u32) -> bool {
        self.is_to(teid) && self.downlink.get() & Self::DOUBTED == 0
    }

    fn is_to(&self, teid: u32) -> bool {
        let word = self.downlink.get();
        word & Self::KNOWN != 0 && word as u32 == teid
    }

    fn is_from(&self, teid: u32) -> bool {
        let word = self.uplink.get();
        word & Self::KNOWN != 0 && word as u32 == teid
    }

    fn is_surely_from(&self, teid: u32) -> bool {
        self.is_from(teid) && self.uplink.get() & Self::DOUBTED == 0
    }

    fn doubt_downlink(&self) {
        let word = self.downlink.get();
        if word & (Self::KNOWN | Self::ENDED) == Self::KNOWN {
            self.downlink.set(word | Self::DOUBTED);
        }
    }

    fn doubt_uplink(&self) {
        let word = self.uplink.get();
        if word & Self::KNOWN != 0 {
            self.uplink.set(word | Self::DOUBTED);
        }
    }
}

/// Whether answers reach the UE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// No downlink packet was seen yet.
    Uplink = 0,
    /// They do.
    Active = 1,
    /// The UE has moved, and the way to where it is now is not known.
    Pending = 2,
    /// The tunnel has ended.
    Ended = 3,
}

/// A session, in lines of the cache: the first is what most packets touch.
#[derive(Debug, Default)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Session {
    /// Changes when the record is freed; 0 before it is first used, and never after.
    pub generation: Word,
    /// A [`Status`] in the lowest octet, and how often it or the tunnels changed above.
    pub state: Word,
    /// Endpoint in the RAN.
    pub ran: [Word; 2],
    /// Endpoint in the core.
    pub core: [Word; 2],
    /// The bearers: the first is the one that is not chosen by anything else.
    pub bearers: [Bearer; BEARERS],
    /// When the last packet came, in jiffies.
    pub last_seen: Word,
    /// Whether the record is in use: 1, or 2 when it was provisioned.
    pub live: Word,
    /// Link layer and port of the latest uplink packet, turned round.
    pub path: Path,
    /// The UE's address.
    pub ue: [Word; 2],
    /// Its zone.
    pub zone: Word,
    /// The CPU that changes the record, plus 1; [`USER_SPACE`], or 0.
    pub writer: Word,
    /// QFI of the latest uplink packet, as in [`Tunnel::qfi`].
    pub qfi: Word,
    /// Of QoS flows whose 5QI was provisioned: eight pairs of octets, the QFI as in [`Tunnel::qfi`] in the
    /// upper one.
    pub qos: [Word; 2],
}

impl Session {
    /// [`Self::live`] of what packets taught.
    pub const LEARNED: u64 = 1;
    /// [`Self::live`] of what was provisioned: packets change only whether its tunnels are used.
    pub const PROVISIONED: u64 = 2;

    /// Whether answers reach the UE.
    #[must_use]
    pub fn status(&self) -> Status {
        match self.state.get() as u8 {
            1 => Status::Active,
            2 => Status::Pending,
            3 => Status::Ended,
            _ => Status::Uplink,
        }
    }

    /// The bearer in a place.
    #[must_use]
    pub const fn bearer(&self, place: usize) -> &Bearer {
        &self.bearers[place % BEARERS]
    }

    /// The 5QI of packets with this QFI, or the QCI of the bearer in `place`; 0 when neither is known.
    #[must_use]
    pub fn qci(&self, place: usize, qfi: u8) -> u8 {
        if qfi != 0 {
            for word in &self.qos {
                for shift in [0, 16, 32, 48] {
                    let pair = (word.get() >> shift) as u16;
                    if (pair >> 8) as u8 == qfi {
                        return pair as u8;
                    }
                }
            }
        }
        (self.bearer(place).uplink.get() >> Bearer::QCI) as u8
    }

    /// The endpoints in the RAN and in the core.
    pub(crate) fn endpoints(&self) -> ([u64; 2], [u64; 2]) {
        (get_address(&self.ran), get_address(&self.core))
    }

    /// The place of the bearer with this tunnel.
    pub(crate) fn place(&self, way: Way, teid: u32) -> Option<usize> {
        (0..BEARERS).find(|place| match way {
            Way::None | Way::Uplink | Way::Target => self.bearer(*place).is_from(teid),
            Way::Downlink => self.bearer(*place).is_to(teid),
        })
    }

    /// The bearer that leads to the UE now, if one does: that in `place`, or another.
    fn leading(&self, place: usize) -> Option<u32> {
        self.bearer(place)
            .live()
            .or_else(|| self.bearers[0].live())
            .or_else(|| self.bearers[1].live())
            .or_else(|| self.bearers[2].live())
            .or_else(|| self.bearers[3].live())
    }

    fn is_between(&self, tunnel: &Tunnel) -> bool {
        same(&self.ran, tunnel.ran) && same(&self.core, tunnel.core)
    }

    /// Whether an uplink packet with this tunnel says nothing that the record does not.
    pub(crate) fn knows_uplink(&self, tunnel: &Tunnel, known: SessionRef) -> bool {
        known.qfi() == tunnel.qfi
            && self.is_between(tunnel)
            && self.bearer(known.bearer()).is_surely_from(tunnel.teid)
            && (self.status() != Status::Pending || !self.is_provisioned())
    }

    fn is_provisioned(&self) -> bool {
        self.live.get() == Self::PROVISIONED
    }

    /// Makes the record `id`, which nothing leads to, the session of a UE of which nothing else is known.
    fn begin(&self, id: u32, ue: [u64; 2], zone: u16) -> SessionRef {
        for words in [&self.ran, &self.core, &self.qos] {
            set(words, [0; 2]);
        }
        set(&self.ue, ue);
        self.zone.set(zone.into());
        self.state.set(0);
        self.path.ue.set(0);
        for place in 0..BEARERS {
            self.bearer(place).downlink.set(0);
            self.bearer(place).uplink.set(0);
        }
        self.writer.set(0);
        self.last_seen.set(0);
        self.live.set(Self::LEARNED);
        if self.generation.get() == 0 {
            // So that no reference is 0, which is none.
            self.generation.set(1);
        }
        SessionRef::new(id, self.generation.get() as u32)
    }

    /// Takes the uplink tunnel of a packet as one of the session's. Answers its place.
    fn adopt(&self, tunnel: &Tunnel) -> usize {
        let known = self.place(Way::Uplink, tunnel.teid);
        if known.is_none() && self.surely_knows_an_uplink() {
            // It belongs to another UE of the same address, or to another bearer.
            for place in 0..BEARERS {
                self.bearer(place).doubt_downlink();
            }
        }
        let is_free = |place: &usize| self.bearer(*place).uplink.get() & Bearer::KNOWN == 0;
        let free = (0..BEARERS).find(is_free);
        // On N3 a session has one tunnel.
        let place = known.unwrap_or(match free {
            _ if tunnel.qfi != 0 => 0,
            Some(free) => free,
            None => BEARERS - 1,
        });
        for other in 0..BEARERS {
            let bearer = self.bearer(other);
            bearer.uplink.set(bearer.uplink.get() & !Bearer::DOUBTED);
            let word = bearer.downlink.get();
            if word & Bearer::ENDED != 0 {
                // The station may give its number once more.
                bearer.downlink.set(word & !Bearer::ENDED | Bearer::DOUBTED);
            }
        }
        let bearer = self.bearer(place);
        bearer.uplink.set(Bearer::KNOWN | u64::from(tunnel.teid));
        if self.status() == Status::Active && self.leading(0).is_none() {
            self.set_status(Status::Pending);
        }
        place
    }

    /// The place for a downlink tunnel: on N3 a session has one, on S1-U there is one for each bearer.
    fn place_for(&self, tunnel: &Tunnel) -> usize {
        if tunnel.qfi != 0 {
            return 0;
        }
        let find =
            |is_it: &dyn Fn(&Bearer) -> bool| (0..BEARERS).find(|place| is_it(self.bearer(*place)));
        find(&|it| it.is_to(tunnel.teid))
            .or_else(|| find(&|it| it.downlink.get() == 0))
            .or_else(|| find(&|it| it.live().is_none()))
            .unwrap_or(BEARERS - 1)
    }

    /// Whether an uplink tunnel is known, and no other downlink tunnel has come up since.
    fn surely_knows_an_uplink(&self) -> bool {
        let words = || (0..BEARERS).map(|place| self.bearer(place).uplink.get());
        words().any(|word| word & Bearer::KNOWN != 0)
            && words().all(|word| word & Bearer::DOUBTED == 0)
    }

    /// The key of one of its downlink tunnels.
    fn tunnel_key(&self, teid: u32) -> FlowKey {
        let (ran, core) = (get_address(&self.ran), get_address(&self.core));
        let v6 = is_v6(get_address(&self.ue));
        tunnel_key(ran, core, teid, self.zone.get() as u16, v6)
    }

    fn set_status(&self, status: Status) {
        let next = (self.state.get() >> 8).wrapping_add(1) << 8;
        self.state.set(next | status as u64);
    }

    /// What an uplink packet from where the UE is tells of tunnels that were said: as long as it is
    /// elsewhere, they do not lead to it.
    fn follow(&self, here: bool) {
        match self.status() {
            Status::Pending if here => self.settle(Status::Ended),
            Status::Uplink | Status::Active if !here => self.set_status(Status::Pending),
            Status::Uplink | Status::Active | Status::Pending | Status::Ended => {}
        }
    }

    /// Brings the status in line with the tunnels that are left.
    fn settle(&self, otherwise: Status) {
        let status = if self.leading(0).is_some() {
            Status::Active
        } else {
            otherwise
        };
        self.set_status(status);
    }
}

fn same(words: &[Word; 2], address: [u64; 2]) -> bool {
    words[1].get() == address[1] && words[0].get() == address[0]
}

fn get_address(words: &[Word; 2]) -> [u64; 2] {
    [words[0].get(), words[1].get()]
}

fn set(words: &[Word; 2], address: [u64; 2]) {
    words[0].set(address[0]);
    words[1].set(address[1]);
}

const fn is_v6(ue: [u64; 2]) -> bool {
    ue[0] != 0
}

/// The key of a UE's session. In IPv6 a UE chooses its addresses within a prefix of 64 bits that is its own
/// (TS 23.401 section 5.3.1.2.2, TS 23.501 section 5.8.2.2).
#[must_use]
pub const fn key(ue: [u64; 2], zone: u16) -> FlowKey {
    FlowKey {
        source: if is_v6(ue) { [ue[0], 0] } else { ue },
        destination: [0; 2],
        rest: KeyRest::new(0, zone, 0),
    }
}

/// The key by which the session of a downlink tunnel is found. A tunnel may be of two sessions, one of each
/// IP version: `v6` says of which.
#[must_use]
pub const fn tunnel_key(ran: [u64; 2], core: [u64; 2], teid: u32, zone: u16, v6: bool) -> FlowKey {
    FlowKey {
        source: ran,
        destination: core,
        rest: KeyRest::new(teid, zone, if v6 { 2 } else { 1 }),
    }
}

/// A tunnel to send a packet by. It stays where it was noted: there is no room for a copy on the stack.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Exit {
    pub(crate) source: Cell<[u64; 2]>,
    pub(crate) destination: Cell<[u64; 2]>,
    /// MAC address that the frame inside is sent to, for VXLAN.
    pub(crate) mac: Cell<u64>,
    /// TEID, key or VNI.
    pub(crate) identifier: Cell<u32>,
    /// UDP source port.
    pub(crate) port: Cell<u16>,
    /// One of [`encapsulation`].
    pub(crate) encapsulation: Cell<u8>,
    pub(crate) qfi: Cell<u8>,
    pub(crate) way: Cell<Way>,
}

/// A packet in a tunnel, which teaches something about a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lesson<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) port: &'a Port,
}

/// The session that `known` means, unless it is gone.
pub(crate) fn get<T: SessionTable>(tables: &T, known: SessionRef) -> Option<&Session> {
    let session = tables.session_record(known.id())?;
    (session.generation.get() as u32 == known.generation() && session.live.get() != 0)
        .then_some(session)
}

/// Learns from an uplink G-PDU. Answers the session as the flow should know it.
///
/// # Errors
///
/// Why there is none.
#[inline(always)]
pub(crate) fn uplink<T: Tables>(
    tables: &T,
    key: &SharedKey,
    lesson: &Lesson<'_>,
) -> Result<SessionRef, Reason> {
    let tunnel = &lesson.facts.tunnel;
    let (ue, other) = (lesson.facts.key.source, lesson.facts.key.destination);
    key.set(&self::key(ue, lesson.port.zone));
    let found = if let Some(found) = tables.session(key) {
        found
    } else {
        // What a source station forwards at a handover is for a UE, not from one.
        key.set(&self::key(other, lesson.port.zone));
        if tables.session(key).is_some() {
            return Err(Reason::NoDownlinkTunnel);
        }
        create(tables, key, lesson, ue)?
    };
    let Some(session) = get(tables, found) else {
        return Err(Reason::NoDownlinkTunnel);
    };
    if !same(&session.ran, tunnel.ran) && session.place(Way::Uplink, tunnel.teid).is_none() {
        // From one UE to another, which is at this station: forwarded likewise.
        key.set(&self::key(other, lesson.port.zone));
        let is_there = |it: &Session| same(&it.ran, tunnel.ran);
        if tables
            .session(key)
            .and_then(|it| get(tables, it))
            .is_some_and(is_there)
        {
            return Err(Reason::NoDownlinkTunnel);
        }
    }
    let place = if claim(tables, session) {
        let place = learn_uplink(tables, key, session, lesson);
        session.writer.set(0);
        place
    } else {
        let place = session.place(Way::Uplink, tunnel.teid);
        place.or_else(|| (!session.is_provisioned()).then_some(0))
    };
    match place {
        Some(place) => Ok(found.by(place, tunnel.qfi)),
        None => Err(Reason::SessionConflict),
    }
}

/// Takes over what an uplink packet says. Answers the place of its bearer, or `None` when another
/// endpoint of the core has the UE, or what was said knows of no such bearer.
fn learn_uplink<T: Tables>(
    tables: &T,
    key: &SharedKey,
    session: &Session,
    lesson: &Lesson<'_>,
) -> Option<usize> {
    let tunnel = &lesson.facts.tunnel;
    let (provisioned, place) = (
        session.is_provisioned(),
        session.place(Way::Uplink, tunnel.teid),
    );
    if provisioned && place.is_none() {
        return None;
    }
    let relocated = !same(&session.core, tunnel.core);
    if relocated && (provisioned || session.status() == Status::Active) {
        return None;
    }
    session.last_seen.set(tables.now());
    session.qfi.set(tunnel.qfi.into());
    session
        .path
        .ue
        .set(lesson.facts.link.source << 16 | u64::from(lesson.port.slot));
    session.path.core.set(lesson.facts.link.destination);
    session.path.tags.set(lesson.facts.link.tags);
    if provisioned {
        session.follow(same(&session.ran, tunnel.ran));
        return place;
    }
    if relocated || !same(&session.ran, tunnel.ran) {
        // The UE has moved: the tunnels to where it was are not used any more.
        if session.status() != Status::Uplink {
            session.set_status(Status::Pending);
        }
        forget_downlinks(tables, key, session);
        set(&session.ran, tunnel.ran);
    }
    if relocated {
        set(&session.core, tunnel.core);
        for place in 0..BEARERS {
            session.bearer(place).uplink.set(0);
        }
    }
    Some(session.adopt(tunnel))
}

/// Forgets all tunnels to where the UE was.
fn forget_downlinks<T: Tables>(tables: &T, key: &SharedKey, session: &Session) {
    for place in 0..BEARERS {
        forget(tables, key, session, place);
    }
}

fn forget<T: Tables>(tables: &T, key: &SharedKey, session: &Session, place: usize) {
    let bearer = session.bearer(place);
    let word = bearer.downlink.get();
    if word & Bearer::KNOWN != 0 {
        key.set(&session.tunnel_key(word as u32));
        // It may have become that of another session.
        let owner = tables.session(key).and_then(|it| get(tables, it));
        if owner.is_none_or(|owner| core::ptr::eq(owner, session)) {
            tables.remove_session(key);
        }
        bearer.downlink.set(0);
    }
}

/// Learns from a downlink G-PDU. Answers the session, and the place of the bearer that it came by.
#[inline(always)]
pub(crate) fn downlink<T: Tables>(
    tables: &T,
    key: &SharedKey,
    lesson: &Lesson<'_>,
) -> Option<SessionRef> {
    let tunnel = &lesson.facts.tunnel;
    let ue = lesson.facts.key.destination;
    key.set(&self::key(ue, lesson.port.zone));
    let found = match tables.session(key) {
        Some(found) => found,
        None => create(tables, key, lesson, ue).ok()?,
    };
    let session = get(tables, found)?;
    let settled = (0..BEARERS).find(|place| session.bearer(*place).is_settled(tunnel.teid));
    if let Some(place) = settled
        && session.is_between(tunnel)
    {
        session.last_seen.set(tables.now());
        return Some(found.by(place, 0));
    }
    if session.is_provisioned() || !claim(tables, session) {
        return None;
    }
    let place = learn_downlink(tables, key, session, found, lesson);
    session.writer.set(0);
    Some(found.by(place?, 0))
}

/// Takes over the tunnel of a downlink packet, which is not known yet. `None`: it is not to be trusted.
fn learn_downlink<T: Tables>(
    tables: &T,
    key: &SharedKey,
    session: &Session,
    known: SessionRef,
    lesson: &Lesson<'_>,
) -> Option<usize> {
    let tunnel = &lesson.facts.tunnel;
    let status = session.status();
    let elsewhere = !same(&session.ran, tunnel.ran);
    // To a station that nothing has come from it may be forwarded, by a tunnel that ends soon.
    if elsewhere && matches!(status, Status::Active | Status::Pending) {
        return None;
    }
    let relocated = !same(&session.core, tunnel.core);
    if relocated && status == Status::Active {
        return None;
    }
    if elsewhere || relocated {
        forget_downlinks(tables, key, session);
        set(&session.ran, tunnel.ran);
        set(&session.core, tunnel.core);
    }
    let place = session.place_for(tunnel);
    let known_before = session.bearer(place).is_to(tunnel.teid);
    if !known_before {
        forget(tables, key, session, place);
    }
    key.set(&session.tunnel_key(tunnel.teid));
    if !take_over(tables, key, session, tunnel) || !tables.set_session(key, known.by(0, 0)) {
        return None;
    }
    if !known_before {
        for other in 0..BEARERS {
            session.bearer(other).doubt_downlink();
            session.bearer(other).doubt_uplink();
        }
    }
    let word = Bearer::KNOWN | u64::from(tunnel.teid);
    session.bearer(place).downlink.set(word);
    session.last_seen.set(tables.now());
    session.set_status(Status::Active);
    Some(place)
}

/// Takes the tunnel with this key away from the session that had it, if it was another. `false`: not now.
fn take_over<T: Tables>(tables: &T, key: &SharedKey, session: &Session, tunnel: &Tunnel) -> bool {
    let owner = tables.session(key).and_then(|it| get(tables, it));
    let Some(owner) = owner.filter(|it| !core::ptr::eq(*it, session)) else {
        return true;
    };
    if !owner.is_between(tunnel) {
        return true;
    }
    if owner.is_provisioned() || !claim(tables, owner) {
        return false;
    }
    for place in 0..BEARERS {
        let bearer = owner.bearer(place);
        if bearer.is_to(tunnel.teid) {
            bearer.doubt_downlink();
            owner.settle(Status::Pending);
        }
    }
    owner.writer.set(0);
    true
}

/// Makes a session of a UE that none is known of.
fn create<T: Tables>(
    tables: &T,
    key: &SharedKey,
    lesson: &Lesson<'_>,
    ue: [u64; 2],
) -> Result<SessionRef, Reason> {
    if tables.read_only() {
        return Err(Reason::NoDownlinkTunnel);
    }
    let full = Reason::SessionTableFull;
    let id = tables.allocate_session().ok_or(full)?;
    let session = tables.session_record(id).ok_or(full)?;
    let created = session.begin(id, ue, lesson.port.zone);
    set(&session.ran, lesson.facts.tunnel.ran);
    set(&session.core, lesson.facts.tunnel.core);
    session.last_seen.set(tables.now());
    key.set(&self::key(ue, lesson.port.zone));
    if tables.add_session(key, created) {
        return Ok(created);
    }
    session.live.set(0);
    tables.release_session(id);
    // Another CPU may have been faster.
    tables.session(key).ok_or(full)
}

/// Ends the downlink tunnel that an End Marker or an Error Indication is about.
#[inline(never)]
pub(crate) fn end<T: Tables>(tables: &T, key: &SharedKey, tunnel: &Tunnel, zone: u16) {
    for v6 in [false, true] {
        key.set(&tunnel_key(tunnel.ran, tunnel.core, tunnel.teid, zone, v6));
        if let Some(session) = tables.session(key).and_then(|found| get(tables, found)) {
            end_of(tables, session, tunnel);
        }
    }
}

fn end_of<T: Tables>(tables: &T, session: &Session, tunnel: &Tunnel) {
    if !session.is_between(tunnel) {
        return;
    }
    // Nobody says it again.
    if !(0..64).any(|_| claim(tables, session)) {
        return end_meanwhile(tables, session, tunnel);
    }
    for place in 0..BEARERS {
        let bearer = session.bearer(place);
        if !session.is_provisioned() {
            // The next uplink packet is worth a look.
            bearer.doubt_uplink();
        }
        if bearer.is_to(tunnel.teid) {
            let word = bearer.downlink.get() & !Bearer::DOUBTED;
            bearer.downlink.set(word | Bearer::ENDED);
        }
    }
    if session.leading(0).is_none() && session.status() == Status::Active {
        session.set_status(Status::Ended);
    }
    session.writer.set(0);
}

/// Ends a tunnel of a session that another CPU has and does not give back soon: nothing is sent by it from
/// now on, and the next uplink packet brings the rest in line.
fn end_meanwhile<T: Tables>(tables: &T, session: &Session, tunnel: &Tunnel) {
    for place in 0..BEARERS {
        let bearer = session.bearer(place);
        if bearer.is_to(tunnel.teid) {
            tables.set_bits(&bearer.downlink, Bearer::ENDED);
        }
        if !session.is_provisioned() {
            tables.set_bits(&bearer.uplink, Bearer::DOUBTED);
        }
    }
}

/// Notes the tunnel by which a packet of a flow goes `way`. `false`: there is none now.
#[inline(always)]
pub(crate) fn exit<T: Tables>(tables: &T, known: SessionRef, way: Way, exit: &Exit) -> bool {
    let Some(session) = get(tables, known) else {
        return false;
    };
    let before = session.state.get();
    let (ran, core) = (get_address(&session.ran), get_address(&session.core));
    exit.port.set(PORT);
    exit.encapsulation.set(encapsulation::GTPU);
    exit.qfi.set(known.qfi());
    exit.way.set(way);
    if way == Way::Uplink {
        let uplink = session.bearer(known.bearer()).uplink.get();
        exit.source.set(ran);
        exit.destination.set(core);
        exit.identifier.set(uplink as u32);
        return uplink & Bearer::KNOWN != 0;
    }
    let Some(teid) = session.leading(known.bearer()) else {
        return false;
    };
    exit.source.set(core);
    exit.destination.set(ran);
    exit.identifier.set(teid);
    // Nothing of it may have changed meanwhile.
    session.status() == Status::Active && tables.again(&session.state) == before
}

fn claim<T: Tables>(tables: &T, session: &Session) -> bool {
    let me = u64::from(tables.cpu()) + 1;
    // A CPU does one thing at a time: it does not hold the record already.
    !tables.read_only() && session.writer.get() == 0 && tables.claim(&session.writer, me) == me
}
