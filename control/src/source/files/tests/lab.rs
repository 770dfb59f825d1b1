//! A directory, and what came out of it.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread::sleep,
    time::{Duration, Instant},
};

use prometheus::Registry;

use super::{
    super::{
        super::{Metrics, Status, Worker, status::Snapshot},
        watch,
    },
    application,
};
use crate::store::{Content, Source};

pub(super) type Verdict = Result<BTreeMap<String, String>, String>;

/// A source on a directory of its own, with a store that says what it is told to say.
pub(super) struct Lab {
    pub(super) root: tempfile::TempDir,
    status: Arc<Status>,
    pub(super) registry: Registry,
    before: Mutex<Content>,
    delivered: Arc<Mutex<Content>>,
    pub(super) deliveries: Arc<Mutex<usize>>,
    verdict: Arc<Mutex<Verdict>>,
    pub(super) worker: Mutex<Option<Worker>>,
}

impl Lab {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("rules.d")).unwrap();
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        Self {
            root,
            status: Arc::new(Status::new(Source::Files, metrics)),
            registry,
            before: Mutex::default(),
            delivered: Arc::default(),
            deliveries: Arc::default(),
            verdict: Arc::new(Mutex::new(Ok(BTreeMap::new()))),
            worker: Mutex::default(),
        }
    }

    pub(super) fn before(&self, names: &[&str]) {
        for name in names {
            let application = serde_json::from_value(application(name, "before")).unwrap();
            let id = name.parse().unwrap();
            let mut before = self.before.lock().unwrap();
            before.applications.insert(id, application);
        }
    }

    pub(super) fn refuse(&self, verdict: Verdict) {
        *self.verdict.lock().unwrap() = verdict;
    }

    pub(super) fn start(&self) {
        let delivered = Arc::clone(&self.delivered);
        let deliveries = Arc::clone(&self.deliveries);
        let verdict = Arc::clone(&self.verdict);
        let deliver = move |content: &Content| {
            *deliveries.lock().unwrap() += 1;
            *delivered.lock().unwrap() = content.clone();
            verdict.lock().unwrap().clone()
        };
        let before = self.before.lock().unwrap().clone();
        let status = Arc::clone(&self.status);
        let worker = watch(self.directory(), before, Box::new(deliver), status).unwrap();
        *self.worker.lock().unwrap() = Some(worker);
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.root.path().join("rules.d")
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub(super) fn names(&self) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        delivered
            .applications
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn vip_ports(&self) -> Vec<u16> {
        let delivered = self.delivered.lock().unwrap();
        let vips = delivered.vips.values();
        vips.filter_map(|vip| vip.port).collect()
    }

    pub(super) fn rules(&self, application: &str) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        let application = delivered.applications.get(&application.parse().unwrap());
        let rules = application
            .into_iter()
            .flat_map(|found| &found.traffic_rules);
        rules.map(|rule| rule.traffic_rule_id.clone()).collect()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        self.status.snapshot()
    }

    pub(super) fn failures(&self) -> String {
        let failures = self.snapshot().failures;
        let lines: Vec<_> = failures.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    #[track_caller]
    pub(super) fn until(&self, condition: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() {
            let names = self.names();
            let failures = self.failures();
            assert!(Instant::now() < end, "not in time: {names:?}\n{failures}");
            sleep(Duration::from_millis(10));
        }
    }
}
