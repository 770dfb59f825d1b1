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
            bench(
                &format!("cargo bench --package benches --bench {statistics}"),
                args,
            )?;
        }
    }
    bench(
        "cargo bench --quiet --package benches --bench report --",
        args,
    )
}

fn bench(line: &str, args: &[&str]) -> Result<()> {
    shown_run(command(line).args(args).current_dir(root()))
}
