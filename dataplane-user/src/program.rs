//! The program in the kernel: load it, attach it, and keep both where a restart finds them.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapInfo, ProgramArray},
    programs::Xdp,
};
use dataplane_core::{
    flow::{Bucket, FlowKey, Record},
    session::Session,
    table::{
        self, AffinityKey, ENDPOINTS, Endpoints, Explanation, Filter, Fixed, FragmentKey, LAYOUT,
        PORTS, Port, PortCounts, RuleAction, RuleCount, Split, Target, TunnelFilter,
    },
};

use crate::{
    Error, Limits, PortConfig,
    copies::{Copies, Filters},
    fixed,
    links::{DOT, Links},
    memory,
};

/// The compiled program.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/edgesteer-ebpf"));

/// The program that steers packets, and the one that only answers questions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    pub(crate) steer: &'static str,
    pub(crate) explain: &'static str,
}

/// The program that looks into tunnels, and the one that it leaves unusual packets to.
const MOBILE: &str = "steer_mobile";
const LONG: &str = "steer_long";

/// The programs that look into tunnels and send into them, or those that do not.
pub(crate) const fn names(tunnels: bool) -> Names {
    if tunnels {
        Names {
            steer: MOBILE,
            explain: "explain_mobile",
        }
    } else {
        Names {
            steer: "steer",
            explain: "explain",
        }
    }
}

/// The maps that outlive this process, with the sizes of their keys and values.
const PINNED: [(&str, usize, usize); 27] = [
    (fixed::NAME, 4, size_of::<Fixed>()),
    ("PORTS", 4, size_of::<Port>()),
    ("DEVICES", 4, 8),
    ("SPLITS", 4, size_of::<Split>()),
    ("FILTERS", 4, size_of::<Filter>()),
    ("TUNNEL_FILTERS", 4, size_of::<TunnelFilter>()),
    ("ACTIONS", 4, size_of::<RuleAction>()),
    ("HOPS", 4, 8),
    ("TARGETS", 4, size_of::<Target>()),
    ("OPENINGS", size_of::<FlowKey>(), 4),
    ("CHOICES", 4, 8),
    ("BACKENDS", 4, 8),
    ("AFFINITIES", size_of::<AffinityKey>(), 8),
    ("FLOWS", 4, size_of::<Bucket>()),
    ("RECORDS", 4, size_of::<Record>()),
    ("FREE", 4, 8),
    ("SESSIONS", size_of::<FlowKey>(), 8),
    ("SESSION_RECORDS", 4, size_of::<Session>()),
    ("CHANGES", 4, 8),
    ("FREE_SESSIONS", 0, 4),
    ("ENDPOINTS", 4, size_of::<[Endpoints; ENDPOINTS as usize]>()),
    ("FRAGMENTS", size_of::<FragmentKey>(), 4),
    ("COUNTS", 4, size_of::<PortCounts>()),
    ("RULE_COUNTS", 4, size_of::<RuleCount>()),
    ("EXPLANATION", 4, size_of::<Explanation>()),
    ("TOLD", 4, 8),
    ("LONG_WAY", 4, 4),
];

/// The maps that each process has for itself.
const OWN: [&str; 3] = ["CACHE", "SCRATCH", "CHUNKS"];

/// Where a port's program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In the driver.
    Native,
    /// In the kernel's network stack: slower, and sees packets that were merged.
    Generic,
    /// Nowhere.
    Down,
}

/// The directory with the pins.
#[derive(Debug, Clone)]
pub(crate) struct Pins(PathBuf);

/// What is pinned there.
pub(crate) enum Found {
    Nothing,
    /// State of this version, with these limits and for so many CPUs.
    State(Limits),
}

