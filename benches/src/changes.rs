//! How long it takes to put rules in force.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dataplane_user::rule::{Rule, RuleSet};

use crate::{Host, Row, limits, rules, text::short};

impl Host {
    /// Puts rules in force, all of them, and answers how long that took.
    pub fn apply(&mut self, rules: &RuleSet) -> Result<Duration> {
        let (applied, time) = self.with(|dataplane| {
            let begun = Instant::now();
            (dataplane.apply(rules), begun.elapsed())
        });
        let left = applied?.not_installed;
        ensure!(left.is_empty(), "{left:?}");
        Ok(time)
    }
}

/// Changes one rule of a set: its priority, to another than before.
pub fn change(rules: &mut RuleSet) {
    let middle = rules.iter().nth(rules.len() / 2).expect("a rule");
    let mut rule = Rule::clone(middle);
    rule.priority = if rule.priority == 100 { 101 } else { 100 };
    rules.insert(rule);
}

/// All rules from nothing, and one changed among all, for each size of a set.
pub fn measure(sizes: &[u32], changes: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for &size in sizes {
        let mut host = Host::new(limits(size, 1), false)?;
        let name = short(size);
        let (all, one) = (format!("apply-all-{name}"), format!("apply-one-of-{name}"));
        match times(&mut host, size, changes) {
            Ok([from_nothing, changed]) => {
                rows.push(Row::times(&all, Some(size), from_nothing));
                rows.push(Row::times(&one, Some(size), changed));
            }
            Err(error) => rows.extend([all, one].map(|id| Row::Refused {
                id,
                refused: format!("{error:#}"),
            })),
        }
    }
    Ok(rows)
}

fn times(host: &mut Host, size: u32, changes: usize) -> Result<[Vec<Duration>; 2]> {
    let (none, mut wanted) = (RuleSet::default(), rules(size));
    let mut from_nothing = Vec::new();
    for _ in 0..3 {
        host.apply(&none)?;
        from_nothing.push(host.apply(&wanted)?);
    }
    let changed = (0..changes).map(|_| {
        change(&mut wanted);
        host.apply(&wanted)
    });
    Ok([from_nothing, changed.collect::<Result<_>>()?])
}
