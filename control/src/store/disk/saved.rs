//! What is written, and what it was made of.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    mec::Application,
    session::{Session, SessionId},
    store::{Applications, Entry, Sessions, Source, VipEntry, Vips},
    vip::Vip,
};

/// All of it: what `state.json` has.
#[derive(Serialize, Deserialize)]
pub(super) struct State<'a> {
    pub(super) revision: u64,
    pub(super) applications: Vec<Saved<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<Cow<'a, Session>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) vips: Vec<SavedVip<'a>>,
}

/// A line of `state.log`.
#[derive(Serialize, Deserialize)]
pub(super) struct Change<'a> {
    pub(super) revision: u64,
    pub(super) saved: Vec<Saved<'a>>,
    pub(super) removed: Vec<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) sessions: Vec<Cow<'a, Session>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) withdrawn: Vec<SessionId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) vips: Vec<SavedVip<'a>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) removed_vips: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Saved<'a> {
    source: Source,
    application: Cow<'a, Application>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct SavedVip<'a> {
    source: Source,
    vip: Cow<'a, Vip>,
}

/// What is new or not what it was.
pub(super) fn fresh<'a, K: Ord, T: PartialEq>(
    before: &BTreeMap<K, Arc<T>>,
    after: &'a BTreeMap<K, Arc<T>>,
) -> impl Iterator<Item = &'a Arc<T>> {
    let same = |id, entry: &Arc<T>| {
        let old = before.get(id);
        old.is_some_and(|old| Arc::ptr_eq(old, entry) || old == entry)
    };
    let fresh = after.iter().filter(move |(id, entry)| !same(*id, entry));
    fresh.map(|(_, entry)| entry)
}

/// What is not there any more.
pub(super) fn gone<'a, K: Ord + AsRef<str>, T>(
    before: &'a BTreeMap<K, T>,
    after: &BTreeMap<K, T>,
) -> Vec<Cow<'a, str>> {
    let gone = before.keys().filter(|id| !after.contains_key(*id));
    gone.map(|id| Cow::Borrowed(id.as_ref())).collect()
}

pub(super) fn save<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Vec<Saved<'a>> {
    let saved = entries.map(|entry| Saved {
        source: entry.source,
        application: Cow::Borrowed(&entry.application),
    });
    saved.collect()
}

pub(super) fn save_vips<'a>(entries: impl Iterator<Item = &'a Arc<VipEntry>>) -> Vec<SavedVip<'a>> {
    let saved = entries.map(|entry| SavedVip {
        source: entry.source,
        vip: Cow::Borrowed(&entry.vip),
    });
    saved.collect()
}

pub(super) fn restore_vips(vips: &mut Vips, saved: Vec<SavedVip<'_>>) -> Result<()> {
    for SavedVip { source, vip } in saved {
        let (id, entry) = VipEntry::saved(source, vip.into_owned())?;
        vips.insert(id, Arc::new(entry));
    }
    Ok(())
}

pub(super) fn restore(applications: &mut Applications, saved: Vec<Saved<'_>>) -> Result<()> {
    for Saved {
        source,
        application,
    } in saved
    {
        let (id, entry) = Entry::saved(source, application.into_owned())?;
        applications.insert(id, Arc::new(entry));
    }
    Ok(())
}

pub(super) fn said(sessions: &mut Sessions, saved: Vec<Cow<'_, Session>>) {
    for session in saved {
        sessions.insert(Arc::new(session.into_owned()));
    }
}
