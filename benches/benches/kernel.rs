//! What steering costs in the kernel: `cargo bench -p benches --bench kernel [-- --quick|--json] [PATH...]`.
#![expect(clippy::print_stdout, reason = "it is what the benchmark is run for")]

use std::{env, time::Duration};

use anyhow::Result;
use benches::{Costs, Driver, MISSES, MOBILE_PATHS, PATHS, Path, Target};
use criterion::Criterion;

fn main() -> Result<()> {
    let has = |option: &str| env::args().any(|argument| argument == option);
    let rounds = if has("--quick") { 30 } else { 200 };
    let names: Vec<String> = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with("--"))
        .collect();
    let wanted = |id: &str| names.is_empty() || names.iter().any(|name| id.contains(name.as_str()));
    let mut rows = Vec::new();
    for (mobile, paths, misses) in [(false, PATHS, MISSES), (true, MOBILE_PATHS, &[])] {
        let mut driver = Driver::new(mobile)?;
        let paths: Vec<&Path> = paths.iter().filter(|path| wanted(path.id)).collect();
        if !has("--json") && !has("--quick") {
            sample(&mut driver, &paths)?;
        }
        for path in paths {
            for flows in [1, 1 << 10, 1 << 16] {
                driver.prepare(path, flows)?;
                rows.push((path.id, flows, driver.measure(rounds)?, path.target));
            }
        }
        for miss in misses.iter().filter(|miss| wanted(miss.id)) {
            let costs = driver.measure_miss(miss, rounds / 20 + 1)?;
            rows.push((miss.id, 1 << 14, costs, miss.target));
        }
    }
    if has("--json") {
        print_json(&rows);
    } else {
        print_table(&rows);
    }
    Ok(())
}

type Row = (&'static str, u32, Costs, u64);

/// The statistics of criterion for the paths that matter most.
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

fn print_table(rows: &[Row]) {
    println!("nanoseconds for a packet; net is without what doing nothing takes\n");
    println!(
        "{:<18} {:>6} {:>6} {:>6} {:>6} {:>8} {:>6}",
        "path", "flows", "all", "empty", "net", "aimed at", "hash"
    );
    for (id, flows, costs, target) in rows {
        println!(
            "{id:<18} {flows:>6} {:>6} {:>6} {:>6} {target:>8} {:>6}",
            costs.steer,
            costs.empty,
            costs.net(),
            costs.net_lookup()
        );
    }
}

fn print_json(rows: &[Row]) {
    let results: Vec<String> = rows
        .iter()
        .map(|(id, flows, costs, _)| {
            format!(
                r#"{{"id":"{id}","flows":{flows},"ns":{},"empty_ns":{},"net_ns":{}}}"#,
                costs.steer,
                costs.empty,
                costs.net()
            )
        })
        .collect();
    println!(
        r#"{{"machine":"{}","results":[{}]}}"#,
        machine(),
        results.join(",")
    );
}

/// Processor and kernel.
fn machine() -> String {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown", |(_, model)| model);
    format!(
        "{model}, Linux {}",
        read("/proc/sys/kernel/osrelease").trim()
    )
}
