//! The desired state: which applications want what, by whom it was said, and what of it is in force.
//!
//! A change is a transaction: validate, apply to the data path, persist, publish. Whatever fails leaves the state from
//! before, and the error says why. Writers go one after the other; readers take a snapshot and never wait.

mod difference;
mod disk;
mod edit;
mod entry;
mod events;
mod sessions;

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
    dataplane::{Applied, Dataplane},
    mec::{Application, Outcome, State as Activity},
    problem::Problem,
};

pub(crate) use difference::{Change, Outline};
pub(crate) use edit::{owned, replacement, resaid};
pub(crate) use entry::{Entry, Source};
pub(crate) use events::{Events, Heard};
pub(crate) use sessions::{SessionChanges, Sessions};

/// The applications by id; cheap to copy.
pub(crate) type Applications = BTreeMap<AppInstanceId, Arc<Entry>>;

/// All that is desired; cheap to copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Desired {
    pub(crate) applications: Applications,
    pub(crate) sessions: Sessions,
}

/// What is desired and what came of it, at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Grows with every change.
    pub(crate) revision: u64,
    /// The revision that the data path has.
    pub(crate) programmed: u64,
    pub(crate) applications: Applications,
    /// What a platform says of UEs behind tunnels.
    pub(crate) sessions: Sessions,
    /// Rules that the data path left out.
    pub(crate) not_installed: BTreeMap<RuleId, String>,
    /// Why the data path does not have this revision.
    pub(crate) failure: Option<String>,
}

impl Snapshot {
    pub(crate) fn desired(&self) -> Desired {
        Desired {
            applications: self.applications.clone(),
            sessions: self.sessions.clone(),
        }
    }

    /// Rules that no packet comes under, as things are: those left out, and those that wait for a session that says
    /// their QCI.
    fn without_effect(&self) -> BTreeMap<RuleId, String> {
        let rules = self.applications.values().flat_map(|entry| entry.rules());
        let waiting = rules.filter_map(|(id, wire, outcome)| match outcome {
            Outcome::Enforceable(rule) if wire.state == Activity::Active => {
                Some((id, self.sessions.refuse(rule)?))
            }
            Outcome::Enforceable(_) | Outcome::NotEnforceable(_) => None,
        });
        let mut rules: BTreeMap<_, _> = waiting.collect();
        rules.extend(self.not_installed.clone());
        rules
    }
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
        let (disk, revision, desired) = Disk::open(directory)?;
        let snapshot = Snapshot {
            revision,
            applications: desired.applications,
            sessions: desired.sessions,
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

    /// One transaction about applications.
    pub(crate) async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        source: Source,
        edit: impl FnOnce(&mut Applications) -> Result<T, Problem> + Send + 'static,
    ) -> Result<(T, Outline), Problem> {
        self.transact(source, |desired| edit(&mut desired.applications))
            .await
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
        let behind = before.programmed != before.revision;
        let rules = behind || !same(&known.applications, &after.applications);
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
        let applied = self.program(&known, &after, rules, &sessions).await;
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
            let undone = self.program(&after, &known, rules, &back).await;
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
            not_installed: not_installed.clone(),
            failure: None,
        };
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

    /// Has the data path go from one state to another: all of it, or the error says why nothing has changed.
    async fn program(
        &self,
        from: &Desired,
        to: &Desired,
        rules: bool,
        sessions: &SessionChanges,
    ) -> Result<Result<Option<Applied>, String>, Problem> {
        let mut applied = None;
        if rules {
            match self.dataplane.apply(wanted(&to.applications)).await? {
                Ok(done) => applied = Some(done),
                Err(why) => return Ok(Err(why)),
            }
        }
        if !sessions.is_empty()
            && let Err(why) = self.dataplane.provision(sessions).await?
        {
            if rules && let Err(undo) = self.dataplane.apply(wanted(&from.applications)).await? {
                tracing::error!(reason = undo, "the rules from before are not in force");
            }
            return Ok(Err(why));
        }
        Ok(Ok(applied))
    }

    fn publish(&self, source: Source, revision: u64, changes: &[Change]) {
        let source = source.name();
        let (rules, sessions): (Vec<_>, Vec<_>) =
            changes.iter().partition(|change| change.session.is_none());
        tracing::info!(
            source,
            revision,
            rules = rules.len(),
            sessions = sessions.len(),
            "changes in force"
        );
        if !rules.is_empty() || sessions.is_empty() {
            let data = json!({"revision": revision, "source": source, "changes": rules.len()});
            self.events.publish("rules", &data);
        }
        if !sessions.is_empty() {
            let data = json!({"revision": revision, "source": source, "changes": sessions.len()});
            self.events.publish("sessions", &data);
        }
    }

    /// Gives up what sources said that are not `asked` any more: nobody would ever change it. The data path learns of it with
    /// [`Self::reconcile`].
    pub(crate) async fn forget(&self, asked: &[Source]) -> anyhow::Result<()> {
        let _writer = self.writer.lock().await;
        let before = self.snapshot();
        let mut after = before.desired();
        after.applications.retain(|id, entry| {
            let stays = asked.contains(&entry.source);
            if !stays {
                let source = entry.source.name();
                tracing::warn!(application = %id, source, "removed: its source is not in the configuration any more");
            }
            stays
        });
        if after.applications.len() == before.applications.len() {
            return Ok(());
        }
        let revision = before.revision + 1;
        self.current.send_replace(Arc::new(Snapshot {
            revision,
            applications: after.applications.clone(),
            ..(*before).clone()
        }));
        disk::write(&self.disk, revision, before.desired(), after).await
    }

    /// Gives the data path what is desired now: at the start, and to mend what came undone.
    pub(crate) async fn reconcile(&self) -> Result<(), Problem> {
        let _writer = self.writer.lock().await;
        let now = self.snapshot();
        let mut applied = self.dataplane.apply(wanted(&now.applications)).await?;
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
    RuleSet::shared(active.filter_map(|(_, _, outcome)| {
        if let Outcome::Enforceable(rule) = outcome {
            Some(Arc::clone(rule))
        } else {
            None
        }
    }))
}

#[cfg(test)]
pub(crate) mod tests;
