//! UEs behind tunnels: what packets taught, and what the platform says, which outranks it.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context,
    representation::{Document, Path, Precondition, Query, resource, tag_of},
};
use crate::{
    dataplane::{SessionQuery, SessionState},
    mec::{Refusal, read},
    problem::Problem,
    session::{Session, SessionId},
    store::{Desired, Source},
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    ue: Option<IpAddr>,
    zone: Option<u16>,
    state: Option<SessionState>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn sessions(
    State(context): State<Context>,
    Query(page): Query<Page>,
) -> Result<Json<Value>, Problem> {
    let limit = super::node::limit(page.limit)?;
    let from = page.cursor.as_deref().unwrap_or("0").parse();
    let from = from.map_err(|_| super::node::not_a_cursor())?;
    let query = SessionQuery {
        ue: page.ue,
        zone: page.zone,
        state: page.state,
        from,
        limit,
    };
    let found = context.store.dataplane().sessions(query).await?;
    let mut answer = json!({"sessions": found.sessions});
    if let Some(next) = found.next {
        answer["nextCursor"] = next.to_string().into();
    }
    Ok(Json(answer))
}

/// What is said as it is shown.
fn shown(session: &Session) -> Value {
    let mut value = json!(session);
    value["provisioned"] = true.into();
    value
}

pub(super) async fn session(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = identifier(&path)?;
    if let Some(said) = context.store.snapshot().sessions.get(&id) {
        return Ok(resource(&headers, &shown(said)));
    }
    let query = SessionQuery {
        ue: Some(id.ue_address),
        zone: Some(id.zone),
        limit: 1,
        ..SessionQuery::default()
    };
    let found = context.store.dataplane().sessions(query).await?.sessions;
    let learned = found.first().ok_or_else(|| missing(&id))?;
    // Without a tag: packets change it.
    Ok(Json(learned).into_response())
}

pub(super) async fn put_session(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Document, Problem>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let id = identifier(&path)?;
    let current = move |desired: &Desired| desired.sessions.get(&id).map(|said| shown(said));
    let before = context
        .store
        .snapshot()
        .sessions
        .get(&id)
        .map(|it| shown(it));
    precondition.check(before.as_ref())?;
    let mut wanted = body?.0;
    if wanted.is_object() {
        wanted["zone"] = id.zone.into();
        wanted["ueAddress"] = id.ue_address.to_string().into();
    }
    let wanted: Session = read(wanted)?;
    wanted.check()?;
    wanted.check_endpoints(&context.gtpu)?;
    let tag = tag_of(&shown(&wanted));
    let edit = move |desired: &mut Desired| {
        precondition.check(current(desired).as_ref())?;
        // Said again, it is in force again, even if it is what was said before.
        desired.sessions.insert(Arc::new(wanted));
        Ok(())
    };
    let ((), outline) = context.store.transact(Source::Mp2, edit).await?;
    let answer = (tag, Json(outline));
    Ok(if before.is_none() {
        let location = format!("/mp2/v1/sessions/{id}");
        (StatusCode::CREATED, [(header::LOCATION, location)], answer).into_response()
    } else {
        answer.into_response()
    })
}

pub(super) async fn delete_session(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let id = identifier(&path)?;
    let edit = move |desired: &mut Desired| {
        let said = desired.sessions.get(&id).ok_or_else(|| missing(&id))?;
        precondition.check(Some(&shown(said)))?;
        desired.sessions.remove(&id);
        Ok(())
    };
    let ((), outline) = context.store.transact(Source::Mp2, edit).await?;
    Ok(Json(outline).into_response())
}

fn missing(id: &SessionId) -> Problem {
    Problem::not_found(format!(
        "there is no session {id}, or none that was provisioned"
    ))
}

fn identifier((zone, ue): &(String, String)) -> Result<SessionId, Problem> {
    let zone = zone.parse().map_err(|_| {
        Refusal::new(
            "/zone",
            format!("`{zone}` is not a zone, a number from 0 to 65535"),
        )
    })?;
    let ue_address = ue
        .parse::<IpAddr>()
        .map_err(|_| Refusal::new("/ueAddress", format!("`{ue}` is not an IP address")))?;
    Ok(SessionId { zone, ue_address })
}
