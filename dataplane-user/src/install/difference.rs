//! What is wanted and not in force, and the other way round.

use std::sync::Arc;

use super::Rules;
use crate::rule::{Action, Rule, RuleId, RuleSet};

/// What a change has to do.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    pub(super) wanted: &'a RuleSet,
    /// Rules that are new, or not what they were.
    pub(crate) fresh: Vec<&'a Arc<Rule>>,
    /// Rules that are not wanted, or not as they are, by their ids.
    pub(super) gone: Vec<RuleId>,
    /// How many stay as they are.
    pub(super) kept: usize,
}

impl Rules {
    /// What there is to do so that `wanted` is in force.
    pub(crate) fn difference<'a>(&self, wanted: &'a RuleSet) -> Difference<'a> {
        let mut difference = Difference {
            wanted,
            fresh: Vec::new(),
            gone: Vec::new(),
            kept: 0,
        };
        // Both are in the same order.
        let mut installed = self.installed.iter().peekable();
        for rule in wanted {
            // Of many rules, most are the very same: then nothing has to be looked into.
            let same = installed.next_if(|(_, it)| Arc::ptr_eq(&it.rule, rule));
            if same.is_some() {
                difference.kept += 1;
                continue;
            }
            while let Some((id, _)) = installed.next_if(|(id, _)| **id < rule.id) {
                difference.gone.push(id.clone());
            }
            match installed.next_if(|(id, _)| **id == rule.id) {
                Some((_, before)) if before.rule == *rule => difference.kept += 1,
                before => {
                    difference.gone.extend(before.map(|(id, _)| id.clone()));
                    difference.fresh.push(rule);
                }
            }
        }
        difference.gone.extend(installed.map(|(id, _)| id.clone()));
        difference
    }
}

impl Difference<'_> {
    /// Whether a new rule asks for copies.
    pub(crate) fn copies(&self) -> bool {
        self.fresh.iter().any(|rule| copies(rule))
    }
}

/// Whether the rule asks for copies.
pub(super) const fn copies(rule: &Rule) -> bool {
    matches!(rule.action, Action::Duplicate { .. })
}
