//! The desired state: which applications want what, by whom it was said, and what of it is in force.
//!
//! A change is a transaction: validate, apply to the data path, persist, publish. Whatever fails leaves the state from
//! before, and the error says why. Writers go one after the other; readers take a snapshot and never wait.

mod difference;
mod disk;
mod edit;
mod entry;
mod events;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex as Lock},
    time::Instant,
};

use axum::http::StatusCode;
use dataplane_user::rule::{AppInstanceId, RuleId, RuleSet};
use prometheus::{Histogram, HistogramOpts, IntCounterVec, Opts};
use serde_json::json;
use tokio::sync::{Mutex, watch};

use self::{
    difference::{changes, same},
    disk::Disk,
};
use crate::{
    dataplane::Dataplane,
    mec::{Application, Outcome, State as Activity},
    problem::Problem,
};

pub(crate) use difference::Outline;
pub(crate) use edit::{owned, replacement};
pub(crate) use entry::{Entry, Source};
pub(crate) use events::{Events, Heard};

/// The applications by id; cheap to copy.
pub(crate) type Applications = BTreeMap<AppInstanceId, Arc<Entry>>;

/// What is desired and what came of it, at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Grows with every change.
    pub(crate) revision: u64,
    /// The revision that the data path has.
    pub(crate) programmed: u64,
    pub(crate) applications: Applications,
    /// Rules that the data path left out.
    pub(crate) not_installed: BTreeMap<RuleId, String>,
    /// Why the data path does not have this revision.
    pub(crate) failure: Option<String>,
}

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
    pub(crate) fn open(directory: &Path, dataplane: Dataplane) -> anyhow::Result<Arc<Self>> {
        let (disk, revision, applications) = Disk::open(directory)?;
        let snapshot = Snapshot {
            revision,
            applications,
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

    /// Makes the applications of `source` what `wanted` says, in one transaction. An application that cannot be is left
    /// as it was and comes back with the reason; the error is for a transaction that failed as a whole.
    pub(crate) async fn deliver(
        self: &Arc<Self>,
        source: Source,
        wanted: BTreeMap<AppInstanceId, Application>,
    ) -> Result<BTreeMap<AppInstanceId, String>, Problem> {
        let edit = move |applications: &mut Applications| {
            applications.retain(|id, entry| entry.source != source || wanted.contains_key(id));
            let mut refused = BTreeMap::new();
            for (id, application) in wanted {
                match Entry::new(source, application).map_err(Problem::from) {
                    Err(why) => _ = refused.insert(id, why.to_string()),
                    Ok((id, entry)) => match owned(applications, &id, source) {
                        Err(why) => _ = refused.insert(id, why.to_string()),
                        Ok(()) => _ = applications.insert(id, Arc::new(entry)),
                    },
                }
            }
            Ok(refused)
        };
        self.change(source, edit).await.map(|(refused, _)| refused)
    }

    /// What a change would do, checked as far as it can be without doing it.
    pub(crate) fn outline(
        &self,
        edit: impl FnOnce(&mut Applications) -> Result<(), Problem>,
    ) -> Result<Outline, Problem> {
        let before = self.snapshot();
        let mut after = before.applications.clone();
        edit(&mut after)?;
        Ok(Outline {
            revision: before.revision,
            changes: changes(&before.applications, &after),
            applied: None,
        })
    }

    /// One transaction. It runs to its end even when the caller goes away in the middle.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        source: Source,
        edit: impl FnOnce(&mut Applications) -> Result<T, Problem> + Send + 'static,
    ) -> Result<(T, Outline), Problem> {
        let store = Arc::clone(self);
        let transaction = tokio::spawn(async move {
            let _writer = store.writer.lock().await;
            let before = store.snapshot();
            let mut after = before.applications.clone();
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
        after: Applications,
        source: Source,
    ) -> Result<Outline, Problem> {
        if same(&before.applications, &after) && before.programmed == before.revision {
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
        let applied = self
            .dataplane
            .apply(wanted(&after))
            .await
            .map_err(Problem::from)?
            .map_err(|why| {
                let detail =
                    format!("the data path did not take the change, so nothing was changed: {why}");
                failed(Problem::new(StatusCode::INSUFFICIENT_STORAGE, detail))
            })?;
        let revision = before.revision + 1;
        let known = before.applications.clone();
        if let Err(why) = disk::write(&self.disk, revision, known, after.clone()).await {
            // The data path must not be ahead of what a restart would bring back.
            let undone = self
                .dataplane
                .apply(wanted(&before.applications))
                .await
                .is_ok_and(|r| r.is_ok());
            let detail = format!(
                "cannot write the state in {}: {why:#}; the change was {}undone",
                self.directory.display(),
                if undone { "" } else { "not " }
            );
            return Err(failed(Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                detail,
            )));
        }
        self.duration.observe(started.elapsed().as_secs_f64());
        let changes = changes(&before.applications, &after);
        tracing::info!(
            source = source.name(),
            revision,
            changes = changes.len(),
            left_out = applied.not_installed.len(),
            "rules in force"
        );
        log_left_out(&before.not_installed, &applied.not_installed);
        self.events.publish(
            "rules",
            &json!({"revision": revision, "source": source.name(), "changes": changes}),
        );
        let not_installed = applied.not_installed.clone();
        self.current.send_replace(Arc::new(Snapshot {
            revision,
            programmed: revision,
            applications: after,
            not_installed,
            failure: None,
        }));
        Ok(Outline {
            revision,
            changes,
            applied: Some(applied),
        })
    }

    /// Gives up what sources said that are not `asked` any more: nobody would ever change it. The data path learns of it with
    /// [`Self::reconcile`].
    pub(crate) async fn forget(&self, asked: &[Source]) -> anyhow::Result<()> {
        let _writer = self.writer.lock().await;
        let before = self.snapshot();
        let mut after = before.applications.clone();
        after.retain(|id, entry| {
            let stays = asked.contains(&entry.source);
            if !stays {
                let source = entry.source.name();
                tracing::warn!(application = %id, source, "removed: its source is not in the configuration any more");
            }
            stays
        });
        if after.len() == before.applications.len() {
            return Ok(());
        }
        let revision = before.revision + 1;
        self.current.send_replace(Arc::new(Snapshot {
            revision,
            applications: after.clone(),
            ..(*before).clone()
        }));
        disk::write(&self.disk, revision, before.applications.clone(), after).await
    }

    /// Gives the data path what is desired now: at the start, and to mend what came undone.
    pub(crate) async fn reconcile(&self) -> Result<(), Problem> {
        let _writer = self.writer.lock().await;
        let now = self.snapshot();
        let applied = self.dataplane.apply(wanted(&now.applications)).await?;
        let (after, result) = match applied {
            Ok(applied) => {
                log_left_out(&now.not_installed, &applied.not_installed);
                let after = Snapshot {
                    programmed: now.revision,
                    not_installed: applied.not_installed,
                    failure: None,
                    ..(*now).clone()
                };
                (after, Ok(()))
            }
            Err(why) => {
                let after = Snapshot {
                    failure: (now.programmed != now.revision).then(|| why.clone()),
                    ..(*now).clone()
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

/// The rules that should be in force.
pub(crate) fn wanted(applications: &Applications) -> RuleSet {
    let active = applications.values().flat_map(|entry| entry.rules());
    let active = active.filter(|(_, wire, _)| wire.state == Activity::Active);
    active
        .filter_map(|(_, _, outcome)| {
            if let Outcome::Enforceable(rule) = outcome {
                Some(rule.clone())
            } else {
                None
            }
        })
        .collect()
}

#[cfg(test)]
pub(crate) mod tests;
