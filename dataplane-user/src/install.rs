//! Rule sets put in force, each as one transaction.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::IpAddr,
    thread::{self, JoinHandle},
};

use dataplane_core::{
    Word,
    parse::mapped,
    table::{Filter, Hop, Image, Index, RuleAction, RuleCount, Split, flag, kind, verb},
};

use crate::{
    Applied, Error, Limits,
    classifier::{Classifier, Item, Remains},
    compile::compile,
    memory::{Memory, counters},
    rule::{
        Action, Destination, Endpoint, EndpointAddress, FilterType, Mac, Rule, RuleId, RuleSet,
    },
    shared::Shared,
};

/// The rules in force and where they are in the tables.
#[derive(Debug)]
pub(crate) struct Rules {
    classifier: Classifier,
    installed: BTreeMap<RuleId, Installed>,
    actions: Pool,
    hops: Pool,
    slots: Pool,
    /// Rules known by what identifies them, from before a restart.
    adopted: BTreeMap<u64, u32>,
    next_hops: BTreeMap<HopKey, NextHop>,
    limits: Limits,
    cpus: u32,
    /// Counters given back, which flows may still name.
    released: Vec<u32>,
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
    hops: Vec<u32>,
    slots: Vec<u32>,
}

#[derive(Debug)]
struct Installed {
    rule: Rule,
    rank: u64,
    /// Where it is counted.
    slot: u32,
    action: u32,
    items: Vec<Item>,
    hops: Vec<HopKey>,
}

/// What a next hop is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HopKey {
    pub(crate) address: HopAddress,
    pub(crate) port: Option<String>,
}

/// The address of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HopAddress {
    /// On the link of the port.
    Mac(Mac),
    /// To be resolved.
    Ip(IpAddr),
}

#[derive(Debug)]
struct NextHop {
    cell: u32,
    users: usize,
    resolved: Option<Hop>,
}

/// Tells ports and next hops as they are now.
pub(crate) trait Surroundings {
    /// Why packets cannot be sent to `hop`, ever.
    fn refuse(&self, hop: &HopKey) -> Option<String>;
    /// Where packets for `hop` go now.
    fn resolve(&self, hop: &HopKey) -> Option<Hop>;
}

/// Cells that are free.
#[derive(Debug)]
struct Pool {
    free: VecDeque<u32>,
    /// In use by the rule set of an earlier process.
    inherited: Vec<u32>,
}

impl Pool {
    fn new(len: usize, used: BTreeSet<u32>) -> Self {
        Self {
            free: (0..len as u32)
                .filter(|cell| !used.contains(cell))
                .collect(),
            inherited: used
                .into_iter()
                .filter(|cell| (*cell as usize) < len)
                .collect(),
        }
    }

    /// The cell that has been free for longest.
    fn take(&mut self, limit: u32) -> Result<u32, Error> {
        self.free.pop_front().ok_or(Error::TooMany {
            what: "rules",
            wanted: limit as usize + 1,
            limit: limit as usize,
            option: "rules",
        })
    }

