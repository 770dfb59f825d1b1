//! The tasks of a developer and of CI: `cargo xtask <task>`.
//!
//! This crate is built first on a new machine, so it depends on next to nothing and drives
//! everything else (cargo, apt-get, qemu) as a person would: by running commands.
#![expect(clippy::print_stdout, reason = "tasks talk to a person")]

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

mod bench;
mod console;
mod demo;
mod process;
mod setup;
mod test;
mod vm;

const USAGE: &str = "\
Usage: cargo xtask <task>

  setup [build|bench|demo|test]
                           install what is missing to build, measure, show or test edgesteer
                           (default: all of it)
  demo [--gtpu|--vip] [--keep]
                           steer real HTTP traffic between network namespaces, and show it; with
                           --gtpu that of a UE behind a GTP-U tunnel, with --vip that to a VIP as
                           backends and a site fail; --keep leaves the lab up for playing
  demo --clean             remove a lab that was kept
  test                     everything CI checks, in CI's order
  bench [--quick|--json]   measure what steering costs, beside what it could cost and what others
                           cost; --quick in a minute, --json for programs
  vm [BINARY [ARG...]]     run the kernel scenario (or BINARY) on Linux 6.1 in QEMU";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {error:#}", console::red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<ExitCode> {
    match args {
        ["setup"] | ["setup", "test"] => setup::run(setup::Purpose::Test)?,
        ["setup", "build"] => setup::run(setup::Purpose::Build)?,
        ["setup", "bench"] => setup::run(setup::Purpose::Bench)?,
        ["setup", "demo"] => setup::run(setup::Purpose::Demo)?,
        ["demo", options @ ..] if demo::understands(options) => return demo::run(options),
        ["test"] => return Ok(test::run()),
        ["bench"] | ["bench", "--quick" | "--json"] => bench::run(&args[1..])?,
        ["vm"] => vm::run_scenario()?,
        ["vm", binary, args @ ..] => vm::run(binary.as_ref(), args)?,
        [] | ["help"] | ["--help"] | ["-h"] => println!("{USAGE}"),
        other => bail!("no such task: {}\n\n{USAGE}", other.join(" ")),
    }
    Ok(ExitCode::SUCCESS)
}
