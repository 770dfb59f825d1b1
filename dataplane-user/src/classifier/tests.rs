//! Trees through changes, against lists.

use dataplane_core::{
    classify::NO_PORTS,
    parse::mapped,
    table::{field, kind},
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
            tunnel: 0,
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
