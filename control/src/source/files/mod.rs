//! A directory of rule files, watched.
//!
//! Each file (`.json`, `.yaml`, `.yml`) has one or several applications, or VIPs, as the Mp2 API takes them. A file that cannot
//! be read keeps what it last said; a file that is gone takes what it said with it.

mod document;

use std::{
    collections::BTreeMap,
    fmt::Display,
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::{Alarm, Deliver, Delivery, Failure, Reason, Status, Wake, Worker};
use crate::store::Content;

const EXTENSIONS: [&str; 3] = ["json", "yaml", "yml"];
/// The largest file that is read.
const LARGEST: u64 = 16 << 20;
/// A change is over when it was quiet for so long...
const QUIET: Duration = Duration::from_millis(50);
/// ...and is looked at anyway after so long.
const BURST: Duration = Duration::from_millis(500);
/// The directory is looked at this often without being told: it may have been replaced, or not be there yet.
const RESCAN: Duration = Duration::from_secs(5);

/// Reads the directory now, then watches it. `before` is what it said when the daemon last ran.
pub(crate) fn watch(
    directory: PathBuf,
    before: Content,
    deliver: Deliver,
    status: Arc<Status>,
) -> io::Result<Worker> {
    let mut files = Files {
        directory,
        before,
        known: None,
        delivery: Delivery::new(deliver),
        status,
    };
    files.look();
    Worker::spawn("files", move |alarm| files.run(alarm))
}

struct Files {
    directory: PathBuf,
    before: Content,
    /// The files by name, once the directory could be read.
    known: Option<BTreeMap<PathBuf, Known>>,
    delivery: Delivery,
    status: Arc<Status>,
}

/// What a file said when it last made sense, if ever, and what is wrong with it now.
#[derive(Default)]
struct Known {
    content: Option<u64>,
    said: Option<Content>,
    failure: Option<Failure>,
}

impl Files {
    fn run(&mut self, alarm: &Alarm) {
        let mut watched = None;
        loop {
            // The watch comes first: what changes while we look wakes us again.
            let identity = identity(&self.directory);
            if watched.as_ref().map(|(identity, _)| *identity) != identity {
                watched = identity.zip(self.watcher(alarm));
            }
            let pause = if self.look() { RESCAN } else { QUIET };
            if alarm.wait(pause) == Wake::Stop || settle(alarm) == Wake::Stop {
                return;
            }
        }
    }

    /// Without a watch the directory is still looked at now and then.
    fn watcher(&self, alarm: &Alarm) -> Option<RecommendedWatcher> {
        let sender = alarm.sender.clone();
        let ring = move |event: notify::Result<notify::Event>| {
            // Our own reading is an event as well.
            if !event.is_ok_and(|event| matches!(event.kind, EventKind::Access(_))) {
                let _ = sender.send(Wake::Look);
            }
        };
        let result = notify::recommended_watcher(ring).and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        result
            .inspect_err(|error| {
                tracing::warn!(directory = %self.directory.display(), %error, "cannot watch");
            })
            .ok()
    }

    /// Reads what is new. `false` if a file was being written just now.
    fn look(&mut self) -> bool {
        let started = Instant::now();
        let mut failures = Vec::new();
        let mut settled = true;
        match list(&self.directory) {
            Ok(paths) => {
                let known = self.known.get_or_insert_default();
                known.retain(|path, _| paths.contains(path));
                for path in paths {
                    settled &= known.entry(path.clone()).or_default().read(&path);
                }
            }
            Err(error) => {
                let at = self.directory.display();
                failures.push(Failure::new(Reason::Read, at, error));
            }
        }
        let content = self.merge(&mut failures);
        failures.extend(self.delivery.hand_over(&content));
        self.status.record(started, &content, failures);
        settled
    }

    /// What all files say. The first file that has an application or a VIP, by name, owns it.
    fn merge(&mut self, failures: &mut Vec<Failure>) -> Content {
        let Some(known) = &self.known else {
            return self.before.clone();
        };
        if known.values().all(|known| known.said.is_some()) {
            self.before = Content::default();
        }
        failures.extend(known.values().filter_map(|known| known.failure.clone()));
        let said = || {
            known
                .iter()
                .filter_map(|(path, known)| Some((path, known.said.as_ref()?)))
        };
        let applications = said().map(|(path, it)| (path, &it.applications));
        let vips = said().map(|(path, it)| (path, &it.vips));
        Content {
            applications: union(
                "application",
                applications,
                &self.before.applications,
                failures,
            ),
            vips: union("VIP", vips, &self.before.vips, failures),
        }
    }
}

/// What files say of a kind, and what was said `before` and may be in a file that was never read.
fn union<'a, K: Clone + Display + Ord + 'a, T: Clone + 'a>(
    name: &str,
    said: impl Iterator<Item = (&'a PathBuf, &'a BTreeMap<K, T>)>,
    before: &BTreeMap<K, T>,
    failures: &mut Vec<Failure>,
) -> BTreeMap<K, T> {
    let mut owners: BTreeMap<&K, &Path> = BTreeMap::new();
    let mut merged = BTreeMap::new();
    for (path, said) in said {
        for (id, one) in said {
            if let Some(owner) = owners.get(id) {
                let what = format!("{name} {id} is already in {}", owner.display());
                failures.push(Failure::new(Reason::Invalid, path.display(), what));
                continue;
            }
            owners.insert(id, path);
            merged.insert(id.clone(), one.clone());
        }
    }
    for (id, one) in before {
        merged.entry(id.clone()).or_insert_with(|| one.clone());
    }
    merged
}

