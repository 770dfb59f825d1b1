//! `cargo xtask vm`: another kernel, for its verifier and its XDP.
//!
//! Debian's cloud kernel is unpacked, not installed, and booted in QEMU without hardware support
//! (it has to work inside virtual machines too). The root file system is an archive in memory:
//! busybox, the program to run with its libraries, and the modules that veth and TC need.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    console::{bold, dim, elapsed, green},
    process::{command, find, quiet, run as shown_run, target},
    setup,
};
use archive::Archive;

mod archive;

/// Debian's name for the oldest kernel that edgesteer supports.
const KERNELS: &str = r"^linux-image-6\.1\.[0-9]+-[0-9]+-cloud-amd64$";
/// Modules of that kernel, without which there is no lab to test in.
const MODULES: &[&str] = &["veth", "sch_ingress", "cls_bpf"];
/// Programs that the lab of the tests runs.
const PROGRAMS: &[&str] = &["ip", "ethtool"];
/// Emulation is some twenty times slower than the machine.
const TIMEOUT: Duration = Duration::from_secs(1500);
/// What init writes before the exit status of the program.
const EXIT_MARK: &str = "vm-exit-status:";

/// Builds and runs the scenario that loads, attaches and steers.
pub(crate) fn run_scenario() -> Result<()> {
    setup::run(setup::Purpose::Test)?;
    shown_run(&mut command("cargo build --quiet --package tests --bin vm"))?;
    run(&target()?.join("debug/vm"), &[])
}

/// Boots the kernel, runs `binary` in it, and fails as it fails.
pub(crate) fn run(binary: &Path, args: &[&str]) -> Result<()> {
    let start = Instant::now();
    let kernel = Kernel::newest()?;
    println!("{} on Linux {}", bold(binary.display()), kernel.release);
    let initramfs = kernel.directory.join("initramfs");
    fs::write(&initramfs, kernel.root_file_system(binary, args)?)?;

    let mut child = Command::new("qemu-system-x86_64")
        .args(["-cpu", "max", "-smp", "2", "-m", "1024", "-no-reboot"])
        .args(["-nodefaults", "-display", "none", "-serial", "stdio"])
        .args([
            "-append",
            "console=ttyS0 panic=-1 quiet random.trust_cpu=on",
        ])
        .arg("-kernel")
        .arg(kernel.image())
        .arg("-initrd")
        .arg(&initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run qemu-system-x86_64; `cargo xtask setup` installs it")?;
    let status = watch(&mut child, start + TIMEOUT);
    child.kill()?;
    child.wait()?;
    match status? {
        0 => println!("{} in {}", green("passed"), elapsed(start.elapsed())),
        code => bail!("{} ended with status {code} in the VM", binary.display()),
    }
    Ok(())
}

/// Shows the console until the program's exit status appears in it.
fn watch(child: &mut Child, deadline: Instant) -> Result<i32> {
    let console = console_of(child)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match console.recv_timeout(left) {
            Ok(line) => match line.strip_prefix(EXIT_MARK) {
                Some(status) => return status.trim().parse().context("init wrote no status"),
                None => println!("  {} {line}", dim("│")),
            },
            Err(RecvTimeoutError::Timeout) => {
                bail!("the VM did not finish within {}", elapsed(TIMEOUT))
            }
            Err(RecvTimeoutError::Disconnected) => {
                bail!("the VM stopped before the program ended; see its console above")
            }
        }
    }
}

