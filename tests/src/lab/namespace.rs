//! Network namespaces that disappear with the value that made them.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd},
        unix::process::CommandExt as _,
    },
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};

/// A named network namespace, as `ip netns` knows it.
///
/// Dropping it deletes it, and with it every veth that has an end inside.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
    keep: bool,
}

impl Namespace {
    /// Makes the namespace and raises its loopback. What had the name before is deleted.
    pub fn create(name: &str) -> Result<Self> {
        Self::remove(name)?;
        run(Command::new("ip").args(["netns", "add", name]))?;
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).with_context(|| path.clone())?;
        let namespace = Self {
            name: name.to_owned(),
            file,
            keep: false,
        };
        // Duplicate address detection would keep every IPv6 address unusable for a second.
        namespace.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Ends all that runs in a namespace and deletes it, if it is there.
    pub fn remove(name: &str) -> Result<()> {
        let path = format!("/run/netns/{name}");
        if !fs::exists(&path)? {
            return Ok(());
        }
        let output = Command::new("ip").args(["netns", "pids", name]).output()?;
        for process in String::from_utf8_lossy(&output.stdout).split_whitespace() {
            // SAFETY: no pointers are passed. The process may have ended by itself meanwhile.
            unsafe { libc::kill(process.parse()?, libc::SIGKILL) };
        }
        match delete(name) {
            // Another run has just done it.
            Err(_) if !fs::exists(&path)? => Ok(()),
            result => result,
        }
    }

    /// The name that `ip netns` lists.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the namespace in place when the value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Runs `ip` commands in the namespace, one a line, without the leading `ip`.
    pub fn ip(&self, batch: &str) -> Result<()> {
        let mut child = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("ip")?;
        let mut input = child.stdin.take().context("ip without standard input")?;
        input.write_all(batch.as_bytes())?;
        drop(input);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{}: {}\n{batch}",
            self.name,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Joins two namespaces by a veth pair, both ends up, `near` in this one.
    ///
    /// Both ends have two queues each way, so that an XDP program fits on either.
    pub fn link(&self, near: &str, far: (&Self, &str)) -> Result<()> {
        let (other, peer) = far;
        let queues = "numrxqueues 2 numtxqueues 2";
        self.ip(&format!(
            "link add name {near} {queues} type veth peer name {peer} {queues} netns {}\n\
             link set {near} up",
            other.name
        ))?;
        other.ip(&format!("link set {peer} up"))
    }

    /// Prepares the far end of a veth for an XDP program on the near end: NAPI must run there for
    /// redirected frames to be accepted, and checksums must be complete in what it sends.
    pub fn prepare_far_end(&self, interface: &str) -> Result<()> {
        run(self
            .command("ethtool")
            .args(["-K", interface, "gro", "on", "tx", "off"]))
    }

    /// Writes a value under `/proc/sys`.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        self.enter(|| fs::write(format!("/proc/sys/{key}"), value))
            .with_context(|| format!("{}: {key} = {value}", self.name))
    }

    /// A command that will run inside. The file system stays as it is, so that BPF pins are seen.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let file = self.file.try_clone();
        // SAFETY: between fork and exec only setns(2) is called, which is async-signal-safe.
        unsafe {
            command.pre_exec(move || match &file {
                Ok(file) => set_namespace(file.as_fd()),
                Err(error) => Err(error.kind().into()),
            });
        }
        command
    }

    /// Calls `action` on a thread inside the namespace and returns what it returns. Sockets made
    /// there belong to the namespace for as long as they live.
    pub fn enter<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        let result = thread::scope(|scope| {
            let inside = scope.spawn(|| {
                set_namespace(self.file.as_fd()).expect("an open namespace can be entered");
                action()
            });
            inside.join()
        });
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if !self.keep {
            // Nobody is left to tell: the next run removes what could not be removed now.
            let _ = delete(&self.name);
        }
    }
}

/// Deletes the namespaces, and the directories in `/run`, of this prefix whose maker, named by the
/// number after it, is gone.
pub(super) fn remove_leftovers(prefix: &str) -> Result<()> {
    for name in leftovers("/run/netns", prefix)? {
        Namespace::remove(&name)?;
    }
    for name in leftovers("/run", prefix)? {
        match fs::remove_dir_all(format!("/run/{name}")) {
            // Another test has just done it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

fn leftovers(directory: &str, prefix: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('-').next());
        if let Some(Ok(maker)) = maker.map(str::parse::<u32>)
            && !fs::exists(format!("/proc/{maker}"))?
        {
            names.push(name);
        }
    }
    Ok(names)
}

/// Runs a command to its end; failing is an error that holds what it said.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command
        .output()
        .with_context(|| format!("{}", command.get_program().display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}", said.trim());
    }
    Ok(())
}

fn delete(name: &str) -> Result<()> {
    run(Command::new("ip").args(["netns", "delete", name]))
}

fn set_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is open for as long as it is borrowed.
    match unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
