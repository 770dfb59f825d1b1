//! What changes have in common: a source replaces what it said, and nothing that another said.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use dataplane_user::rule::AppInstanceId;

use super::{Applications, Entry, Sessions, Source};
use crate::{
    config::Gtpu,
    mec::{Application, Refusal},
    problem::Problem,
    session::Session,
};

/// The edit that makes the applications of one source what `wanted` says.
pub(crate) fn replacement(
    source: Source,
    wanted: Vec<Application>,
) -> Result<impl FnOnce(&mut Applications) -> Result<(), Problem> + Send + 'static, Problem> {
    let mut entries = BTreeMap::new();
    for (index, application) in wanted.into_iter().enumerate() {
        let (id, entry) = Entry::new(source, application)
            .map_err(|r| r.below(&format!("/applications/{index}")))?;
        if entries.insert(id.clone(), Arc::new(entry)).is_some() {
            let pointer = format!("/applications/{index}/appInstanceId");
            return Err(Refusal::new(pointer, format!("`{id}` is there twice")).into());
        }
    }
    Ok(move |applications: &mut Applications| {
        for id in entries.keys() {
            owned(applications, id, source)?;
        }
        applications.retain(|_, entry| entry.source != source);
        applications.extend(entries);
        Ok(())
    })
}

/// The edit that makes the sessions what `wanted` says.
pub(crate) fn resaid(
    wanted: Vec<Session>,
    gtpu: &Gtpu,
) -> Result<impl FnOnce(&mut Sessions) + Send + 'static, Refusal> {
    let mut sessions = Sessions::default();
    for (index, session) in wanted.into_iter().enumerate() {
        let place = format!("/sessions/{index}");
        let checked = session.check().and_then(|()| session.check_endpoints(gtpu));
        checked.map_err(|refusal| refusal.below(&place))?;
        let id = session.id();
        if sessions.get(&id).is_some() {
            let pointer = format!("{place}/ueAddress");
            return Err(Refusal::new(
                pointer,
                format!("session {id} is there twice"),
            ));
        }
        sessions.insert(Arc::new(session));
    }
    Ok(move |before: &mut Sessions| {
        // What is the same is not said again: packets may have told since that its tunnels have ended.
        let same: Vec<_> = before
            .iter()
            .filter(|it| sessions.get(&it.id()).is_some_and(|new| new == *it))
            .cloned()
            .collect();
        for session in same {
            sessions.insert(session);
        }
        *before = sessions;
    })
}

/// Refuses to touch an application that another source said.
pub(crate) fn owned(
    applications: &Applications,
    id: &AppInstanceId,
    source: Source,
) -> Result<(), Problem> {
    match applications.get(id) {
        Some(entry) if entry.source != source => {
            let owner = entry.source.name();
            let detail =
                format!("application `{id}` comes from the source `{owner}`; change it there");
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        Some(_) | None => Ok(()),
    }
}
