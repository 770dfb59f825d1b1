//! Learning sessions from the packets in tunnels.

use super::{
    BEARERS, Bearer, Session, SessionRef, Status, get, key as key_of, of,
    record::{get_address, is_v6, same},
    tunnel_key,
};
use crate::{
    flow::SharedKey,
    parse::Facts,
    table::{Port, Tables},
    tunnel::{Tunnel, Way},
    verdict::Reason,
};

/// A packet in a tunnel, which teaches something about a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lesson<'a> {
    pub(crate) facts: &'a Facts,
    pub(crate) port: &'a Port,
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
    key.set(&key_of(ue, lesson.port.zone));
    let found = if let Some(found) = of(tables, key) {
        found
    } else {
        // What a source station forwards at a handover is for a UE, not from one.
        key.set(&key_of(other, lesson.port.zone));
        if of(tables, key).is_some() {
            return Err(Reason::NoDownlinkTunnel);
        }
        create(tables, key, lesson, ue)?
    };
    let Some(session) = get(tables, found) else {
        return Err(Reason::NoDownlinkTunnel);
    };
    if !same(&session.ran, tunnel.ran) && session.place(Way::Uplink, tunnel.teid).is_none() {
        // From one UE to another, which is at this station: forwarded likewise.
        key.set(&key_of(other, lesson.port.zone));
        let is_there = |it: &Session| same(&it.ran, tunnel.ran);
        if of(tables, key)
            .and_then(|it| get(tables, it))
            .is_some_and(is_there)
        {
            return Err(Reason::NoDownlinkTunnel);
        }
    }
    let place = if claim(tables, session) {
        let place = learn_uplink(tables, key, session, found, lesson);
        session.give_back(tables, found.id());
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
    known: SessionRef,
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
        session.set_endpoints(tunnel.ran, get_address(&session.core));
    }
    if relocated {
        relocate(tables, key, session, tunnel);
    }
    let place = session.place(Way::Uplink, tunnel.teid);
    let is_new = place.is_none();
    let place = place.unwrap_or_else(|| session.place_for_uplink(tunnel));
    if is_new {
        let before = session.bearer(place).uplink.get();
        unlink(tables, key, session, Way::Uplink, before);
        key.set(&session.tunnel_key(Way::Uplink, tunnel.teid));
        // Without room for it, nothing but Error Indications of the core's goes unnoticed.
        tables.set_session(key, known.by(0, 0));
    }
    session.adopt(tunnel, place, !is_new);
    Some(place)
}

/// Another endpoint of the core has the UE: what numbers the one before gave says nothing of it.
fn relocate<T: Tables>(tables: &T, key: &SharedKey, session: &Session, tunnel: &Tunnel) {
    for place in 0..BEARERS {
        forget(tables, key, session, Way::Uplink, place);
    }
    session.set_endpoints(get_address(&session.ran), tunnel.core);
}

/// Forgets all tunnels to where the UE was.
fn forget_downlinks<T: Tables>(tables: &T, key: &SharedKey, session: &Session) {
    for place in 0..BEARERS {
        forget(tables, key, session, Way::Downlink, place);
    }
}

fn forget<T: Tables>(tables: &T, key: &SharedKey, session: &Session, way: Way, place: usize) {
    let tunnel = session.bearer(place).tunnel(way);
    unlink(tables, key, session, way, tunnel.get());
    tunnel.set(0);
}

