//! Flows that ended, counted by rule.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use dataplane_user::{
    Dataplane,
    rule::{RuleId, RuleSet},
};

use crate::dataplane::Applied;

/// How many flows wait to be counted at most.
const ROOM: usize = 4096;

/// Who counts. A thread does, so that many may end at once.
pub(super) struct Ended(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    rules: RuleSet,
    by_rule: BTreeMap<RuleId, u64>,
    of_none: u64,
}

impl Ended {
    /// Counts the flows that end from now on, until the data path is closed.
    pub(super) fn of(dataplane: &mut Dataplane) -> io::Result<Self> {
        let ended = dataplane.ended(ROOM);
        let counts = Arc::new(Mutex::default());
        let shared = Arc::clone(&counts);
        thread::Builder::new()
            .name("ended".to_owned())
            .spawn(move || {
                for flow in ended {
                    lock(&shared).count(flow.rule);
                }
            })?;
        Ok(Self(counts))
    }

    /// From now on these rules are in force, but for those left out. What was counted of others is forgotten.
    pub(super) fn follow(&self, mut rules: RuleSet, applied: &Applied) {
        for id in applied.not_installed.keys() {
            rules.remove(id);
        }
        let mut counts = lock(&self.0);
        if applied.removed > 0 {
            counts.by_rule.retain(|id, _| rules.get(id).is_some());
        }
        counts.rules = rules;
    }

    /// Flows that came under the rule.
    pub(super) fn of_rule(&self, id: &RuleId) -> u64 {
        lock(&self.0).by_rule.get(id).copied().unwrap_or_default()
    }

    /// Flows of no rule that was in force any more.
    pub(super) fn of_none(&self) -> u64 {
        lock(&self.0).of_none
    }
}

impl Counts {
    /// There are no more counts than rules, however many come and go.
    fn count(&mut self, rule: Option<RuleId>) {
        match rule.filter(|id| self.rules.get(id).is_some()) {
            Some(id) => *self.by_rule.entry(id).or_default() += 1,
            None => self.of_none += 1,
        }
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
