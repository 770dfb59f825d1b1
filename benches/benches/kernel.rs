//! What steering costs in the kernel, with criterion's statistics, or with `--quick` as a table:
//! `cargo bench -p benches --bench kernel [-- --quick] [PATH...]`.
#![expect(clippy::print_stdout, reason = "it is what the benchmark is run for")]

use std::{env, time::Duration};

use anyhow::Result;
use benches::{
    Driver, MOBILE_PATHS, PATHS, Path, Target,
    table::{self, Scope},
    text,
};
use criterion::Criterion;

const SCOPE: Scope = Scope {
    flows: &[1, 1 << 10, 1 << 16],
    rules: &[10, 10_000, 100_000],
    shaped: &[10, 10_000, 100_000],
    rounds: 30,
};

fn main() -> Result<()> {
    let names: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |id: &str| names.is_empty() || names.iter().any(|name| id.contains(name.as_str()));
    if env::args().any(|argument| argument == "--quick") {
        println!("{}", text::HEADING);
        table::measure(&SCOPE, &wanted, &mut |row| println!("{}", text::line(row)))?;
        return Ok(());
    }
    for (mobile, paths) in [(false, PATHS), (true, MOBILE_PATHS)] {
        let paths: Vec<&Path> = paths.iter().filter(|path| wanted(path.id)).collect();
        sample(&mut Driver::new(mobile, 1, 1 << 10)?, &paths)?;
    }
    Ok(())
}

/// The statistics of criterion.
fn sample(driver: &mut Driver, paths: &[&Path]) -> Result<()> {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    for path in paths {
        driver.prepare(path, 1 << 10)?;
        for (name, target) in [("empty", Target::Empty), (path.id, Target::Steer)] {
            let id = format!("{}/{name}", path.id);
            criterion.bench_function(&id, |bencher| {
                bencher.iter_custom(|packets| driver.time(target, packets).expect("a run"));
            });
        }
    }
    Ok(())
}
