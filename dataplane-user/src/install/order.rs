//! The place of each rule in the order of all.

use std::{collections::BTreeMap, sync::Arc};

use super::Rules;
use crate::{
    compile::Compiled,
    rule::{Rule, RuleId},
};

impl Rules {
    /// A place in the order for each new rule; `None` when there is no room between two.
    pub(super) fn ranks(&self, fresh: &[(&Arc<Rule>, Compiled)]) -> Option<BTreeMap<RuleId, u64>> {
        let place = |rule: &Rule| (rule.priority, rule.id.clone());
        let mut ranks = BTreeMap::new();
        let mut come = Vec::new();
        for (rule, _) in fresh {
            match self.order.get(&place(rule)) {
                // A rule of the same priority as before stays where it was.
                Some(rank) => _ = ranks.insert(rule.id.clone(), *rank),
                None => come.push(*rule),
            }
        }
        come.sort_unstable_by_key(|rule| (rule.priority, &rule.id));
        let mut waiting: Vec<&RuleId> = Vec::new();
        let mut between = (0, u64::MAX);
        for rule in come {
            let place = place(rule);
            let above = self.order.range(&place..).next();
            let below = self.order.range(..place.clone()).next_back();
            let rank = |of: Option<(_, &u64)>| of.map(|(_, rank)| *rank);
            let here = (rank(below).unwrap_or(0), rank(above).unwrap_or(u64::MAX));
            if here != between {
                spread(&mut ranks, &mut waiting, between)?;
                between = here;
            }
            waiting.push(&rule.id);
        }
        spread(&mut ranks, &mut waiting, between)?;
        Some(ranks)
    }
}

/// Gives the rules that wait places between two others.
fn spread(
    ranks: &mut BTreeMap<RuleId, u64>,
    waiting: &mut Vec<&RuleId>,
    (below, above): (u64, u64),
) -> Option<()> {
    let step = (above - below) / (waiting.len() as u64 + 1);
    if step == 0 && !waiting.is_empty() {
        return None;
    }
    for (place, id) in (1..).zip(waiting.drain(..)) {
        ranks.insert(id.clone(), below + step * place);
    }
    Some(())
}

/// Places for all rules, as far from one another as can be.
pub(super) fn even_ranks(rules: &[(&Arc<Rule>, Compiled)]) -> BTreeMap<RuleId, u64> {
    let mut order: Vec<_> = rules
        .iter()
        .map(|(rule, _)| (rule.priority, &rule.id))
        .collect();
    order.sort_unstable();
    let step = u64::MAX / (order.len() as u64 + 1);
    (1..)
        .zip(order)
        .map(|(place, (_, id))| (id.clone(), step * place))
        .collect()
}
