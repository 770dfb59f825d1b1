//! The tasks of a developer and of CI: `cargo xtask <task>`.
//!
//! This crate is built first on a new machine, so it depends on next to nothing and drives
//! everything else (cargo, apt-get, ip, qemu) as a person would: by running commands.
#![expect(clippy::print_stdout, reason = "tasks talk to a person")]

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

mod console;
mod process;
mod setup;

const USAGE: &str = "\
Usage: cargo xtask <task>

  setup [build|demo|test]  install what is missing to build, show or test edgesteer
                           (default: all of it)";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{} {error:#}", console::red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["setup"] | ["setup", "test"] => setup::run(setup::Purpose::Test),
        ["setup", "build"] => setup::run(setup::Purpose::Build),
        ["setup", "demo"] => setup::run(setup::Purpose::Demo),
        [] | ["help"] | ["--help"] | ["-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        other => bail!("no such task: {}\n\n{USAGE}", other.join(" ")),
    }
}