/// Lets nothing lead to the session by a tunnel of its own, if there is one.
fn unlink<T: Tables>(tables: &T, key: &SharedKey, session: &Session, way: Way, word: u64) {
    if word & Bearer::KNOWN != 0 {
        key.set(&session.tunnel_key(way, word as u32));
        // It may have become that of another session.
        let owner = tables.session(key).and_then(|it| get(tables, it));
        if owner.is_none_or(|owner| core::ptr::eq(owner, session)) {
            tables.remove_session(key);
        }
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
    key.set(&key_of(ue, lesson.port.zone));
    let found = match of(tables, key) {
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
    // Even if it is only forwarded by this tunnel, that is no other UE's any more.
    let v6 = is_v6(ue);
    key.set(&tunnel_key(tunnel.ran, tunnel.teid, lesson.port.zone, v6));
    let free = take_over(tables, key, session, tunnel);
    if !free || session.is_provisioned() || !claim(tables, session) {
        return None;
    }
    let place = learn_downlink(tables, key, session, found, lesson);
    session.give_back(tables, found.id());
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
        session.set_endpoints(tunnel.ran, get_address(&session.core));
    }
    if relocated {
        relocate(tables, key, session, tunnel);
    }
    let place = session.place_for(tunnel);
    let known_before = session.bearer(place).is_to(tunnel.teid);
    if !known_before {
        forget(tables, key, session, Way::Downlink, place);
    }
    key.set(&session.tunnel_key(Way::Downlink, tunnel.teid));
    if !tables.set_session(key, known.by(0, 0)) {
        session.lose(tunnel.teid);
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
    let Some(found) = tables.session(key) else {
        return true;
    };
    let Some(owner) = get(tables, found).filter(|it| !core::ptr::eq(*it, session)) else {
        return true;
    };
    if !same(&owner.ran, tunnel.ran) {
        return true;
    }
    if owner.is_provisioned() || !claim(tables, owner) {
        return false;
    }
    owner.lose(tunnel.teid);
    owner.give_back(tables, found.id());
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
    session.set_endpoints(lesson.facts.tunnel.ran, lesson.facts.tunnel.core);
    session.last_seen.set(tables.now());
    key.set(&key_of(ue, lesson.port.zone));
    if tables.add_session(key, created) {
        return Ok(created);
    }
    session.live.set(0);
    tables.release_session(id);
    // Another CPU may have been faster.
    of(tables, key).ok_or(full)
}

/// Ends the tunnel that an End Marker or an Error Indication is about, which leads `way`. With the tunnel to the core, that
/// to the UE ends: the station is to release both (TS 23.007, TS 23.527).
#[inline(never)]
pub(crate) fn end<T: Tables>(tables: &T, key: &SharedKey, tunnel: &Tunnel, zone: u16, way: Way) {
    let endpoint = if way == Way::Uplink {
        tunnel.core
    } else {
        tunnel.ran
    };
    for v6 in [false, true] {
        key.set(&tunnel_key(endpoint, tunnel.teid, zone, v6));
        if let Some(found) = tables.session(key) {
            end_of(tables, found, tunnel, way);
        }
    }
}

fn end_of<T: Tables>(tables: &T, found: SessionRef, tunnel: &Tunnel, way: Way) {
    let Some(session) = get(tables, found) else {
        return;
    };
    if !session.is_between(tunnel) {
        return;
    }
    // Nobody says it again.
    if !(0..64).any(|_| claim(tables, session)) {
        end_meanwhile(tables, session, tunnel, way);
        return tables.session_changed(found.id());
    }
    for place in 0..BEARERS {
        let bearer = session.bearer(place);
        let ends = bearer.ends_with(way, tunnel.teid);
        if !session.is_provisioned() {
            // The next uplink packet is worth a look.
            bearer.doubt_uplink();
        }
        if ends {
            let word = bearer.downlink.get() & !Bearer::DOUBTED;
            bearer.downlink.set(word | Bearer::ENDED);
        }
    }
    if session.leading(0).is_none() && session.status() == Status::Active {
        session.set_status(Status::Ended);
    }
    session.give_back(tables, found.id());
}

/// Ends a tunnel of a session that another CPU has and does not give back soon: nothing is sent by it from
/// now on, and the next uplink packet brings the rest in line.
fn end_meanwhile<T: Tables>(tables: &T, session: &Session, tunnel: &Tunnel, way: Way) {
    for place in 0..BEARERS {
        let bearer = session.bearer(place);
        if bearer.ends_with(way, tunnel.teid) {
            tables.set_bits(&bearer.downlink, Bearer::ENDED);
        }
        if !session.is_provisioned() {
            tables.set_bits(&bearer.uplink, Bearer::DOUBTED);
        }
    }
}

fn claim<T: Tables>(tables: &T, session: &Session) -> bool {
    let me = u64::from(tables.cpu()) + 1;
    // A CPU does one thing at a time: it does not hold the record already.
    !tables.read_only() && session.writer.get() == 0 && tables.claim(&session.writer, me) == me
}
