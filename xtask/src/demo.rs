//! `cargo xtask demo`: builds, and hands over to the demo program, which uses the lab of the tests.

use std::{
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    console::bold,
    process::{command, is_root, root, run as shown_run, target},
    setup,
};

/// Shows edgesteer steering, or cleans up after it (`--clean`).
pub(crate) fn run(args: &[&str]) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the demo makes network namespaces and loads BPF programs: run it as root"
    );
    setup::run(setup::Purpose::Demo)?;
    println!("{}", bold("Building"));
    let build = "cargo build --package control --package tests --bin edgesteer --bin demo";
    shown_run(command(build).current_dir(root()))?;
    println!();
    // Replaces this process: Ctrl-C and the exit status are the demo's own business.
    let error = Command::new(target()?.join("debug/demo")).args(args).exec();
    Err(error).context("cannot run the demo")
}
