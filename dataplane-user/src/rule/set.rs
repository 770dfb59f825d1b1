use std::collections::{BTreeMap, btree_map};

use super::{Rule, RuleId};

/// The rules that should be in force, one for each id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(BTreeMap<RuleId, Rule>);

impl RuleSet {
    /// Adds a rule and returns the one that had its id.
    pub fn insert(&mut self, rule: Rule) -> Option<Rule> {
        self.0.insert(rule.id.clone(), rule)
    }

    /// Takes a rule out.
    pub fn remove(&mut self, id: &RuleId) -> Option<Rule> {
        self.0.remove(id)
    }

    /// The rule of that id.
    pub fn get(&self, id: &RuleId) -> Option<&Rule> {
        self.0.get(id)
    }

    /// The rules in the order of their ids.
    pub fn iter(&self) -> btree_map::Values<'_, RuleId, Rule> {
        self.0.values()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Rule> for RuleSet {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self(
            rules
                .into_iter()
                .map(|rule| (rule.id.clone(), rule))
                .collect(),
        )
    }
}

impl<'a> IntoIterator for &'a RuleSet {
    type Item = &'a Rule;
    type IntoIter = btree_map::Values<'a, RuleId, Rule>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