fn console_of(child: &mut Child) -> Result<Receiver<String>> {
    let console = child.stdout.take().context("QEMU has no console")?;
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// An unpacked kernel package.
struct Kernel {
    release: String,
    directory: PathBuf,
}

impl Kernel {
    /// The newest that Debian offers; one that was unpacked before is used again.
    fn newest() -> Result<Self> {
        let cache = target()?.join("vm");
        fs::create_dir_all(&cache)?;
        for entry in fs::read_dir(&cache)? {
            let directory = entry?.path();
            if directory.join("boot").exists() {
                let release = directory.file_name().unwrap_or_default().to_string_lossy();
                return Ok(Self {
                    release: release.into_owned(),
                    directory,
                });
            }
        }

        let package = newest_package()?;
        let release = package.trim_start_matches("linux-image-").to_owned();
        println!("  … unpacking {package}");
        // Unpacked beside and renamed, so that what is in the cache is always whole.
        let partial = cache.join("partial");
        let _: std::io::Result<()> = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial)?;
        let unpack =
            format!("apt-get download {package} && dpkg-deb --extract *.deb . && rm *.deb");
        quiet(
            Command::new("sh")
                .args(["-ec", &unpack])
                .current_dir(&partial),
        )?;
        let directory = cache.join(&release);
        fs::rename(&partial, &directory)?;
        Ok(Self { release, directory })
    }

    fn image(&self) -> PathBuf {
        self.directory
            .join(format!("boot/vmlinuz-{}", self.release))
    }

    fn root_file_system(&self, binary: &Path, args: &[&str]) -> Result<Vec<u8>> {
        let busybox = find("busybox").context("busybox is missing: run `cargo xtask setup`")?;
        let mut archive = Archive::default();
        for directory in ["proc", "sys", "dev", "tmp", "run", "root", "sbin"] {
            archive.directory(directory);
        }
        archive.file("bin/busybox", &fs::read(busybox)?);
        let mut programs = vec![binary.to_owned()];
        for name in PROGRAMS {
            programs.push(find(name).with_context(|| format!("{name} is not installed"))?);
        }
        for program in &programs {
            for library in libraries(program)? {
                archive.file(&library, &fs::read(&library)?);
            }
        }
        for program in &programs[1..] {
            archive.file(&program.to_string_lossy(), &fs::read(program)?);
        }
        let content = fs::read(binary).with_context(|| format!("no file {}", binary.display()))?;
        archive.file("program", &content);
        let modules = self.modules()?;
        for (name, content) in &modules {
            archive.file(&format!("modules/{name}.ko"), content);
        }
        let order: Vec<&str> = modules.iter().map(|(name, _)| name.as_str()).collect();
        archive.file("init", init(&order, args).as_bytes());
        Ok(archive.finish())
    }

    /// The modules, each after those that it depends on.
    fn modules(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let mut found = Vec::new();
        for name in MODULES {
            self.module(name, &mut found)?;
        }
        Ok(found)
    }

    fn module(&self, name: &str, found: &mut Vec<(String, Vec<u8>)>) -> Result<()> {
        if found.iter().any(|(it, _)| it == name) {
            return Ok(());
        }
        let top = self.directory.join("lib/modules").join(&self.release);
        let search = Command::new("find")
            .arg(&top)
            .args(["-name", &format!("{name}.ko")])
            .output()?;
        let path = String::from_utf8_lossy(&search.stdout).trim().to_owned();
        ensure!(
            !path.is_empty(),
            "Linux {} has no module {name}",
            self.release
        );
        let content = fs::read(path)?;
        for dependency in depends(&content) {
            self.module(&dependency, found)?;
        }
        found.push((name.to_owned(), content));
        Ok(())
    }
}

/// What a module's own `depends=` says; Debian's packages have no `modules.dep`.
fn depends(module: &[u8]) -> Vec<String> {
    let information = module.split(|byte| *byte == 0);
    information
        .filter_map(|it| it.strip_prefix(b"depends="))
        .flat_map(|it| it.split(|byte| *byte == b','))
        .filter(|it| !it.is_empty())
        .map(|it| String::from_utf8_lossy(it).into_owned())
        .collect()
}

fn newest_package() -> Result<String> {
    ensure!(
        find("apt-get").is_some(),
        "the VM runs a kernel from Debian's packages, and this is not Debian"
    );
    let mut search = Command::new("apt-cache");
    search.args(["search", "--names-only", KERNELS]);
    let mut answer = quiet(&mut search)?;
    if answer.is_empty() {
        quiet(&mut command("apt-get update"))?;
        answer = quiet(&mut search)?;
    }
    let names = answer.lines().filter_map(|line| line.split(' ').next());
    let newest = names.max_by_key(|name| {
        let numbers = name.split(|c: char| !c.is_ascii_digit());
        numbers
            .filter_map(|it| it.parse().ok())
            .collect::<Vec<u32>>()
    });
    newest
        .map(str::to_owned)
        .context("Debian offers no Linux 6.1 here")
}

fn libraries(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("cannot run ldd")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .split_whitespace()
        .filter(|word| word.starts_with('/') && !word.ends_with(':'))
        .map(str::to_owned)
        .collect())
}

fn init(modules: &[&str], args: &[&str]) -> String {
    let args: String = args
        .iter()
        .map(|it| format!(" '{}'", it.replace('\'', r"'\''")))
        .collect();
    format!(
        "#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root RUST_BACKTRACE=1
mount -t devtmpfs dev /dev && exec </dev/null >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
for module in {modules}; do insmod /modules/$module.ko; done
ip link set lo up
/program{args}
echo {EXIT_MARK} $?
poweroff -f
",
        modules = modules.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_says_what_it_depends_on() {
        assert_eq!(depends(b"license=GPL\0depends=a,b\0name=c\0"), ["a", "b"]);
        assert!(depends(b"license=GPL\0depends=\0name=c\0").is_empty());
    }
}
