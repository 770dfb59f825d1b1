//! Rule sets put in force, each as one transaction.

mod action;
mod balance;
mod counters;
mod difference;
mod hops;
mod names;
mod order;
mod pool;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    thread::JoinHandle,
};

use dataplane_core::table::{Filter, Split, TARGETS, verb};

pub(crate) use self::difference::Difference;
pub(crate) use self::hops::{HopAddress, HopKey, Place, Surroundings, keys as hop_keys};
use self::{
    balance::Balanced,
    hops::NextHop,
    names::{Marks, Named},
    pool::Pool,
};
use crate::{
    Applied, Error, Limits,
    classifier::{Classifier, Item, Remains},
    memory::{Memory, counters},
    rule::{Backend, Rule, RuleId, RuleSet},
    shared::Shared,
};

/// The rules in force and where they are in the tables.
#[derive(Debug)]
pub(crate) struct Rules {
    classifier: Classifier,
    /// What was asked for last, and which of it could not be installed.
    wanted: RuleSet,
    left_out: BTreeSet<RuleId>,
    installed: BTreeMap<RuleId, Installed>,
    /// Their ranks, by what decides over them.
    order: BTreeMap<(u8, RuleId), u64>,
    /// How many of them ask for copies.
    copies: usize,
    /// How many of them send into tunnels.
    tunnelling: usize,
    /// How many backends they have, and what is chosen without any.
    backends: usize,
    /// How many combinations of tunnel attributes they have.
    tunnelled: usize,
    actions: Pool,
    tunnels: Pool,
    /// Next hops but for those at the ends of tunnels, whose cells come before.
    hops: Pool,
    targets: Pool,
    /// Tables of choices.
    tables: Pool,
    slots: Pool,
    /// Rules known by what identifies them, from before a restart.
    adopted: BTreeMap<u64, u32>,
    next_hops: BTreeMap<HopKey, NextHop>,
    named: Named,
    limits: Limits,
    cpus: u32,
    /// Jiffies in a second.
    pub(crate) hz: u32,
    /// Counters given back, which flows may still name, and the rules that were counted there.
    released: Released,
    /// What rule sets of before leave behind, oldest first.
    limbo: VecDeque<Limbo>,
}

/// What packets that are under way in an old rule set may still use.
#[derive(Debug)]
struct Limbo {
    /// Ends when no packet is under way any more.
    settled: Option<JoinHandle<()>>,
    remains: Remains,
    actions: Vec<u32>,
    tunnels: Vec<u32>,
    hops: Vec<u32>,
    tables: Vec<u32>,
    slots: Vec<(u32, Option<Arc<Rule>>)>,
    names: Vec<Marks>,
    /// Whether more may be named by an earlier process.
    adopted: bool,
}

/// What is counted in a place: a rule, or one of its backends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) backend: Option<&'a Backend>,
}

/// Rules by the counter that they had; none where only an earlier process knew.
pub(crate) type Released = HashMap<u32, Option<Arc<Rule>>>;

#[derive(Debug)]
struct Installed {
    rule: Arc<Rule>,
    rank: u64,
    /// Where it is counted.
    slot: u32,
    action: u32,
    tunnels: Vec<u32>,
    items: Vec<Arc<Item>>,
    hops: Vec<HopKey>,
    balanced: Option<Balanced>,
}

impl Rules {
    /// Takes over the tables, in which the rules of an earlier process may be in force.
    pub(crate) fn new(
        splits: Shared<Split>,
        filters: Shared<Filter>,
        memory: &Memory,
        limits: Limits,
        cpus: u32,
    ) -> Self {
        let image = memory.image();
        let mut used = action::in_use(&filters, image.root, |filter| Some(filter.action));
        let tunnels = action::in_use(&filters, image.root, |filter| filter.tunnel.checked_sub(1));
        let action = |cell: &u32| memory.actions.get(*cell as usize);
        let tables = used
            .iter()
            .filter_map(action)
            .filter(|action| action.verb == verb::BALANCE)
            .map(|action| action.first)
            .collect();
        let backends: Vec<u32> = balance::in_use(memory, used.iter().filter_map(action)).collect();
        used.extend(backends);
        let in_force = || {
            used.iter()
                .filter_map(|cell| memory.actions.get(*cell as usize))
        };
        let hops = in_force()
            .flat_map(|action| [action.first, action.second])
            .collect();
        let identity = |slot| {
            memory
                .rule_counts
                .get(slot as usize)
                .map_or(0, |it| it.identity.get())
        };
        let adopted: BTreeMap<u64, u32> = (0..counters(&limits))
            .map(|slot| (identity(slot), slot))
            .filter(|(it, _)| *it != 0)
            .collect();
        Self {
            classifier: Classifier::new(splits, filters, image.root, limits.filters),
            wanted: RuleSet::default(),
            left_out: BTreeSet::new(),
            installed: BTreeMap::new(),
            order: BTreeMap::new(),
            copies: 0,
            tunnelling: 0,
            backends: 0,
            tunnelled: 0,
            actions: Pool::new(0..memory.actions.len() as u32, &used),
            tunnels: Pool::new(0..memory.tunnel_filters.len() as u32, &tunnels),
            hops: Pool::new(TARGETS..memory.hops.len() as u32, &hops),
            targets: Pool::new(0..TARGETS, &hops),
            tables: Pool::new(0..limits.vips * 2, &tables),
            slots: Pool::new(0..counters(&limits), &adopted.values().copied().collect()),
            adopted,
            next_hops: BTreeMap::new(),
            named: Named::default(),
            limits,
            cpus,
            hz: 1000,
            released: Released::new(),
            limbo: VecDeque::new(),
        }
    }

