use std::{collections::BTreeMap, sync::Arc};

use dataplane_user::rule::RuleId;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Applications, Desired, Vips, entry::line};
use crate::{dataplane::Applied, vip::VipId};

/// What a change did, or would do.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Outline {
    pub(crate) revision: u64,
    pub(crate) changes: Vec<Change>,
    #[serde(flatten)]
    pub(crate) applied: Option<Applied>,
}

/// One rule, session or VIP that a change adds, alters or removes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Change {
    pub(crate) kind: ChangeKind,
    #[serde(flatten)]
    pub(crate) subject: Subject,
    /// It on one line, after the change or, if removed, before.
    pub(crate) text: String,
    /// What it was, if it was changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<String>,
}

/// What changes, by its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Subject {
    Rule(String),
    Session(String),
    Vip(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeKind {
    Added,
    Changed,
    Removed,
}

impl Subject {
    /// The kind of event that tells of it.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Rule(_) => "rules",
            Self::Session(_) => "sessions",
            Self::Vip(_) => "vips",
        }
    }
}

/// Whether nothing is different. What was not touched is not looked into.
pub(super) fn same<K: Ord, T: PartialEq>(
    before: &BTreeMap<K, Arc<T>>,
    after: &BTreeMap<K, Arc<T>>,
) -> bool {
    let entries = before.iter().zip(after);
    let mut pairs = entries.map(|((old_id, old), (new_id, new))| {
        old_id == new_id && (Arc::ptr_eq(old, new) || old == new)
    });
    before.len() == after.len() && pairs.all(|same| same)
}

/// What is different between two states: rule by rule, session by session, VIP by VIP.
pub(super) fn changes(before: &Desired, after: &Desired) -> Vec<Change> {
    let mut changes = rules(&before.applications, &after.applications);
    let sessions = after.sessions.changes(&before.sessions);
    changes.extend(sessions.different().map(|(old, new)| Change {
        kind: if old.is_some() {
            ChangeKind::Changed
        } else {
            ChangeKind::Added
        },
        subject: Subject::Session(new.id().to_string()),
        text: new.to_string(),
        before: old.map(ToString::to_string),
    }));
    changes.extend(sessions.withdrawn.iter().map(|session| Change {
        kind: ChangeKind::Removed,
        subject: Subject::Session(session.id().to_string()),
        text: session.to_string(),
        before: None,
    }));
    changes.extend(vips(&before.vips, &after.vips));
    changes
}

/// The ids of what may be different, each with what it is and that on one line.
type Lines<K> = BTreeMap<K, (Value, String)>;

fn rules(before: &Applications, after: &Applications) -> Vec<Change> {
    let index = |mine: &Applications, other: &Applications| -> Lines<RuleId> {
        let rules = touched(mine, other).flat_map(|(_, entry)| entry.rules());
        rules
            .map(|(id, wire, outcome)| (id, (json!(wire), line(wire, outcome))))
            .collect()
    };
    let (old, new) = (index(before, after), index(after, before));
    compare(&old, &new, |id| Subject::Rule(id.to_string()))
}

fn vips(before: &Vips, after: &Vips) -> Vec<Change> {
    let index = |mine: &Vips, other: &Vips| -> Lines<VipId> {
        let lines = touched(mine, other);
        lines
            .map(|(id, entry)| (id.clone(), (json!(entry.vip), entry.vip.to_string())))
            .collect()
    };
    let (old, new) = (index(before, after), index(after, before));
    compare(&old, &new, |id| Subject::Vip(id.to_string()))
}

/// What the other state does not have in common with this one.
fn touched<'a, K: Ord, T>(
    mine: &'a BTreeMap<K, Arc<T>>,
    other: &BTreeMap<K, Arc<T>>,
) -> impl Iterator<Item = (&'a K, &'a Arc<T>)> {
    let mine = mine.iter();
    mine.filter(|(id, entry)| other.get(*id).is_none_or(|it| !Arc::ptr_eq(it, entry)))
}

fn compare<K: Ord>(old: &Lines<K>, new: &Lines<K>, subject: impl Fn(&K) -> Subject) -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, (wire, text)) in new {
        let (kind, before) = match old.get(id) {
            None => (ChangeKind::Added, None),
            Some((was, before)) if was != wire || before != text => {
                (ChangeKind::Changed, Some(before.clone()))
            }
            Some(_) => continue,
        };
        changes.push(Change {
            kind,
            subject: subject(id),
            text: text.clone(),
            before,
        });
    }
    let removed = old.iter().filter(|(id, _)| !new.contains_key(id));
    changes.extend(removed.map(|(id, (_, text))| Change {
        kind: ChangeKind::Removed,
        subject: subject(id),
        text: text.clone(),
        before: None,
    }));
    changes
}
