//! The desired state: which applications and VIPs want what, by whom it was said, and what of it is in force.
//!
//! A change is a transaction: validate, apply to the data path, persist, publish. Whatever fails leaves the state from
//! before, and the error says why. Writers go one after the other; readers take a snapshot and never wait.

mod difference;
mod disk;
mod edit;
mod entry;
mod events;
mod sessions;
mod snapshot;
mod vips;

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as Lock},
    time::Instant,
};

use axum::http::StatusCode;
use dataplane_user::rule::{RuleId, RuleSet};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};
use serde_json::json;
use tokio::sync::{Mutex, watch};

use self::{
    difference::{changes, same},
    disk::Disk,
};
use crate::{
    dataplane::{Applied, Dataplane},
    problem::Problem,
    vip::Site,
};

pub(crate) use difference::{Change, Outline};
pub(crate) use edit::{Content, Said, owned, replacement, resaid};
pub(crate) use entry::{Entry, Source};
pub(crate) use events::{Events, Heard};
pub(crate) use sessions::{SessionChanges, Sessions};
pub(crate) use snapshot::{Applications, Desired, Snapshot, Told};
pub(crate) use vips::{VipEntry, Vips};

#[derive(Debug)]
pub(crate) struct Store {
    dataplane: Dataplane,
    directory: PathBuf,
    disk: Arc<Lock<Disk>>,
    writer: Mutex<()>,
    current: watch::Sender<Arc<Snapshot>>,
    pub(crate) events: Events,
    pub(crate) duration: Histogram,
    pub(crate) errors: IntCounterVec,
}

impl Store {
    /// Takes up the state that was persisted in `directory`. The data path gets it with [`Self::reconcile`].
    /// VIPs reach others by `site`.
    pub(crate) fn open(
        directory: &Path,
        dataplane: Dataplane,
        site: Site,
    ) -> anyhow::Result<Arc<Self>> {
        let (disk, revision, desired) = Disk::open(directory)?;
        let snapshot = Snapshot {
            revision,
            applications: desired.applications,
            sessions: desired.sessions,
            vips: desired.vips,
            site: Arc::new(site),
            ..Snapshot::default()
        };
        let duration = HistogramOpts::new(
            "edgesteer_apply_duration_seconds",
            "Time to put a change in force",
        )
        .buckets(vec![
            0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
        ]);
        let errors = Opts::new(
            "edgesteer_apply_errors_total",
            "Changes that could not be put in force, by source",
        );
        let errors = IntCounterVec::new(errors, &["source"])?;
        for source in Source::ALL {
            errors.with_label_values(&[source.name()]);
        }
        Ok(Arc::new(Self {
            dataplane,
            directory: directory.to_owned(),
            disk: Arc::new(Lock::new(disk)),
            writer: Mutex::default(),
            current: watch::Sender::new(Arc::new(snapshot)),
            events: Events::new()?,
            duration: Histogram::with_opts(duration)?,
            errors,
        }))
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.current.borrow().clone()
    }

    /// Every snapshot that comes, or the last of several.
    pub(crate) fn follow(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.current.subscribe()
    }

    pub(crate) fn dataplane(&self) -> &Dataplane {
        &self.dataplane
    }

    /// Makes what `source` has said what `wanted` says, in one transaction. What cannot be is left as it was and comes back by
    /// its name with the reason; the error is for a transaction that failed as a whole.
    pub(crate) async fn deliver(
        self: &Arc<Self>,
        source: Source,
        wanted: Content,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let site = Arc::clone(&self.snapshot().site);
        let edit = move |desired: &mut Desired| Ok(wanted.replace(source, desired, &site));
        self.transact(source, edit)
            .await
            .map(|(refused, _)| refused)
    }

    /// What a change would do, checked as far as it can be without doing it.
    pub(crate) fn outline(
        &self,
        edit: impl FnOnce(&mut Desired) -> Result<(), Problem>,
    ) -> Result<Outline, Problem> {
        let now = self.snapshot();
        let before = now.desired();
        let mut after = before.clone();
        edit(&mut after)?;
        Ok(Outline {
            revision: now.revision,
            changes: changes(&before, &after),
            applied: None,
        })
    }