    /// Puts what is wanted in force, whole or not at all, but for single rules that cannot be. `settle` returns
    /// when no packet is under way in the old rule set any more; nobody waits for it, unless there is no
    /// room otherwise.
    pub(crate) fn apply(
        &mut self,
        memory: &mut Memory,
        difference: &Difference<'_>,
        surroundings: &impl Surroundings,
        settle: fn(),
    ) -> Result<Applied, Error> {
        self.reclaim(memory, false);
        let applied = match self.change(memory, difference, surroundings, settle) {
            Err(Error::TooMany { .. } | Error::TooManyTunnels { .. }) if !self.limbo.is_empty() => {
                self.reclaim(memory, true);
                self.change(memory, difference, surroundings, settle)
            }
            result => result,
        }?;
        self.wanted = difference.wanted.clone();
        self.left_out = applied.not_installed.keys().cloned().collect();
        Ok(applied)
    }

    /// Frees what no packet can use any more; with `wait`, once that is so for all.
    pub(crate) fn reclaim(&mut self, memory: &Memory, wait: bool) {
        while let Some(first) = self.limbo.front() {
            if !wait && first.settled.as_ref().is_some_and(|it| !it.is_finished()) {
                return;
            }
            let Some(limbo) = self.limbo.pop_front() else {
                return;
            };
            if limbo.settled.is_some_and(|it| it.join().is_err()) {
                // It cannot be known that packets have settled: better lose the cells.
                tracing::error!("cells of an old rule set are lost");
                continue;
            }
            self.classifier.reclaim(limbo.remains);
            self.named.remove(memory, limbo.names);
            if limbo.adopted {
                self.named.show(memory);
            }
            for action in limbo.actions {
                self.actions.give_back(action);
            }
            for tunnel in limbo.tunnels {
                self.tunnels.give_back(tunnel);
            }
            for table in limbo.tables {
                self.tables.give_back(table);
            }
            for hop in limbo.hops {
                self.give_back_hop(memory, hop);
            }
            for (slot, rule) in limbo.slots {
                self.slots.give_back(slot);
                self.released.insert(slot, rule);
            }
        }
    }

    /// A cell of the rule set.
    pub(crate) fn split(&self, cell: u32) -> Option<&Split> {
        self.classifier.split(cell)
    }

    /// A cell of the rule set.
    pub(crate) fn filter(&self, cell: u32) -> Option<&Filter> {
        self.classifier.filter(cell)
    }

    /// Whether a rule asks for copies.
    pub(crate) const fn copies(&self) -> bool {
        self.copies > 0
    }

    /// Rules by where they are counted, those included that have just gone.
    pub(crate) fn by_slot(&self) -> BTreeMap<u32, Counted<'_>> {
        let counted = |rule, backend| Counted { rule, backend };
        let gone = self.limbo.iter().flat_map(|limbo| &limbo.slots);
        let gone = gone.filter_map(|(slot, rule)| Some((*slot, counted(rule.as_deref()?, None))));
        let installed = self.installed.values().flat_map(|it| {
            let own = (it.slot, counted(&it.rule, None));
            let backends = it.backends();
            let backends = backends.map(|(slot, backend)| (slot, counted(&it.rule, backend)));
            [own].into_iter().chain(backends)
        });
        gone.chain(installed).collect()
    }

    /// Counters that were given back since the last call.
    pub(crate) fn released(&mut self) -> Released {
        std::mem::take(&mut self.released)
    }

    /// How full the tables are: in use and in all.
    pub(crate) fn pressure(&self) -> Vec<(&'static str, usize, usize)> {
        let mut pressure = self.classifier.pressure().to_vec();
        pressure.push(("rules", self.installed.len(), self.limits.rules as usize));
        pressure
    }
}
