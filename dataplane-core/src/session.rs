//! Sessions: which tunnels lead to a UE, learned from the packets in them.
//!
//! A session is that of a UE's address in a zone, or of its IPv6 prefix. It knows one endpoint in the core,
//! one in the RAN, and up to four bearers between them. A downlink G-PDU teaches the tunnel to the UE; an
//! uplink G-PDU from another endpoint of the RAN says that the UE has moved, an End Marker or an Error
//! Indication that a tunnel has ended. Nothing is sent into a tunnel between that and the next downlink
//! G-PDU to where the UE is now. What is said of a session ([`provision()`]) outranks what packets teach: they
//! tell whether its tunnels still lead to the UE, and no others.
//!
//! Most tunnels end without a word: the station releases them while the UE is idle, and what was a UE's
//! may be another's soon. So a new tunnel puts those that are known in doubt, until a packet comes by
//! them again.

mod learn;
mod provision;
mod record;

use core::cell::Cell;

use crate::{
    flow::{FlowKey, KeyRest, SharedKey},
    table::{SessionTable, Tables, encapsulation},
    tunnel::{Tunnel, Way},
    wire::gtpu::PORT,
};

pub(crate) use record::ends;
pub use record::{BEARERS, Bearer, Session, SessionRef, Status};
use record::{get_address, is_v6};

pub(crate) use learn::{Lesson, downlink, end, uplink};
pub use provision::{Before, Binding, QOS_FLOWS, USER_SPACE, close, provision, unlink};

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

/// The key by which the session of a tunnel is found: the `endpoint` that receives numbers all that lead to it, from
/// wherever (TS 29.281 section 3.1). A tunnel may be of two sessions, one of each IP version: `v6` says of which.
#[must_use]
pub const fn tunnel_key(endpoint: [u64; 2], teid: u32, zone: u16, v6: bool) -> FlowKey {
    FlowKey {
        source: endpoint,
        destination: [0; 2],
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

/// The session that `known` means, unless it is gone.
pub(crate) fn get<T: SessionTable>(tables: &T, known: SessionRef) -> Option<&Session> {
    let generation = known.generation();
    let session = tables.session_record(known.id())?;
    // No session has generation 0.
    (generation != 0 && session.generation.get() == generation.into()).then_some(session)
}

/// The session of the UE with this [`key`]. As with flows, what is read may be another's.
pub(crate) fn of<T: SessionTable>(tables: &T, key: &SharedKey) -> Option<SessionRef> {
    let found = tables.session(key)?;
    let session = tables.session_record(found.id())?;
    session.is_of(key).then_some(found)
}

/// Whether an upstream packet by `tunnel` says nothing of its session that is not known: it came as the latest one of
/// its flow did, whose session is `known`.
#[inline(always)]
pub(crate) fn is_usual<T: SessionTable>(tables: &T, known: SessionRef, tunnel: &Tunnel) -> bool {
    get(tables, known).is_some_and(|session| session.knows_uplink(tunnel, known))
}

/// The tunnel by which a packet of a flow goes to its UE, if it is over IPv4 and may be used now.
pub(crate) fn exit_v4<T: Tables>(tables: &T, known: SessionRef) -> Option<[u64; 2]> {
    let session = get(tables, known)?;
    let before = session.state.get();
    let ends = session.ends.get();
    let teid = session.leading(known.bearer())?;
    // Nothing of it may have changed meanwhile.
    let active = before as u8 == Status::Active as u8 && tables.again(&session.state) == before;
    (active && ends != 0).then_some([ends, tunnel_word(teid, known.qfi())])
}

/// A TEID, and in the upper half a QFI as in [`Tunnel::qfi`].
pub(crate) const fn tunnel_word(teid: u32, qfi: u8) -> u64 {
    (qfi as u64) << 32 | teid as u64
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
        let uplink = session.to_core(known.bearer());
        exit.source.set(ran);
        exit.destination.set(core);
        exit.identifier.set(uplink as u32);
        return uplink != 0;
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
