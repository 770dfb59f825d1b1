//! What is wanted and not in force, and the other way round.

use std::sync::Arc;

use super::{Rules, balance::same_but_states};
use crate::rule::{Action, Rule, RuleId, RuleSet};

/// What a change has to do.
#[derive(Debug)]
pub(crate) struct Difference<'a> {
    pub(super) wanted: &'a RuleSet,
    /// Rules that are new, or not what they were.
    pub(crate) fresh: Vec<&'a Arc<Rule>>,
    /// Rules that are not wanted, or not as they are, by their ids.
    pub(super) gone: Vec<RuleId>,
    /// Rules whose backends take more or fewer flows than before, and that are as they were else.
    pub(super) restated: Vec<&'a Arc<Rule>>,
    /// How many stay as they are.
    pub(super) kept: usize,
    /// Whether one of those that are wanted sends into a tunnel.
    pub(crate) tunnels: bool,
}

impl Rules {
    /// What there is to do so that `wanted` is in force. It takes as long as there is to do.
    pub(crate) fn difference<'a>(&self, wanted: &'a RuleSet) -> Difference<'a> {
        let (mut fresh, mut gone, mut restated) = (Vec::new(), Vec::new(), Vec::new());
        self.wanted.differences(wanted, |before, now| {
            if let Some(before) = before.filter(|it| self.installed.contains_key(&it.id)) {
                if let Some(now) = now.filter(|now| same_but_states(before, now)) {
                    restated.push(now);
                    return;
                }
                gone.push(before.id.clone());
            }
            fresh.extend(now.filter(|it| !self.left_out.contains(&it.id)));
        });
        // What could not be installed may be now.
        fresh.extend(self.left_out.iter().filter_map(|id| wanted.get(id)));
        Difference {
            wanted,
            tunnels: self.tunnels(&gone, &fresh),
            kept: self.installed.len() - gone.len(),
            restated,
            fresh,
            gone,
        }
    }

    fn tunnels(&self, gone: &[RuleId], fresh: &[&Arc<Rule>]) -> bool {
        let gone = gone.iter().filter_map(|id| self.installed.get(id));
        let gone = gone.filter(|it| it.rule.sends_into_tunnel()).count();
        self.tunnelling > gone || fresh.iter().any(|rule| rule.sends_into_tunnel())
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