impl Known {
    /// Reads the file again, unless it is being written just now: half a file may make sense, but not the one meant.
    fn read(&mut self, path: &Path) -> bool {
        let content = match content(path) {
            Ok((_, age)) if self.said.is_some() && age < QUIET => return false,
            Ok((content, _)) => content,
            Err(failure) => {
                self.content = None;
                self.failure = Some(failure);
                return true;
            }
        };
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = Some(hasher.finish());
        if self.content == hash {
            return true;
        }
        self.content = hash;
        match document::read(path, &content) {
            Ok(said) => {
                self.said = Some(said);
                self.failure = None;
            }
            Err(failure) => self.failure = Some(failure),
        }
        true
    }
}

/// What is in a file, and how long ago it was written.
fn content(path: &Path) -> Result<(Vec<u8>, Duration), Failure> {
    let unreadable = |error| Failure::new(Reason::Read, path.display(), error);
    let mut content = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let mut limited = (&file).take(LARGEST + 1);
    limited.read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > LARGEST {
        let what = format_args!("is longer than {LARGEST} bytes");
        return Err(Failure::new(Reason::TooLarge, path.display(), what));
    }
    let written = file.metadata().and_then(|metadata| metadata.modified());
    // A time in the future is that of another clock; it says nothing.
    let age = SystemTime::now().duration_since(written.map_err(unreadable)?);
    Ok((content, age.unwrap_or(Duration::MAX)))
}

/// The rule files, by name. Hidden ones are those of editors.
fn list(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let extension = path.extension().and_then(|extension| extension.to_str());
        let wanted = extension.is_some_and(|extension| EXTENSIONS.contains(&extension));
        // A link to nowhere counts: its file may be on the way.
        if wanted && !name.starts_with(b".") && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Changes when the directory is replaced by another one of its name.
fn identity(directory: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(directory).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Waits for the end of a burst of changes.
fn settle(alarm: &Alarm) -> Wake {
    let end = Instant::now() + BURST;
    while Instant::now() < end {
        let before = Instant::now();
        if alarm.wait(QUIET) == Wake::Stop {
            return Wake::Stop;
        }
        if before.elapsed() >= QUIET {
            break;
        }
    }
    Wake::Look
}

#[cfg(test)]
mod tests;
