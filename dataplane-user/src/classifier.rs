//! The tree of splits and filters that packets are led through.
//!
//! A tree that packets can reach is never changed. A transaction copies the nodes on the way to what it
//! changes, writes the copies into free cells, and ends in a new root; the nodes that the copies replace
//! are free once no packet can be under way in the old tree.

use std::{collections::BTreeSet, sync::Arc};

use dataplane_core::table::{Filter, Index, STEPS, Split, field};

use crate::{Error, compile::after, shared::Shared};

/// A list longer than this is split, if a split makes both sides shorter.
const LEAF: usize = 8;
/// A list longer than this is split even if that puts many items on both sides: it would be too long a walk.
const LONG: usize = 64;
/// Filters looked at to find a good split of many.
const SAMPLE: usize = 256;

/// A filter, and its place in the order of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Item {
    /// Place in the order, then among the filters of its rule.
    pub(crate) order: (u64, u32),
    /// What packets are compared with.
    pub(crate) filter: Filter,
}

/// Cells of a table: which are free, and those that will be.
#[derive(Debug)]
struct Cells<T> {
    memory: Shared<T>,
    free: Vec<u32>,
    /// Written since the last publication.
    new: Vec<u32>,
    /// Out of reach after the next one.
    old: Vec<u32>,
    /// In use by the tree of an earlier process: also out of reach after the next publication.
    inherited: Vec<u32>,
}

impl<T: zerocopy::FromBytes> Cells<T> {
    fn new(memory: Shared<T>, used: BTreeSet<u32>) -> Self {
        // Cell 0 stands for nothing.
        let free = (1..memory.len() as u32)
            .rev()
            .filter(|cell| !used.contains(cell))
            .collect();
        Self {
            memory,
            free,
            new: Vec::new(),
            old: Vec::new(),
            inherited: used.into_iter().collect(),
        }
    }

    fn write(&mut self, value: T) -> Option<u32> {
        let cell = self.free.pop()?;
        self.memory.write(cell as usize, value);
        self.new.push(cell);
        Some(cell)
    }

    /// Keeps what was written. Answers the cells that packets can reach until they have settled.
    fn publish(&mut self) -> Vec<u32> {
        self.new.clear();
        self.old.append(&mut self.inherited);
        std::mem::take(&mut self.old)
    }

    fn roll_back(&mut self) {
        self.old.clear();
        self.free.append(&mut self.new);
    }

    const fn used(&self) -> usize {
        self.memory.len() - 1 - self.free.len()
    }
}

#[derive(Debug, Clone)]
struct Node {
    kind: Kind,
    /// Where it is written, if it is; with its list of filters.
    cells: Option<(Index, Vec<u32>)>,
    /// The most steps from here to the end.
    height: u32,
    /// Filters from here on, repetitions included.
    weight: usize,
}

#[derive(Debug, Clone)]
enum Kind {
    Leaf(Vec<Item>),
    Split {
        field: u32,
        threshold: [u64; 2],
        low: Arc<Node>,
        high: Arc<Node>,
    },
}

/// The tree in force and the cells it is written in.
#[derive(Debug)]
pub(crate) struct Classifier {
    splits: Cells<Split>,
    filters: Cells<Filter>,
    root: Arc<Node>,
    /// Filters at most, repetitions included.
    limit: usize,
}

impl Classifier {
    /// An empty tree, in cells of which those that lead from `root` are in use by packets until the
    /// first publication.
    pub(crate) fn new(
        splits: Shared<Split>,
        filters: Shared<Filter>,
        root: Index,
        limit: u32,
    ) -> Self {
        let (used_splits, used_filters) = reachable(&splits, &filters, root);
        Self {
            splits: Cells::new(splits, used_splits),
            filters: Cells::new(filters, used_filters),
            root: Arc::new(Node::leaf(Vec::new())),
            limit: limit as usize,
        }
    }

    /// A cell.
    pub(crate) fn split(&self, cell: u32) -> Option<&Split> {
        self.splits.memory.get(cell as usize)
    }

    /// A cell.
    pub(crate) fn filter(&self, cell: u32) -> Option<&Filter> {
        self.filters.memory.get(cell as usize)
    }

