//! What is known of a session.

use super::{key, tunnel_key};
use crate::{
    flow::{FlowKey, Path, SharedKey},
    parse::is_mapped,
    table::SessionTable,
    tunnel::{Tunnel, Way},
    word::Word,
};

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

    /// None either, of a packet that came from a peer by the tunnel to the target in `cell`.
    #[must_use]
    pub(crate) const fn of_peer(cell: u32) -> Self {
        Self(cell as u64 + 2)
    }

    /// The cell of the peer's target.
    #[must_use]
    pub(crate) const fn peer(self) -> Option<u32> {
        // No session has generation 0.
        if self.generation() == 0 {
            (self.0 as u32).checked_sub(2)
        } else {
            None
        }
    }

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

    /// [`Self::uplink`] or [`Self::downlink`].
    pub(super) fn tunnel(&self, way: Way) -> &Word {
        if way == Way::Uplink {
            &self.uplink
        } else {
            &self.downlink
        }
    }

    /// Whether it leads to the UE, or has ended, so that a packet by it says nothing new.
    pub(super) fn is_settled(&self, teid: u32) -> bool {
        self.is_to(teid) && self.downlink.get() & Self::DOUBTED == 0
    }

    pub(super) fn is_to(&self, teid: u32) -> bool {
        let word = self.downlink.get();
        word & Self::KNOWN != 0 && word as u32 == teid
    }

    pub(super) fn is_from(&self, teid: u32) -> bool {
        let word = self.uplink.get();
        word & Self::KNOWN != 0 && word as u32 == teid
    }

    /// Whether there is a tunnel to the UE that ends when the one with this TEID does, which leads `way`.
    pub(super) fn ends_with(&self, way: Way, teid: u32) -> bool {
        let ends = if way == Way::Uplink {
            self.is_from(teid)
        } else {
            self.is_to(teid)
        };
        ends && self.downlink.get() & Self::KNOWN != 0
    }

    pub(super) fn doubt_downlink(&self) {
        let word = self.downlink.get();
        if word & (Self::KNOWN | Self::ENDED) == Self::KNOWN {
            self.downlink.set(word | Self::DOUBTED);
        }
    }

    pub(super) fn doubt_uplink(&self) {
        let word = self.uplink.get();
        if word & Self::KNOWN != 0 {
            self.uplink.set(word | Self::DOUBTED);
        }
    }

    /// The TEID towards the core, if it is not in doubt.
    pub(super) fn sure_uplink(&self) -> Option<u32> {
        let word = self.uplink.get();
        (word & (Self::DOUBTED | Self::KNOWN) == Self::KNOWN).then_some(word as u32)
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

/// A session. Usual packets do not touch it: what they need is in the flow cache, until [`Self::told`] changes.
#[derive(Debug, Default)]
#[cfg_attr(
    not(target_arch = "bpf"),
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout)
)]
#[repr(C)]
pub struct Session {
    /// Changes when the record is freed; 0 before it is first used, and never after. It has 32 bits.
    pub generation: Word,
    /// A [`Status`] in the lowest octet, and how often it or the tunnels changed above.
    pub state: Word,
    /// Both endpoints in one word, that in the RAN in the upper half, if they have IPv4 addresses. Else 0.
    pub ends: Word,
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
    /// The CPU that changes the record, plus 1; [`USER_SPACE`](super::USER_SPACE), or 0.
    pub writer: Word,
    /// QFI of the latest uplink packet, as in [`Tunnel::qfi`].
    pub qfi: Word,
    /// Of QoS flows whose 5QI was provisioned: eight pairs of octets, the QFI as in [`Tunnel::qfi`] in the
    /// upper one.
    pub qos: [Word; 2],
    /// What usual packets depend on, in one number, when they were last had to look.
    pub told: Word,
}

impl Session {
    /// [`Self::live`] of what packets taught.
    pub const LEARNED: u64 = 1;
    /// [`Self::live`] of what was provisioned: packets change only whether its tunnels are used.
    pub const PROVISIONED: u64 = 2;