impl Pins {
    pub(crate) fn new(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Looks at what is there, and makes the directory if nothing is.
    pub(crate) fn examine(&self, cpus: u32) -> Result<Found, Error> {
        let Self(directory) = self;
        if !directory.exists() {
            let failed =
                |error| Error::kernel(format!("cannot make {}", directory.display()), &error);
            let mut builder = fs::DirBuilder::new();
            builder
                .recursive(true)
                .mode(0o700)
                .create(directory)
                .map_err(failed)?;
            if !is_bpffs(directory) {
                // Best effort: the error below is what matters.
                let _ = fs::remove_dir(directory);
                return Err(Error::NoBpffs(directory.clone()));
            }
            return Ok(Found::Nothing);
        }
        if !is_bpffs(directory) {
            return Err(Error::NoBpffs(directory.clone()));
        }
        if !directory.join("layout").join(LAYOUT.to_string()).exists() {
            if !directory.join("layout").exists() && !directory.join("links").exists() {
                // An earlier process was killed before it attached anything.
                self.remove()?;
                return self.examine(cpus);
            }
            return Err(Error::OtherLayout {
                path: directory.clone(),
                what: format!("not layout {LAYOUT}"),
            });
        }
        let mut entries = BTreeMap::new();
        for (name, key, value) in PINNED {
            let path = directory.join(name);
            let other = |what| Error::OtherLayout {
                path: path.clone(),
                what,
            };
            let info = MapInfo::from_pin(&path).map_err(|error| other(error.to_string()))?;
            let found = (info.key_size() as usize, info.value_size() as usize);
            if found != (key, value) {
                return Err(other(format!(
                    "entries of {found:?} bytes, not {:?}",
                    (key, value)
                )));
            }
            entries.insert(name, info.max_entries());
        }
        Ok(Found::State(Limits {
            flows: entries["RECORDS"],
            filters: (entries["FILTERS"] - 1) / 2,
            rules: entries["RULE_COUNTS"] / cpus / 2,
            fragments: entries["FRAGMENTS"],
            sessions: entries["SESSION_RECORDS"],
            vips: entries["CHOICES"] / table::CHOICES / 2,
        }))
    }

    /// Notes that all maps are there, and made by this version.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        let path = self.0.join("layout").join(LAYOUT.to_string());
        fs::create_dir_all(&path).map_err(|error| Error::kernel("cannot mark the pins", &error))
    }

