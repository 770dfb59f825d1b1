//! What the platform wants: applications and VIPs one by one, or everything at once.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use dataplane_user::rule::ParseError;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Context,
    representation::{Document, Path, Precondition, Query, resource, tag_of},
};
use crate::{
    configuration::Configuration,
    mec::{Refusal, read},
    problem::Problem,
    store::{Desired, Entry, Said, Snapshot, Source, VipEntry, owned, replacement, resaid},
};

/// An application or VIP as it is shown: with its source.
pub(super) fn shown<T: Said>(entry: &T) -> Value {
    let mut value = json!(entry.said());
    value["source"] = entry.source().name().into();
    value
}

pub(super) async fn applications(State(context): State<Context>, headers: HeaderMap) -> Response {
    let snapshot = context.store.snapshot();
    let all = snapshot.applications.values();
    resource(&headers, &all.map(|it| shown(&**it)).collect::<Vec<_>>())
}

pub(super) async fn application(
    State(context): State<Context>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let entry = one::<Entry>(&context.store.snapshot(), &app)?;
    Ok(resource(&headers, &shown(&*entry)))
}

/// The one of that id.
pub(super) fn one<T: Said>(snapshot: &Snapshot, id: &str) -> Result<Arc<T>, Problem> {
    let desired = snapshot.desired();
    let known = id.parse().ok().and_then(|id| T::all(&desired).get(&id));
    known.cloned().ok_or_else(|| missing::<T>(id))
}

fn missing<T: Said>(id: &str) -> Problem {
    Problem::not_found(format!("there is no {} `{id}`", T::NAME))
}

pub(super) async fn put<T: Said>(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Document, Problem>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let id = identifier::<T>(&name)?;
    let current =
        |desired: &Desired, id: &T::Id| T::all(desired).get(id).map(|entry| shown(&**entry));
    let snapshot = context.store.snapshot();
    let before = current(&snapshot.desired(), &id);
    precondition.check(before.as_ref())?;
    let [list, member] = T::MEMBERS;
    let mut wanted = body?.0;
    if wanted.is_object() {
        wanted[member] = name.into();
    }
    let wanted: T::Wire = read(wanted)?;
    T::fits(&wanted, &snapshot.site)?;
    let (id, entry) = T::new(Source::Mp2, wanted)?;
    let tag = tag_of(&shown(&entry));
    let location = format!("/mp2/v1/{list}/{}", percent(id.as_ref()));
    let edit = move |desired: &mut Desired| {
        precondition.check(current(desired, &id).as_ref())?;
        let entries = T::all_mut(desired);
        owned::<T>(entries, &id, Source::Mp2)?;
        entries.insert(id, Arc::new(entry));
        Ok(())
    };
    let ((), outline) = context.store.transact(Source::Mp2, edit).await?;
    let created = (StatusCode::CREATED, [(header::LOCATION, location)]);
    let answer = (tag, Json(outline));
    Ok(if before.is_none() {
        (created.0, created.1, answer).into_response()
    } else {
        answer.into_response()
    })
}

pub(super) async fn delete<T: Said>(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let id = identifier::<T>(&name)?;
    let edit = move |desired: &mut Desired| {
        let entries = T::all_mut(desired);
        let current = entries.get(&id).map(|entry| shown(&**entry));
        let current = current.ok_or_else(|| missing::<T>(id.as_ref()))?;
        precondition.check(Some(&current))?;
        owned::<T>(entries, &id, Source::Mp2)?;
        entries.remove(&id);
        Ok(())
    };
    let ((), outline) = context.store.transact(Source::Mp2, edit).await?;
    Ok(Json(outline).into_response())
}

/// What was pushed, in the form in which all of it can be replaced.
fn pushed(desired: &Desired) -> Configuration {
    let pushed = desired
        .applications
        .values()
        .filter(|entry| entry.source == Source::Mp2);
    let vips = desired.vips.values();
    let vips = vips.filter(|entry| entry.source == Source::Mp2);
    Configuration {
        applications: Some(pushed.map(|entry| entry.application.clone()).collect()),
        sessions: Some(desired.sessions.iter().map(|it| (**it).clone()).collect()),
        vips: Some(vips.map(|entry| entry.vip.clone()).collect()),
    }
}

pub(super) async fn configuration(State(context): State<Context>, headers: HeaderMap) -> Response {
    resource(&headers, &pushed(&context.store.snapshot().desired()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Rehearsal {
    #[serde(default)]
    dry_run: bool,
}

pub(super) async fn put_configuration(
    State(context): State<Context>,
    Query(Rehearsal { dry_run }): Query<Rehearsal>,
    headers: HeaderMap,
    body: Result<Document, Problem>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    precondition.check(Some(&pushed(&context.store.snapshot().desired())))?;
    let Document(body) = body?;
    let wanted = Configuration::read(body)?;
    let site = Arc::clone(&context.store.snapshot().site);
    let applications = wanted.applications;
    let applications = applications.map(|it| replacement::<Entry>(Source::Mp2, it, &site));
    let applications = applications.transpose()?;
    let sessions = wanted.sessions.map(|it| resaid(it, &context.gtpu));
    let sessions = sessions.transpose()?;
    let vips = wanted.vips;
    let vips = vips.map(|it| replacement::<VipEntry>(Source::Mp2, it, &site));
    let vips = vips.transpose()?;
    let edit = move |desired: &mut Desired| {
        precondition.check(Some(&pushed(desired)))?;
        if let Some(resay) = sessions {
            resay(&mut desired.sessions);
        }
        applications.map_or(Ok(()), |replace| replace(desired))?;
        vips.map_or(Ok(()), |replace| replace(desired))
    };
    if dry_run {
        return Ok(Json(context.store.outline(edit)?).into_response());
    }
    let ((), outline) = context.store.transact(Source::Mp2, edit).await?;
    Ok((
        tag_of(&pushed(&context.store.snapshot().desired())),
        Json(outline),
    )
        .into_response())
}

fn identifier<T: Said>(name: &str) -> Result<T::Id, Problem> {
    let pointer = format!("/{}", T::MEMBERS[1]);
    let id = name.parse();
    id.map_err(|error: ParseError| Refusal::new(pointer, error.to_string()).into())
}

/// An id as a segment of a path.
pub(crate) fn percent(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
