//! Ways to find the rule of a packet, in this process: `cargo bench -p benches --bench classify [-- NUMBER|SHAPE...]`.
//! What the one in use costs in the kernel is in the benchmark of that name.
#![expect(clippy::print_stdout, reason = "it is what the benchmark is run for")]

use std::{env, hint::black_box, time::Instant};

use anyhow::Result;
use benches::compare::{Binary, Find, Linear, Tuples, Vectors};
use dataplane_core::{classify::Query, table::Filter};
use dataplane_user::{
    compile,
    rule::{Action, Rule, RuleSet},
};
use tests::{
    shapes::{self, SHAPES, Shape},
    tree::{RuleTree, query},
};

/// Packets, each different.
const PACKETS: usize = 1 << 16;

fn main() -> Result<()> {
    let asked: Vec<usize> = env::args().filter_map(|it| it.parse().ok()).collect();
    let counts = if asked.is_empty() {
        vec![10, 1_000, 10_000, 100_000]
    } else {
        asked
    };
    let names: Vec<String> = env::args()
        .skip(1)
        .filter(|it| SHAPES.iter().any(|shape| shape.name() == it))
        .collect();
    let wanted = |name: &str| names.is_empty() || names.iter().any(|it| it == name);
    println!("nanoseconds for a packet of many, and octets for a rule\n");
    println!(
        "{:<10} {:>8} {:>8}  {:<14} {:>6} {:>8} {:>6} {:>8}",
        "rules", "number", "filters", "way", "ns", "octets", "steps", "build"
    );
    for v6 in [false, true] {
        for shape in SHAPES.into_iter().filter(|shape| wanted(shape.name())) {
            for count in &counts {
                compare(shape, *count, v6)?;
            }
        }
    }
    Ok(())
}

fn compare(shape: Shape, count: usize, v6: bool) -> Result<()> {
    let rules = shapes::rules(shape, count, v6, &Action::Drop);
    let packets = shapes::packets(&rules, PACKETS, v6);
    let queries: Vec<Query> = packets.iter().map(query).collect();
    let set = Set {
        name: format!("{}{}", shape.name(), if v6 { " v6" } else { "" }),
        rules: count,
        filters: filters(&rules),
        queries,
    };
    let begun = Instant::now();
    let tree = RuleTree::new(&rules, 6)?;
    let built = begun.elapsed().as_millis();
    let all: Vec<u32> = set.queries.iter().map(|query| tree.steps(query)).collect();
    let steps = all
        .iter()
        .max()
        .map(|max| (all.iter().sum::<u32>() / all.len() as u32, *max));
    let found: Vec<bool> = set
        .queries
        .iter()
        .map(|query| tree.find(query).is_some())
        .collect();
    assert!(
        found.iter().all(|it| *it),
        "every packet was made for a rule"
    );
    set.print(
        "splits",
        || median(&set.queries, |query| tree.find(query).is_some()),
        tree.size(),
        steps,
        built,
    );
    set.try_out::<Binary>();
    set.try_out::<Tuples>();
    set.try_out::<Vectors>();
    set.try_out::<Linear>();
    Ok(())
}

struct Set {
    name: String,
    rules: usize,
    filters: Vec<Filter>,
    queries: Vec<Query>,
}

impl Set {
    fn try_out<F: Find>(&self) {
        let begun = Instant::now();
        let Some(way) = F::build(&self.filters) else {
            println!(
                "{:<10} {:>8} {:>8}  {:<14} too large",
                self.name,
                self.rules,
                self.filters.len(),
                F::NAME
            );
            return;
        };
        let built = begun.elapsed().as_millis();
        let ns = || median(&self.queries, |query| way.find(query).is_some());
        self.print(F::NAME, ns, way.size(), None, built);
    }

    fn print(
        &self,
        way: &str,
        ns: impl Fn() -> u64,
        size: usize,
        steps: Option<(u32, u32)>,
        built: u128,
    ) {
        println!(
            "{:<10} {:>8} {:>8}  {way:<14} {:>6} {:>8} {:>6} {built:>5} ms",
            self.name,
            self.rules,
            self.filters.len(),
            ns(),
            size / self.rules,
            steps.map_or_else(String::new, |(mean, most)| format!("{mean}/{most}")),
        );
    }
}

/// Nanoseconds for a packet: the median of rows.
fn median(queries: &[Query], find: impl Fn(&Query) -> bool) -> u64 {
    const ROW: usize = 256;
    let mut rows: Vec<u64> = Vec::new();
    let begun = Instant::now();
    for row in queries.chunks(ROW) {
        let started = Instant::now();
        for query in row {
            black_box(find(black_box(query)));
        }
        rows.push(started.elapsed().as_nanos() as u64 / row.len() as u64);
        if begun.elapsed().as_secs() >= 2 {
            break;
        }
    }
    rows.sort_unstable();
    rows[rows.len() / 2]
}

/// The filters of all rules, in order.
fn filters(rules: &RuleSet) -> Vec<Filter> {
    let mut rules: Vec<&Rule> = rules.iter().map(|rule| &**rule).collect();
    rules.sort_by_key(|rule| (rule.priority, &rule.id));
    let compiled = rules
        .into_iter()
        .map(|rule| compile(rule).expect("few combinations"));
    compiled.flat_map(|rule| rule.filters).collect()
}