    /// Loads the maps; programs are to be made [`ready`].
    pub(crate) fn load(&self, limits: &Limits, cpus: u32) -> Result<Ebpf, Error> {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::kernel("cannot load the XDP program", error)
        };
        if OBJECT.is_empty() {
            return Err(Error::Options(
                "this build has no XDP program in it: cargo xtask setup, and build again"
                    .to_owned(),
            ));
        }
        let sizes = memory::sizes(limits, cpus);
        let flow_mask = memory::buckets(limits) - 1;
        let cache_mask = memory::cache_sets(limits, cpus) - 1;
        let counters = memory::counters(limits);
        let pin = self.0.join(fixed::NAME);
        let contents = fixed::contents(&pin)?;
        let mut loader = EbpfLoader::new();
        loader
            .override_global("RULES", &counters, true)
            .override_global("FLOW_MASK", &flow_mask, true)
            .override_global("CACHE_MASK", &cache_mask, true)
            .override_global(fixed::NAME, contents.as_slice(), true)
            .map_pin_path(fixed::SECTION, pin);
        for (name, size) in sizes {
            loader.map_max_entries(name, size);
        }
        for (name, ..) in PINNED {
            loader.map_pin_path(name, self.0.join(name));
        }
        let ebpf = loader.load(OBJECT).map_err(|error| failed(&error))?;
        let is_known = |name: &str| PINNED.iter().any(|it| it.0 == name) || OWN.contains(&name);
        // Those of global data begin with a dot.
        let lost = ebpf
            .maps()
            .map(|(name, _)| name)
            .find(|name| !name.starts_with('.') && !is_known(name))
            .map(str::to_owned);
        lost.map_or(Ok(ebpf), |name| {
            Err(Error::Options(format!(
                "the map {name} would be lost at a restart: nobody pins it"
            )))
        })
    }

    /// What keeps the programs attached.
    pub(crate) fn links(&self) -> Links {
        Links(self.0.join("links"))
    }

    /// What attaches the program that makes copies.
    pub(crate) fn copies(&self) -> Copies {
        Copies::new(self.links(), self.filters())
    }

    fn filters(&self) -> Filters {
        Filters(self.0.join("filters"))
    }

    /// The slot of each port: the one it ever had, because flows remember slots. They are directories, for
    /// a BPF file system has no files.
    pub(crate) fn slots(&self, ports: &[PortConfig]) -> Result<Vec<u16>, Error> {
        let directory = self.0.join("slots");
        let failed = |error: io::Error| Error::kernel("cannot note the slots of ports", &error);
        fs::create_dir_all(&directory).map_err(failed)?;
        let mut known = BTreeMap::new();
        for entry in fs::read_dir(&directory).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if let Some((slot, name)) = name.to_string_lossy().split_once('-')
                && let Ok(slot) = slot.parse::<u16>()
            {
                known.insert(name.to_owned(), slot);
            }
        }
        let mut slots = Vec::with_capacity(ports.len());
        for port in ports {
            let name = port.name.replace('.', DOT);
            let slot = match known.get(&name) {
                Some(slot) => *slot,
                None => {
                    let slot = known.len() as u16;
                    if u32::from(slot) >= PORTS {
                        return Err(Error::Options(format!(
                            "there is no place left for port {:?}: ports of the past keep theirs, and there are \
                             {PORTS} in all. To start anew, forgetting flows and counters: edgesteer detach",
                            port.name
                        )));
                    }
                    fs::create_dir(directory.join(format!("{slot}-{name}"))).map_err(failed)?;
                    known.insert(name, slot);
                    slot
                }
            };
            slots.push(slot);
        }
        Ok(slots)
    }

    /// Keeps the program itself where it can be found.
    pub(crate) fn pin_program(&self, program: &mut Xdp) -> Result<(), Error> {
        let path = self.0.join("steer");
        if path.exists() {
            fs::remove_file(&path)
                .map_err(|error| Error::kernel("cannot replace the pinned program", &error))?;
        }
        program
            .pin(path)
            .map_err(|error| Error::kernel("cannot pin the program", &error))
    }

    /// Removes everything: steering stops.
    pub(crate) fn remove(&self) -> Result<Vec<String>, Error> {
        let Self(directory) = self;
        let mut removed = Vec::new();
        if !directory.exists() {
            return Ok(removed);
        }
        if !is_bpffs(directory) {
            return Err(Error::NoBpffs(directory.clone()));
        }
        let failed = |error: io::Error| {
            Error::kernel(format!("cannot remove {}", directory.display()), &error)
        };
        removed.extend(self.links().remove().map_err(failed)?);
        let copying = self.filters().prune(&[]).map_err(failed)?;
        removed.extend(
            copying
                .iter()
                .map(|name| format!("the program that makes copies on {name}")),
        );
        fs::remove_dir_all(directory).map_err(failed)?;
        removed.push(format!("{}", directory.display()));
        Ok(removed)
    }
}

/// Loads an XDP program of an object into the kernel, unless it is there, and first the one that it calls.
pub(crate) fn ready<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    if name == MOBILE {
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::kernel("cannot tell packets where the long way is", error)
        };
        let long = load(ebpf, LONG)?.fd().map_err(|error| failed(&error))?;
        let long = long.try_clone().map_err(|error| failed(&error))?;
        let map = ebpf.map_mut("LONG_WAY").map(ProgramArray::try_from);
        let Some(Ok(mut map)) = map else {
            return Err(Error::Options("the object has no map LONG_WAY".to_owned()));
        };
        map.set(0, &long, 0).map_err(|error| failed(&error))?;
    }
    load(ebpf, name)
}

fn load<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = xdp(ebpf, name)?;
    if program.fd().is_err() {
        let failed = |error| Error::kernel("cannot load the XDP program", &error);
        program.load().map_err(failed)?;
    }
    Ok(program)
}

/// An XDP program in an object.
pub(crate) fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = ebpf
        .program_mut(name)
        .and_then(|program| program.try_into().ok());
    program.ok_or_else(|| Error::Options(format!("the object has no XDP program {name}")))
}

fn is_bpffs(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let Ok(path) = std::ffi::CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a path that ends in zero, and room for the answer.
    if unsafe { libc::statfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: the call succeeded.
    unsafe { stat.assume_init() }.f_type == BPF_FS_MAGIC
}
