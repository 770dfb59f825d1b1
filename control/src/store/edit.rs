//! What changes have in common: a source replaces what it said, and nothing that another said.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, sync::Arc};

use axum::http::StatusCode;
use dataplane_user::rule::{AppInstanceId, ParseError};
use serde::{Serialize, de::DeserializeOwned};

use super::{Desired, Entry, Sessions, Source, VipEntry};
use crate::{
    config::Gtpu,
    mec::{Application, Refusal},
    problem::Problem,
    session::Session,
    vip::{Site, Vip, VipId},
};

/// What sources say, each its own.
pub(crate) trait Said: Send + Sized + Sync + 'static {
    type Id: AsRef<str> + Clone + Display + FromStr<Err = ParseError> + Ord + Send + 'static;
    /// As it is said.
    type Wire: Clone + DeserializeOwned + Serialize + Send;
    /// What one is called.
    const NAME: &'static str;
    /// The member that has a list of them, and the one of each that says its id.
    const MEMBERS: [&'static str; 2];

    /// Checks all that it says itself.
    fn new(source: Source, said: Self::Wire) -> Result<(Self::Id, Self), Refusal>;
    /// Checks what it says of the configuration.
    fn fits(_said: &Self::Wire, _site: &Site) -> Result<(), Refusal> {
        Ok(())
    }
    fn source(&self) -> Source;
    fn said(&self) -> &Self::Wire;
    fn all(desired: &Desired) -> &Entries<Self>;
    fn all_mut(desired: &mut Desired) -> &mut Entries<Self>;
}

impl Said for Entry {
    type Id = AppInstanceId;
    type Wire = Application;
    const NAME: &'static str = "application";
    const MEMBERS: [&'static str; 2] = ["applications", "appInstanceId"];

    fn new(source: Source, said: Application) -> Result<(AppInstanceId, Self), Refusal> {
        Self::new(source, said)
    }

    fn source(&self) -> Source {
        self.source
    }

    fn said(&self) -> &Application {
        &self.application
    }

    fn all(desired: &Desired) -> &Entries<Self> {
        &desired.applications
    }

    fn all_mut(desired: &mut Desired) -> &mut Entries<Self> {
        &mut desired.applications
    }
}

impl Said for VipEntry {
    type Id = VipId;
    type Wire = Vip;
    const NAME: &'static str = "VIP";
    const MEMBERS: [&'static str; 2] = ["vips", "vipId"];

    fn new(source: Source, said: Vip) -> Result<(VipId, Self), Refusal> {
        Self::new(source, said)
    }

    fn fits(said: &Vip, site: &Site) -> Result<(), Refusal> {
        said.check_peer(site)
    }

    fn source(&self) -> Source {
        self.source
    }

    fn said(&self) -> &Vip {
        &self.vip
    }

    fn all(desired: &Desired) -> &Entries<Self> {
        &desired.vips
    }

    fn all_mut(desired: &mut Desired) -> &mut Entries<Self> {
        &mut desired.vips
    }
}

/// Those that there are.
pub(crate) type Entries<T> = BTreeMap<<T as Said>::Id, Arc<T>>;

/// All that a source says.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Content {
    pub(crate) applications: BTreeMap<AppInstanceId, Application>,
    pub(crate) vips: BTreeMap<VipId, Vip>,
}

impl From<BTreeMap<AppInstanceId, Application>> for Content {
    fn from(applications: BTreeMap<AppInstanceId, Application>) -> Self {
        Self {
            applications,
            ..Self::default()
        }
    }
}

impl Content {
    /// Makes what `source` has said this. What cannot be is left as it was and comes back with the reason.
    pub(super) fn replace(
        self,
        source: Source,
        desired: &mut Desired,
        site: &Site,
    ) -> BTreeMap<String, String> {
        let mut refused = update::<Entry>(desired, source, self.applications, site);
        let vips = update::<VipEntry>(desired, source, self.vips, site);
        refused.extend(vips.into_iter().map(|(id, why)| (format!("VIP {id}"), why)));
        refused
    }
}

fn update<T: Said>(
    desired: &mut Desired,
    source: Source,
    wanted: BTreeMap<T::Id, T::Wire>,
    site: &Site,
) -> BTreeMap<String, String> {
    let entries = T::all_mut(desired);
    entries.retain(|id, entry| entry.source() != source || wanted.contains_key(id));
    let refused = wanted.into_iter().filter_map(|(name, said)| {
        let entry = T::fits(&said, site).and_then(|()| T::new(source, said));
        let result = entry.map_err(Problem::from).and_then(|(id, entry)| {
            owned::<T>(entries, &id, source)?;
            entries.insert(id, Arc::new(entry));
            Ok(())
        });
        Some((name.to_string(), result.err()?.to_string()))
    });
    refused.collect()
}

/// The edit that makes what one source says of a kind what `wanted` says.
pub(crate) fn replacement<T: Said>(
    source: Source,
    wanted: Vec<T::Wire>,
    site: &Site,
) -> Result<impl FnOnce(&mut Desired) -> Result<(), Problem> + Send + use<T>, Problem> {
    let [list, member] = T::MEMBERS;
    let mut entries = BTreeMap::new();
    for (index, said) in wanted.into_iter().enumerate() {
        let place = format!("/{list}/{index}");
        let entry = T::fits(&said, site).and_then(|()| T::new(source, said));
        let (id, entry) = entry.map_err(|refusal| refusal.below(&place))?;
        if entries.insert(id.clone(), Arc::new(entry)).is_some() {
            let pointer = format!("{place}/{member}");
            return Err(Refusal::new(pointer, format!("`{id}` is there twice")).into());
        }
    }
    Ok(move |desired: &mut Desired| {
        let before = T::all_mut(desired);
        for id in entries.keys() {
            owned::<T>(before, id, source)?;
        }
        before.retain(|_, entry| entry.source() != source);
        before.extend(entries);
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

/// Refuses to touch what another source said.
pub(crate) fn owned<T: Said>(
    entries: &Entries<T>,
    id: &T::Id,
    source: Source,
) -> Result<(), Problem> {
    match entries.get(id) {
        Some(entry) if entry.source() != source => {
            let (name, owner) = (T::NAME, entry.source().name());
            let detail = format!("{name} `{id}` comes from the source `{owner}`; change it there");
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
        Some(_) | None => Ok(()),
    }
}
