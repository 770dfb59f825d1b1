//! Large rule sets in the tables of the data path, against lists.

use std::{thread, time::Duration};

use dataplane_core::{
    classify::{InTunnel, Query},
    parse::mapped,
    table::{Filter, kind},
};
use dataplane_user::{
    Error, compile,
    rule::{Action, Rule, RuleId, RuleSet},
};
use tests::{
    shapes::{self, Random, SHAPES, Shape},
    tree::{RuleTree, query},
};

/// Rules in the order that decides, and their filters.
struct List(Vec<(RuleId, Vec<Filter>)>);

impl List {
    fn new(rules: &RuleSet) -> Self {
        let mut rules: Vec<&Rule> = rules.iter().map(|rule| &**rule).collect();
        rules.sort_by_key(|rule| (rule.priority, &rule.id));
        let compiled = |rule: &Rule| {
            (
                rule.id.clone(),
                compile(rule).expect("few combinations").filters,
            )
        };
        Self(rules.into_iter().map(compiled).collect())
    }

    fn rule(&self, query: &Query) -> Option<&RuleId> {
        let matches = |(_, filters): &&(_, Vec<Filter>)| filters.iter().any(|it| query.meets(it));
        self.0.iter().find(matches).map(|(id, _)| id)
    }
}

/// Packets that rules match, and some of other sets, which few do.
fn queries(shape: Shape, rules: &RuleSet, v6: bool) -> Vec<Query> {
    let other = shapes::rules(shape, 100, v6, &Action::Drop);
    let ours = shapes::packets(rules, 600, v6);
    let theirs = shapes::packets(&other, 200, v6);
    ours.iter().chain(&theirs).map(query).collect()
}

fn agree(tree: &RuleTree, rules: &RuleSet, queries: &[Query]) {
    let list = List::new(rules);
    let mut found = 0;
    for query in queries {
        let rule = tree.rule(query, &InTunnel::NONE).0;
        assert_eq!(rule, list.rule(query), "{query:?}");
        assert!(rule.is_none() || is_named(tree, query), "{query:?}");
        found += usize::from(rule.is_some());
    }
    assert!(
        found > queries.len() / 2,
        "{found} packets come under a rule"
    );
}

/// Whether one of its addresses is among those that the rules are about.
fn is_named(tree: &RuleTree, query: &Query) -> bool {
    let names = tree.0.names().expect("a table");
    names.has(query.source) || names.has(query.destination)
}

#[test]
fn what_no_rule_is_about_is_known_until_one_is() {
    let rule = |to: &str| format!("a/{} prio 1 flow to {to} drop", to.len()).parse::<Rule>();
    let set = |to: &[&str]| -> RuleSet { to.iter().map(|to| rule(to).unwrap()).collect() };
    let mut tree = RuleTree::new(&RuleSet::default(), 8).unwrap();
    for (to, named) in [
        (vec!["203.0.113.9"], [true, false, false]),
        (vec!["203.0.113.0/24"], [true, true, false]),
        (vec!["198.51.0.0/16", "203.0.113.9"], [true, false, true]),
        // More than can be told.
        (vec!["192.0.0.0/8"], [true, true, true]),
        (vec!["2001:db8::9"], [false, false, false]),
    ] {
        tree.change(&set(&to)).unwrap();
        let known = |tree: &RuleTree| {
            [0xcb00_7109, 0xcb00_7177, 0xc633_6401]
                .map(|address| tree.0.names().unwrap().has(mapped(address)))
        };
        // What was before is forgotten when no packet can be under way by it any more.
        let settled = (0..1_000).any(|_| {
            thread::sleep(Duration::from_millis(1));
            tree.change(&set(&to)).unwrap();
            known(&tree) == named
        });
        assert!(settled, "{to:?}: {:?}", known(&tree));
    }
}

#[test]
fn sets_of_all_shapes_agree_with_lists_through_changes() {
    for shape in SHAPES {
        for v6 in [false, true] {
            let all = shapes::rules(shape, 1_500, v6, &Action::Drop);
            let mut wanted: RuleSet = all.iter().take(1_000).map(|it| Rule::clone(it)).collect();
            let mut tree = RuleTree::new(&wanted, 8).unwrap();
            agree(&tree, &wanted, &queries(shape, &wanted, v6));
            let mut random = Random(1);
            for _ in 0..3 {
                for rule in &all {
                    match random.below(8) {
                        0 => _ = wanted.insert(Rule::clone(rule)),
                        1 => _ = wanted.remove(&rule.id),
                        _ => {}
                    }
                }
                tree.change(&wanted).unwrap();
                agree(&tree, &wanted, &queries(shape, &wanted, v6));
            }
            // Cells come back once no packet can be under way in the tree before.
            let empty = (0..1_000).any(|_| {
                tree.change(&RuleSet::default()).unwrap();
                thread::sleep(Duration::from_millis(1));
                tree.0.pressure().iter().all(|(_, used, _)| *used == 0)
            });
            assert!(empty, "{:?}", tree.0.pressure());
        }
    }
}

/// As many as the default limits have room for.
#[test]
fn wildcards_of_many_rules_fit() {
    const MANY: usize = 1 << 15;
    for (shape, v6) in [(Shape::Fw, false), (Shape::Fw, true), (Shape::Ipc, false)] {
        let rules = shapes::rules(shape, MANY, v6, &Action::Drop);
        let tree = RuleTree::new(&rules, 4).unwrap();
        let some: Vec<Query> = shapes::packets(&rules, 50, v6).iter().map(query).collect();
        agree(&tree, &rules, &some);
    }
}

#[test]
fn a_set_that_does_not_fit_changes_nothing() {
    let few = shapes::rules(Shape::Fw, 200, false, &Action::Drop);
    let mut tree = RuleTree::new(&few, 8).unwrap();
    let before = tree.0.pressure();
    // The table has 1,600 cells for filters.
    let many = shapes::rules(Shape::Services, 1_100, false, &Action::Drop);
    let mut both = few.clone();
    for rule in &many {
        let filter = &rule.filters[0];
        let filters = (1..3).map(|zone| dataplane_user::rule::Filter {
            zone: Some(zone),
            ..filter.clone()
        });
        both.insert(Rule {
            filters: filters.collect(),
            ..Rule::clone(rule)
        });
    }
    let error = tree.0.apply(&both, &|_, _| None).unwrap_err();
    assert!(
        matches!(
            error,
            Error::TooMany {
                what: "filters",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(tree.0.pressure(), before);
    agree(&tree, &few, &queries(Shape::Fw, &few, false));
}

#[test]
fn rules_that_differ_in_tunnels_only_are_parted() {
    for kind in ["flow", "packet"] {
        let rule = |station: u32| {
            let text = format!(
                "a/{station} prio 1 {kind} tunnel-from 192.0.{}.{} drop",
                station >> 8,
                station & 0xff
            );
            text.parse().unwrap()
        };
        let rules: RuleSet = (0..600).map(rule).collect();
        let tree = RuleTree::new(&rules, 8).unwrap();
        for station in 0..700_u32 {
            let address = mapped(0xc000_0000 + station);
            let tunnel = InTunnel::new(address, address, 0, 0);
            let any = Query {
                kinds: kind::FLOW as u16 | kind::PACKET as u16,
                ..Query::default()
            };
            let (found, sensitive) = tree.rule(&any, &tunnel);
            let expected = (station < 600).then(|| format!("a/{station}").parse().unwrap());
            assert_eq!(found, expected.as_ref());
            // The next packet of the flow may come by another tunnel.
            assert_eq!(sensitive, kind == "packet");
        }
    }
}
