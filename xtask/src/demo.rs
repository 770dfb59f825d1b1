//! `cargo xtask demo`: builds, and hands over to the demo program, which uses the lab of the tests.

use std::{
    io::{BufRead as _, BufReader, IsTerminal as _, Write as _, stdout},
    os::unix::process::CommandExt as _,
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    console::{bold, elapsed, green},
    process::{command, is_root, root, shown, target},
    setup,
};

/// Whether these are options of the demo.
pub(crate) fn understands(args: &[&str]) -> bool {
    let both = ["--gtpu", "--vip"].iter().all(|it| args.contains(it));
    let known = |it: &&str| ["--gtpu", "--vip", "--keep"].contains(it);
    args == ["--clean"] || (args.iter().all(known) && !both)
}

/// Shows edgesteer steering, or cleans up after it (`--clean`).
pub(crate) fn run(args: &[&str]) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the demo makes network namespaces and loads BPF programs: run it as root"
    );
    let demo = target()?.join("debug/demo");
    // Cleaning up has to work while the source does not compile.
    if args != ["--clean"] || !demo.exists() {
        build(args)?;
    }
    // Replaces this process: Ctrl-C and the exit status are the demo's own business.
    let error = Command::new(demo).args(args).exec();
    Err(error).context("cannot run the demo")
}

fn build(args: &[&str]) -> Result<()> {
    setup::run(setup::Purpose::Demo)?;
    if args.contains(&"--gtpu") {
        setup::gtpu()?;
    }
    if args.contains(&"--vip") {
        setup::bird()?;
    }
    println!("{}", bold("Building"));
    let build = "cargo build --package control --package tests --bin edgesteer --bin demo";
    progress(command(build).current_dir(root()))
}

/// Runs cargo, and shows on one line what it is at; all it said only if it fails.
fn progress(cargo: &mut Command) -> Result<()> {
    let start = Instant::now();
    let mut child = cargo
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let output = child.stderr.take().context("cargo has no output")?;
    let mut said = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if let Some(name) = line.trim().strip_prefix("Compiling ")
            && stdout().is_terminal()
        {
            print!("\r\x1b[K  … {name}");
            stdout().flush()?;
        }
        said.push_str(&line);
        said.push('\n');
    }
    if stdout().is_terminal() {
        print!("\r\x1b[K");
    }
    let status = child.wait()?;
    ensure!(
        status.success(),
        "`{}` failed: {status}\n{said}",
        shown(cargo)
    );
    println!("{} in {}", green("Built"), elapsed(start.elapsed()));
    Ok(())
}
