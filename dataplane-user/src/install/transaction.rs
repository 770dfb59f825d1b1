//! One transaction: what changes, a place for each part of it, and the store that shows it to packets.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    thread,
};

use dataplane_core::table::{Filter, Image};

use super::{
    HopKey, Installed, Limbo, Rules, Surroundings, action, balance,
    counters::{self, forget},
    difference::{Difference, copies},
    hops,
    order::even_ranks,
};
use crate::{
    Applied, Error,
    classifier::Item,
    compile::{Compiled, compile},
    memory::Memory,
    rule::{Action, Destination, FilterType, Rule, RuleId},
};

/// What a transaction has taken so far.
#[derive(Debug, Default)]
pub(super) struct Taken {
    actions: Vec<u32>,
    tunnels: Vec<u32>,
    hops: Vec<HopKey>,
    pub(super) slots: Vec<u32>,
    pub(super) tables: Vec<u32>,
}

impl Rules {
    /// Puts what is wanted in force if there is room for it now.
    pub(super) fn change(
        &mut self,
        memory: &mut Memory,
        difference: &Difference<'_>,
        surroundings: &impl Surroundings,
        settle: fn(),
    ) -> Result<Applied, Error> {
        let mut not_installed = BTreeMap::new();
        let mut fresh: Vec<(&Arc<Rule>, Compiled)> = Vec::new();
        for rule in &difference.fresh {
            match surroundings
                .refuse(rule, &hops::keys(rule))
                .or_else(|| unsupported(rule))
                .map_or_else(|| compile(rule), Err)
            {
                Ok(compiled) => fresh.push((*rule, compiled)),
                Err(reason) => _ = not_installed.insert(rule.id.clone(), reason),
            }
        }
        let total = difference.kept + fresh.len() + self.backends_with(&difference.gone, &fresh);
        if total > self.limits.rules as usize {
            return Err(Error::TooMany {
                what: "rules",
                wanted: total,
                limit: self.limits.rules as usize,
                option: "rules",
            });
        }
        let mut gone = difference.gone.clone();
        let gone_tunnels: usize = gone.iter().map(|id| self.installed[id].tunnels.len()).sum();
        let fresh_tunnels: usize = fresh.iter().map(|(_, it)| it.tunnels.len()).sum();
        let wanted_tunnels = self.tunnelled + fresh_tunnels - gone_tunnels;
        if wanted_tunnels > self.limits.rules as usize {
            return Err(Error::TooMany {
                what: "combinations of tunnel attributes",
                wanted: wanted_tunnels,
                limit: self.limits.rules as usize,
                option: "rules",
            });
        }
        let known = |(rule, _): &&(&Arc<Rule>, _)| self.installed.contains_key(&rule.id);
        let changed = fresh.iter().filter(known).count();
        let first_time = memory.image().epoch == 0 || !self.adopted.is_empty();
        let applied = Applied {
            epoch: memory.image().epoch,
            added: fresh.len() - changed,
            changed,
            removed: gone.len() - changed,
            not_installed,
        };
        if gone.is_empty() && fresh.is_empty() && !first_time {
            for rule in &difference.restated {
                self.restate(memory, rule);
            }
            return Ok(applied);
        }
        let ranks = self.ranks(&fresh).unwrap_or_else(|| {
            // No room in the order: everything gets a new place.
            let all = mem::replace(&mut gone, self.installed.keys().cloned().collect());
            let kept = gone.iter().filter(|id| !all.contains(id));
            let again = |id| {
                Some((
                    difference.wanted.get(id)?,
                    compile(difference.wanted.get(id)?).ok()?,
                ))
            };
            fresh.extend(kept.filter_map(again));
            even_ranks(&fresh)
        });
        let applied = self.commit(memory, surroundings, gone, fresh, &ranks, applied, settle)?;
        for rule in &difference.restated {
            self.restate(memory, rule);
        }
        Ok(applied)
    }

