//! Backends of VIPs in the tables: an action and a counter for each, and a table of choices for all.

use std::sync::Arc;

use dataplane_core::{
    maglev::{self, Member as Share, NOBODY},
    table::{Backend as Entry, CHOICES, RuleAction, flag, kind, verb},
};

use super::{Installed, Rules, action, counters, transaction::Taken};
use crate::{
    Error,
    memory::Memory,
    rule::{Action, Affinity, Backend, BackendId, BackendState, Balance, Rule, RuleId},
};

/// Where a rule's backends are.
#[derive(Debug)]
pub(super) struct Balanced {
    /// Its table of choices.
    pub(super) table: u32,
    /// The backends in the order of the rule, and at last what is chosen without any.
    pub(super) members: Vec<Member>,
}

/// Where a backend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    /// Where it is counted.
    pub(super) slot: u32,
    pub(super) action: u32,
}

/// What a rule balances over.
pub(super) const fn balance(rule: &Rule) -> Option<&Balance> {
    if let Action::Balance(balance) = &rule.action {
        Some(balance)
    } else {
        None
    }
}

/// Counters, and actions besides the rule's own, that the rule needs.
pub(super) fn extent(rule: &Rule) -> usize {
    balance(rule).map_or(0, |balance| balance.backends.len() + 1)
}

/// Whether two rules differ at most in which backends take how many flows.
pub(super) fn same_but_states(one: &Rule, other: &Rule) -> bool {
    let (Some(a), Some(b)) = (balance(one), balance(other)) else {
        return false;
    };
    let same_backend = |(a, b): (&Backend, &Backend)| a.id == b.id && a.endpoint == b.endpoint;
    a.backends.len() == b.backends.len()
        && a.backends.iter().zip(&b.backends).all(same_backend)
        && (a.affinity, &a.fallback, a.silent) == (b.affinity, &b.fallback, b.silent)
        && (&one.id, one.priority, one.filter_type, &one.filters)
            == (&other.id, other.priority, other.filter_type, &other.filters)
}

impl Rules {
    /// Finds places for the backends of a rule that has its action in `cell`; `hops` are those of its endpoints. Answers also
    /// the places to put in that action.
    #[expect(
        clippy::too_many_arguments,
        reason = "the places that a rule has got so far"
    )]
    pub(super) fn prepare_balance(
        &mut self,
        memory: &mut Memory,
        rule: &Rule,
        balance: &Balance,
        rank: u64,
        cell: u32,
        hops: &[u32],
        taken: &mut Taken,
    ) -> Result<(Balanced, [u32; 2]), Error> {
        let table = self.tables.take(self.limits.vips)?;
        taken.tables.push(table);
        let mut members = Vec::with_capacity(balance.backends.len() + 1);
        let names = balance.backends.iter().map(|it| Some(&it.id)).chain([None]);
        let endpoints = balance.backends.iter().map(|it| Some(&it.endpoint));
        let endpoints = endpoints.chain([balance.fallback.as_ref()]);
        for (place, (name, endpoint)) in names.zip(endpoints).enumerate() {
            let identity = counters::identity_of_backend(&rule.id, name);
            let before = self
                .installed
                .get(&rule.id)
                .and_then(|old| old.slot_of(name));
            let slot = match before {
                Some(slot) => slot,
                None => self.take_slot(memory, identity, taken)?,
            };
            let member = Member {
                slot,
                action: self.take_action(taken)?,
            };
            let mut entry = RuleAction {
                second: cell,
                verb: verb::PASSTHROUGH,
                flags: flag::BACKEND,
                ..action::new(rank, slot, kind::FLOW)
            };
            if name.is_none() {
                entry.flags |= flag::FALLBACK;
            }
            if let Some(endpoint) = endpoint {
                entry.verb = verb::FORWARD;
                entry.first = hops.get(place).copied().unwrap_or(u32::MAX);
                action::lead(&mut entry, endpoint);
            }
            memory.actions.write(member.action as usize, entry);
            members.push(member);
        }
        let balanced = Balanced { table, members };
        balanced.fill(memory, balance);
        let timeout = match balance.affinity {
            Affinity::Flow => 0,
            Affinity::Ue { timeout } => timeout.saturating_mul(self.hz),
        };
        Ok((balanced, [table, timeout]))
    }

    /// Whether packets know a backend as one that takes or keeps flows, be it by the rules of an earlier process.
    pub(crate) fn serves(&self, memory: &Memory, rule: &RuleId, backend: &BackendId) -> bool {
        let slot = match self.installed.get(rule) {
            Some(installed) => installed.slot_of(Some(backend)),
            None => {
                let identity = counters::identity_of_backend(rule, Some(backend));
                self.adopted.get(&identity).copied()
            }
        };
        let word = slot.and_then(|slot| memory.backends.get(slot as usize));
        word.is_some_and(|word| Entry::from(word.get()).lives())
    }

    /// Changes which backends take flows, where nothing else is to change.
    pub(super) fn restate(&mut self, memory: &Memory, rule: &Arc<Rule>) {
        let Some(installed) = self.installed.get_mut(&rule.id) else {
            return;
        };
        installed.rule = Arc::clone(rule);
        if let (Some(balanced), Some(balance)) = (&installed.balanced, balance(rule)) {
            // First where new flows go, then who loses those that it has, and at last that others look again.
            balanced.fill(memory, balance);
            balanced.tell(memory, installed.slot, balance);
            memory.links_changed();
        }
    }
}

