//! The map of what packets find without a look-up: the global data of the programs.
//!
//! aya makes such maps itself, but so that they cannot be mapped, and writes into them what the data begins with.
//! So this one is made here, aya finds it by its pin, and is told what is in it.

use std::{
    io,
    os::fd::{AsFd as _, FromRawFd as _, OwnedFd},
    path::Path,
};

use aya::maps::MapData;
use dataplane_core::{Word, table::Fixed};

use crate::{Error, shared::Shared};

/// What the map, its pin and the data are called.
pub(crate) const NAME: &str = "FIXED";

/// The section of the object that it is, by which aya knows it.
pub(crate) const SECTION: &str = ".bss";

/// What is in the map that is pinned at `path`, which is made unless it is there.
pub(crate) fn contents(path: &Path) -> Result<Vec<u64>, Error> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Error::kernel("cannot make the map FIXED", error)
    };
    let map = if path.exists() {
        MapData::from_pin(path).map_err(|error| failed(&error))?
    } else {
        let fd = create().map_err(|error| failed(&error))?;
        let map = MapData::from_fd(fd).map_err(|error| failed(&error))?;
        map.pin(path).map_err(|error| failed(&error))?;
        map
    };
    let words = size_of::<Fixed>() / size_of::<Word>();
    let shared = Shared::<Word>::map(NAME, map.fd().as_fd(), words)?;
    Ok(shared.iter().map(Word::get).collect())
}

/// The beginning of `union bpf_attr`, for `BPF_MAP_CREATE`.
#[repr(C)]
struct Create {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; 16],
}

fn create() -> io::Result<OwnedFd> {
    const BPF_MAP_CREATE: libc::c_long = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    const BPF_F_MMAPABLE: u32 = 1 << 10;
    let mut create = Create {
        kind: BPF_MAP_TYPE_ARRAY,
        key_size: 4,
        value_size: size_of::<Fixed>() as u32,
        max_entries: 1,
        flags: BPF_F_MMAPABLE,
        inner_map: 0,
        numa_node: 0,
        name: [0; 16],
    };
    create.name[..NAME.len()].copy_from_slice(NAME.as_bytes());
    // SAFETY: the structure is as long as it is said to be, and outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_MAP_CREATE,
            &raw const create,
            size_of::<Create>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
