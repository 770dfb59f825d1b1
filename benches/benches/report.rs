//! The report: `cargo bench -p benches --bench report [-- --json|--quick]`, which `cargo xtask bench` runs.
#![expect(clippy::print_stdout, reason = "it is what the benchmark is run for")]

use std::env;

use anyhow::Result;
use benches::{
    Report, Row,
    table::{self, Scope},
    text, veth,
};

/// In about a minute.
const QUICK: Scope = Scope {
    flows: &[1, 1 << 10],
    rules: 10_000,
    rounds: 40,
};

/// For programs.
const USUAL: Scope = Scope {
    flows: &[1, 1 << 10, 1 << 16],
    rules: 100_000,
    rounds: 100,
};

/// As far as it goes.
const FULL: Scope = Scope {
    flows: &[1, 1 << 5, 1 << 10, 1 << 13, 1 << 16, 1 << 20],
    rules: 1_000_000,
    rounds: 200,
};

fn main() -> Result<()> {
    let has = |option: &str| env::args().any(|argument| argument == option);
    if has("--json") {
        let results = measure(&USUAL, &mut |_| ())?;
        println!("{}", Report::new(results)?.json()?);
        return Ok(());
    }
    let scope = if has("--quick") { QUICK } else { FULL };
    println!("{}", text::HEADING);
    measure(&scope, &mut |row| println!("{}", text::line(row)))?;
    Ok(())
}

fn measure(scope: &Scope, show: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = table::measure(scope, &|_| true, show)?;
    let passing = veth::measure(scope.rounds / 10)?;
    passing.iter().for_each(show);
    rows.extend(passing);
    Ok(rows)
}
