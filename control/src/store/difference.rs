use std::{collections::BTreeMap, sync::Arc};

use dataplane_user::rule::RuleId;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Applications, Desired, entry::line};
use crate::dataplane::Applied;

/// What a change did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outline {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
    #[serde(flatten)]
    pub(crate) applied: Option<Applied>,
}

/// One rule or session that a change adds, alters or removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) session: Option<String>,
    /// It on one line, after the change or, if removed, before.
    pub(crate) text: String,
    /// What it was, if it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeKind {
    Added,
    Changed,
    Removed,
}

/// Whether nothing is different. What was not touched is not looked into.
pub(super) fn same(before: &Applications, after: &Applications) -> bool {
    let entries = before.iter().zip(after);
    let mut pairs = entries.map(|((old_id, old), (new_id, new))| {
        old_id == new_id && (Arc::ptr_eq(old, new) || old == new)
    });
    before.len() == after.len() && pairs.all(|same| same)
}

/// What is different between two states: rule by rule, then session by session.
pub(super) fn changes(before: &Desired, after: &Desired) -> Vec<Change> {
    let mut changes = rules(&before.applications, &after.applications);
    let sessions = after.sessions.changes(&before.sessions);
    changes.extend(sessions.different().map(|(old, new)| Change {
        kind: if old.is_some() {
            ChangeKind::Changed
        } else {
            ChangeKind::Added
        },
        rule: None,
        session: Some(new.id().to_string()),
        text: new.to_string(),
        before: old.map(ToString::to_string),
    }));
    changes.extend(sessions.withdrawn.iter().map(|session| Change {
        kind: ChangeKind::Removed,
        rule: None,
        session: Some(session.id().to_string()),
        text: session.to_string(),
        before: None,
    }));
    changes
}

fn rules(before: &Applications, after: &Applications) -> Vec<Change> {
    let index =
        |applications: &Applications, other: &Applications| -> BTreeMap<RuleId, (Value, String)> {
            let touched = applications
                .iter()
                .filter(|(id, entry)| other.get(*id).is_none_or(|o| !Arc::ptr_eq(o, entry)));
            let rules = touched.flat_map(|(_, entry)| entry.rules());
            rules
                .map(|(id, wire, outcome)| (id, (json!(wire), line(wire, outcome))))
                .collect()
        };
    let (old, new) = (index(before, after), index(after, before));
    let mut changes = Vec::new();
    for (id, (wire, text)) in &new {
        let (kind, before) = match old.get(id) {
            None => (ChangeKind::Added, None),
            Some((was, before)) if was != wire || before != text => {
                (ChangeKind::Changed, Some(before.clone()))
            }
            Some(_) => continue,
        };
        changes.push(Change {
            kind,
            rule: Some(id.to_string()),
            session: None,
            text: text.clone(),
            before,
        });
    }
    let removed = old.iter().filter(|(id, _)| !new.contains_key(id));
    changes.extend(removed.map(|(id, (_, text))| Change {
        kind: ChangeKind::Removed,
        rule: Some(id.to_string()),
        session: None,
        text: text.clone(),
        before: None,
    }));
    changes
}
