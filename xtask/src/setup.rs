//! `cargo xtask setup`: finds what is there, installs what is missing, says what it does.
//!
//! On Debian the compiler for the kernel's side is the distribution's own (`rustc-web`, which has a
//! ready-made `core` for BPF), linked into rustup as `edgesteer-bpf`; elsewhere it is rustup's
//! nightly, which builds `core` itself. `dataplane-ebpf/object.rs` makes the same choice.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    console::{bold, dim, elapsed, green},
    process::{command, find, is_root, quiet, succeeds, target},
};

/// What the machine is to be made ready for; each needs what the one before it needs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    Build,
    Bench,
    Demo,
    Test,
}

/// Name of the rustup toolchain that compiles the eBPF crate on Debian.
pub(crate) const BPF_TOOLCHAIN: &str = "edgesteer-bpf";

const BPF_LINKER: &str = "0.13.0";
const CARGO_DENY: &str = "0.20.2";
const CARGO_FUZZ: &str = "0.13.2";

const COMPILER_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
const BUILD_PACKAGES: &[&str] = &[
    "build-essential",
    "llvm-22-dev",
    "libpolly-22-dev",
    "zlib1g-dev",
    "libzstd-dev",
];
const BENCH_PACKAGES: &[&str] = &["iproute2", "ethtool", "nftables"];
const DEMO_PACKAGES: &[&str] = &["curl", "python3"];
const TEST_PACKAGES: &[&str] = &[
    "rust-web-clippy",
    "qemu-system-x86",
    "busybox-static",
    "iperf3",
    "python3-exabgp",
    "tshark",
];

/// Makes the machine ready, and fails with one sentence on what a person has to do.
pub(crate) fn run(purpose: Purpose) -> Result<()> {
    let start = Instant::now();
    println!("{}", bold("Setting up"));
    if Path::new("/etc/debian_version").exists() {
        debian(purpose)?;
    } else {
        elsewhere(purpose)?;
    }
    bpffs()?;
    if purpose >= Purpose::Test {
        components()?;
        // Built without optimization: that is sooner done, and they do not run for long.
        crates_io("cargo-deny", CARGO_DENY, &["--debug"])?;
        crates_io("cargo-fuzz", CARGO_FUZZ, &["--debug"])?;
    }
    println!("{} in {}\n", green("Ready"), elapsed(start.elapsed()));
    Ok(())
}

fn debian(purpose: Purpose) -> Result<()> {
    let mut packages = [COMPILER_PACKAGES, BUILD_PACKAGES].concat();
    if purpose >= Purpose::Bench {
        packages.extend(BENCH_PACKAGES);
    }
    if purpose >= Purpose::Demo {
        packages.extend(DEMO_PACKAGES);
    }
    if purpose >= Purpose::Test {
        packages.extend(TEST_PACKAGES);
    }
    let missing = missing(&packages)?;
    if missing.is_empty() {
        there("Debian packages", &format!("{} installed", packages.len()));
    } else {
        apt(&missing)?;
    }

    if toolchain_ready() {
        there(
            "eBPF compiler",
            &format!("rustup toolchain {BPF_TOOLCHAIN}"),
        );
    } else {
        ensure!(
            find("rustup").is_some(),
            "rustup is not installed, and edgesteer keeps its eBPF compiler as a rustup toolchain: \
             install rustup (https://rustup.rs), then run `cargo xtask setup` again"
        );
        step(
            "linking Debian's rustc into rustup",
            &mut command(&format!("rustup toolchain link {BPF_TOOLCHAIN} /usr")),
        )?;
        ensure!(
            toolchain_ready(),
            "rustup toolchain {BPF_TOOLCHAIN} has no library for BPF: \
             reinstall the Debian packages {}",
            COMPILER_PACKAGES.join(" ")
        );
    }

    let llvm = Path::new("/usr/lib/llvm-22");
    bpf_linker(
        &["--no-default-features", "--features", "llvm-22"],
        Some(llvm),
    )?;
    if purpose >= Purpose::Test {
        out_of("prometheus", &["promtool"], false)?;
        gtpu()?;
        bird()?;
        out_of("gobgpd", &["gobgp", "gobgpd"], false)?;
        frr()?;
    }
    Ok(())
}

/// Real ends of GTP-U, for tests and for the demo that shows them.
pub(crate) fn gtpu() -> Result<()> {
    out_of("osmo-ggsn", &["osmo-ggsn", "sgsnemu"], true)
}

/// A router that speaks BGP, for tests and for the demo that shows VIPs.
pub(crate) fn bird() -> Result<()> {
    out_of("bird2", &["bird", "birdc"], true)
}