    /// One transaction. It runs to its end even when the caller goes away in the middle.
    pub(crate) async fn transact<T: Send + 'static>(
        self: &Arc<Self>,
        source: Source,
        edit: impl FnOnce(&mut Desired) -> Result<T, Problem> + Send + 'static,
    ) -> Result<(T, Outline), Problem> {
        let store = Arc::clone(self);
        let transaction = tokio::spawn(async move {
            let _writer = store.writer.lock().await;
            let before = store.snapshot();
            let mut after = before.desired();
            let value = edit(&mut after)?;
            Ok((value, store.commit(&before, after, source).await?))
        });
        transaction
            .await
            .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?
    }

    async fn commit(
        &self,
        before: &Snapshot,
        after: Desired,
        source: Source,
    ) -> Result<Outline, Problem> {
        let known = before.desired();
        let rules = !before.in_force()
            || !same(&known.applications, &after.applications)
            || !same(&known.vips, &after.vips);
        let sessions = after.sessions.changes(&known.sessions);
        if !rules && sessions.is_empty() {
            return Ok(Outline {
                revision: before.revision,
                ..Outline::default()
            });
        }
        let started = Instant::now();
        let failed = |problem: Problem| {
            self.errors.with_label_values(&[source.name()]).inc();
            tracing::warn!(source = source.name(), reason = %problem, "change refused");
            problem
        };
        let health = after.carried(before);
        let fresh = rules.then(|| after.rules(&health, &before.site));
        let old = || known.rules(&before.health, &before.site);
        let applied = self.program(fresh.clone(), old, &sessions).await;
        let applied = applied?.map_err(|why| {
            let detail =
                format!("the data path did not take the change, so nothing was changed: {why}");
            failed(Problem::new(StatusCode::INSUFFICIENT_STORAGE, detail))
        })?;
        let changes = changes(&known, &after);
        if !rules && changes.is_empty() {
            // Nothing new was said, but it was said again.
            return Ok(Outline {
                revision: before.revision,
                ..Outline::default()
            });
        }
        let revision = before.revision + 1;
        if let Err(why) = disk::write(&self.disk, revision, known.clone(), after.clone()).await {
            // The data path must not be ahead of what a restart would bring back.
            let back = known.sessions.changes(&after.sessions);
            let new = || fresh.clone().unwrap_or_default();
            let undone = self.program(rules.then(old), new, &back).await;
            let detail = format!(
                "cannot write the state in {}: {why:#}; the change was {}undone",
                self.directory.display(),
                if undone.is_ok_and(|it| it.is_ok()) {
                    ""
                } else {
                    "not "
                }
            );
            return Err(failed(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                detail,
            )));
        }
        self.duration.observe(started.elapsed().as_secs_f64());
        self.publish(source, revision, &changes);
        let not_installed = applied
            .as_ref()
            .map_or(&before.not_installed, |applied| &applied.not_installed);
        log_left_out(&before.not_installed, not_installed);
        let snapshot = Snapshot {
            revision,
            programmed: revision,
            applications: after.applications,
            sessions: after.sessions,
            vips: after.vips,
            health: Arc::new(health),
            rules: fresh.unwrap_or_else(|| before.rules.clone()),
            not_installed: not_installed.clone(),
            failure: None,
            ..before.clone()
        };
        self.tell(before, &snapshot);
        let applied = applied.map(|applied| Applied {
            not_installed: snapshot.without_effect(),
            ..applied
        });
        self.current.send_replace(Arc::new(snapshot));
        Ok(Outline {
            revision,
            changes,
            applied,
        })
    }

    /// Has the data path take rules, if there are any, and changes of sessions: all of it, or the error says why nothing has
    /// changed, as far as it took the rules of before.
    async fn program(
        &self,
        rules: Option<RuleSet>,
        before: impl Fn() -> RuleSet,
        sessions: &SessionChanges,
    ) -> Result<Result<Option<Applied>, String>, Problem> {
        let mut applied = None;
        if let Some(rules) = rules {
            match self.dataplane.apply(rules).await? {
                Ok(done) => applied = Some(done),
                Err(why) => return Ok(Err(why)),
            }
        }
        if !sessions.is_empty()
            && let Err(why) = self.dataplane.provision(sessions).await?
        {
            if applied.is_some()
                && let Err(undo) = self.dataplane.apply(before()).await?
            {
                tracing::error!(reason = undo, "the rules from before are not in force");
            }
            return Ok(Err(why));
        }
        Ok(Ok(applied))
    }

    fn publish(&self, source: Source, revision: u64, changes: &[Change]) {
        let source = source.name();
        let of = |kind: &str| {
            changes
                .iter()
                .filter(|it| it.subject.kind() == kind)
                .count()
        };
        let kinds = ["rules", "sessions", "vips"].map(|kind| (kind, of(kind)));
        let [(_, rules), (_, sessions), (_, vips)] = kinds;
        tracing::info!(source, revision, rules, sessions, vips, "changes in force");
        for (kind, number) in kinds {
            // A revision is told of even if all that has changed is not shown.
            if number > 0 || kind == "rules" && changes.is_empty() {
                let data = json!({"revision": revision, "source": source, "changes": number});
                self.events.publish(kind, &data);
            }
        }
    }

    /// Gives up what sources said that are not `asked` any more: nobody would ever change it. The data path learns of it with
    /// [`Self::reconcile`].
    pub(crate) async fn forget(&self, asked: &[Source]) -> anyhow::Result<()> {
        let _writer = self.writer.lock().await;
        let before = self.snapshot();
        let mut after = before.desired();
        let stays = |source: Source, kind: &str, id: &dyn Display| {
            let stays = asked.contains(&source);
            if !stays {
                let source = source.name();
                tracing::warn!(%id, source, "{kind} removed: its source is not in the configuration any more");
            }
            stays
        };
        let applications = &mut after.applications;
        applications.retain(|id, entry| stays(entry.source, "application", id));
        after
            .vips
            .retain(|id, entry| stays(entry.source, "VIP", id));
        if after == before.desired() {
            return Ok(());
        }
        let revision = before.revision + 1;
        self.current.send_replace(Arc::new(Snapshot {
            revision,
            health: Arc::new(after.carried(&before)),
            applications: after.applications.clone(),
            vips: after.vips.clone(),
            ..(*before).clone()
        }));
        disk::write(&self.disk, revision, before.desired(), after).await
    }

    /// Gives the data path what is desired now: at the start, and to mend what came undone.
    pub(crate) async fn reconcile(&self) -> Result<(), Problem> {
        let _writer = self.writer.lock().await;
        self.offer().await
    }

    async fn offer(&self) -> Result<(), Problem> {
        let now = self.snapshot();
        let rules = now.desired().rules(&now.health, &now.site);
        self.take((*now).clone(), rules).await
    }

    /// Has the data path take the rules of what is `now`.
    async fn take(&self, now: Snapshot, rules: RuleSet) -> Result<(), Problem> {
        let mut applied = self.dataplane.apply(rules.clone()).await?;
        // Nobody changes sessions beside this; without a revision, what an earlier state had may be left.
        if applied.is_ok() && (now.programmed != now.revision || now.revision == 0) {
            let sessions = self.dataplane.reprovision(now.sessions.clone()).await?;
            applied = applied.and_then(|applied| sessions.map(|()| applied));
        }
        let (after, result) = match applied {
            Ok(applied) => {
                log_left_out(&now.not_installed, &applied.not_installed);
                let after = Snapshot {
                    programmed: now.revision,
                    rules,
                    not_installed: applied.not_installed,
                    failure: None,
                    ..now
                };
                (after, Ok(()))
            }
            Err(why) => {
                let after = Snapshot {
                    failure: (!now.in_force()).then(|| why.clone()),
                    ..now
                };
                let problem = Problem::new(StatusCode::INSUFFICIENT_STORAGE, why);
                (after, Err(problem))
            }
        };
        self.current.send_replace(Arc::new(after));
        result
    }
}

/// Says which rules are left out that were not, or for another reason, and which are not any more.
fn log_left_out(before: &BTreeMap<RuleId, String>, after: &BTreeMap<RuleId, String>) {
    for (rule, reason) in after {
        if before.get(rule) != Some(reason) {
            tracing::warn!(%rule, reason, "rule left out");
        }
    }
    for rule in before.keys().filter(|rule| !after.contains_key(*rule)) {
        tracing::info!(%rule, "rule not left out any more");
    }
}

#[cfg(test)]
pub(crate) mod tests;
