//! The state on disk: `state.json`, all of it at some revision, and `state.log`, the changes since, one on a line.
//!
//! A change costs what it is long, however much there is beside it, and is on disk as a whole or not at all: a line that a
//! crash cut off fails its checksum. Once the log is longer than the state, the state is written anew, beside the old one and
//! renamed over it, and the log starts again; a crash in between leaves changes in the log that the state has already, and
//! these are skipped by their revision.

mod saved;

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tokio::{sync::oneshot, task::spawn_blocking};

use self::saved::{Change, State, fresh, gone, restore, restore_vips, said, save, save_vips};
use super::Desired;
use crate::dataplane::hex;

/// How much longer than the state the log may be.
const ROOM: u64 = 1 << 20;
/// Hex digits of a line's checksum, which a space follows.
const CHECKSUM: usize = 16;

#[derive(Debug)]
pub(super) struct Disk {
    state: PathBuf,
    /// Open once something was written.
    pub(super) log: Option<File>,
    /// Bytes of the log that count; others are what a crash or a full disk left.
    length: u64,
    /// Bytes of the state.
    whole: u64,
    /// Something may be behind what counts.
    dirty: bool,
}

/// Makes what is on disk `after`, from `before`. When the answer is there, it survives a crash.
pub(super) async fn write(
    disk: &Arc<Mutex<Disk>>,
    revision: u64,
    before: Desired,
    after: Desired,
) -> Result<()> {
    let disk = Arc::clone(disk);
    let (done, written) = oneshot::channel();
    spawn_blocking(move || {
        let mut disk = disk.lock().unwrap_or_else(PoisonError::into_inner);
        let result = disk.change(revision, &before, &after);
        let tidy = result.is_ok() && disk.length > ROOM + disk.whole;
        // Whoever asked may have gone, and does not wait for the tidying.
        let _ = done.send(result);
        if tidy && let Err(error) = disk.replace(revision, &after) {
            tracing::warn!(error = %format_args!("{error:#}"), "cannot write the state anew; its log grows");
        }
    });
    written.await?
}

impl Disk {
    /// What was written last, with its revision; nothing when there is nothing yet.
    pub(super) fn open(directory: &Path) -> Result<(Self, u64, Desired)> {
        let state = directory.join("state.json");
        let text = content(&state)?;
        let mut revision = 0;
        let mut desired = Desired::default();
        if !text.is_empty() {
            let was: State<'_> = serde_json::from_slice(&text).with_context(|| foreign(&state))?;
            revision = was.revision;
            restore(&mut desired.applications, was.applications)
                .with_context(|| foreign(&state))?;
            said(&mut desired.sessions, was.sessions);
            restore_vips(&mut desired.vips, was.vips).with_context(|| foreign(&state))?;
        }
        let mut disk = Self {
            whole: text.len() as u64,
            state,
            log: None,
            length: 0,
            dirty: false,
        };
        disk.replay(&mut revision, &mut desired)?;
        Ok((disk, revision, desired))
    }

    /// Takes up the changes in the log. A crash can spoil the last one only, since each is synced before the next.
    fn replay(&mut self, revision: &mut u64, desired: &mut Desired) -> Result<()> {
        let path = self.state.with_extension("log");
        let log = content(&path)?;
        let mut lines = log.split_inclusive(|byte| *byte == b'\n').enumerate();
        while let Some((index, line)) = lines.next() {
            let Some(change) = intact(line) else {
                ensure!(
                    lines.next().is_none(),
                    "line {} of {} is damaged; move the file away to start from {}, which is older",
                    index + 1,
                    path.display(),
                    self.state.display()
                );
                tracing::warn!(
                    log = %path.display(),
                    "the last change was being written when the daemon died, and is not made"
                );
                self.dirty = true;
                break;
            };
            let change: Change<'_> =
                serde_json::from_slice(change).with_context(|| foreign(&path))?;
            self.length += line.len() as u64;
            if change.revision <= *revision {
                continue;
            }
            *revision = change.revision;
            let applications = &mut desired.applications;
            applications.retain(|id, _| !change.removed.iter().any(|gone| gone == id.as_ref()));
            restore(applications, change.saved).with_context(|| foreign(&path))?;
            let vips = &mut desired.vips;
            vips.retain(|id, _| !change.removed_vips.iter().any(|gone| gone == id.as_ref()));
            restore_vips(vips, change.vips).with_context(|| foreign(&path))?;
            for id in &change.withdrawn {
                desired.sessions.remove(id);
            }
            said(&mut desired.sessions, change.sessions);
        }
        Ok(())
    }

