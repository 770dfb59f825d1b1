use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
};

use super::{Rule, RuleId};

/// The rules that should be in force, one for each id. They are shared: a set of many is made anew for each
/// change, and most of it stays what it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleSet(BTreeMap<RuleId, Arc<Rule>>);

impl RuleSet {
    /// A set of rules that others have as well.
    pub fn shared(rules: impl IntoIterator<Item = Arc<Rule>>) -> Self {
        let with_id = |rule: Arc<Rule>| (rule.id.clone(), rule);
        Self(rules.into_iter().map(with_id).collect())
    }

    /// Adds a rule and returns the one that had its id.
    pub fn insert(&mut self, rule: Rule) -> Option<Arc<Rule>> {
        self.0.insert(rule.id.clone(), Arc::new(rule))
    }

    /// Takes a rule out.
    pub fn remove(&mut self, id: &RuleId) -> Option<Arc<Rule>> {
        self.0.remove(id)
    }

    /// The rule of that id.
    pub fn get(&self, id: &RuleId) -> Option<&Arc<Rule>> {
        self.0.get(id)
    }

    /// The rules in the order of their ids.
    pub fn iter(&self) -> btree_map::Values<'_, RuleId, Arc<Rule>> {
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
        Self::shared(rules.into_iter().map(Arc::new))
    }
}

impl<'a> IntoIterator for &'a RuleSet {
    type Item = &'a Arc<Rule>;
    type IntoIter = btree_map::Values<'a, RuleId, Arc<Rule>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