impl Installed {
    /// Where a backend is counted, or what is chosen without any.
    fn slot_of(&self, name: Option<&BackendId>) -> Option<u32> {
        let balance = balance(&self.rule)?;
        let members = &self.balanced.as_ref()?.members;
        let place = match name {
            Some(name) => {
                let found = balance.backends.binary_search_by(|it| it.id.cmp(name));
                found.ok()?
            }
            None => balance.backends.len(),
        };
        members.get(place).map(|member| member.slot)
    }

    /// Where the rule and its backends are counted.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> {
        let backends = self.backends().map(|(slot, _)| slot);
        [self.slot].into_iter().chain(backends)
    }

    /// Where the rule's backends are counted, each with which it is.
    pub(super) fn backends(&self) -> impl Iterator<Item = (u32, Option<&Backend>)> {
        let members = self.balanced.iter().flat_map(|it| &it.members);
        let backends = balance(&self.rule).into_iter().flat_map(|it| &it.backends);
        let backends = backends.map(Some).chain([None]);
        members
            .zip(backends)
            .map(|(member, backend)| (member.slot, backend))
    }
}

impl Balanced {
    /// Writes the choices that are not what they should be, a word at a time.
    fn fill(&self, memory: &Memory, balance: &Balance) {
        let share = |backend: &Backend| {
            let weight = if backend.takes_flows() {
                backend.weight
            } else {
                0
            };
            Share::new(backend.id.as_ref().as_bytes(), weight)
        };
        let mut shares: Vec<_> = balance.backends.iter().map(share).collect();
        let mut table = Box::new([NOBODY; maglev::SIZE]);
        maglev::fill(&mut shares, &mut table);
        let cell = |place: &u16| {
            let member = self.members.get(usize::from(*place));
            let member = member.or_else(|| self.members.last());
            member.map_or(0, |member| u64::from(member.action) + 1)
        };
        let first = self.table as usize * CHOICES as usize;
        for (at, pair) in (first..).zip(table.chunks(2)) {
            let [even, odd] = [pair.first(), pair.get(1)].map(|place| place.map_or(0, cell));
            if let Some(word) = memory.choices.get(at) {
                let new = even | odd << 32;
                if word.get() != new {
                    word.set(new);
                }
            }
        }
    }

    /// Tells packets of the backends of a rule that is counted in `vip`.
    pub(super) fn tell(&self, memory: &Memory, vip: u32, balance: &Balance) {
        let any = balance.backends.iter().any(Backend::takes_flows);
        let states = balance.backends.iter().map(|backend| match backend.state {
            BackendState::Up => Some(backend.weight > 0),
            BackendState::Draining => Some(false),
            BackendState::Down => None,
        });
        // What was chosen without a backend keeps its flows.
        for (member, state) in self.members.iter().zip(states.chain([Some(!any)])) {
            let entry = state.map_or(0, |up| Entry::new(vip, member.action, up).into());
            if let Some(word) = memory.backends.get(member.slot as usize) {
                word.set(entry);
            }
        }
    }
}

/// Has the flows of what is counted in `slot` look for another backend.
pub(super) fn retire(memory: &Memory, slot: u32) {
    if let Some(word) = memory.backends.get(slot as usize) {
        word.set(0);
    }
}

/// The cells of actions that packets can reach from the tables of choices that `groups` have, and from flows.
pub(super) fn in_use<'a>(
    memory: &'a Memory,
    groups: impl Iterator<Item = &'a RuleAction> + 'a,
) -> impl Iterator<Item = u32> + 'a {
    let choices = groups
        .filter(|action| action.verb == verb::BALANCE)
        .flat_map(|action| {
            let first = action.first as usize * CHOICES as usize;
            (first..first + CHOICES as usize).filter_map(|at| memory.choices.get(at))
        })
        .flat_map(|word| [word.get() as u32, (word.get() >> 32) as u32])
        .filter_map(|cell| cell.checked_sub(1));
    let kept = memory.backends.iter().map(|word| Entry::from(word.get()));
    let kept = kept.filter(|entry| entry.lives()).map(Entry::cell);
    choices.chain(kept)
}
