//! The task that has all checks made.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    Check, Key, SHORTEST, State,
    ping::Pinger,
    probe::probe,
    schedule::Schedule,
    verdict::{Finding, Health, Outcome},
};

/// So many checks wait for an answer at a time: each may take a file descriptor, of which a daemon has 1,024 unless told otherwise.
const AT_ONCE: usize = 512;
/// Findings are taken in so many at a time.
const BATCH: usize = 256;

/// What is to be checked.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) checks: BTreeMap<Key, Check>,
    pub(super) assumed: BTreeMap<Key, bool>,
}

/// Makes checks until nobody can wish for any.
pub(super) async fn run(mut wishes: mpsc::UnboundedReceiver<Wish>, state: watch::Sender<State>) {
    let (findings, mut found) = mpsc::unbounded_channel();
    let mut round = Round {
        numbers: BTreeMap::new(),
        running: HashMap::new(),
        last: 0,
        schedule: Schedule::default(),
        state,
        findings,
        permits: Arc::new(Semaphore::new(AT_ONCE)),
        pinger: Arc::default(),
        probes: JoinSet::new(),
    };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let next = round.schedule.next();
        tokio::select! {
            wish = wishes.recv() => match wish {
                Some(wish) => round.follow(wish),
                None => return,
            },
            _ = found.recv_many(&mut batch, BATCH) => round.note(batch.drain(..)),
            () = at(next) => round.start(),
        }
        while round.probes.try_join_next().is_some() {}
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

struct Round {
    /// A check that starts anew has another number, so that nothing of the one before is taken for it.
    numbers: BTreeMap<Key, u64>,
    running: HashMap<u64, Running>,
    last: u64,
    schedule: Schedule,
    state: watch::Sender<State>,
    findings: mpsc::UnboundedSender<(u64, Finding)>,
    permits: Arc<Semaphore>,
    pinger: Arc<Pinger>,
    probes: JoinSet<()>,
}

struct Running {
    key: Key,
    check: Arc<Check>,
    /// Whether it is being made.
    busy: bool,
    /// Whether this host could not make it the last time.
    unchecked: bool,
}

impl Round {
    fn follow(&mut self, wish: Wish) {
        let now = Instant::now();
        let mut fresh = State::new();
        let before = std::mem::take(&mut self.numbers);
        for (key, check) in wish.checks {
            let same = before.get(&key).copied().filter(|number| {
                let running = self.running.get(number);
                running.is_some_and(|running| *running.check == check)
            });
            let number = same.unwrap_or_else(|| {
                let assumed = wish.assumed.get(&key).copied();
                fresh.insert(key.clone(), Health::new(assumed, SystemTime::now()));
                self.add(key.clone(), check, now)
            });
            self.numbers.insert(key, number);
        }
        let numbers = &self.numbers;
        self.running
            .retain(|number, running| numbers.get(&running.key) == Some(number));
        self.state.send_if_modified(|state| {
            let count = state.len();
            state.retain(|key, _| numbers.contains_key(key));
            let changed = count != state.len() || !fresh.is_empty();
            state.append(&mut fresh);
            changed
        });
    }

    fn add(&mut self, key: Key, check: Check, now: Instant) -> u64 {
        self.last += 1;
        self.schedule.add(self.last, interval(&check), now);
        let running = Running {
            key,
            check: Arc::new(check),
            busy: false,
            unchecked: false,
        };
        self.running.insert(self.last, running);
        self.last
    }

    /// Starts the checks that are due, but not those that still run.
    fn start(&mut self) {
        let now = Instant::now();
        while let Some((number, due)) = self.schedule.take(now) {
            let Some(running) = self.running.get_mut(&number) else {
                continue;
            };
            self.schedule
                .again(number, due, interval(&running.check), now);
            if std::mem::replace(&mut running.busy, true) {
                self.state
                    .send_if_modified(|state| running.note(state, Finding::of(Outcome::Skipped)));
                continue;
            }
            let check = Arc::clone(&running.check);
            let (permits, pinger) = (Arc::clone(&self.permits), Arc::clone(&self.pinger));
            let findings = self.findings.clone();
            self.probes.spawn(async move {
                // Nobody closes the semaphore.
                let permit = permits.acquire().await;
                let (finding, farewell) = probe(&check, &pinger).await;
                drop(permit);
                // Nobody listens when the daemon ends.
                let _ = findings.send((number, finding));
                farewell.await;
            });
        }
    }

    fn note(&mut self, findings: impl Iterator<Item = (u64, Finding)>) {
        let running = &mut self.running;
        self.state.send_if_modified(|state| {
            let mut turned = false;
            for (number, finding) in findings {
                // Some were not wanted any more.
                if let Some(running) = running.get_mut(&number) {
                    running.busy = false;
                    turned |= running.note(state, finding);
                }
            }
            turned
        });
    }
}

impl Running {
    /// Takes a finding in and tells of what people should know; whether the backend rose or fell.
    fn note(&mut self, state: &mut State, finding: Finding) -> bool {
        let Key { vip, backend } = &self.key;
        let Some(health) = state.get_mut(&self.key) else {
            return false;
        };
        let unchecked = finding.outcome == Outcome::Unchecked;
        let turned = health.note(&self.check, finding, SystemTime::now());
        let reason = health.reason.as_deref().unwrap_or_default();
        if unchecked && !std::mem::replace(&mut self.unchecked, unchecked) {
            tracing::warn!(vip, backend, reason, "the backend cannot be checked");
        }
        if turned {
            match health.up {
                Some(true) => tracing::info!(vip, backend, "the backend is up"),
                _ => tracing::warn!(vip, backend, reason, "the backend is down"),
            }
        }
        turned
    }
}

fn interval(check: &Check) -> Duration {
    check.interval.max(SHORTEST)
}