    /// Whether it is that of the UE with this key.
    pub(super) fn is_of(&self, ue: &SharedKey) -> bool {
        ue.has(&key(get_address(&self.ue), self.zone.get() as u16))
    }

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

    /// Gives the record back, which somebody had claimed, and has packets look at it again if it is another.
    #[inline(always)]
    pub(super) fn give_back<T: SessionTable>(&self, tables: &T, id: u32) {
        let digest = self.digest();
        if self.told.get() != digest {
            self.told.set(digest);
            tables.session_changed(id);
        }
        self.writer.set(0);
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
    pub(super) fn leading(&self, place: usize) -> Option<u32> {
        self.bearer(place)
            .live()
            .or_else(|| self.bearers[0].live())
            .or_else(|| self.bearers[1].live())
            .or_else(|| self.bearers[2].live())
            .or_else(|| self.bearers[3].live())
    }

    /// [`Bearer::uplink`] of the bearer in `place`, or of another if only that is known; else 0.
    pub(super) fn to_core(&self, place: usize) -> u64 {
        let own = self.bearer(place).uplink.get();
        if own & Bearer::KNOWN != 0 {
            return own;
        }
        let words = self.bearers.iter().map(|it| it.uplink.get());
        words.fold(0, |known, word| {
            if known == 0 && word & Bearer::KNOWN != 0 {
                word
            } else {
                known
            }
        })
    }

    /// Sets the endpoints in the RAN and in the core.
    pub(super) fn set_endpoints(&self, ran: [u64; 2], core: [u64; 2]) {
        set(&self.ran, ran);
        set(&self.core, core);
        self.ends.set(ends(ran, core));
    }

    #[inline(always)]
    pub(super) fn is_between(&self, tunnel: &Tunnel) -> bool {
        let ends = ends(tunnel.ran, tunnel.core);
        if ends != 0 {
            return self.ends.get() == ends;
        }
        same(&self.ran, tunnel.ran) && same(&self.core, tunnel.core)
    }

    /// Whether an uplink packet with this tunnel says nothing that the record does not.
    pub(crate) fn knows_uplink(&self, tunnel: &Tunnel, known: SessionRef) -> bool {
        known.qfi() == tunnel.qfi
            && self.is_between(tunnel)
            && self.sure_uplink(known.bearer()) == Some(tunnel.teid)
    }

    /// A number that is another when something has changed that usual packets depend on. Without branches, of each of which
    /// a verifier would follow both ways.
    #[inline(always)]
    fn digest(&self) -> u64 {
        let mut digest = self.state.get();
        let mut add = |word: &Word| {
            digest = (digest ^ word.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        };
        for endpoint in [&self.ran, &self.core] {
            add(&endpoint[0]);
            add(&endpoint[1]);
        }
        for place in 0..BEARERS {
            add(&self.bearer(place).downlink);
            add(&self.bearer(place).uplink);
        }
        digest
    }

    /// The TEID that packets by the bearer in `place` come with, if those say nothing that is not known.
    pub(super) fn sure_uplink(&self, place: usize) -> Option<u32> {
        let settled = self.status() != Status::Pending || !self.is_provisioned();
        self.bearer(place).sure_uplink().filter(|_| settled)
    }

    pub(super) fn is_provisioned(&self) -> bool {
        self.live.get() == Self::PROVISIONED
    }

    /// Makes the record `id`, which nothing leads to, the session of a UE of which nothing else is known.
    pub(super) fn begin(&self, id: u32, ue: [u64; 2], zone: u16) -> SessionRef {
        self.set_endpoints([0; 2], [0; 2]);
        set(&self.qos, [0; 2]);
        set(&self.ue, ue);
        self.zone.set(zone.into());
        self.state.set(0);
        self.path.ue.set(0);
        self.qfi.set(0);
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

    /// The place for an uplink tunnel that is not known: on N3 a session has one.
    pub(super) fn place_for_uplink(&self, tunnel: &Tunnel) -> usize {
        let is_free = |place: &usize| self.bearer(*place).uplink.get() & Bearer::KNOWN == 0;
        match (0..BEARERS).find(is_free) {
            _ if tunnel.qfi != 0 => 0,
            Some(free) => free,
            None => BEARERS - 1,
        }
    }

    /// Takes the uplink tunnel of a packet as that of the bearer in `place`, where it may be `known`.
    pub(super) fn adopt(&self, tunnel: &Tunnel, place: usize, known: bool) {
        if !known && self.surely_knows_an_uplink() {
            // It belongs to another UE of the same address, or to another bearer.
            for place in 0..BEARERS {
                self.bearer(place).doubt_downlink();
            }
        }
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
    }

    /// The tunnel with this TEID has become that of another UE.
    pub(super) fn lose(&self, teid: u32) {
        for place in 0..BEARERS {
            let bearer = self.bearer(place);
            if bearer.is_to(teid) {
                // If it had ended, it has begun again.
                let word = bearer.downlink.get() & !Bearer::ENDED;
                bearer.downlink.set(word | Bearer::DOUBTED);
            }
        }
        if self.status() == Status::Active && self.leading(0).is_none() {
            self.set_status(Status::Pending);
        }
    }

    /// The place for a downlink tunnel: on N3 a session has one, on S1-U there is one for each bearer.
    pub(super) fn place_for(&self, tunnel: &Tunnel) -> usize {
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
    pub(super) fn surely_knows_an_uplink(&self) -> bool {
        let words = || (0..BEARERS).map(|place| self.bearer(place).uplink.get());
        words().any(|word| word & Bearer::KNOWN != 0)
            && words().all(|word| word & Bearer::DOUBTED == 0)
    }

    /// The key of one of its tunnels, to the UE or to the core.
    pub(super) fn tunnel_key(&self, way: Way, teid: u32) -> FlowKey {
        let endpoint = if way == Way::Uplink {
            &self.core
        } else {
            &self.ran
        };
        let v6 = is_v6(get_address(&self.ue));
        tunnel_key(get_address(endpoint), teid, self.zone.get() as u16, v6)
    }

    pub(super) fn set_status(&self, status: Status) {
        let next = (self.state.get() >> 8).wrapping_add(1) << 8;
        self.state.set(next | status as u64);
    }

    /// What an uplink packet from where the UE is tells of tunnels that were said: as long as it is
    /// elsewhere, they do not lead to it.
    pub(super) fn follow(&self, here: bool) {
        match self.status() {
            Status::Pending if here => self.settle(Status::Ended),
            Status::Uplink | Status::Active if !here => self.set_status(Status::Pending),
            Status::Uplink | Status::Active | Status::Pending | Status::Ended => {}
        }
    }

    /// Brings the status in line with the tunnels that are left.
    pub(super) fn settle(&self, otherwise: Status) {
        let status = if self.leading(0).is_some() {
            Status::Active
        } else {
            otherwise
        };
        self.set_status(status);
    }
}

/// Both addresses in one word, if they are IPv4. Else 0.
pub(crate) const fn ends(ran: [u64; 2], core: [u64; 2]) -> u64 {
    if is_mapped(ran) && is_mapped(core) {
        ran[1] << 32 | core[1] & 0xffff_ffff
    } else {
        0
    }
}

pub(super) fn same(words: &[Word; 2], address: [u64; 2]) -> bool {
    words[1].get() == address[1] && words[0].get() == address[0]
}

pub(super) fn get_address(words: &[Word; 2]) -> [u64; 2] {
    [words[0].get(), words[1].get()]
}

pub(super) fn set(words: &[Word; 2], address: [u64; 2]) {
    words[0].set(address[0]);
    words[1].set(address[1]);
}

pub(super) const fn is_v6(ue: [u64; 2]) -> bool {
    ue[0] != 0
}
