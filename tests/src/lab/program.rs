//! Programs that run for as long as a lab.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

/// How long a program may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program that ends with the value, and what it wrote.
#[derive(Debug)]
pub(super) struct Program {
    process: Child,
    log: PathBuf,
    keep: bool,
}

impl Program {
    /// Starts it, with its log in a file of this name in the directory.
    pub(super) fn start(mut command: Command, directory: &Path, name: &str) -> Result<Self> {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log)?;
        // Whoever started it decides when it ends, and not a Ctrl-C.
        command.process_group(0);
        command.stdin(Stdio::null()).stdout(file.try_clone()?);
        let process = command.stderr(file).spawn();
        let process = process.with_context(|| {
            let program = command.get_program().display();
            format!("cannot start {program}: run `cargo xtask setup`")
        })?;
        Ok(Self {
            process,
            log,
            keep: false,
        })
    }

    /// Leaves it running when the value is dropped.
    pub(super) fn keep(&mut self) {
        self.keep = true;
    }

    /// What `look` finds, as soon as it finds anything.
    pub(super) fn wait<T>(&self, look: impl Fn() -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return Ok(found);
            }
            ensure!(
                Instant::now() < deadline,
                "not ready in {PATIENCE:?}; {}:\n{}",
                self.log.display(),
                fs::read_to_string(&self.log)?
            );
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end.
    pub(super) fn terminate(&mut self) -> Result<()> {
        ensure!(self.process.try_wait()?.is_none(), "it has ended already");
        // SAFETY: no pointers are passed, and a child that was not waited for keeps its number.
        let sent = unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        ensure!(sent == 0, io::Error::last_os_error());
        Ok(())
    }

    /// Ends it at once.
    pub(super) fn stop(&mut self) {
        // Nothing is lost when it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !self.keep {
            self.stop();
        }
    }
}
