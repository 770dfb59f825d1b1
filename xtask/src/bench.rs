//! `cargo xtask bench`: what steering costs, beside what it could cost and what others cost.

use anyhow::{Result, ensure};

use crate::{
    process::{command, is_root, root, run as shown_run},
    setup,
};

/// Runs all benchmarks, or with `--json` or `--quick` what the report is made of only.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    ensure!(
        is_root(),
        "benchmarks make network namespaces and load BPF programs: run this as root"
    );
    if args.is_empty() {
        setup::run(setup::Purpose::Bench)?;
        for statistics in ["host", "apply", "kernel"] {
            cargo_bench(&["--bench", statistics])?;
        }
    }
    // What is quick is about the kernel only, whose programs are optimized in any profile.
    let profile = if args == ["--quick"] { "dev" } else { "bench" };
    let report = ["--quiet", "--profile", profile, "--bench", "report", "--"];
    cargo_bench(&[&report, args].concat())
}

fn cargo_bench(args: &[&str]) -> Result<()> {
    let mut bench = command("cargo bench --package benches");
    shown_run(bench.args(args).current_dir(root()))
}
