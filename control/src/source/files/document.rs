//! What a rule file says.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;
use serde_json::Value;

use super::super::{Failure, Reason};
use crate::{
    configuration::Configuration,
    mec::Refusal,
    store::{Content, Entry, Said, Source, VipEntry},
};

/// What a file says, or why none of it can be used: the line, or the JSON pointer.
pub(super) fn read(path: &Path, content: &[u8]) -> Result<Content, Failure> {
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
    let mut all = Content::default();
    for (document, value) in documents.into_iter().enumerate() {
        let of_applications = if value.get("appInstanceId").is_some() {
            None
        } else if value.is_array() {
            Some("")
        } else {
            Some("/applications")
        };
        let configuration =
            Configuration::read(value).map_err(|refusal| invalid(document, refusal))?;
        if configuration.sessions.is_some() {
            let detail = "sessions are no rules: say them over Mp2, or with edgesteer apply";
            return Err(invalid(document, Refusal::new("/sessions", detail)));
        }
        let applications = configuration.applications.unwrap_or_default();
        collect::<Entry>(of_applications, applications, &mut all.applications)
            .and_then(|()| {
                let vips = configuration.vips.unwrap_or_default();
                collect::<VipEntry>(Some("/vips"), vips, &mut all.vips)
            })
            .map_err(|refusal| invalid(document, refusal))?;
    }
    Ok(all)
}

/// Checks what a document says of a kind in the list at that place, or alone, and adds it to what the file says.
fn collect<T: Said>(
    list: Option<&str>,
    said: Vec<T::Wire>,
    all: &mut BTreeMap<T::Id, T::Wire>,
) -> Result<(), Refusal> {
    for (index, one) in said.into_iter().enumerate() {
        let place = list.map_or_else(String::new, |list| format!("{list}/{index}"));
        let checked = T::new(Source::Files, one.clone());
        let (id, _) = checked.map_err(|refusal| refusal.below(&place))?;
        if all.insert(id.clone(), one).is_some() {
            let detail = format!("{} `{id}` is in this file twice", T::NAME);
            let pointer = format!("{place}/{}", T::MEMBERS[1]);
            return Err(Refusal::new(pointer, detail));
        }
    }
    Ok(())
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