    /// Cells for filters: in use and in all.
    pub(crate) const fn pressure(&self) -> [(&'static str, usize, usize); 2] {
        [
            ("filters", self.filters.used(), self.limit),
            ("splits", self.splits.used(), self.splits.memory.len() - 1),
        ]
    }

    /// Writes a tree without the filters `removed` and with the items `added`. Its root takes the place
    /// of the old one when [`Self::publish`] follows; on an error, and with [`Self::roll_back`], nothing
    /// has changed.
    pub(crate) fn change(&mut self, removed: &[Item], added: Vec<Item>) -> Result<Change, Error> {
        let before = Arc::clone(&self.root);
        let mut root = Arc::clone(&before);
        self.remove(&mut root, removed);
        self.insert(&mut root, added);
        let items = root.weight;
        if root.height > 24 + 2 * items.max(1).ilog2() {
            // Built bit by bit, it has become lopsided: begin anew.
            let mut all = Vec::new();
            root.collect(&mut all);
            all.sort_unstable_by_key(|item| item.order);
            all.dedup_by_key(|item| item.order);
            self.discard(&root);
            root = Arc::new(Node::build(all));
        }
        let (height, weight) = (root.height, root.weight);
        let written = if weight > self.limit {
            Err(self.full(weight))
        } else if height < STEPS {
            self.write(&mut root)
        } else {
            Err(Error::TooDeep {
                steps: height,
                limit: STEPS - 1,
            })
        };
        match written {
            Ok(index) => {
                self.root = root;
                Ok(Change {
                    root: index,
                    before,
                })
            }
            Err(error) => {
                self.splits.roll_back();
                self.filters.roll_back();
                Err(error)
            }
        }
    }

    /// The last change is in force. Answers what is left of the tree before.
    pub(crate) fn publish(&mut self) -> Remains {
        Remains {
            splits: self.splits.publish(),
            filters: self.filters.publish(),
        }
    }

    /// No packet can be under way in these any more.
    pub(crate) fn reclaim(&mut self, remains: Remains) {
        self.splits.free.extend(remains.splits);
        self.filters.free.extend(remains.filters);
    }

    /// Undoes a change that was not published.
    pub(crate) fn roll_back(&mut self, change: Change) {
        self.root = change.before;
        self.splits.roll_back();
        self.filters.roll_back();
    }

    /// A node that may be changed: a copy, if packets can reach it.
    fn own<'a>(&mut self, node: &'a mut Arc<Node>) -> &'a mut Node {
        self.abandon(node);
        let node = Arc::make_mut(node);
        node.cells = None;
        node
    }

    /// Marks all that is written of a tree as out of reach soon.
    fn discard(&mut self, node: &Node) {
        self.abandon(node);
        if let Kind::Split { low, high, .. } = &node.kind {
            self.discard(low);
            self.discard(high);
        }
    }

    /// Marks the cells of a node as out of reach soon.
    fn abandon(&mut self, node: &Node) {
        if let Some((index, list)) = &node.cells {
            if !index.is_filter() && *index != Index::END {
                self.splits.old.push(index.cell());
            }
            self.filters.old.extend(list);
        }
    }

    fn remove(&mut self, node: &mut Arc<Node>, items: &[Item]) {
        if items.is_empty() {
            return;
        }
        let owned = self.own(node);
        match &mut owned.kind {
            Kind::Leaf(list) => {
                let orders: BTreeSet<_> = items.iter().map(|item| item.order).collect();
                list.retain(|item| !orders.contains(&item.order));
            }
            Kind::Split {
                field,
                threshold,
                low,
                high,
            } => {
                let (left, right) = part(items, *field, *threshold);
                self.remove(low, &left);
                self.remove(high, &right);
                if low.is_empty() && high.is_empty() {
                    self.discard(low);
                    self.discard(high);
                    owned.kind = Kind::Leaf(Vec::new());
                }
            }
        }
        owned.measure();
    }

    fn insert(&mut self, node: &mut Arc<Node>, items: Vec<Item>) {
        if items.is_empty() {
            return;
        }
        let owned = self.own(node);
        match &mut owned.kind {
            Kind::Leaf(list) => {
                list.extend(items);
                list.sort_unstable_by_key(|item| item.order);
                *owned = Node::build(std::mem::take(list));
            }
            Kind::Split {
                field,
                threshold,
                low,
                high,
            } => {
                let (left, right) = part(&items, *field, *threshold);
                self.insert(low, left);
                self.insert(high, right);
                owned.measure();
            }
        }
    }

    /// Writes the nodes that are not written yet, from the leaves to the root.
    fn write(&mut self, node: &mut Arc<Node>) -> Result<Index, Error> {
        if let Some((index, _)) = &node.cells {
            return Ok(*index);
        }
        let node = Arc::make_mut(node);
        let mut list = Vec::new();
        let index = match &mut node.kind {
            Kind::Leaf(items) => {
                let mut next = Index::END;
                for item in items.iter().rev() {
                    let cell = self.filters.write(Filter {
                        next,
                        ..item.filter
                    });
                    let Some(cell) = cell else {
                        return Err(self.full(self.limit + 1));
                    };
                    list.push(cell);
                    next = Index::filter(cell);
                }
                next
            }
            Kind::Split {
                field,
                threshold,
                low,
                high,
            } => {
                let split = Split {
                    threshold: *threshold,
                    field: *field,
                    low: self.write(low)?,
                    high: self.write(high)?,
                    padding: 0,
                };
                let Some(cell) = self.splits.write(split) else {
                    return Err(self.full(self.limit + 1));
                };
                Index::split(cell)
            }
        };
        node.cells = Some((index, list));
        Ok(index)
    }

    const fn full(&self, wanted: usize) -> Error {
        Error::TooMany {
            what: "filters",
            wanted,
            limit: self.limit,
            option: "filters",
        }
    }
}

