//! Trees through changes, against lists.

use dataplane_core::{
    classify::{InTunnel, NO_PORTS, Query, first_match},
    flow::{FlowKey, KeyRest},
    parse::mapped,
    table::{Hop, Image, RuleAction, RuleTables, State, Target, kind, verb},
};

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

/// The tree from `root` on, as packets see it.
struct Tree<'a>(&'a Classifier, Index);

impl RuleTables for Tree<'_> {
    const TUNNELS: bool = true;

    fn image(&self) -> Image {
        Image {
            root: self.1,
            epoch: 1,
        }
    }

    fn state(&self) -> Option<&State> {
        None
    }

    fn split(&self, cell: u32) -> Option<&Split> {
        self.0.split(cell)
    }

    fn filter(&self, cell: u32) -> Option<&Filter> {
        self.0.filter(cell)
    }

    fn tunnel_filter(&self, _: u32) -> Option<&TunnelFilter> {
        None
    }

    fn action(&self, _: u32) -> Option<&RuleAction> {
        const DROP: &RuleAction = &RuleAction {
            rank: 0,
            nat: [0; 2],
            rule: 0,
            first: 0,
            second: 0,
            verb: verb::DROP,
            flags: 0,
            kind: kind::PACKET,
            padding: 0,
            nat_port: 0,
            padding_too: [0; 3],
        };
        Some(DROP)
    }

    fn hop(&self, _: u32) -> Option<Hop> {
        None
    }

    fn target(&self, _: u32) -> Option<&Target> {
        None
    }
}

fn settle(classifier: &mut Classifier) {
    let remains = classifier.publish();
    classifier.reclaim(remains);
}

fn item(random: &mut Random, rank: u64) -> Arc<Item> {
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
    Arc::new(Item {
        order: (rank, 0),
        filter: Filter {
            rank,
            source,
            destination,
            source_port: [0, NO_PORTS],
            destination_port,
            tos: [0, 511],
            zone: [0, u16::MAX],
            protocol: [0, 255],
            kind: kind::PACKET,
            minds: 0,
            padding: [0; 2],
            action: rank as u32,
            next: Index::END,
            tunnel: 0,
        },
        tunnel: None,
    })
}

/// What packets find in the tree against what a list would say.
fn agree(classifier: &Classifier, root: Index, items: &[Arc<Item>], random: &mut Random) {
    let tree = Tree(classifier, root);
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
        let key = FlowKey {
            source,
            destination,
            rest: KeyRest::new(port, 0, 17),
        };
        let query = Query::new(&key, 0, kind::PACKET, 0);
        let found = first_match(&tree, root, &query, &InTunnel::NONE);
        assert!(!found.is_broken(), "the walk is too long");
        assert_eq!(found.action(), expected.map(|item| item.filter.action));
    }
}

#[test]
fn tree_and_list_agree_through_changes() {
    let mut random = Random(7);
    let mut classifier = classifier(100_000);
    let mut items: Vec<Arc<Item>> = Vec::new();
    for round in 0..60 {
        let count = random.below(20).min(items.len() as u64);
        let gone: Vec<Arc<Item>> = (0..count)
            .map(|_| items.swap_remove(random.below(items.len() as u64) as usize))
            .collect();
        let added: Vec<Arc<Item>> = (0..random.below(40))
            .map(|n| item(&mut random, round * 1000 + (n * 37) % 1000))
            .collect();
        items.extend(added.iter().cloned());
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
        let items: Vec<Arc<Item>> = (0..200)
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
    let mut classifier = classifier(1_500);
    let items: Vec<Arc<Item>> = (0..100).map(|n| item(&mut random, n)).collect();
    let change = classifier.change(&[], items.clone()).unwrap();
    settle(&mut classifier);
    let before = classifier.pressure();
    let many = (0..2000)
        .map(|n| {
            let mut item = item(&mut random, 1000 + n);
            Arc::make_mut(&mut item).filter.destination = [mapped(n as u32); 2];
            item
        })
        .collect();
    assert!(matches!(
        classifier.change(&[], many),
        Err(Error::TooMany { .. })
    ));
    assert_eq!(classifier.pressure(), before);
    agree(&classifier, change.root, &items, &mut random);
    let same: Vec<Arc<Item>> = (0..=STEPS)
        .map(|n| {
            Arc::new(Item {
                order: (u64::from(5000 + n), 0),
                ..(*items[0]).clone()
            })
        })
        .collect();
    assert!(matches!(
        classifier.change(&[], same),
        Err(Error::TooDeep { .. })
    ));
    agree(&classifier, change.root, &items, &mut random);
}

#[test]
fn a_walk_goes_on_where_it_has_come_to() {
    let mut classifier = classifier(1_000);
    let one = item(&mut Random(5), 0);
    // None of them can be parted from the others, and packets of no flow match the last only.
    let mut items: Vec<Item> = (0..STEPS - 1)
        .map(|rank| {
            let mut item = Item::clone(&one);
            item.order.0 = rank.into();
            item.filter.rank = rank.into();
            item.filter.kind = kind::FLOW;
            item
        })
        .collect();
    items.last_mut().unwrap().filter.kind = kind::PACKET;
    let last = items.last().unwrap().filter;
    let root = classifier
        .change(&[], items.into_iter().map(Arc::new).collect())
        .unwrap()
        .root;
    let key = FlowKey {
        source: last.source[0],
        destination: last.destination[0],
        rest: KeyRest::new(last.destination_port[0] & 0xffff, 0, 17),
    };
    let query = Query::new(&key, 0, kind::PACKET, 0);
    let found = first_match(&Tree(&classifier, root), root, &query, &InTunnel::NONE);
    assert!(!found.is_broken(), "{found:?}");
    assert_eq!(found.action(), Some(last.action));
}

#[test]
fn addresses_in_order_one_by_one_do_not_make_a_long_walk() {
    let mut classifier = classifier(200_000);
    for n in 0..3000 {
        let mut one = item(&mut Random(1), n);
        Arc::make_mut(&mut one).filter.destination = [mapped(n as u32); 2];
        classifier.change(&[], vec![one]).unwrap();
        settle(&mut classifier);
        assert!(
            classifier.root.height < 64,
            "{} steps at {n} filters",
            classifier.root.height
        );
    }
}
