//! Anycast VIPs.

use super::families::Families;
use crate::{
    store::Snapshot,
    vip::{Resolved, State, VipId},
};

pub(super) fn of(families: &mut Families, snapshot: &Snapshot) {
    let vips = snapshot.vips.iter();
    let vips: Vec<(&VipId, Resolved)> = vips
        .filter_map(|(id, entry)| Some((id, entry.resolve(snapshot.surroundings())?)))
        .collect();
    families.gauge(
        "vip_healthy",
        "1 while as many backends of the VIP take flows as have to",
        &["vip"],
        vips.iter()
            .map(|(id, vip)| (vec![id.to_string()], u64::from(vip.healthy))),
    );
    let backends = vips.iter().flat_map(|(id, vip)| {
        let backends = vip.backends.iter();
        backends.map(|it| {
            let up = u64::from(it.state == State::Up);
            (vec![id.to_string(), it.id.to_string()], up)
        })
    });
    families.gauge(
        "vip_backend_up",
        "1 while the backend takes new flows of the VIP, unless its weight is 0",
        &["vip", "backend"],
        backends,
    );
    let states = [
        (State::Up, "up"),
        (State::Draining, "draining"),
        (State::Down, "down"),
    ];
    let by_state = vips.iter().flat_map(|(id, vip)| {
        states.map(|(state, name)| {
            let backends = vip.backends.iter().filter(|it| it.state == state);
            let labels = vec![id.to_string(), name.to_owned()];
            (labels, backends.count() as u64)
        })
    });
    families.gauge(
        "vip_backends",
        "Backends of a VIP by state",
        &["vip", "state"],
        by_state,
    );
}