/// Cells of a tree that was replaced.
#[derive(Debug)]
pub(crate) struct Remains {
    splits: Vec<u32>,
    filters: Vec<u32>,
}

/// A tree that is written and not published.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its root.
    pub(crate) root: Index,
    before: Arc<Node>,
}

impl Node {
    const fn leaf(items: Vec<Item>) -> Self {
        Self {
            height: items.len() as u32,
            weight: items.len(),
            kind: Kind::Leaf(items),
            cells: None,
        }
    }

    /// A tree of items in order.
    fn build(items: Vec<Item>) -> Self {
        if items.len() <= LEAF {
            return Self::leaf(items);
        }
        let Some((field, threshold)) = best_split(&items) else {
            return Self::leaf(items);
        };
        let (left, right) = part(&items, field, threshold);
        // What looked good on a sample may be no good for all.
        if left.len() == items.len() || right.len() == items.len() {
            return Self::leaf(items);
        }
        let mut node = Self {
            kind: Kind::Split {
                field,
                threshold,
                low: Arc::new(Self::build(left)),
                high: Arc::new(Self::build(right)),
            },
            cells: None,
            height: 0,
            weight: 0,
        };
        node.measure();
        node
    }

    fn measure(&mut self) {
        (self.height, self.weight) = match &self.kind {
            Kind::Leaf(items) => (items.len() as u32, items.len()),
            Kind::Split { low, high, .. } => {
                (1 + low.height.max(high.height), low.weight + high.weight)
            }
        };
    }

    fn is_empty(&self) -> bool {
        matches!(&self.kind, Kind::Leaf(items) if items.is_empty())
    }

    fn collect(&self, all: &mut Vec<Item>) {
        match &self.kind {
            Kind::Leaf(items) => all.extend(items),
            Kind::Split { low, high, .. } => {
                low.collect(all);
                high.collect(all);
            }
        }
    }
}

const FIELDS: [u32; 6] = [
    field::DESTINATION,
    field::SOURCE,
    field::DESTINATION_PORT,
    field::SOURCE_PORT,
    field::PROTOCOL,
    field::ZONE,
];

/// First and last value of a field that an item matches.
fn range(item: &Item, of: u32) -> [[u64; 2]; 2] {
    let narrow = |range: [u64; 2]| range.map(|value| [0, value]);
    let filter = &item.filter;
    match of {
        field::DESTINATION => filter.destination,
        field::SOURCE => filter.source,
        field::DESTINATION_PORT => narrow(filter.destination_port.map(u64::from)),
        field::SOURCE_PORT => narrow(filter.source_port.map(u64::from)),
        field::PROTOCOL => narrow(filter.protocol.map(u64::from)),
        _ => narrow(filter.zone.map(u64::from)),
    }
}

/// The items on each side of a split; those that reach over it are on both.
fn part(items: &[Item], field: u32, threshold: [u64; 2]) -> (Vec<Item>, Vec<Item>) {
    let side = |keep: &dyn Fn([[u64; 2]; 2]) -> bool| {
        items
            .iter()
            .filter(|item| keep(range(item, field)))
            .copied()
            .collect()
    };
    (
        side(&|[first, _]| first < threshold),
        side(&|[_, last]| last >= threshold),
    )
}

