//! The VIPs that are said, and what checks find of their backends.
//!
//! Health is no part of what is desired: it has no revision and is not written to disk. Whatever takes flows goes on until
//! checks have failed often enough, also when the daemon starts, as the data path knows it, or a check is said for the first
//! time; what took none or is new takes none until they have passed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use dataplane_user::rule::{BackendId, RuleId};
use serde_json::json;

use super::{Desired, Snapshot, Source, Store, Told};
use crate::{
    dataplane::Gone,
    mec::Refusal,
    problem::Problem,
    vip::{self, Health, HealthId, HealthOf, Resolved, Site, Surroundings, Vip, VipId},
};

/// The VIPs by id; cheap to copy.
pub(crate) type Vips = BTreeMap<VipId, Arc<VipEntry>>;

/// A valid VIP, unless it was accepted by another version.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct VipEntry {
    pub(crate) source: Source,
    pub(crate) vip: Vip,
    /// That of its rule.
    pub(crate) id: RuleId,
    /// In the order of `vip.backends`, or why this version has no rule for it.
    backends: Result<Vec<BackendId>, String>,
}

impl VipEntry {
    /// Checks a VIP as far as it says everything itself.
    pub(crate) fn new(source: Source, vip: Vip) -> Result<(VipId, Self), Refusal> {
        Self::check(source, vip, Err)
    }

    /// The same for what was accepted already, maybe by another version: what would be refused now is kept, and not installed.
    pub(super) fn saved(source: Source, vip: Vip) -> Result<(VipId, Self), Refusal> {
        let keep = |refusal| Ok(Err(format!("this version refuses it: {refusal}")));
        Self::check(source, vip, keep)
    }

    fn check(
        source: Source,
        vip: Vip,
        refuse: impl Fn(Refusal) -> Result<Result<Vec<BackendId>, String>, Refusal>,
    ) -> Result<(VipId, Self), Refusal> {
        let wrong = |error| Refusal::new("/vipId", format!("{error}"));
        let id = RuleId {
            app: vip::APPLICATION.parse().map_err(wrong)?,
            rule: vip.vip_id.parse().map_err(wrong)?,
        };
        let backends = vip.check(&id).map(Ok).or_else(refuse)?;
        let entry = Self {
            source,
            vip,
            id: id.clone(),
            backends,
        };
        Ok((id.rule, entry))
    }

    /// The VIP as things are; none if this version has no rule for it.
    pub(crate) fn resolve(&self, around: Surroundings<'_>) -> Option<Resolved> {
        let backends = self.backends.as_ref().ok()?;
        Some(self.vip.resolve(&self.id, backends, around))
    }

    /// Why this version has no rule for it.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.backends.as_ref().err().map(String::as_str)
    }

    /// Whether it has a backend of that name, which nobody checks.
    fn unchecked(&self, backend: &BackendId) -> bool {
        let backends = self.backends.as_ref();
        self.vip.health_check.is_none() && backends.is_ok_and(|it| it.contains(backend))
    }
}

/// The backends that can be checked, with what is known of them.
fn checked(vips: &Vips, around: Surroundings<'_>) -> Vec<(HealthId, Option<Health>)> {
    let vips = vips.iter();
    let of_vips = vips.filter_map(|(id, entry)| {
        let checked = entry.vip.health_check.is_some();
        Some((
            id,
            checked.then(|| entry.resolve(around)).flatten()?.backends,
        ))
    });
    let known = of_vips.flat_map(|(id, backends)| {
        let checked = backends.into_iter().filter(|it| it.check.is_some());
        checked.map(|it| ((id.clone(), it.id), it.health))
    });
    known.collect()
}

impl Desired {
    /// What is known of backends after a change.
    pub(super) fn carried(&self, before: &Snapshot) -> HealthOf {
        let around = Surroundings {
            applications: &self.applications,
            health: &before.health,
            site: &Site::default(),
        };
        let checked = checked(&self.vips, around).into_iter();
        let known = checked.filter_map(|(id, known)| {
            let was = before.vips.get(&id.0);
            let presumed = || was?.unchecked(&id.1).then_some(Health::Up);
            let known = known.or_else(presumed)?;
            Some((id, known))
        });
        known.collect()
    }
}

impl Snapshot {
    /// Addresses that others should be told of, and whether they should be now: while all of its VIPs that want it are installed
    /// and healthy here, for what one of them cannot serve is served elsewhere.
    pub(crate) fn to_announce(&self) -> BTreeMap<IpAddr, bool> {
        let mut addresses = BTreeMap::new();
        for entry in self.vips.values().filter(|it| it.vip.announce) {
            let now = entry.resolve(self.surroundings());
            let well = addresses.entry(entry.vip.address).or_insert(true);
            let installed = !self.not_installed.contains_key(&entry.id);
            *well &= installed && now.is_some_and(|it| it.healthy);
        }
        addresses
    }
}

