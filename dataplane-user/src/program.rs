//! The program in the kernel: load it, attach it, and keep both where a restart finds them.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::MapInfo,
    programs::{
        Xdp, XdpMode,
        links::{FdLink, PinnedLink},
        xdp::XdpLink,
    },
};
use dataplane_core::{
    flow::{FlowKey, Record},
    table::{
        Count, Explanation, Filter, FragmentKey, LAYOUT, PORTS, Port, RuleAction, RuleCount, Split,
        State,
    },
};

use crate::{Error, Limits, PortConfig, memory};

/// The compiled program.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/edgesteer-ebpf"));

/// The maps that outlive this process, with the sizes of their keys and values.
const PINNED: [(&str, usize, usize); 17] = [
    ("STATE", 4, size_of::<State>()),
    ("SLOTS", 4, 4),
    ("PORTS", 4, size_of::<Port>()),
    ("DEVICES", 4, 8),
    ("SPLITS", 4, size_of::<Split>()),
    ("FILTERS", 4, size_of::<Filter>()),
    ("ACTIONS", 4, size_of::<RuleAction>()),
    ("HOPS", 4, 8),
    ("FLOWS", size_of::<FlowKey>(), 8),
    ("RECORDS", 4, size_of::<Record>()),
    ("FREE", 0, 4),
    ("FRAGMENTS", size_of::<FragmentKey>(), 4),
    ("COUNTS", 4, size_of::<Count>()),
    ("SENT", 4, size_of::<Count>()),
    ("RULE_COUNTS", 4, size_of::<RuleCount>()),
    ("EXPLANATION", 4, size_of::<Explanation>()),
    ("TOLD", 4, 8),
];

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
        }))
    }

    /// Notes that all maps are there, and made by this version.
    pub(crate) fn seal(&self) -> Result<(), Error> {
        let path = self.0.join("layout").join(LAYOUT.to_string());
        fs::create_dir_all(&path).map_err(|error| Error::kernel("cannot mark the pins", &error))
    }

    /// Loads the program. With `read_only`, one that only answers questions.
    pub(crate) fn load(&self, limits: &Limits, cpus: u32, read_only: bool) -> Result<Ebpf, Error> {
        let failed =
            |error: &dyn std::error::Error| Error::kernel("cannot load the XDP program", error);
        if OBJECT.is_empty() {
            return Err(Error::Options(
                "this build has no XDP program in it: cargo xtask setup, and build again"
                    .to_owned(),
            ));
        }
        let sizes = memory::sizes(limits, cpus);
        let read_only = u32::from(read_only);
        let cache_mask = memory::CACHE_SETS - 1;
        let counters = memory::counters(limits);
        let mut loader = EbpfLoader::new();
        loader
            .override_global("READ_ONLY", &read_only, true)
            .override_global("RULES", &counters, true)
            .override_global("CACHE_MASK", &cache_mask, true);
        for (name, size) in sizes {
            loader.map_max_entries(name, size);
        }
        for (name, ..) in PINNED {
            loader.map_pin_path(name, self.0.join(name));
        }
        let mut ebpf = loader.load(OBJECT).map_err(|error| failed(&error))?;
        xdp(&mut ebpf)?.load().map_err(|error| failed(&error))?;
        Ok(ebpf)
    }

    /// Attaches the program to an interface, or puts it in the place of the one of an earlier process.
    pub(crate) fn attach(
        &self,
        program: &mut Xdp,
        interface: (&str, u32),
        port: &str,
        allow_generic: bool,
    ) -> Result<Mode, Error> {
        let (name, ifindex) = interface;
        let links = self.0.join("links");
        fs::create_dir_all(&links)
            .map_err(|error| Error::kernel("cannot make the links directory", &error))?;
        let [native, generic, _] = link_names(port).map(|name| links.join(name));
        for (path, mode) in [(&native, Mode::Native), (&generic, Mode::Generic)] {
            if path.exists() {
                if self.replace(program, path).is_ok() && is_attached(ifindex) {
                    return Ok(mode);
                }
                // Its interface is gone.
                fs::remove_file(path)
                    .map_err(|error| Error::kernel("cannot remove a stale link", &error))?;
            }
        }
        let mut refused = match attach(program, ifindex, XdpMode::Driver, &native) {
            Ok(()) => return Ok(Mode::Native),
            Err(error) => Error::kernel(format!("cannot attach to {name} in native mode"), &*error),
        };
        if allow_generic {
            refused = match attach(program, ifindex, XdpMode::Skb, &generic) {
                Ok(()) => return Ok(Mode::Generic),
                Err(error) => Error::kernel(
                    format!("cannot attach to {name}, not even in generic mode"),
                    &*error,
                ),
            };
        }
        Err(refused)
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
                        return Err(Error::TooMany {
                            what: "ports, those of the past included,",
                            wanted: known.len() + 1,
                            limit: PORTS as usize,
                            option: "ports",
                        });
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

    fn replace(&self, program: &mut Xdp, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let link = FdLink::from(PinnedLink::from_pin(path)?);
        let link = XdpLink::try_from(link)?;
        let id = program.attach_to_link(link)?;
        // The pin holds it; this process must not, or its end would be the end of the link.
        drop(program.take_link(id)?);
        Ok(())
    }

    /// Where the link of the program that makes copies is pinned.
    pub(crate) fn copy_link(&self, port: &str) -> PathBuf {
        let [.., copy] = link_names(port);
        self.0.join("links").join(copy)
    }

    /// Removes links of ports that are no more.
    pub(crate) fn prune(&self, ports: &[&str]) -> io::Result<()> {
        let names: Vec<String> = ports.iter().flat_map(|port| link_names(port)).collect();
        for entry in fs::read_dir(self.0.join("links")).into_iter().flatten() {
            let entry = entry?;
            if !names.iter().any(|name| entry.file_name() == name.as_str()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
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
        for entry in fs::read_dir(directory.join("links"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().replace(DOT, ".");
            let port = name.split_once('-').map_or(name.as_str(), |(_, port)| port);
            removed.push(format!("the program on {port}"));
        }
        fs::remove_dir_all(directory).map_err(|error| {
            Error::kernel(format!("cannot remove {}", directory.display()), &error)
        })?;
        removed.push(format!("{}", directory.display()));
        Ok(removed)
    }
}

/// Stands for a dot in names of pins: BPF file systems refuse dots.
const DOT: &str = "%2e";

/// What the links of a port are pinned as: in native mode, in generic mode, and that of copies.
fn link_names(port: &str) -> [String; 3] {
    ["native", "generic", "copy"].map(|mode| format!("{mode}-{}", port.replace('.', DOT)))
}

/// The XDP program in an object.
pub(crate) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, Error> {
    let program = ebpf
        .program_mut("steer")
        .and_then(|program| program.try_into().ok());
    program.ok_or_else(|| Error::Options("the object has no XDP program steer".to_owned()))
}

fn attach(
    program: &mut Xdp,
    ifindex: u32,
    mode: XdpMode,
    pin: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let id = program.attach_to_if_index(ifindex, mode)?;
    let link = program.take_link(id)?;
    // Without a BPF link there is nothing to pin: then it ends here, and is not left half attached.
    let link = FdLink::try_from(link)?;
    let pinned = link.pin(pin)?;
    drop(FdLink::from(pinned));
    Ok(())
}

/// Whether some program is attached to an interface.
fn is_attached(ifindex: u32) -> bool {
    crate::netlink::links().is_ok_and(|links| {
        links
            .iter()
            .any(|link| link.index == ifindex && link.xdp.is_some())
    })
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