/// The split that leaves the least on its longer side without having too many items on both.
fn best_split(items: &[Item]) -> Option<(u32, [u64; 2])> {
    let step = items.len().div_ceil(SAMPLE);
    let sample: Vec<&Item> = items.iter().step_by(step).collect();
    let mut best: Option<((usize, usize), u32, [u64; 2])> = None;
    for field in FIELDS {
        let ranges: Vec<_> = sample.iter().map(|item| range(item, field)).collect();
        let mut edges: Vec<_> = ranges
            .iter()
            .flat_map(|[first, last]| [*first, after(*last)])
            .collect();
        edges.sort_unstable();
        edges.dedup();
        // The first and the last edge leave everything on one side.
        for at in [edges.len() / 2, edges.len() / 3, 2 * edges.len() / 3] {
            let Some(threshold) = edges.get(at).copied() else {
                continue;
            };
            let low = ranges
                .iter()
                .filter(|[first, _]| *first < threshold)
                .count();
            let high = ranges.iter().filter(|[_, last]| *last >= threshold).count();
            let (longer, both) = (low.max(high), low + high);
            let worth = if items.len() > LONG {
                longer * 8 <= sample.len() * 7
            } else {
                longer < sample.len() && both * 2 <= sample.len() * 3
            };
            if worth && best.is_none_or(|(cost, ..)| (longer, both) < cost) {
                best = Some(((longer, both), field, threshold));
            }
        }
    }
    best.map(|(_, field, threshold)| (field, threshold))
}

/// The cells that lead from `root`.
fn reachable(
    splits: &Shared<Split>,
    filters: &Shared<Filter>,
    root: Index,
) -> (BTreeSet<u32>, BTreeSet<u32>) {
    let (mut in_splits, mut in_filters) = (BTreeSet::new(), BTreeSet::new());
    let mut ahead = vec![root];
    while let Some(index) = ahead.pop() {
        let cell = index.cell();
        if index == Index::END {
            continue;
        }
        if index.is_filter() {
            if let Some(filter) = filters.get(cell as usize)
                && in_filters.insert(cell)
            {
                ahead.push(filter.next);
            }
        } else if let Some(split) = splits.get(cell as usize)
            && in_splits.insert(cell)
        {
            ahead.extend([split.low, split.high]);
        }
    }
    (in_splits, in_filters)
}

#[cfg(test)]
mod tests {
    use dataplane_core::{classify::NO_PORTS, parse::mapped, table::kind};

    use super::*;

