//! The state of the node: rules and their counters, flows, ports, reasons, and why a packet goes where it goes.

use std::{convert::Infallible, net::IpAddr};

use axum::{
    Json,
    extract::State,
    response::{
        IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
};
use dataplane_core::Reason;
use dataplane_user::rule::RuleId;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context,
    representation::{Document, Query},
};
use crate::{
    dataplane::{FlowQuery, Observation, Port, RuleCounter, SessionQuery, milliseconds, unhex},
    frame,
    mec::{self, Outcome, Refusal, State as Activity},
    problem::Problem,
    store::{Heard, Snapshot},
    vip,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OfApplication {
    app: Option<String>,
}

pub(super) async fn rules(
    State(context): State<Context>,
    Query(filter): Query<OfApplication>,
) -> Result<Json<Vec<Value>>, Problem> {
    let counters = context.store.dataplane().observe().await?.rule_counters;
    let snapshot = context.store.snapshot();
    let entries = snapshot
        .applications
        .iter()
        .filter(|(id, _)| filter.app.as_ref().is_none_or(|app| app == id.as_ref()));
    let rules = entries.flat_map(|(_, entry)| {
        entry.rules().map(|(id, wire, outcome)| {
            let mut value = json!(wire);
            value["rule"] = id.to_string().into();
            value["appInstanceId"] = id.app.as_ref().into();
            value["source"] = entry.source.name().into();
            if let Outcome::Enforceable(rule) = outcome {
                value["text"] = rule.to_string().into();
            }
            value["status"] = status_of(&snapshot, &id, wire.state, outcome, counters.get(&id));
            value
        })
    });
    Ok(Json(rules.collect()))
}

/// Why a rule is not in the data path; nothing when it is.
pub(crate) fn obstacle(
    snapshot: &Snapshot,
    id: &RuleId,
    state: Activity,
    outcome: &Outcome,
) -> Option<String> {
    match (state, outcome) {
        (_, Outcome::NotEnforceable(why)) => Some(why.clone()),
        (Activity::Inactive, Outcome::Enforceable(_)) => Some("the rule is INACTIVE".to_owned()),
        (Activity::Active, Outcome::Enforceable(_)) if snapshot.programmed != snapshot.revision => {
            let why = snapshot.failure.as_deref().unwrap_or("not yet");
            Some(format!("the data path has not taken the rules: {why}"))
        }
        (Activity::Active, Outcome::Enforceable(rule)) => {
            let left_out = snapshot.not_installed.get(id).cloned();
            // In the data path it waits for a session that says more.
            left_out.or_else(|| snapshot.sessions.refuse(rule))
        }
    }
}

fn status_of(
    snapshot: &Snapshot,
    id: &RuleId,
    state: Activity,
    outcome: &Outcome,
    counter: Option<&RuleCounter>,
) -> Value {
    counted(obstacle(snapshot, id, state, outcome), counter)
}

/// The status of a rule that is not in the data path for this reason, or is.
pub(super) fn counted(obstacle: Option<String>, counter: Option<&RuleCounter>) -> Value {
    let hits = counter.map(|it| it.hits.clone()).unwrap_or_default();
    let mut status = json!(hits);
    status["installed"] = obstacle.is_none().into();
    if let Some(reason) = obstacle {
        status["reason"] = reason.into();
    }
    status
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    ue: Option<IpAddr>,
    app: Option<String>,
    rule: Option<String>,
    vip: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// How much of a list is shown at once.
pub(super) fn limit(wanted: Option<usize>) -> Result<usize, Problem> {
    let limit = wanted.unwrap_or(100);
    let possible = (1..=10_000).contains(&limit);
    possible
        .then_some(limit)
        .ok_or_else(|| Problem::bad_request("limit is a number from 1 to 10000"))
}

pub(super) fn not_a_cursor() -> Problem {
    Problem::bad_request("cursor is not the nextCursor of an earlier answer")
}

pub(super) async fn flows(
    State(context): State<Context>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let from = page.cursor.as_deref().unwrap_or("0").parse();
    let (app, rule) = match (page.vip, page.app, page.rule) {
        (None, app, rule) => (app, rule),
        (vip, None, None) => (Some(vip::APPLICATION.to_owned()), vip),
        (Some(_), _, _) => {
            let why = "flows of a VIP are of no other rule: ask for vip without app and rule";
            return Err(Problem::bad_request(why));
        }
    };
    let query = FlowQuery {
        ue: page.ue,
        app,
        rule,
        from: from.map_err(|_| not_a_cursor())?,
        limit: limit(page.limit)?,
    };
    let found = context.store.dataplane().flows(query).await?;
    let mut answer = json!({"flows": found.flows});
    if let Some(next) = found.next {
        answer["nextCursor"] = next.to_string().into();
    }
    Ok(Json(answer))
}

pub(super) async fn ports(State(context): State<Context>) -> Result<Json<Vec<Value>>, Problem> {
    let observation = context.store.dataplane().observe().await?;
    let ports = observation.ports.iter().map(|port| {
        let counters = observation
            .port_counters
            .iter()
            .filter(|c| c.port == port.name && c.packets > 0);
        let counters = counters
            .map(|c| json!({"reason": c.reason.name(), "packets": c.packets, "bytes": c.bytes}));
        let mut value = json!(port);
        value["counters"] = counters.collect();
        value
    });
    Ok(Json(ports.collect()))
}

pub(super) async fn reasons(State(context): State<Context>) -> Result<Json<Vec<Value>>, Problem> {
    let observation = context.store.dataplane().observe().await?;
    let reasons = Reason::ALL.iter().map(|reason| {
        let counters = observation.port_counters.iter().filter(|counter| counter.reason == *reason);
        let (packets, bytes) = counters.fold((0, 0), |(p, b), counter| (p + counter.packets, b + counter.bytes));
        json!({"reason": reason.name(), "meaning": reason.doc(), "packets": packets, "bytes": bytes})
    });
    Ok(Json(reasons.collect()))
}

/// How many rules, those of VIPs included, are desired (active) and how many of them are in the data path.
pub(crate) fn rule_counts(snapshot: &Snapshot) -> (usize, usize) {
    let vips = snapshot.vips.values();
    let there = vips.filter(|entry| super::vips::obstacle(snapshot, entry).is_none());
    let vips = (snapshot.vips.len(), there.count());
    let rules = snapshot
        .applications
        .values()
        .flat_map(|entry| entry.rules());
    rules
        .filter(|(_, wire, _)| wire.state == Activity::Active)
        .fold(vips, |(desired, programmed), (id, wire, outcome)| {
            let there = obstacle(snapshot, &id, wire.state, outcome).is_none();
            (desired + 1, programmed + usize::from(there))
        })
}

pub(super) async fn status(State(context): State<Context>) -> Result<Json<Value>, Problem> {
    let Observation {
        status, next_hops, ..
    } = context.store.dataplane().observe().await?;
    let snapshot = context.store.snapshot();
    let (desired, programmed) = rule_counts(&snapshot);
    Ok(Json(json!({
        "node": &*context.node, "version": env!("CARGO_PKG_VERSION"),
        "revision": {"desired": snapshot.revision, "programmed": snapshot.programmed, "failure": snapshot.failure},
        "applications": snapshot.applications.len(), "vips": snapshot.vips.len(),
        "sessions": {"desired": snapshot.sessions.len()},
        "rules": {"desired": desired, "programmed": programmed},
        "sources": context.status.get().into_iter().flatten().map(|status| source(status)).collect::<Vec<_>>(),
        "dataPath": status, "nextHops": next_hops,
    })))
}

/// How a source of rules is doing.
fn source(status: &crate::source::Status) -> Value {
    let now = status.snapshot();
    json!({
        "source": status.source().name(), "applications": now.applications, "rules": now.rules,
        "lastSuccess": now.last_success.map(milliseconds), "lastError": now.last_error.map(milliseconds),
        "failures": now.failures.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    /// The port that the packet enters by.
    #[serde(rename = "in")]
    port: String,
    flow: Option<String>,
    /// The frame itself.
    hex: Option<String>,
}

pub(super) async fn explain(
    State(context): State<Context>,
    Document(question): Document,
) -> Result<Response, Problem> {
    let question: Question = mec::read(question)?;
    let dataplane = context.store.dataplane();
    let ports = dataplane.observe().await?.ports;
    let port = ports.iter().find(|port| port.name == question.port);
    let port = port.ok_or_else(|| {
        let names: Vec<_> = ports.iter().map(|port| port.name.as_str()).collect();
        Refusal::new(
            "/in",
            format!(
                "there is no port `{}`; there are {}",
                question.port,
                names.join(", ")
            ),
        )
    })?;
    let frame = match (&question.flow, &question.hex) {
        (Some(flow), None) => {
            let mac = port.mac.as_ref().and_then(|mac| mac.parse().ok());
            let built = frame::build(flow, mac).map_err(|why| Refusal::new("/flow", why))?;
            tunnelled(&context, port, built).await?
        }
        (None, Some(digits)) => unhex(digits)
            .ok_or_else(|| Refusal::new("/hex", "these are not pairs of hex digits"))?,
        (Some(_), Some(_)) | (None, None) => {
            return Err(Refusal::new("", "send either `flow` or `hex`").into());
        }
    };
    let explanation = dataplane.explain(question.port, frame).await?;
    Ok(Json(explanation.map_err(Problem::bad_request)?).into_response())
}

/// The frame of a UE's packet as it comes by a port where UEs are behind tunnels: in the tunnel of its session.
async fn tunnelled(context: &Context, port: &Port, frame: Vec<u8>) -> Result<Vec<u8>, Problem> {
    let uplink = port.role == "access";
    let ends = frame::ends(&frame).filter(|_| port.gtpu && (uplink || port.role == "core"));
    let Some((source, destination)) = ends else {
        return Ok(frame);
    };
    let ue = if uplink { source } else { destination };
    let query = SessionQuery {
        ue: Some(ue),
        zone: Some(port.zone),
        limit: 1,
        ..SessionQuery::default()
    };
    let found = context.store.dataplane().sessions(query).await?.sessions;
    let tunnel = found.first().and_then(|session| {
        let (ran, core) = (session.ran_address, session.core_address);
        let teids = session.bearers.iter();
        let mut teids = teids.filter_map(|it| {
            if uplink {
                it.uplink_teid
            } else {
                it.downlink_teid
            }
        });
        let said = session.qos_flows.first().map(|flow| flow.qfi);
        Some(frame::Tunnel {
            source: if uplink { ran } else { core },
            destination: if uplink { core } else { ran },
            teid: teids.next()?,
            qfi: session.qfi.or(said),
        })
    });
    let tunnel = tunnel.ok_or_else(|| {
        let detail = format!(
            "no such tunnel of {ue} is known in zone {}, and UEs behind port `{}` are in tunnels: send the frame as `hex`, \
             or say the session",
            port.zone, port.name
        );
        Refusal::new("/flow", detail)
    })?;
    let frame = tunnel.around(&frame, uplink);
    Ok(frame.map_err(|why| Refusal::new("/flow", why))?)
}

pub(super) async fn events(State(context): State<Context>) -> impl IntoResponse {
    let stream = stream::unfold(context.store.events.listen(), |mut events| async move {
        let event = match events.next().await? {
            Heard::Event(event) => Event::default().event(event.kind).data(&event.data),
            Heard::Lost(lost) => Event::default()
                .event("lost")
                .data(json!({"events": lost}).to_string()),
        };
        Some((Ok::<_, Infallible>(event), events))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}
