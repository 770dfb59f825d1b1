//! What changes have in common: a source replaces what it said, and nothing that another said.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use dataplane_user::rule::AppInstanceId;

use super::{Applications, Entry, Source};
use crate::{
    mec::{Application, Refusal},
    problem::Problem,
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
