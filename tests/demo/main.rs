//! Shows edgesteer at work, on a MEC host made of network namespaces: the real daemon, real
//! kernels on both sides, real HTTP over TCP. `cargo xtask demo` builds and runs it.
//!
//! Each act checks what it shows, so a demo that ends well is also a test that passed.
#![expect(clippy::print_stdout, reason = "it is a show")]

use std::{
    env,
    process::{Command, ExitCode},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

mod acts;
mod graph;
mod page;
mod serve;
mod stage;
mod vip;

use stage::Stage;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{} {error:#}", page::red("error:"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[&str]) -> Result<()> {
    match args {
        ["--clean"] => stage::clean().map(|()| println!("The demo's lab is gone.")),
        ["play", "--vip"] => vip::play(),
        ["play", options @ ..] => acts::play(&mut Stage::set(options == ["--gtpu"])?),
        ["serve", greeting, addresses @ ..] => serve::forever(greeting, addresses),
        [] | ["--keep"] => show(None, args == ["--keep"]),
        [kind @ ("--gtpu" | "--vip")] => show(Some(kind), false),
        ["--keep", kind @ ("--gtpu" | "--vip")] | [kind @ ("--gtpu" | "--vip"), "--keep"] => {
            show(Some(kind), true)
        }
        other => bail!("unknown arguments: {}", other.join(" ")),
    }
}

/// Plays in a process of its own, so that the lab is removed however the play ends.
fn show(kind: Option<&str>, keep: bool) -> Result<()> {
    stage::clean().context("cannot remove what an earlier demo left")?;
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let mut play = Command::new(env::current_exe()?);
    let mut play = play.arg("play").args(kind).spawn()?;
    let player = play.id().to_string();
    thread::spawn(move || {
        for _ in signals.forever() {
            // On Ctrl-C it has heard for itself; it may be gone already.
            drop(Command::new("kill").arg(&player).output());
        }
    });
    let status = play.wait()?;
    if keep && status.success() {
        page::print(&match kind {
            Some("--vip") => vip::hints()?,
            kind => acts::hints(kind.is_some())?,
        });
        return Ok(());
    }
    stage::clean().context("`cargo xtask demo --clean` tries again")?;
    println!("\nThe lab is gone again; with --keep it stays up for playing.");
    ensure!(status.success(), "the demo ended early: {status}");
    Ok(())
}
