//! Anycast VIPs, with what is known of their backends.

use axum::{
    Json,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    Context,
    mp2::{one, shown},
    node::counted,
    representation::{Path, resource, tag_of},
};
use crate::{
    dataplane::Observation,
    problem::Problem,
    store::{Snapshot, VipEntry},
    vip::{Health, Seen},
};

pub(super) async fn vips(
    State(context): State<Context>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let observed = context.store.dataplane().observe().await?;
    let snapshot = context.store.snapshot();
    let vips = snapshot.vips.values();
    let vips = vips.map(|entry| with_status(&snapshot, entry, &observed));
    Ok(resource(&headers, &vips.collect::<Vec<_>>()))
}

/// With the tag of what was said, which is what a precondition is about: checks and packets change the status.
pub(super) async fn vip(
    State(context): State<Context>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let observed = context.store.dataplane().observe().await?;
    let snapshot = context.store.snapshot();
    let entry = one::<VipEntry>(&snapshot, &id)?;
    let value = with_status(&snapshot, &entry, &observed);
    Ok((tag_of(&shown(&*entry)), Json(value)).into_response())
}

/// Why a VIP is not in the data path as it should be; nothing when it is.
pub(super) fn obstacle(snapshot: &Snapshot, entry: &VipEntry) -> Option<String> {
    let refused = entry.refused().map(str::to_owned);
    let pending = || {
        let why = snapshot.failure.as_deref().unwrap_or("not yet");
        let pending = format!("the data path has not taken what is wanted: {why}");
        (!snapshot.in_force()).then_some(pending)
    };
    refused
        .or_else(pending)
        .or_else(|| snapshot.not_installed.get(&entry.id).cloned())
}

fn with_status(snapshot: &Snapshot, entry: &VipEntry, observed: &Observation) -> Value {
    let taken = observed.rule_counters.get(&entry.id);
    let mut status = counted(obstacle(snapshot, entry), taken);
    let now = entry.resolve(snapshot.surroundings());
    status["healthy"] = now.as_ref().is_some_and(|it| it.healthy).into();
    status["announced"] = snapshot.announces(entry.vip.address).into();
    let backends = now.iter().flat_map(|it| &it.backends);
    status["backends"] = backends.map(|it| backend(entry, it, observed)).collect();
    if let Some(hits) = observed.backend_counters.get(&(entry.id.clone(), None)) {
        status["fallback"] = json!(hits);
    }
    let untold = snapshot.untold(entry.vip.address);
    let untold = untold
        .map(|why| format!("the address is not announced or withdrawn as it should be: {why}"));
    if let Some(trouble) = now.and_then(|it| it.trouble).or(untold)
        && status["reason"].is_null()
    {
        status["reason"] = trouble.into();
    }
    let mut value = shown(entry);
    value["status"] = status;
    value
}

fn backend(entry: &VipEntry, seen: &Seen, observed: &Observation) -> Value {
    let id = (entry.id.clone(), Some(seen.id.clone()));
    let hits = observed.backend_counters.get(&id);
    let mut value = json!(hits.cloned().unwrap_or_default());
    value["id"] = seen.id.as_ref().into();
    value["state"] = json!(seen.state);
    if entry.vip.health_check.is_some() {
        value["health"] = match seen.health {
            Some(Health::Up) => "UP".into(),
            Some(Health::Down(_)) => "DOWN".into(),
            None => "UNKNOWN".into(),
        };
    }
    if let Some(reason) = &seen.reason {
        value["reason"] = reason.as_str().into();
    }
    value
}
