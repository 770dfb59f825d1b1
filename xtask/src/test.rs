//! `cargo xtask test`: everything that CI checks, in the order in which failures are cheapest.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    bench,
    console::{bold, dim, elapsed, green, red},
    process::{command, root, run as shown_run, shown, succeeds, target},
    setup::{self, BPF_TOOLCHAIN},
    vm,
};

/// How long each fuzz target runs.
const FUZZ_SECONDS: u32 = 20;

/// What was counted so far: tests, benchmarks, fuzz targets, the demos and the run in the VM.
#[derive(Clone, Copy, Default)]
struct Tally {
    passed: u32,
    failed: u32,
}

type Step = (&'static str, fn(&mut Tally) -> Result<()>);

const STEPS: &[Step] = &[
    ("setup", |_| setup::run(setup::Purpose::Test)),
    ("format", format),
    ("clippy", clippy),
    ("clippy for BPF", clippy_bpf),
    ("documentation", documentation),
    ("licenses and sources", deny),
    ("tests", tests),
    ("benchmarks", benchmarks),
    ("examples", examples),
    ("demo", demo),
    ("miri", miri),
    ("fuzz", fuzz),
    ("Linux 6.1", |tally| {
        vm::run_scenario()?;
        tally.passed += 1;
        Ok(())
    }),
];

/// Runs all steps up to the first that fails. Its last line sums the tests up.
pub(crate) fn run() -> ExitCode {
    let start = Instant::now();
    let mut tally = Tally::default();
    let mut times: Vec<(&str, Duration)> = Vec::new();
    let mut failure = None;
    for (name, step) in STEPS {
        println!("{} {}", bold("==>"), bold(name));
        let begun = Instant::now();
        let result = step(&mut tally);
        times.push((name, begun.elapsed()));
        println!(
            "{}",
            dim(format!("    {name}: {}\n", elapsed(begun.elapsed())))
        );
        if let Err(error) = result {
            tally.failed = tally.failed.max(1);
            failure = Some((name, error));
            break;
        }
    }

    for (name, time) in times {
        println!("  {name:<22} {:>12}", elapsed(time));
    }
    println!("  {:<22} {:>12}\n", "all", elapsed(start.elapsed()));
    let code = match failure {
        None => {
            println!("{}", green("Everything CI checks is in order"));
            ExitCode::SUCCESS
        }
        Some((name, error)) => {
            println!("{} {error:#}", red(format!("{name} failed:")));
            ExitCode::FAILURE
        }
    };
    println!("{} passed, {} failed", tally.passed, tally.failed);
    code
}

fn format(_: &mut Tally) -> Result<()> {
    cargo("fmt --all --check")?;
    cargo("fmt --manifest-path tests/fuzz/Cargo.toml --check")
}

fn clippy(_: &mut Tally) -> Result<()> {
    cargo("clippy --workspace --exclude dataplane-ebpf --all-targets -- -D warnings")?;
    // The fuzz targets have a workspace, and a lock file, of their own.
    let mut fuzz = command("cargo clippy --locked --manifest-path tests/fuzz/Cargo.toml");
    here(
        fuzz.args(["--", "-D", "warnings"])
            .env("AYA_BUILD_SKIP", "1"),
    )
}

/// The eBPF crate has a compiler of its own, and so a clippy of its own.
fn clippy_bpf(_: &mut Tally) -> Result<()> {
    let lint = "cargo clippy --package dataplane-ebpf --target bpfel-unknown-none";
    let mut command = if succeeds(&format!(
        "rustup run {BPF_TOOLCHAIN} clippy-driver --version"
    )) {
        command(&format!("rustup run {BPF_TOOLCHAIN} {lint}"))
    } else if succeeds("rustup run nightly cargo clippy --version") {
        command(&format!("rustup run nightly {lint} -Z build-std=core"))
    } else {
        println!("    not available: no clippy for the eBPF compiler");
        return Ok(());
    };
    command
        .args(["--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", target()?.join("bpf"))
        .env("RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
    here(&mut command)
}

fn documentation(_: &mut Tally) -> Result<()> {
    // The readers are those who work on it, so what is private is documented too.
    let mut doc = command("cargo doc --workspace --exclude dataplane-ebpf --no-deps");
    doc.arg("--document-private-items");
    here(doc.env(
        "RUSTDOCFLAGS",
        "-D warnings -A rustdoc::private-intra-doc-links",
    ))
}

/// Advisories are left out: they need a database from the network.
fn deny(_: &mut Tally) -> Result<()> {
    cargo("deny --log-level error check licenses bans sources")
}

fn tests(tally: &mut Tally) -> Result<()> {
    let mut test = command("cargo test --workspace --exclude dataplane-ebpf --no-fail-fast");
    counted(test.current_dir(root()), tally)
}

fn benchmarks(tally: &mut Tally) -> Result<()> {
    bench::run(&["--quick"]).context("repeat it with\n    cargo xtask bench --quick\n")?;
    tally.passed += 1;
    Ok(())
}

/// What is shipped as an example is accepted by the program that it is shipped with.
fn examples(_: &mut Tally) -> Result<()> {
    let check = "run --quiet --package control --bin edgesteer -- check";
    cargo(&format!(
        "{check} packaging/edgesteer.toml packaging/rules.d/video.json packaging/rules.d/web-vip.json"
    ))
}

fn demo(tally: &mut Tally) -> Result<()> {
    for options in ["", " -- --gtpu", " -- --vip"] {
        cargo(&format!("run --quiet --package tests --bin demo{options}"))?;
        tally.passed += 1;
    }
    Ok(())
}

fn miri(tally: &mut Tally) -> Result<()> {
    if !succeeds("cargo +nightly miri --version") {
        println!("    not available: rustup's component miri is not installed");
        return Ok(());
    }
    let mut test = command("cargo +nightly miri test --package dataplane-core");
    counted(test.current_dir(root()), tally)
}

fn fuzz(tally: &mut Tally) -> Result<()> {
    for entry in fs::read_dir(root().join("tests/fuzz/targets"))? {
        let file = entry?.path();
        let name = file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        // What is found on the way goes to the first corpus; the one of the project only starts it.
        let found = target()?.join("corpus").join(&name);
        fs::create_dir_all(&found)?;
        let mut fuzz = command("cargo fuzz run --fuzz-dir tests/fuzz");
        fuzz.arg(&name)
            .arg(found)
            .arg(format!("tests/fuzz/corpus/{name}"));
        fuzz.args(["--", "-verbosity=0", "-print_final_stats=1"]);
        fuzz.arg(format!("-max_total_time={FUZZ_SECONDS}"));
        // libFuzzer needs a compiler flag that is not stable, and no eBPF object.
        here(fuzz.env("RUSTC_BOOTSTRAP", "1").env("AYA_BUILD_SKIP", "1"))?;
        tally.passed += 1;
    }
    Ok(())
}

fn cargo(args: &str) -> Result<()> {
    here(&mut command(&format!("cargo {args}")))
}

fn here(command: &mut Command) -> Result<()> {
    let repeat = shown(command);
    shown_run(command.current_dir(root()))
        .with_context(|| format!("repeat it with\n    {repeat}\n"))
}

/// Runs a test command, shows what it prints, and adds up its `test result:` lines.
fn counted(command: &mut Command, tally: &mut Tally) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", shown(command)))?;
    let output = child.stdout.take().context("no output to read")?;
    let mut ignored = 0;
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            tally.passed += number_before(result, " passed");
            tally.failed += number_before(result, " failed");
            ignored += number_before(result, " ignored");
        }
    }
    if !child.wait()?.success() {
        bail!("repeat it with\n    {}\n", shown(command));
    }
    ensure!(
        ignored == 0,
        "{ignored} tests are ignored; a test either runs or goes"
    );
    Ok(())
}

fn number_before(line: &str, word: &str) -> u32 {
    line.split(word)
        .next()
        .and_then(|before| before.rsplit(|c: char| !c.is_ascii_digit()).next())
        .and_then(|digits| digits.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_before_their_words() {
        let result = "FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; finished in 0.01s";
        assert_eq!(number_before(result, " passed"), 12);
        assert_eq!(number_before(result, " failed"), 3);
        assert_eq!(number_before("nothing of the kind", " passed"), 0);
    }
}