    /// Numbers that look random and are the same each time.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (self.0 >> 33) % limit
        }
    }

    fn classifier(filters: usize) -> Classifier {
        Classifier::new(
            Shared::heap(filters + 2),
            Shared::heap(2 * filters + 1),
            Index::END,
            filters as u32,
        )
    }

    fn settle(classifier: &mut Classifier) {
        let remains = classifier.publish();
        classifier.reclaim(remains);
    }

    fn item(random: &mut Random, rank: u64) -> Item {
        let start = |random: &mut Random| random.below(200) as u32;
        let mut span = |wild: u64| {
            if random.below(wild) == 0 {
                return [mapped(0), mapped(u32::MAX)];
            }
            let first = start(random);
            [mapped(first), mapped(first + random.below(20) as u32)]
        };
        let (source, destination) = (span(4), span(12));
        let port = random.below(20) as u32;
        let destination_port = if port > 10 {
            [0, NO_PORTS]
        } else {
            [port, port + 2]
        };
        Item {
            order: (rank, 0),
            filter: Filter {
                source,
                destination,
                source_port: [0, NO_PORTS],
                destination_port,
                tos: [0, 511],
                zone: [0, u16::MAX],
                protocol: [0, 255],
                kind: kind::PACKET,
                padding: 0,
                action: rank as u32,
                next: Index::END,
                padding2: 0,
            },
        }
    }

    /// What the tree says, followed cell by cell, against what a list would say.
    fn agree(classifier: &Classifier, root: Index, items: &[Item], random: &mut Random) {
        for _ in 0..300 {
            let (source, destination) = (
                mapped(random.below(230) as u32),
                mapped(random.below(230) as u32),
            );
            let port = random.below(16) as u32;
            let inside = |range: [[u64; 2]; 2], value| range[0] <= value && value <= range[1];
            let matches = |filter: &Filter| {
                inside(filter.source, source)
                    && inside(filter.destination, destination)
                    && filter.destination_port[0] <= port
                    && port <= filter.destination_port[1]
            };
            let expected = items
                .iter()
                .filter(|item| matches(&item.filter))
                .min_by_key(|item| item.order);
            let (mut at, mut steps) = (root, 0);
            let found = loop {
                assert!(steps <= STEPS, "the walk is too long");
                steps += 1;
                if at == Index::END {
                    break None;
                }
                if at.is_filter() {
                    let filter = classifier.filters.memory.get(at.cell() as usize).unwrap();
                    if matches(filter) {
                        break Some(filter.action);
                    }
                    at = filter.next;
                } else {
                    let split = classifier.splits.memory.get(at.cell() as usize).unwrap();
                    let value = match split.field {
                        field::DESTINATION => destination,
                        field::SOURCE => source,
                        field::DESTINATION_PORT => [0, port.into()],
                        other => panic!("a split by field {other}"),
                    };
                    at = if value < split.threshold {
                        split.low
                    } else {
                        split.high
                    };
                }
            };
            assert_eq!(found, expected.map(|item| item.filter.action));
        }
    }

    #[test]
    fn tree_and_list_agree_through_changes() {
        let mut random = Random(7);
        let mut classifier = classifier(100_000);
        let mut items: Vec<Item> = Vec::new();
        for round in 0..60 {
            let count = random.below(20).min(items.len() as u64);
            let gone: Vec<Item> = (0..count)
                .map(|_| items.swap_remove(random.below(items.len() as u64) as usize))
                .collect();
            let added: Vec<Item> = (0..random.below(40))
                .map(|n| item(&mut random, round * 1000 + (n * 37) % 1000))
                .collect();
            items.extend(&added);
            let change = classifier.change(&gone, added).unwrap();
            settle(&mut classifier);
            agree(&classifier, change.root, &items, &mut random);
        }
    }

    #[test]
    fn cells_come_back() {
        let mut random = Random(3);
        let mut classifier = classifier(10_000);
        for round in 0..50 {
            let items: Vec<Item> = (0..200)
                .map(|n| item(&mut random, round * 1000 + n))
                .collect();
            classifier.change(&[], items.clone()).unwrap();
            settle(&mut classifier);
            let change = classifier.change(&items, Vec::new()).unwrap();
            settle(&mut classifier);
            assert_eq!(change.root, Index::END);
        }
        assert!(classifier.pressure().iter().all(|(_, used, _)| *used == 0));
    }

    #[test]
    fn a_change_that_does_not_fit_leaves_the_tree_as_it_was() {
        let mut random = Random(5);
        let mut classifier = classifier(600);
        let items: Vec<Item> = (0..100).map(|n| item(&mut random, n)).collect();
        let change = classifier.change(&[], items.clone()).unwrap();
        settle(&mut classifier);
        let before = classifier.pressure();
        let many = (0..2000)
            .map(|n| {
                let mut item = item(&mut random, 1000 + n);
                item.filter.destination = [mapped(n as u32); 2];
                item
            })
            .collect();
        assert!(matches!(
            classifier.change(&[], many),
            Err(Error::TooMany { .. })
        ));
        assert_eq!(classifier.pressure(), before);
        agree(&classifier, change.root, &items, &mut random);
        let same: Vec<Item> = (0..2 * STEPS)
            .map(|n| Item {
                order: (u64::from(5000 + n), 0),
                ..items[0]
            })
            .collect();
        assert!(matches!(
            classifier.change(&[], same),
            Err(Error::TooDeep { .. })
        ));
        agree(&classifier, change.root, &items, &mut random);
    }

    #[test]
    fn addresses_in_order_one_by_one_do_not_make_a_long_walk() {
        let mut classifier = classifier(200_000);
        for n in 0..3000 {
            let mut one = item(&mut Random(1), n);
            one.filter.destination = [mapped(n as u32), mapped(n as u32)];
            classifier.change(&[], vec![one]).unwrap();
            settle(&mut classifier);
            assert!(
                classifier.root.height < 64,
                "{} steps at {n} filters",
                classifier.root.height
            );
        }
    }
}
