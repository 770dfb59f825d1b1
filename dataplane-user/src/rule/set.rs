use std::{cmp::Ordering, mem, slice, sync::Arc};

use super::{Rule, RuleId};

/// Rules that a set shares with others in one piece at most.
const CHUNK: usize = 256;

type Chunk = Arc<Vec<Arc<Rule>>>;

/// The rules that should be in force, one for each id. Sets share what they have in common: of one that is made
/// from another only what differs is new, and what they differ in is found without looking at the rest.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// In the order of ids; none is empty.
    chunks: Vec<Chunk>,
    len: usize,
}

impl RuleSet {
    /// A set of rules that others have as well. Of several with one id the last is meant.
    pub fn shared(rules: impl IntoIterator<Item = Arc<Rule>>) -> Self {
        let mut rules: Vec<Arc<Rule>> = rules.into_iter().collect();
        rules.sort_by(|one, other| one.id.cmp(&other.id));
        rules.dedup_by(|later, kept| {
            let same = later.id == kept.id;
            if same {
                mem::swap(later, kept);
            }
            same
        });
        let chunks = rules.chunks(CHUNK / 2);
        Self {
            chunks: chunks.map(|chunk| Arc::new(chunk.to_vec())).collect(),
            len: rules.len(),
        }
    }

    /// Adds a rule and returns the one that had its id.
    pub fn insert(&mut self, rule: Rule) -> Option<Arc<Rule>> {
        let rule = Arc::new(rule);
        // Beyond the last chunk, the last one.
        let at = self.chunk(&rule.id).min(self.chunks.len().max(1) - 1);
        let Some(chunk) = self.chunks.get_mut(at) else {
            self.chunks.push(Arc::new(vec![rule]));
            self.len = 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|it| it.id.cmp(&rule.id)) {
            Ok(place) => Some(mem::replace(&mut chunk[place], rule)),
            Err(place) => {
                chunk.insert(place, rule);
                if chunk.len() > CHUNK {
                    let rest = chunk.split_off(CHUNK / 2);
                    self.chunks.insert(at + 1, Arc::new(rest));
                }
                self.len += 1;
                None
            }
        }
    }

    /// Takes a rule out.
    pub fn remove(&mut self, id: &RuleId) -> Option<Arc<Rule>> {
        let at = self.chunk(id);
        let chunk = self.chunks.get_mut(at)?;
        let place = chunk.binary_search_by(|it| it.id.cmp(id)).ok()?;
        let chunk = Arc::make_mut(chunk);
        let rule = chunk.remove(place);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
        self.len -= 1;
        Some(rule)
    }

    /// The rule of that id.
    pub fn get(&self, id: &RuleId) -> Option<&Arc<Rule>> {
        let chunk = self.chunks.get(self.chunk(id))?;
        let place = chunk.binary_search_by(|it| it.id.cmp(id)).ok()?;
        chunk.get(place)
    }

    /// The rules in the order of their ids.
    pub fn iter(&self) -> Iter<'_> {
        Iter {
            chunks: self.chunks.iter(),
            rules: [].iter(),
            left: self.len,
        }
    }

    /// The number of rules.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no rule.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Calls `differs` with each rule that is not the same in both sets, as it is in `self` and as in `other`.
    pub(crate) fn differences<'a, 'b>(
        &'a self,
        other: &'b Self,
        mut differs: impl FnMut(Option<&'a Arc<Rule>>, Option<&'b Arc<Rule>>),
    ) {
        let (mut ours, mut theirs) = (self.iter(), other.iter());
        loop {
            ours.skip_common(&mut theirs);
            let (our, their) = (ours.peek(), theirs.peek());
            let order = match (our, their) {
                (None, None) => return,
                (Some(our), Some(their)) if Arc::ptr_eq(our, their) => {
                    ours.next();
                    theirs.next();
                    continue;
                }
                (Some(our), Some(their)) => our.id.cmp(&their.id),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
            };
            let our = our.filter(|_| order.is_le());
            let their = their.filter(|_| order.is_ge());
            if our.is_some() {
                ours.next();
            }
            if their.is_some() {
                theirs.next();
            }
            if our.is_none() || our != their {
                differs(our, their);
            }
        }
    }

    /// The chunk that has, or would have, the rule of that id.
    fn chunk(&self, id: &RuleId) -> usize {
        self.chunks
            .partition_point(|chunk| chunk.last().is_some_and(|last| last.id < *id))
    }
}

