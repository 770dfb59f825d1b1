//! The place of each rule in the order of all.

use std::collections::BTreeMap;

use super::Rules;
use crate::{
    compile::Compiled,
    rule::{Rule, RuleId},
};

impl Rules {
    /// A place in the order for each new rule; `None` when there is no room between two.
    pub(super) fn ranks(
        &self,
        kept: &[&RuleId],
        fresh: &[(&Rule, Compiled)],
    ) -> Option<BTreeMap<RuleId, u64>> {
        // A rule of the same priority as before stays where it was.
        let (stay, come): (Vec<&Rule>, Vec<&Rule>) =
            fresh.iter().map(|(rule, _)| rule).partition(|rule| {
                self.installed
                    .get(&rule.id)
                    .is_some_and(|old| old.rule.priority == rule.priority)
            });
        let old = |id: &RuleId| self.installed.get(id).map(|old| old.rank);
        let mut ranks: BTreeMap<RuleId, u64> = stay
            .iter()
            .filter_map(|rule| Some((rule.id.clone(), old(&rule.id)?)))
            .collect();
        if come.is_empty() {
            return Some(ranks);
        }
        let mut order: Vec<(u8, &RuleId, Option<u64>)> = come
            .iter()
            .map(|rule| (rule.priority, &rule.id, None))
            .collect();
        order.extend(
            stay.iter()
                .map(|rule| (rule.priority, &rule.id, old(&rule.id))),
        );
        for id in kept {
            let old = self.installed.get(*id)?;
            order.push((old.rule.priority, &old.rule.id, Some(old.rank)));
        }
        order.sort_unstable_by_key(|(priority, id, _)| (*priority, *id));
        let mut waiting: Vec<&RuleId> = Vec::new();
        let mut below = 0;
        for (_, id, rank) in order {
            match rank {
                None => waiting.push(id),
                Some(above) => {
                    spread(&mut ranks, &mut waiting, below, above)?;
                    below = above;
                }
            }
        }
        spread(&mut ranks, &mut waiting, below, u64::MAX)?;
        Some(ranks)
    }
}

/// Gives the rules that wait places between two others.
fn spread(
    ranks: &mut BTreeMap<RuleId, u64>,
    waiting: &mut Vec<&RuleId>,
    below: u64,
    above: u64,
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
pub(super) fn even_ranks(rules: &[(&Rule, Compiled)]) -> BTreeMap<RuleId, u64> {
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
