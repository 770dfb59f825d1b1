//! The report: `cargo bench -p benches --bench report [-- --json|--quick]`, which `cargo xtask bench` runs.
#![expect(clippy::print_stdout, reason = "it is what the benchmark is run for")]

use std::{env, path::Path};

use anyhow::{Result, ensure};
use benches::{
    Report, Row, changes, check,
    table::{self, Scope},
    text, veth, work,
};

/// What holds or does not hold, in less than a minute.
const QUICK: Scope = Scope {
    flows: &[1 << 10],
    rules: &[10, 10_000],
    shaped: &[],
    rounds: 40,
};

/// For programs.
const USUAL: Scope = Scope {
    flows: &[1, 1 << 10, 1 << 16],
    rules: &[10, 100, 1_000, 10_000, 100_000],
    shaped: &[10, 10_000],
    rounds: 100,
};

/// As far as it goes.
const FULL: Scope = Scope {
    flows: &[1, 1 << 5, 1 << 10, 1 << 13, 1 << 16, 1 << 20],
    rules: &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
    shaped: &[10, 1_000, 10_000, 100_000],
    rounds: 200,
};

fn main() -> Result<()> {
    let has = |option: &str| env::args().any(|argument| argument == option);
    if has("--json") {
        let results = measure(&USUAL, &mut |_| ())?;
        print!("{}", Report::new(results)?.json()?);
        return Ok(());
    }
    println!("{}", text::HEADING);
    let mut show = |row: &Row| println!("{}", text::line(row));
    if has("--quick") {
        return quick(&mut show);
    }
    let report = Report::new(measure(&FULL, &mut show)?)?;
    report.write(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results")))
}

/// Fails if ratios are beyond their limits each time that they are measured.
fn quick(show: &mut dyn FnMut(&Row)) -> Result<()> {
    const ATTEMPTS: u32 = 3;
    let mut broken = check::broken(&packets(&QUICK, show)?);
    for _ in 1..ATTEMPTS {
        if broken.is_empty() {
            break;
        }
        println!("once more, as others may have disturbed it:");
        let bad = |id: &str| broken.iter().any(|(it, _)| it == id);
        // Other paths are compared with the reference that the first one brings.
        let mut rows = table::measure(&QUICK, &|id| bad(id) || id == "steer-v4-hit", show)?;
        if broken
            .iter()
            .any(|(id, _)| id.starts_with("veth") || id.starts_with("latency"))
        {
            let passing = veth::measure(QUICK.rounds / 4)?;
            passing.iter().for_each(&mut *show);
            rows.extend(passing);
        }
        let again = check::broken(&rows);
        broken = again.into_iter().filter(|(id, _)| bad(id)).collect();
    }
    let wrong: Vec<String> = broken.into_iter().map(|(_, what)| what).collect();
    ensure!(wrong.is_empty(), "worse than it was:\n{}", wrong.join("\n"));
    Ok(())
}

/// Everything.
fn measure(scope: &Scope, show: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = packets(scope, show)?;
    let changes = changes::measure(scope.rules, scope.rounds as usize)?;
    for row in changes
        .into_iter()
        .chain(work::measure(scope.rounds as usize))
    {
        show(&row);
        rows.push(row);
    }
    Ok(rows)
}

/// What is about packets.
fn packets(scope: &Scope, show: &mut dyn FnMut(&Row)) -> Result<Vec<Row>> {
    let mut rows = table::measure(scope, &|_| true, show)?;
    let passing = veth::measure(scope.rounds / 10)?;
    passing.iter().for_each(show);
    rows.extend(passing);
    Ok(rows)
}
