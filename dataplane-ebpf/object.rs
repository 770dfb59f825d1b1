//! Compiles an eBPF crate, for the build script of the crate that embeds its object.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};

/// The rustup toolchain that `cargo xtask setup` makes of Debian's compiler.
const DEBIAN: &str = "edgesteer-bpf";

/// Compiles the crate `name` in `root` and leaves the object of its binary `program` as `OUT_DIR/program`.
///
/// With `AYA_BUILD_SKIP=1` the object is empty: enough to lint, document and fuzz the crate on a
/// machine without the eBPF toolchain, and refused when loaded.
pub(crate) fn build(name: &str, root: &str, program: &str) -> Result<()> {
    println!("cargo:rerun-if-env-changed=AYA_BUILD_SKIP");
    if env::var_os("AYA_BUILD_SKIP").is_some_and(|it| it == "1" || it == "true") {
        let directory = env::var_os("OUT_DIR").context("OUT_DIR is not set")?;
        return Ok(fs::write(PathBuf::from(directory).join(program), [])?);
    }

    let toolchain = if runs("rustup", &["run", DEBIAN, "rustc", "--version"]) {
        Toolchain::Custom(DEBIAN)
    } else if runs("rustup", &["run", "nightly", "rustc", "--version"]) {
        Toolchain::Nightly
    } else {
        missing("a compiler")?
    };
    if !runs("bpf-linker", &["--version"]) {
        missing("bpf-linker")?;
    }
    let package = Package {
        name,
        root_dir: root,
        ..Package::default()
    };
    aya_build::build_ebpf([package], toolchain)
}

fn missing<T>(what: &str) -> Result<T> {
    bail!("{what} for eBPF programs is not installed: run `cargo xtask setup`")
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .output()
        .is_ok_and(|it| it.status.success())
}