    fn give_back(&mut self, cell: u32) {
        self.free.push_back(cell);
    }
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
        let used = actions_in_use(&filters, image.root);
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
            installed: BTreeMap::new(),
            actions: Pool::new(memory.actions.len(), used),
            hops: Pool::new(memory.hops.len(), hops),
            slots: Pool::new(
                counters(&limits) as usize,
                adopted.values().copied().collect(),
            ),
            adopted,
            next_hops: BTreeMap::new(),
            limits,
            cpus,
            released: Vec::new(),
            limbo: VecDeque::new(),
        }
    }

    /// Puts `wanted` in force, whole or not at all, but for single rules that cannot be. `settle` returns
    /// when no packet is under way in the old rule set any more; nobody waits for it, unless there is no
    /// room otherwise.
    pub(crate) fn apply(
        &mut self,
        memory: &mut Memory,
        wanted: &RuleSet,
        surroundings: &impl Surroundings,
        settle: fn(),
    ) -> Result<Applied, Error> {
        self.reclaim(memory, false);
        match self.change(memory, wanted, surroundings, settle) {
            Err(Error::TooMany { .. }) if !self.limbo.is_empty() => {
                self.reclaim(memory, true);
                self.change(memory, wanted, surroundings, settle)
            }
            result => result,
        }
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
            for action in limbo.actions {
                self.actions.give_back(action);
            }
            for hop in limbo.hops {
                set_hop(&memory.hops, hop, None);
                self.hops.give_back(hop);
            }
            for slot in limbo.slots {
                self.slots.give_back(slot);
                self.released.push(slot);
            }
        }
    }

    fn change(
        &mut self,
        memory: &mut Memory,
        wanted: &RuleSet,
        surroundings: &impl Surroundings,
        settle: fn(),
    ) -> Result<Applied, Error> {
        let mut not_installed = BTreeMap::new();
        let mut fresh: Vec<(&Rule, Vec<Filter>)> = Vec::new();
        let (mut kept, mut gone, mut changed) = (Vec::new(), Vec::new(), 0);
        // Both are in the same order.
        let mut installed = self.installed.iter().peekable();
        for rule in wanted.iter() {
            while let Some((id, _)) = installed.next_if(|(id, _)| **id < rule.id) {
                gone.push(id.clone());
            }
            let before = installed.next_if(|(id, _)| **id == rule.id);
            if before.is_some_and(|(_, before)| before.rule == *rule) {
                kept.push(&rule.id);
                continue;
            }
            gone.extend(before.map(|(id, _)| id.clone()));
            let refused = hop_keys(rule)
                .iter()
                .find_map(|hop| surroundings.refuse(hop));
            match refused
                .or_else(|| unsupported(rule))
                .map_or_else(|| compile(rule), Err)
            {
                Ok(filters) => {
                    changed += usize::from(before.is_some());
                    fresh.push((rule, filters));
                }
                Err(reason) => _ = not_installed.insert(rule.id.clone(), reason),
            }
        }
        gone.extend(installed.map(|(id, _)| id.clone()));
        let total = kept.len() + fresh.len();
        if total > self.limits.rules as usize {
            return Err(Error::TooMany {
                what: "rules",
                wanted: total,
                limit: self.limits.rules as usize,
                option: "rules",
            });
        }
        let first_time = memory.image().epoch == 0 || !self.adopted.is_empty();
        let applied = Applied {
            epoch: memory.image().epoch,
            added: fresh.len() - changed,
            changed,
            removed: gone.len() - changed,
            not_installed,
        };
        if gone.is_empty() && fresh.is_empty() && !first_time {
            return Ok(applied);
        }
        let ranks = self.ranks(&kept, &fresh).unwrap_or_else(|| {
            // No room in the order: everything gets a new place.
            let again = |id| Some((wanted.get(id)?, compile(wanted.get(id)?).ok()?));
            fresh.extend(kept.into_iter().filter_map(again));
            gone = self.installed.keys().cloned().collect();
            even_ranks(&fresh)
        });
        self.commit(memory, surroundings, gone, fresh, &ranks, applied, settle)
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
        fresh: Vec<(&Rule, Vec<Filter>)>,
        ranks: &BTreeMap<RuleId, u64>,
        applied: Applied,
        settle: fn(),
    ) -> Result<Applied, Error> {
        let mut taken = Taken::default();
        let mut news = Vec::with_capacity(fresh.len());
        for (rule, filters) in fresh {
            match self.prepare(memory, surroundings, rule, filters, ranks, &mut taken) {
                Ok(installed) => news.push(installed),
                Err(error) => {
                    self.give_back(memory, taken);
                    return Err(error);
                }
            }
        }
        let removed: Vec<Item> = gone
            .iter()
            .flat_map(|id| self.installed[id].items.iter().copied())
            .collect();
        let added = news
            .iter()
            .flat_map(|new| new.items.iter().copied())
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
            actions: std::mem::take(&mut self.actions.inherited),
            hops: std::mem::take(&mut self.hops.inherited),
            slots: Vec::new(),
        };
        let mut counted: BTreeSet<u32> = news.iter().map(|new| new.slot).collect();
        for id in gone {
            let Some(old) = self.installed.remove(&id) else {
                continue;
            };
            limbo.actions.push(old.action);
            limbo
                .hops
                .extend(old.hops.iter().filter_map(|hop| self.leave_hop(hop)));
            if counted.insert(old.slot) {
                forget(memory, old.slot);
                limbo.slots.push(old.slot);
            }
        }
        for new in news {
            self.installed.insert(new.rule.id.clone(), new);
        }
        if !self.adopted.is_empty() {
            // Rules of an earlier process that nobody wants any more.
            let in_use: BTreeSet<u32> = self.installed.values().map(|rule| rule.slot).collect();
            self.slots.inherited.clear();
            for (_, slot) in std::mem::take(&mut self.adopted) {
                if !in_use.contains(&slot) {
                    forget(memory, slot);
                    limbo.slots.push(slot);
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
        rule: &Rule,
        filters: Vec<Filter>,
        ranks: &BTreeMap<RuleId, u64>,
        taken: &mut Taken,
    ) -> Result<Installed, Error> {
        let rank = ranks.get(&rule.id).copied().unwrap_or_default();
        let hops = hop_keys(rule);
        let mut cells = [u32::MAX; 2];
        for (cell, key) in cells.iter_mut().zip(&hops) {
            *cell = self.take_hop(memory, surroundings, key)?;
            taken.hops.push(key.clone());
        }
        let slot = match self.installed.get(&rule.id) {
            Some(old) => old.slot,
            None => self.take_slot(memory, &rule.id, taken)?,
        };
        let action = self.actions.take(self.limits.rules)?;
        taken.actions.push(action);
        memory
            .actions
            .write(action as usize, rule_action(rule, rank, slot, cells));
        let items = filters.into_iter().zip(0..).map(|(filter, place)| Item {
            order: (rank, place),
            filter: Filter { action, ..filter },
        });
        Ok(Installed {
            rule: rule.clone(),
            rank,
            slot,
            action,
            items: items.collect(),
            hops,
        })
    }

    /// Undoes what was taken for a transaction that failed.
    fn give_back(&mut self, memory: &Memory, taken: Taken) {
        for action in taken.actions {
            self.actions.give_back(action);
        }
        for hop in &taken.hops {
            if let Some(cell) = self.leave_hop(hop) {
                set_hop(&memory.hops, cell, None);
                self.hops.give_back(cell);
            }
        }
        for slot in taken.slots {
            forget(memory, slot);
            self.slots.give_back(slot);
        }
    }

    fn take_hop(
        &mut self,
        memory: &Memory,
        surroundings: &impl Surroundings,
        key: &HopKey,
    ) -> Result<u32, Error> {
        if let Some(hop) = self.next_hops.get_mut(key) {
            hop.users += 1;
            return Ok(hop.cell);
        }
        let cell = self.hops.take(self.limits.rules)?;
        let resolved = surroundings.resolve(key);
        set_hop(&memory.hops, cell, resolved);
        self.next_hops.insert(
            key.clone(),
            NextHop {
                cell,
                users: 1,
                resolved,
            },
        );
        Ok(cell)
    }

    /// One user less of a next hop. Answers its cell when that was the last.
    fn leave_hop(&mut self, key: &HopKey) -> Option<u32> {
        let hop = self.next_hops.get_mut(key)?;
        hop.users -= 1;
        (hop.users == 0)
            .then(|| self.next_hops.remove(key))?
            .map(|hop| hop.cell)
    }

    /// A counter for a rule: the one it had before a restart, or a new one.
    fn take_slot(&mut self, memory: &Memory, id: &RuleId, taken: &mut Taken) -> Result<u32, Error> {
        let identity = identity(id);
        if let Some(slot) = self.adopted.get(&identity) {
            return Ok(*slot);
        }
        let slot = self.slots.take(self.limits.rules)?;
        taken.slots.push(slot);
        for count in self.counts(memory, slot) {
            count.count.packets.set(0);
            count.count.bytes.set(0);
            count.last_hit.set(0);
        }
        if let Some(first) = memory.rule_counts.get(slot as usize) {
            first.identity.set(identity);
        }
        Ok(slot)
    }

    /// The counters in `slot`, one for each CPU.
    fn counts<'a>(&self, memory: &'a Memory, slot: u32) -> impl Iterator<Item = &'a RuleCount> {
        let stride = counters(&self.limits) as usize;
        (0..self.cpus as usize)
            .filter_map(move |cpu| memory.rule_counts.get(cpu * stride + slot as usize))
    }

    /// Looks again for every next hop. Answers those that changed.
    pub(crate) fn resolve(
        &mut self,
        memory: &Memory,
        surroundings: &impl Surroundings,
    ) -> Vec<HopKey> {
        let mut changed = Vec::new();
        for (key, hop) in &mut self.next_hops {
            let resolved = surroundings.resolve(key);
            if resolved != hop.resolved {
                hop.resolved = resolved;
                set_hop(&memory.hops, hop.cell, resolved);
                changed.push(key.clone());
            }
        }
        changed
    }

    /// Next hops, and where they are.
    pub(crate) fn next_hops(&self) -> impl Iterator<Item = (&HopKey, Option<Hop>)> {
        self.next_hops.iter().map(|(key, hop)| (key, hop.resolved))
    }

    /// Rules, with packets, bytes, and the jiffy of the last packet.
    pub(crate) fn counters<'a>(
        &'a self,
        memory: &'a Memory,
    ) -> impl Iterator<Item = (&'a RuleId, u64, u64, u64)> {
        self.installed.iter().map(|(id, rule)| {
            let mut sum = (id, 0, 0, 0);
            for count in self.counts(memory, rule.slot) {
                sum.1 += count.count.packets.get();
                sum.2 += count.count.bytes.get();
                sum.3 = count.last_hit.get().max(sum.3);
            }
            sum
        })
    }

    /// A cell of the rule set.
    pub(crate) fn split(&self, cell: u32) -> Option<&Split> {
        self.classifier.split(cell)
    }

    /// A cell of the rule set.
    pub(crate) fn filter(&self, cell: u32) -> Option<&Filter> {
        self.classifier.filter(cell)
    }

    /// Rules by where they are counted.
    pub(crate) fn by_slot(&self) -> BTreeMap<u32, &Rule> {
        self.installed
            .values()
            .map(|rule| (rule.slot, &rule.rule))
            .collect()
    }

    /// Counters that were given back since the last call.
    pub(crate) fn released(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.released)
    }

    /// How full the tables are: in use and in all.
    pub(crate) fn pressure(&self) -> Vec<(&'static str, usize, usize)> {
        let mut pressure = self.classifier.pressure().to_vec();
        pressure.push(("rules", self.installed.len(), self.limits.rules as usize));
        pressure
    }

    /// A place in the order for each new rule; `None` when there is no room between two.
    fn ranks(
        &self,
        kept: &[&RuleId],
        fresh: &[(&Rule, Vec<Filter>)],
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
fn even_ranks(rules: &[(&Rule, Vec<Filter>)]) -> BTreeMap<RuleId, u64> {
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

/// Why the data path cannot do what the rule asks.
fn unsupported(rule: &Rule) -> Option<String> {
    let inline = matches!(rule.action.destination(), Some(Destination::Inline { .. }));
    let forward = matches!(rule.action, Action::Forward { .. });
    (inline && forward && rule.filter_type == FilterType::Packet).then(|| {
        "an inline application needs filterType FLOW: without a flow, what it gives back would come to it again"
            .to_owned()
    })
}

/// What a transaction has taken so far.
#[derive(Debug, Default)]
struct Taken {
    actions: Vec<u32>,
    hops: Vec<HopKey>,
    slots: Vec<u32>,
}

/// After a restart, nobody knows any more which rule was counted in `slot`.
fn forget(memory: &Memory, slot: u32) {
    if let Some(first) = memory.rule_counts.get(slot as usize) {
        first.identity.set(0);
    }
}

fn set_hop(hops: &Shared<Word>, cell: u32, resolved: Option<Hop>) {
    if let Some(word) = hops.get(cell as usize) {
        word.set(resolved.map_or(0, Hop::word));
    }
}

/// The cells of actions that packets can reach from `root`: those of all filters that are not free.
fn actions_in_use(filters: &Shared<Filter>, root: Index) -> BTreeSet<u32> {
    if root == Index::END {
        return BTreeSet::new();
    }
    // Free cells may still name an action; keeping that costs a cell until the next start at most.
    filters
        .iter()
        .filter(|filter| filter.kind != 0)
        .map(|filter| filter.action)
        .collect()
}

fn hop_keys(rule: &Rule) -> Vec<HopKey> {
    let key = |endpoint: &Endpoint| HopKey {
        address: match endpoint.address {
            EndpointAddress::Mac(mac) => HopAddress::Mac(mac),
            EndpointAddress::Ip { address, .. } => HopAddress::Ip(address),
        },
        port: endpoint.port.clone(),
    };
    rule.action
        .destination()
        .map_or_else(Vec::new, |it| it.endpoints().map(key).collect())
}

fn rule_action(rule: &Rule, rank: u64, slot: u32, [first, second]: [u32; 2]) -> RuleAction {
    let mut action = RuleAction {
        rank,
        nat: [0; 2],
        rule: slot,
        first,
        second,
        verb: match &rule.action {
            Action::Drop => verb::DROP,
            Action::Passthrough => verb::PASSTHROUGH,
            Action::Forward { .. } => verb::FORWARD,
            Action::Duplicate { .. } => verb::DUPLICATE,
        },
        flags: 0,
        kind: match rule.filter_type {
            FilterType::Flow => kind::FLOW,
            FilterType::Packet => kind::PACKET,
        },
        padding: 0,
    };
    match rule.action.destination() {
        Some(Destination::Inline { .. }) => action.flags |= flag::INLINE,
        Some(Destination::One(endpoint)) => {
            if let EndpointAddress::Ip { address, nat } = endpoint.address {
                action.flags |= flag::ROUTE;
                if nat {
                    action.flags |= flag::NAT;
                    action.nat = words(address);
                }
            }
        }
        None => {}
    }
    action
}

fn words(address: IpAddr) -> [u64; 2] {
    match address {
        IpAddr::V4(address) => mapped(address.into()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    }
}

/// A number that tells rules apart, the same in every process: FNV-1a of the ids, apart by a zero.
fn identity(id: &RuleId) -> u64 {
    let bytes = id
        .app
        .as_ref()
        .bytes()
        .chain([0])
        .chain(id.rule.as_ref().bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    hash.max(1)
}