impl Store {
    /// Takes backends that have flows for healthy, until checks say otherwise: at the start, when nothing was checked yet.
    pub(crate) async fn presume(&self) -> Result<(), Gone> {
        let _writer = self.writer.lock().await;
        let now = self.snapshot();
        let checked = checked(&now.vips, now.surroundings()).into_iter();
        let keys = checked.filter_map(|((vip, backend), _)| {
            let rule = now.vips.get(&vip)?.id.clone();
            Some((rule, backend))
        });
        let serving = self.dataplane.serving(keys.collect()).await?.into_iter();
        let health = serving.map(|(rule, backend)| ((rule.rule, backend), Health::Up));
        self.current.send_replace(Arc::new(Snapshot {
            health: Arc::new(health.collect()),
            ..(*now).clone()
        }));
        Ok(())
    }

    /// Takes what checks have found of backends, and changes the rules of their VIPs. What nobody wants checked any more is
    /// passed over. If the data path does not take it, it is offered again with [`Self::reconcile`].
    pub(crate) async fn health(&self, found: HealthOf) -> Result<(), Problem> {
        let _writer = self.writer.lock().await;
        let before = self.snapshot();
        let mut health = HealthOf::clone(&before.health);
        let mut touched = BTreeSet::new();
        for (id, known) in checked(&before.vips, before.surroundings()) {
            if let Some(new) = found.get(&id).filter(|new| known.as_ref() != Some(new)) {
                touched.insert(id.0.clone());
                health.insert(id, new.clone());
            }
        }
        if touched.is_empty() {
            return Ok(());
        }
        let after = Snapshot {
            health: Arc::new(health),
            ..(*before).clone()
        };
        self.tell(&before, &after);
        if !before.in_force() {
            // It has more to catch up with.
            self.current.send_replace(Arc::new(after));
            return self.offer().await;
        }
        // Who answers echo requests is a matter of all VIPs of an address.
        let touched = touched.iter().filter_map(|id| after.vips.get(id));
        let addresses: BTreeSet<_> = touched.map(|entry| entry.vip.address).collect();
        let concerned = after.vips.values();
        let concerned = concerned.filter(|entry| addresses.contains(&entry.vip.address));
        let resolved = concerned.filter_map(|entry| entry.resolve(after.surroundings()));
        let mut fresh: Vec<_> = resolved.map(|it| it.rule).collect();
        vip::share_echoes(&mut fresh);
        fresh.retain(|rule| before.rules.get(&rule.id).map(|it| &**it) != Some(rule));
        if fresh.is_empty() {
            self.current.send_replace(Arc::new(after));
            return Ok(());
        }
        // All but these is what the data path has.
        let mut rules = before.rules.clone();
        for rule in fresh {
            rules.insert(rule);
        }
        let pending = Snapshot {
            failure: Some("not yet".to_owned()),
            ..after
        };
        let taken = self.take(pending, rules).await;
        taken.inspect_err(
            |why| tracing::warn!(%why, "the data path has not taken what checks found"),
        )
    }

    /// Notes which addresses others are told of.
    pub(crate) async fn announced(&self, told: Told) {
        let _writer = self.writer.lock().await;
        let before = self.snapshot();
        if *before.announced == told {
            return;
        }
        for (of, against, announced) in [
            (&told, &*before.announced, true),
            (&before.announced, &told, false),
        ] {
            let known = |address: &IpAddr| against.get(address) == Some(&Ok(()));
            let of = of.iter().filter(|(_, it)| it.is_ok());
            for (address, _) in of.filter(|(address, _)| !known(address)) {
                tracing::info!(%address, announced, "announcement changed");
                let data = json!({"address": address, "announced": announced});
                self.events.publish("vips", &data);
            }
        }
        self.current.send_replace(Arc::new(Snapshot {
            announced: Arc::new(told),
            ..(*before).clone()
        }));
    }

    /// Says what has become of VIPs that stayed.
    pub(super) fn tell(&self, before: &Snapshot, after: &Snapshot) {
        for (id, entry) in &after.vips {
            let was = before.vips.get(id);
            let was = was.and_then(|it| it.resolve(before.surroundings()));
            let (Some(was), Some(now)) = (was, entry.resolve(after.surroundings())) else {
                continue;
            };
            for backend in &now.backends {
                let mut others = was.backends.iter();
                let same = |it: &vip::Seen| it.id == backend.id && it.state == backend.state;
                if others.any(same) {
                    continue;
                }
                let (state, reason) = (json!(backend.state), &backend.reason);
                let why = reason.as_deref().unwrap_or_default();
                tracing::info!(vip = %id, backend = %backend.id, %state, why, "backend changed");
                let mut data =
                    json!({"vip": id.as_ref(), "backend": backend.id.as_ref(), "state": state});
                if let Some(reason) = reason {
                    data["reason"] = reason.as_str().into();
                }
                self.events.publish("vips", &data);
            }
            if was.healthy != now.healthy {
                tracing::info!(vip = %id, healthy = now.healthy, "VIP changed");
                let data = json!({"vip": id.as_ref(), "healthy": now.healthy});
                self.events.publish("vips", &data);
            }
        }
    }
}
