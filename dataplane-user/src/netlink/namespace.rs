//! Other network namespaces: who is there, and doing something in one.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    thread,
};

use super::{
    Error,
    message::{Message, Request, i32_at},
    socket::call,
};

/// The namespace of the calling thread; `/proc/self` would always be that of the main thread.
const OWN: &str = "/proc/thread-self/ns/net";
/// Where `ip netns` keeps names.
const NAMED: &str = "/run/netns";
/// `NETNSA_NSID`, `NETNSA_FD`
const ATTRIBUTE_ID: u16 = 1;
const ATTRIBUTE_FD: u16 = 3;

/// A network namespace, kept alive as long as this handle.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    path: PathBuf,
}

impl Namespace {
    /// That of the calling thread.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// One that a path stands for, such as `/run/netns/NAME` or `/proc/PID/ns/net`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::open(path)?,
            path: path.to_owned(),
        })
    }

    /// A new, empty one; it is gone when nobody uses it any more.
    pub fn create() -> io::Result<Self> {
        in_thread(|| {
            // SAFETY: takes no pointer; only this short-lived thread is moved.
            match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
                0 => Self::current(),
                _ => Err(io::Error::last_os_error()),
            }
        })
    }

    /// All that can be found: named ones first, then those of processes.
    pub fn all() -> Vec<Self> {
        let named = entries(NAMED);
        let processes = entries("/proc")
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().as_encoded_bytes();
                name.iter().all(u8::is_ascii_digit)
            })
            .map(|path| path.join("ns/net"));
        let mut found = BTreeMap::new();
        for (order, path) in named.chain(processes).enumerate() {
            // Those of other users may be out of reach, and processes end at any time.
            let Ok(namespace) = Self::open(&path) else {
                continue;
            };
            let Ok(metadata) = namespace.file.metadata() else {
                continue;
            };
            found
                .entry((metadata.dev(), metadata.ino()))
                .or_insert((order, namespace));
        }
        let mut found: Vec<_> = found.into_values().collect();
        found.sort_unstable_by_key(|(order, _)| *order);
        found.into_iter().map(|(_, namespace)| namespace).collect()
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number that the calling thread's namespace has for this one, as in [`Link::peer_namespace`].
    ///
    /// [`Link::peer_namespace`]: super::Link::peer_namespace
    pub fn id(&self) -> Result<Option<i32>, Error> {
        let request = Request::new(libc::RTM_GETNSID, libc::NLM_F_ACK, &[0; 4])
            .attribute(ATTRIBUTE_FD, &self.file.as_raw_fd().to_ne_bytes());
        let id = call("number a network namespace", request, read_id)?;
        Ok(id.filter(|id| *id >= 0))
    }

    /// Does something in it, on a thread of its own: the caller's namespace is not touched.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        in_thread(|| {
            enter(self.file.as_raw_fd())?;
            Ok(work())
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn entries(directory: &str) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
}

fn enter(namespace: RawFd) -> io::Result<()> {
    // SAFETY: takes no pointer; only the calling thread is moved.
    match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn read_id(message: Message<'_>) -> Option<i32> {
    let (_, value) = message
        .attributes(4)
        .find(|(kind, _)| *kind == ATTRIBUTE_ID)?;
    i32_at(value, 0)
}
