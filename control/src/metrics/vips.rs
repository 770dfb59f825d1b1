//! Anycast VIPs.

use super::families::Families;
use crate::{
    dataplane::Observation,
    health::{Key, Outcome, State as Checks},
    store::Snapshot,
    vip::{APPLICATION, Resolved, State, VipId},
};

pub(super) fn of(families: &mut Families, snapshot: &Snapshot, observation: &Observation) {
    taken(families, observation);
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
    let announced = snapshot.vips.iter().map(|(id, entry)| {
        let announced = snapshot.announces(entry.vip.address);
        (vec![id.to_string()], u64::from(announced))
    });
    families.gauge(
        "vip_announced",
        "1 while others are told of the address of the VIP",
        &["vip"],
        announced,
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

/// What was found when backends were checked.
pub(super) fn checks(families: &mut Families, state: &Checks) {
    let labels = |key: &Key| vec![key.vip.clone(), key.backend.clone()];
    let by_result = state.iter().flat_map(|(key, health)| {
        Outcome::ALL.map(|outcome| {
            let mut labels = labels(key);
            labels.push(outcome.name().to_owned());
            (labels, health.counts.of(outcome))
        })
    });
    families.counter(
        "vip_backend_checks_total",
        "Health checks of a backend of a VIP by result; they start anew when the backend is to be checked otherwise",
        &["vip", "backend", "result"],
        by_result,
    );
    let latencies = state
        .iter()
        .filter_map(|(key, health)| Some((labels(key), health.latency?)));
    families.seconds(
        "vip_backend_check_duration_seconds",
        "How long the backend took to pass a health check the last time",
        &["vip", "backend"],
        latencies,
    );
}

/// What backends took. What was chosen without one has none, as no backend is called so.
fn taken(families: &mut Families, observation: &Observation) {
    let counters = observation.backend_counters.iter();
    let counters = counters.filter(|((rule, _), _)| rule.app.as_ref() == APPLICATION);
    let labelled = counters.map(|((rule, backend), hits)| {
        let backend = backend.as_ref().map(ToString::to_string);
        (
            vec![rule.rule.to_string(), backend.unwrap_or_default()],
            hits,
        )
    });
    let labels = ["vip", "backend"];
    families.counter(
        "vip_backend_packets_total",
        "Packets that a backend of a VIP took; without a backend, those for which none took flows",
        &labels,
        labelled
            .clone()
            .map(|(labels, hits)| (labels, hits.packets)),
    );
    families.counter(
        "vip_backend_bytes_total",
        "Bytes of these packets",
        &labels,
        labelled.map(|(labels, hits)| (labels, hits.bytes)),
    );
    families.counter(
        "vip_flows_rechosen_total",
        "Flows of VIPs that were given another backend, as theirs was gone",
        &[],
        [(vec![], observation.status.flows_rechosen)],
    );
}