    fn change(&mut self, revision: u64, before: &Desired, after: &Desired) -> Result<()> {
        if self.dirty {
            return self.replace(revision, after);
        }
        let sessions = after.sessions.changes(&before.sessions);
        let change = Change {
            revision,
            saved: save(fresh(&before.applications, &after.applications)),
            removed: gone(&before.applications, &after.applications),
            vips: save_vips(fresh(&before.vips, &after.vips)),
            removed_vips: gone(&before.vips, &after.vips),
            sessions: sessions
                .different()
                .map(|(_, session)| Cow::Borrowed(session))
                .collect(),
            withdrawn: sessions.withdrawn.iter().map(|it| it.id()).collect(),
        };
        let mut line = serde_json::to_vec(&change)?;
        line.splice(..0, format!("{} ", checksum(&line)).into_bytes());
        line.push(b'\n');
        let length = self.length;
        let log = self.log()?;
        if let Err(error) = log.write_all(&line).and_then(|()| log.sync_data()) {
            // What was not accepted must not come back.
            let cut = log.set_len(length).and_then(|()| log.sync_data());
            self.dirty = cut.is_err();
            return Err(error.into());
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Writes the whole state anew; the log starts again.
    fn replace(&mut self, revision: u64, desired: &Desired) -> Result<()> {
        let sessions = desired.sessions.iter();
        let text = serde_json::to_vec(&State {
            revision,
            applications: save(desired.applications.values()),
            sessions: sessions.map(|it| Cow::Borrowed(&**it)).collect(),
            vips: save_vips(desired.vips.values()),
        })?;
        let log = self.log()?.try_clone()?;
        let fresh = self.state.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&fresh, &self.state)?;
        self.sync_directory()?;
        self.whole = text.len() as u64;
        log.set_len(0)?;
        log.sync_data()?;
        (self.length, self.dirty) = (0, false);
        Ok(())
    }

    fn log(&mut self) -> io::Result<&mut File> {
        if self.log.is_none() {
            if let Some(directory) = self.state.parent() {
                fs::create_dir_all(directory)?;
            }
            let path = self.state.with_extension("log");
            self.log = Some(File::options().append(true).create(true).open(path)?);
            self.sync_directory()?;
        }
        self.log.as_mut().ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// A name in a directory is on disk when the directory is.
    fn sync_directory(&self) -> io::Result<()> {
        let directory = self.state.parent().unwrap_or_else(|| Path::new("."));
        File::open(directory)?.sync_all()
    }
}

fn content(path: &Path) -> Result<Vec<u8>> {
    match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        bytes => bytes.with_context(|| format!("cannot read {}", path.display())),
    }
}

fn foreign(path: &Path) -> String {
    format!(
        "{} was not written by this program; move it away to start empty",
        path.display()
    )
}

/// The change on a line that was written to its end.
fn intact(line: &[u8]) -> Option<&[u8]> {
    let (sum, change) = line.strip_suffix(b"\n")?.split_at_checked(CHECKSUM)?;
    let change = change.strip_prefix(b" ")?;
    (sum == checksum(change).as_bytes()).then_some(change)
}

fn checksum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..CHECKSUM / 2])
}