fn elsewhere(purpose: Purpose) -> Result<()> {
    let wanted: &[(&str, Purpose)] = &[
        ("ip", Purpose::Bench),
        ("tc", Purpose::Bench),
        ("nft", Purpose::Bench),
        ("ethtool", Purpose::Bench),
        ("nsenter", Purpose::Demo),
        ("curl", Purpose::Demo),
        ("promtool", Purpose::Test),
        ("osmo-ggsn", Purpose::Test),
        ("sgsnemu", Purpose::Test),
        ("tshark", Purpose::Test),
        ("iperf3", Purpose::Test),
        ("python3", Purpose::Demo),
        ("bird", Purpose::Test),
        ("birdc", Purpose::Test),
        ("exabgp", Purpose::Test),
        ("gobgp", Purpose::Test),
        ("gobgpd", Purpose::Test),
    ];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, needed)| *needed <= purpose && find(program).is_none())
        .map(|(program, _)| *program)
        .collect();
    ensure!(
        missing.is_empty(),
        "this is not Debian, so install these programs by hand, then run `cargo xtask setup` again: {}",
        missing.join(", ")
    );
    let nightly = "rustup toolchain install nightly --profile minimal --component rust-src";
    let has_source = quiet(&mut command("rustup run nightly rustc --print sysroot"))
        .is_ok_and(|it| Path::new(it.trim()).join("lib/rustlib/src/rust").exists());
    if has_source {
        there("eBPF compiler", "rustup toolchain nightly with rust-src");
    } else {
        step("installing the nightly toolchain", &mut command(nightly))?;
    }
    bpf_linker(&[], None)
}

/// Which of `packages` dpkg does not know as installed.
fn missing<'a>(packages: &[&'a str]) -> Result<Vec<&'a str>> {
    // dpkg-query ends badly when it has never heard of one of them, and still answers for the rest.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(packages)
        .output()
        .context("cannot run dpkg-query")?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let installed = |package: &&str| {
        answer.lines().any(|line| {
            line.strip_prefix(package)
                .is_some_and(|status| status == " installed")
        })
    };
    Ok(packages
        .iter()
        .copied()
        .filter(|it| !installed(it))
        .collect())
}

fn apt(packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    let install = format!("apt-get install --yes --no-install-recommends {list}");
    ensure!(
        is_root(),
        "not root, so install the missing packages by hand: sudo {install}"
    );
    step("refreshing Debian's package lists", apt_get().arg("update"))?;
    let mut command = apt_get();
    command.args(["install", "--yes", "--no-install-recommends"]);
    command.args(packages);
    step(&format!("installing Debian packages {list}"), &mut command).with_context(|| {
        format!("Debian's packages could not be installed; see what `{install}` says")
    })
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command.args(["-o", "DPkg::Lock::Timeout=300"]);
    command
}

fn toolchain_ready() -> bool {
    let line = format!(
        "rustup run {BPF_TOOLCHAIN} rustc --print target-libdir --target bpfel-unknown-none"
    );
    quiet(&mut command(&line)).is_ok_and(|it| Path::new(it.trim()).is_dir())
}

fn bpf_linker(features: &[&str], llvm: Option<&Path>) -> Result<()> {
    if let Some(llvm) = llvm {
        ensure!(
            llvm.is_dir(),
            "{} is not there: reinstall llvm-22-dev",
            llvm.display()
        );
    }
    crates_io_with("bpf-linker", BPF_LINKER, features, |install| {
        if let Some(llvm) = llvm {
            install.env("LLVM_PREFIX", llvm);
        }
    })
}

fn crates_io(name: &str, version: &str, options: &[&str]) -> Result<()> {
    crates_io_with(name, version, options, |_| ())
}

/// Installs a program with `cargo install`, unless that version is there.
fn crates_io_with(
    name: &str,
    version: &str,
    options: &[&str],
    adjust: impl FnOnce(&mut Command),
) -> Result<()> {
    if quiet(&mut command(&format!("{name} --version")))
        .is_ok_and(|it| it.trim().ends_with(version))
    {
        there(name, version);
        return Ok(());
    }
    let mut install = command(&format!(
        "cargo install {name} --version {version} --locked"
    ));
    install.args(options);
    // From outside the tree: its toolchain file and cargo configuration are not meant for others.
    install.current_dir("/");
    adjust(&mut install);
    step(
        &format!("building {name} {version} from crates.io"),
        &mut install,
    )?;
    let bin = cargo_bin()?;
    ensure!(
        find(name).is_some(),
        "{name} was installed into {}, which is not in PATH: add it, then run this again",
        bin.display()
    );
    Ok(())
}

