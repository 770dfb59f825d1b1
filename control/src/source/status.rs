//! How well a source is doing, for people and for Prometheus.

use std::{
    fmt::{self, Display},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

use crate::store::{Content, Source};

/// What kind of failure; a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// A file or directory could not be read.
    Read,
    /// The other side could not be reached.
    Unreachable,
    /// The other side did not answer in time.
    Timeout,
    /// The answer was an error.
    Status,
    /// The answer sent us round and round.
    Redirect,
    /// The file or the answer was too big.
    TooLarge,
    /// It could not be read at all.
    Malformed,
    /// A part of it was not right.
    Invalid,
    /// The store did not take it.
    Refused,
}

impl Reason {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Unreachable => "unreachable",
            Self::Timeout => "timeout",
            Self::Status => "status",
            Self::Redirect => "redirect",
            Self::TooLarge => "too_large",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }
}

/// Something that is not as it should be, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind.
    pub(crate) reason: Reason,
    /// The file, the URL or the application.
    pub(crate) at: String,
    /// What is wrong.
    pub(crate) what: String,
}

impl Failure {
    pub(super) fn new(reason: Reason, at: impl Display, what: impl Display) -> Self {
        Self {
            reason,
            at: at.to_string(),
            what: what.to_string(),
        }
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.what)
    }
}

/// How a source is doing now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// How often it looked.
    pub(crate) rounds: u64,
    /// When it last found nothing wrong.
    pub(crate) last_success: Option<SystemTime>,
    /// When it last found something wrong.
    pub(crate) last_error: Option<SystemTime>,
    /// What was wrong when it last looked.
    pub(crate) failures: Vec<Failure>,
    /// How many applications it has in force.
    pub(crate) applications: usize,
    /// How many traffic rules these have.
    pub(crate) rules: usize,
    /// How long the last look took.
    pub(crate) duration: Duration,
}

/// The metrics of all sources.
#[derive(Clone)]
pub(crate) struct Metrics {
    errors: IntCounterVec,
    duration: HistogramVec,
    success: GaugeVec,
    applications: IntGaugeVec,
}

impl Metrics {
    /// Makes and registers them.
    pub(crate) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            errors: IntCounterVec::new(
                Opts::new(
                    "edgesteer_sync_errors_total",
                    "What went wrong when a source of rules was read.",
                ),
                &["source", "reason"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::new(
                    "edgesteer_sync_duration_seconds",
                    "How long it took to read a source of rules and to hand the rules over.",
                )
                .buckets(exponential_buckets(0.001, 4.0, 8)?),
                &["source"],
            )?,
            success: GaugeVec::new(
                Opts::new(
                    "edgesteer_sync_last_success_timestamp_seconds",
                    "When a source of rules was last read with nothing wrong.",
                ),
                &["source"],
            )?,
            applications: IntGaugeVec::new(
                Opts::new(
                    "edgesteer_sync_applications",
                    "Applications of a source of rules.",
                ),
                &["source"],
            )?,
        };
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.success.clone()))?;
        registry.register(Box::new(metrics.applications.clone()))?;
        Ok(metrics)
    }
}

/// Keeps the record of one source.
pub(crate) struct Status {
    source: Source,
    metrics: Metrics,
    snapshot: Mutex<Snapshot>,
}

impl Status {
    /// Of a source that has not looked yet.
    pub(crate) fn new(source: Source, metrics: Metrics) -> Self {
        Self {
            source,
            metrics,
            snapshot: Mutex::default(),
        }
    }

    /// Which source it is.
    pub(crate) const fn source(&self) -> Source {
        self.source
    }

    /// How the source is doing now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Records a look. What was already known to be wrong is not logged again.
    pub(super) fn record(&self, started: Instant, content: &Content, failures: Vec<Failure>) {
        let source = self.source.name();
        let metrics = &self.metrics;
        let duration = started.elapsed();
        let now = SystemTime::now();
        let applications = &content.applications;
        let count = i64::try_from(applications.len()).unwrap_or(i64::MAX);
        metrics
            .duration
            .with_label_values(&[source])
            .observe(duration.as_secs_f64());
        metrics.applications.with_label_values(&[source]).set(count);
        for failure in &failures {
            let labels = [source, failure.reason.name()];
            metrics.errors.with_label_values(&labels).inc();
        }

        let mut snapshot = self.lock();
        snapshot.rounds += 1;
        snapshot.duration = duration;
        snapshot.applications = applications.len();
        let rules = applications.values();
        snapshot.rules = rules
            .map(|application| application.traffic_rules.len())
            .sum();
        if failures.is_empty() {
            snapshot.last_success = Some(now);
            let seconds = now.duration_since(SystemTime::UNIX_EPOCH);
            let seconds = seconds.unwrap_or_default().as_secs_f64();
            metrics.success.with_label_values(&[source]).set(seconds);
            if !snapshot.failures.is_empty() {
                tracing::info!(source, "nothing is wrong any more");
            }
        } else {
            snapshot.last_error = Some(now);
        }
        for failure in &failures {
            if !snapshot.failures.contains(failure) {
                tracing::warn!(source, at = failure.at, what = failure.what, "not in force");
            }
        }
        snapshot.failures = failures;
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        // The record stays usable whatever happened to another thread.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