impl PartialEq for RuleSet {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for RuleSet {}

impl FromIterator<Rule> for RuleSet {
    fn from_iter<I: IntoIterator<Item = Rule>>(rules: I) -> Self {
        Self::shared(rules.into_iter().map(Arc::new))
    }
}

impl<'a> IntoIterator for &'a RuleSet {
    type Item = &'a Arc<Rule>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The rules of a [`RuleSet`].
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    chunks: slice::Iter<'a, Chunk>,
    /// What is left of a chunk.
    rules: slice::Iter<'a, Arc<Rule>>,
    left: usize,
}

impl<'a> Iter<'a> {
    fn peek(&mut self) -> Option<&'a Arc<Rule>> {
        if self.rules.as_slice().is_empty() {
            self.rules = self.chunks.next()?.iter();
        }
        self.rules.as_slice().first()
    }

    /// Goes on behind chunks that both have.
    fn skip_common(&mut self, other: &mut Iter<'_>) {
        while self.rules.as_slice().is_empty()
            && other.rules.as_slice().is_empty()
            && let (Some(our), Some(their)) = (
                self.chunks.as_slice().first(),
                other.chunks.as_slice().first(),
            )
            && Arc::ptr_eq(our, their)
        {
            self.skip_chunk();
            other.skip_chunk();
        }
    }

    fn skip_chunk(&mut self) {
        self.left -= self.chunks.next().map_or(0, |chunk| chunk.len());
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = &'a Arc<Rule>;

    fn next(&mut self) -> Option<Self::Item> {
        self.peek()?;
        self.left -= 1;
        self.rules.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn rule(number: u64, priority: u8) -> Rule {
        format!("a/{number:04} prio {priority} flow any drop")
            .parse()
            .unwrap()
    }

    #[test]
    fn sets_differ_in_what_was_changed() {
        let mut set: RuleSet = (0..3000).map(|number| rule(number, 1)).collect();
        let mut model: BTreeMap<RuleId, u8> =
            set.iter().map(|it| (it.id.clone(), it.priority)).collect();
        let mut seed = 1_u64;
        for _ in 0..300 {
            let before = (set.clone(), model.clone());
            for _ in 0..seed % 40 {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let rule = rule((seed >> 33) % 4000, (seed >> 20) as u8 % 3);
                let old = match seed >> 62 {
                    0 => {
                        let removed = set.remove(&rule.id).map(|it| it.priority);
                        assert_eq!(set.get(&rule.id), None);
                        (removed, model.remove(&rule.id))
                    }
                    _ => {
                        let id = rule.id.clone();
                        let priority = rule.priority;
                        let replaced = set.insert(rule).map(|it| it.priority);
                        assert_eq!(set.get(&id).unwrap().priority, priority);
                        (replaced, model.insert(id, priority))
                    }
                };
                assert_eq!(old.0, old.1);
            }
            let all = set.iter().map(|it| (it.id.clone(), it.priority));
            assert!(all.eq(model.clone()));
            assert_eq!(set.len(), model.len());
            let mut seen = BTreeMap::new();
            before.0.differences(&set, |old, new| {
                let id = old.or(new).unwrap().id.clone();
                seen.insert(id, [old, new].map(|it| it.map(|it| it.priority)));
            });
            let expected: BTreeMap<_, _> = before
                .1
                .keys()
                .chain(model.keys())
                .map(|id| {
                    (
                        id.clone(),
                        [&before.1, &model].map(|it| it.get(id).copied()),
                    )
                })
                .filter(|(_, [old, new])| old != new)
                .collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn the_last_of_an_id_is_meant() {
        let set: RuleSet = [rule(1, 1), rule(2, 2), rule(1, 3)].into_iter().collect();
        let priorities: Vec<u8> = set.iter().map(|it| it.priority).collect();
        assert_eq!(priorities, [3, 2]);
    }
}
