//! `cargo xtask bench`: what steering costs in the kernel, and how long rules take to be in force.

use anyhow::{Result, ensure};

use crate::{
    process::{command, is_root, root, run as shown_run},
    setup,
};

/// Runs all benchmarks, or with `--json` or `--quick` those of the kernel only.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    ensure!(
        is_root(),
        "benchmarks make network namespaces and load BPF programs: run this as root"
    );
    if args.is_empty() {
        setup::run(setup::Purpose::Build)?;
        shown_run(command("cargo bench --package benches --bench apply").current_dir(root()))?;
    }
    let kernel = "cargo bench --quiet --package benches --bench kernel --";
    shown_run(command(kernel).args(args).current_dir(root()))
}
