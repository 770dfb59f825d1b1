//! What a rule file says.

use std::{collections::BTreeSet, path::Path};

use dataplane_user::rule::AppInstanceId;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Failure, Reason};
use crate::{
    configuration::Configuration,
    mec::{Application, Refusal},
    store::{Entry, Source},
};

/// The applications in a file, or why none of it can be used: the line, or the JSON pointer.
pub(super) fn applications(
    path: &Path,
    content: &[u8],
) -> Result<Vec<(AppInstanceId, Application)>, Failure> {
    let malformed = |what: String| Failure::new(Reason::Malformed, path.display(), what);
    let invalid = |document: usize, refusal: Refusal| {
        let what = match document {
            0 => refusal.to_string(),
            _ => format!("document {}: {refusal}", document + 1),
        };
        Failure::new(Reason::Invalid, path.display(), what)
    };
    let text = std::str::from_utf8(content).map_err(|error| malformed(error.to_string()))?;
    let text = text.trim_start_matches('\u{feff}');
    // Also what is seen of a file at the moment that it is being rewritten.
    if text.trim().is_empty() {
        return Err(malformed(
            "is empty; remove it to remove its applications".to_owned(),
        ));
    }
    let documents = match path.extension() {
        Some(extension) if extension == "json" => json(text),
        _ => yaml(text),
    };
    let documents = documents.map_err(malformed)?;
    let mut seen = BTreeSet::new();
    let mut applications = Vec::new();
    for (document, value) in documents.into_iter().enumerate() {
        let single = value.get("appInstanceId").is_some();
        let list = value.is_array();
        let configuration =
            Configuration::read(value).map_err(|refusal| invalid(document, refusal))?;
        if configuration.sessions.is_some() {
            let detail = "sessions are no rules: say them over Mp2, or with edgesteer apply";
            return Err(invalid(document, Refusal::new("/sessions", detail)));
        }
        let said = configuration.applications.into_iter().flatten();
        for (index, application) in said.enumerate() {
            let place = match (single, list) {
                (true, _) => String::new(),
                (_, true) => format!("/{index}"),
                _ => format!("/applications/{index}"),
            };
            let (id, entry) = Entry::new(Source::Files, application)
                .map_err(|refusal| invalid(document, refusal.below(&place)))?;
            if !seen.insert(id.clone()) {
                let detail = format!("application `{id}` is in this file twice");
                let pointer = format!("{place}/appInstanceId");
                return Err(invalid(document, Refusal::new(pointer, detail)));
            }
            applications.push((id, entry.application));
        }
    }
    Ok(applications)
}

fn json(text: &str) -> Result<Vec<Value>, String> {
    let value = serde_json::from_str(text);
    value
        .map(|value| vec![value])
        .map_err(|error| error.to_string())
}

fn yaml(text: &str) -> Result<Vec<Value>, String> {
    let mut values = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).map_err(|error| error.to_string())?;
        if !value.is_null() {
            values.push(value);
        }
    }
    Ok(values)
}