fn cargo_bin() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    Ok(home.join("bin"))
}

fn components() -> Result<()> {
    for (name, check) in [
        ("rustfmt", "cargo fmt --version"),
        ("clippy", "cargo clippy --version"),
    ] {
        if succeeds(check) {
            there(name, "component of the default toolchain");
        } else {
            let add = format!("rustup component add {name}");
            step(
                &format!("adding {name} to the default toolchain"),
                &mut command(&add),
            )?;
        }
    }
    Ok(())
}

/// Takes programs out of a Debian package that would start a server if it were installed, and
/// installs the libraries it depends on if the programs need them.
fn out_of(package: &str, programs: &[&str], libraries: bool) -> Result<()> {
    let names = programs.join(" and ");
    if programs.iter().all(|program| find(program).is_some()) {
        there(&names, &format!("of Debian's {package}"));
        return Ok(());
    }
    ensure!(
        is_root(),
        "not root, so install {names} by hand (Debian: in package {package})"
    );
    let directory = target()?.join(package);
    fs::create_dir_all(&directory)?;
    let mut take = format!("set -e; apt-get download {package}; ");
    if libraries {
        take += &format!(
            "apt-get -o DPkg::Lock::Timeout=300 satisfy --yes --no-install-recommends \
             \"$(dpkg-deb --field {package}_*.deb Depends)\"; "
        );
    }
    take += &format!("dpkg-deb --extract {package}_*.deb .; cd usr; ");
    take += &format!("install *bin/{} /usr/local/bin", programs.join(" *bin/"));
    let mut command = command("sh -c");
    command
        .arg(take)
        .current_dir(&directory)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let result = step(
        &format!("taking {names} from Debian's {package} package"),
        &mut command,
    );
    fs::remove_dir_all(&directory)?;
    result
}

/// FRR's BGP daemon, with the libraries and the user that it wants, and without the service that its package starts.
fn frr() -> Result<()> {
    if Path::new("/usr/local/lib/frr/bgpd").exists() {
        there("zebra and bgpd", "of Debian's frr");
        return Ok(());
    }
    ensure!(
        is_root(),
        "not root, so install zebra and bgpd by hand in /usr/local/lib/frr (Debian: in package frr)"
    );
    let directory = target()?.join("frr");
    fs::create_dir_all(&directory)?;
    let take = "set -e; apt-get download frr; \
        apt-get -o DPkg::Lock::Timeout=300 satisfy --yes --no-install-recommends \
            \"$(dpkg-deb --field frr_*.deb Depends)\"; \
        dpkg-deb --extract frr_*.deb .; \
        for libraries in usr/lib/*/frr; do mkdir -p /$libraries; cp -a $libraries/. /$libraries; done; \
        getent group frr >/dev/null || groupadd --system frr; \
        getent group frrvty >/dev/null || groupadd --system frrvty; \
        getent passwd frr >/dev/null || \
            useradd --system --no-create-home --gid frr --groups frrvty --shell /usr/sbin/nologin frr; \
        mkdir -p /usr/local/lib/frr; install usr/lib/frr/zebra usr/lib/frr/bgpd /usr/local/lib/frr";
    let mut command = command("sh -c");
    command
        .arg(take)
        .current_dir(&directory)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let result = step(
        "taking zebra and bgpd from Debian's frr package",
        &mut command,
    );
    fs::remove_dir_all(&directory)?;
    result
}

/// The file system that holds the pinned program and maps.
fn bpffs() -> Result<()> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    if mounts
        .lines()
        .any(|line| line.contains(" /sys/fs/bpf bpf "))
    {
        there("bpffs", "mounted on /sys/fs/bpf");
        return Ok(());
    }
    let mount = "mount -t bpf bpf /sys/fs/bpf";
    if !is_root() {
        bail!("/sys/fs/bpf is not mounted, and this is not root: run `sudo {mount}`");
    }
    step("mounting bpffs on /sys/fs/bpf", &mut command(mount))
}

fn there(what: &str, detail: &str) {
    println!("  {} {what}: {}", green("✓"), dim(detail));
}

/// Runs one change of the machine, and says so before and after.
fn step(what: &str, command: &mut Command) -> Result<()> {
    println!("  … {what}");
    let start = Instant::now();
    quiet(command)?;
    println!(
        "  {} {what} {}",
        green("✓"),
        dim(format!("({})", elapsed(start.elapsed())))
    );
    Ok(())
}