    /// How many more counters than one for each rule there would be.
    fn backends_with(&self, gone: &[RuleId], fresh: &[(&Arc<Rule>, Compiled)]) -> usize {
        let new: usize = fresh.iter().map(|(rule, _)| balance::extent(rule)).sum();
        let gone = gone
            .iter()
            .map(|id| balance::extent(&self.installed[id].rule));
        self.backends + new - gone.sum::<usize>()
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one transaction, from its only caller"
    )]
    fn commit(
        &mut self,
        memory: &mut Memory,
        surroundings: &impl Surroundings,
        gone: Vec<RuleId>,
        fresh: Vec<(&Arc<Rule>, Compiled)>,
        ranks: &BTreeMap<RuleId, u64>,
        applied: Applied,
        settle: fn(),
    ) -> Result<Applied, Error> {
        let mut taken = Taken::default();
        let mut news = Vec::with_capacity(fresh.len());
        for (rule, compiled) in fresh {
            match self.prepare(memory, surroundings, rule, compiled, ranks, &mut taken) {
                Ok(installed) => news.push(installed),
                Err(error) => {
                    self.give_back(memory, taken);
                    return Err(error);
                }
            }
        }
        let removed: Vec<Arc<Item>> = gone
            .iter()
            .flat_map(|id| self.installed[id].items.iter().cloned())
            .collect();
        let added = news
            .iter()
            .flat_map(|new| new.items.iter().cloned())
            .collect();
        let change = match self.classifier.change(&removed, added) {
            Ok(change) => change,
            Err(error) => {
                self.give_back(memory, taken);
                return Err(error);
            }
        };
        let epoch = memory.image().epoch.wrapping_add(1).max(1);
        let Some(state) = memory.state.get(0) else {
            self.classifier.roll_back(change);
            self.give_back(memory, taken);
            return Err(Error::Options("the state map is empty".to_owned()));
        };
        self.named
            .add(memory, news.iter().flat_map(Installed::names));
        self.tell_backends(memory, &gone, &news);
        // From here on, packets see the new rule set.
        state.image.set(
            Image {
                root: change.root,
                epoch,
            }
            .into(),
        );
        let settled = thread::Builder::new()
            .name("settle".to_owned())
            .spawn(settle);
        if settled.is_err() {
            settle();
        }
        let mut limbo = Limbo {
            settled: settled.ok(),
            remains: self.classifier.publish(),
            actions: mem::take(&mut self.actions.inherited),
            tunnels: mem::take(&mut self.tunnels.inherited),
            hops: [&mut self.hops, &mut self.targets]
                .into_iter()
                .flat_map(|pool| mem::take(&mut pool.inherited))
                .collect(),
            tables: mem::take(&mut self.tables.inherited),
            slots: Vec::new(),
            names: Vec::new(),
            adopted: self.installed.is_empty(),
        };
        let mut counted: BTreeSet<u32> = news.iter().flat_map(Installed::slots).collect();
        for id in gone {
            let Some(old) = self.installed.remove(&id) else {
                continue;
            };
            self.order.remove(&(old.rule.priority, id));
            self.copies -= usize::from(copies(&old.rule));
            self.tunnelling -= usize::from(old.rule.sends_into_tunnel());
            self.tunnelled -= old.tunnels.len();
            limbo.names.extend(old.names());
            self.backends -= balance::extent(&old.rule);
            limbo.actions.push(old.action);
            if let Some(balanced) = &old.balanced {
                limbo.tables.push(balanced.table);
                limbo
                    .actions
                    .extend(balanced.members.iter().map(|it| it.action));
            }
            limbo.tunnels.extend(&old.tunnels);
            limbo
                .hops
                .extend(old.hops.iter().filter_map(|hop| self.leave_hop(hop)));
            for slot in old.slots().filter(|slot| counted.insert(*slot)) {
                forget(memory, slot);
                limbo.slots.push((slot, Some(Arc::clone(&old.rule))));
            }
        }
        for new in news {
            let id = &new.rule.id;
            self.order.insert((new.rule.priority, id.clone()), new.rank);
            self.backends += balance::extent(&new.rule);
            self.copies += usize::from(copies(&new.rule));
            self.tunnelling += usize::from(new.rule.sends_into_tunnel());
            self.tunnelled += new.tunnels.len();
            self.installed.insert(id.clone(), new);
        }
        if !self.adopted.is_empty() {
            // Rules of an earlier process that nobody wants any more.
            let in_use: BTreeSet<u32> =
                self.installed.values().flat_map(Installed::slots).collect();
            self.slots.inherited.clear();
            for (_, slot) in mem::take(&mut self.adopted) {
                if !in_use.contains(&slot) {
                    forget(memory, slot);
                    limbo.slots.push((slot, None));
                }
            }
        }
        self.limbo.push_back(limbo);
        Ok(Applied { epoch, ..applied })
    }

    /// Finds a place for each part of a rule.
    fn prepare(
        &mut self,
        memory: &mut Memory,
        surroundings: &impl Surroundings,
        rule: &Arc<Rule>,
        compiled: Compiled,
        ranks: &BTreeMap<RuleId, u64>,
        taken: &mut Taken,
    ) -> Result<Installed, Error> {
        let rank = ranks.get(&rule.id).copied().unwrap_or_default();
        let hops = hops::keys(rule);
        let mut cells = Vec::with_capacity(hops.len());
        for key in &hops {
            cells.push(self.take_hop(memory, surroundings, key)?);
            taken.hops.push(key.clone());
        }
        let slot = match self.installed.get(&rule.id) {
            Some(old) => old.slot,
            None => self.take_slot(memory, counters::identity(&rule.id), taken)?,
        };
        let action = self.take_action(taken)?;
        let (balanced, places) = match balance::balance(rule) {
            Some(balance) => {
                let (balanced, places) =
                    self.prepare_balance(memory, rule, balance, rank, action, &cells, taken)?;
                (Some(balanced), places)
            }
            None => {
                let cell = |place: usize| cells.get(place).copied().unwrap_or(u32::MAX);
                (None, [cell(0), cell(1)])
            }
        };
        memory
            .actions
            .write(action as usize, action::of(rule, rank, slot, places));
        let mut tunnels = Vec::with_capacity(compiled.tunnels.len());
        for tunnel in &compiled.tunnels {
            let cell = self.tunnels.take(self.limits.rules)?;
            taken.tunnels.push(cell);
            memory.tunnel_filters.write(cell as usize, *tunnel);
            tunnels.push(cell);
        }
        let wanted: Vec<_> = compiled.tunnels.into_iter().map(Arc::new).collect();
        let items = compiled
            .filters
            .into_iter()
            .zip(0..)
            .map(|(filter, place)| {
                let tunnel = filter.tunnel.checked_sub(1).map(|place| place as usize);
                Arc::new(Item {
                    order: (rank, place),
                    filter: Filter {
                        rank,
                        action,
                        tunnel: tunnel.map_or(0, |place| tunnels[place] + 1),
                        ..filter
                    },
                    tunnel: tunnel.map(|place| Arc::clone(&wanted[place])),
                })
            });
        let items = items.collect();
        Ok(Installed {
            rule: Arc::clone(rule),
            rank,
            slot,
            action,
            tunnels,
            items,
            hops,
            balanced,
        })
    }

    /// A cell for an action.
    pub(super) fn take_action(&mut self, taken: &mut Taken) -> Result<u32, Error> {
        let cell = self.actions.take(self.limits.rules)?;
        taken.actions.push(cell);
        Ok(cell)
    }

    /// Tells packets of all backends, just before they see the rules that have them: those that stay keep their flows.
    fn tell_backends(&self, memory: &Memory, gone: &[RuleId], news: &[Installed]) {
        let stay: BTreeSet<u32> = news.iter().flat_map(Installed::slots).collect();
        let gone = gone.iter().filter_map(|id| self.installed.get(id));
        let gone = gone.flat_map(Installed::slots);
        for slot in gone.chain(self.adopted.values().copied()) {
            if !stay.contains(&slot) {
                balance::retire(memory, slot);
            }
        }
        for new in news {
            if let (Some(balanced), Some(balance)) = (&new.balanced, balance::balance(&new.rule)) {
                balanced.tell(memory, new.slot, balance);
            }
        }
    }

    /// Undoes what was taken for a transaction that failed.
    fn give_back(&mut self, memory: &Memory, taken: Taken) {
        for action in taken.actions {
            self.actions.give_back(action);
        }
        for tunnel in taken.tunnels {
            self.tunnels.give_back(tunnel);
        }
        for table in taken.tables {
            self.tables.give_back(table);
        }
        for hop in &taken.hops {
            if let Some(cell) = self.leave_hop(hop) {
                self.give_back_hop(memory, cell);
            }
        }
        for slot in taken.slots {
            forget(memory, slot);
            self.slots.give_back(slot);
        }
    }
}

/// Why the data path cannot do what the rule asks.
fn unsupported(rule: &Rule) -> Option<String> {
    let inline = matches!(rule.action.destination(), Some(Destination::Inline { .. }));
    let forward = matches!(rule.action, Action::Forward { .. });
    let copies = matches!(rule.action, Action::Duplicate { .. });
    if copies && rule.sends_into_tunnel() {
        return Some("copies are not sent into tunnels".to_owned());
    }
    (inline && forward && rule.filter_type == FilterType::Packet).then(|| {
        "an inline application needs filterType FLOW: without a flow, what it gives back would come to it again"
            .to_owned()
    })
}
