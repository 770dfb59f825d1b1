//! What the platform wants: applications, one by one or all at once.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use dataplane_user::rule::AppInstanceId;
use serde::Deserialize;
use serde_json::Value;

use super::{
    Context,
    representation::{Document, Path, Precondition, Query, resource, tag_of},
};
use crate::{
    configuration::Configuration,
    mec::{Application, Refusal, read},
    problem::Problem,
    store::{Applications, Desired, Entry, Source, owned, replacement, resaid},
};

/// An application as it is shown: with its source.
fn shown(entry: &Entry) -> Value {
    let mut value = serde_json::json!(entry.application);
    value["source"] = entry.source.name().into();
    value
}

pub(super) async fn applications(State(context): State<Context>, headers: HeaderMap) -> Response {
    let snapshot = context.store.snapshot();
    resource(
        &headers,
        &snapshot
            .applications
            .values()
            .map(|entry| shown(entry))
            .collect::<Vec<_>>(),
    )
}

pub(super) async fn application(
    State(context): State<Context>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let snapshot = context.store.snapshot();
    let entry = app
        .parse()
        .ok()
        .and_then(|id: AppInstanceId| snapshot.applications.get(&id));
    let entry =
        entry.ok_or_else(|| Problem::not_found(format!("there is no application `{app}`")))?;
    Ok(resource(&headers, &shown(entry)))
}

pub(super) async fn put_application(
    State(context): State<Context>,
    Path(app): Path<String>,
    headers: HeaderMap,
    body: Result<Document, Problem>,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let id = identifier(&app)?;
    let current = |applications: &Applications| applications.get(&id).map(|entry| shown(entry));
    let snapshot = context.store.snapshot();
    let before = current(&snapshot.applications);
    precondition.check(before.as_ref())?;
    let mut wanted: Application = read(body?.0)?;
    wanted.app_instance_id = app;
    let (id, entry) = Entry::new(Source::Mp2, wanted)?;
    let tag = tag_of(&shown(&entry));
    let location = format!("/mp2/v1/applications/{}", percent(id.as_ref()));
    let edit = move |applications: &mut Applications| {
        precondition.check(applications.get(&id).map(|entry| shown(entry)).as_ref())?;
        owned(applications, &id, Source::Mp2)?;
        applications.insert(id, Arc::new(entry));
        Ok(())
    };
    let ((), outline) = context.store.change(Source::Mp2, edit).await?;
    let created = (StatusCode::CREATED, [(header::LOCATION, location)]);
    let answer = (tag, Json(outline));
    Ok(if before.is_none() {
        (created.0, created.1, answer).into_response()
    } else {
        answer.into_response()
    })
}

pub(super) async fn delete_application(
    State(context): State<Context>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(&headers);
    let id = identifier(&app)?;
    let edit = move |applications: &mut Applications| {
        let current = applications.get(&id).map(|entry| shown(entry));
        let current =
            current.ok_or_else(|| Problem::not_found(format!("there is no application `{id}`")))?;
        precondition.check(Some(&current))?;
        owned(applications, &id, Source::Mp2)?;
        applications.remove(&id);
        Ok(())
    };
    let ((), outline) = context.store.change(Source::Mp2, edit).await?;
    Ok(Json(outline).into_response())
}

/// What was pushed, in the form in which all of it can be replaced.
fn pushed(desired: &Desired) -> Configuration {
    let pushed = desired
        .applications
        .values()
        .filter(|entry| entry.source == Source::Mp2);
    Configuration {
        applications: Some(pushed.map(|entry| entry.application.clone()).collect()),
        sessions: Some(desired.sessions.iter().map(|it| (**it).clone()).collect()),
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
    let Configuration {
        applications,
        sessions,
    } = wanted;
    let applications = applications.map(|it| replacement(Source::Mp2, it));
    let applications = applications.transpose()?;
    let sessions = sessions.map(|it| resaid(it, &context.gtpu)).transpose()?;
    let edit = move |desired: &mut Desired| {
        precondition.check(Some(&pushed(desired)))?;
        if let Some(resay) = sessions {
            resay(&mut desired.sessions);
        }
        applications.map_or(Ok(()), |replace| replace(&mut desired.applications))
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

fn identifier(app: &str) -> Result<AppInstanceId, Problem> {
    app.parse()
        .map_err(|error| Refusal::new("/appInstanceId", format!("{error}")).into())
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
