//! The ports that packets come in by, as the programs see them.

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    ptr::{self, NonNull},
};

use anyhow::{Context as _, Result};
use aya::maps::MapData;
use dataplane_core::table::{Fixed, Port};

/// The table in the kernel's memory, for as long as this process runs.
#[derive(Debug, Clone, Copy)]
pub struct Interfaces(&'static Fixed);

// SAFETY: it is made of words that are read whole.
unsafe impl Send for Interfaces {}
// SAFETY: as above.
unsafe impl Sync for Interfaces {}

impl Interfaces {
    /// That of the data plane with these pins.
    ///
    /// # Errors
    ///
    /// It is not there.
    pub fn pinned(pins: &Path) -> Result<Self> {
        let map = MapData::from_pin(pins.join("FIXED"))?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let address = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size_of::<Fixed>(),
                libc::PROT_READ,
                libc::MAP_SHARED,
                map.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        let fixed = NonNull::new(address.cast::<Fixed>()).context("mapped at 0")?;
        // SAFETY: it is as long as that, any bits make one, and it is never unmapped.
        Ok(Self(unsafe { fixed.as_ref() }))
    }

    /// What there is for the interface `ifindex`.
    #[must_use]
    pub fn port(self, ifindex: u32) -> Port {
        self.0.interfaces[ifindex as usize].get()
    }
}
