//! The programs of the benchmarks, and the CPU they run on.

use std::{io, mem};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapError},
    programs::{Program, ProgramError, Xdp},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/benches-ebpf"));

/// Slots of the reference's cache for each flow, so that not many share one.
const SLOTS: u32 = 2;

/// The programs and their maps.
#[derive(Debug)]
pub(crate) struct Programs(pub(crate) Ebpf);

impl Programs {
    /// Loads those of these names, with maps for so many flows, a power of two.
    pub(crate) fn load(names: &[&str], flows: u32) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this build has no eBPF programs in it: cargo xtask setup"
        );
        let slots = flows * SLOTS;
        let ebpf = EbpfLoader::new()
            .map_max_entries("FRAMES", flows)
            .map_max_entries("COUNTS", flows)
            .map_max_entries("CACHE", slots)
            .override_global("CACHE_MASK", &(slots - 1), true)
            .load(OBJECT)?;
        let mut programs = Self(ebpf);
        for name in names {
            programs.xdp(name)?.load()?;
        }
        Ok(programs)
    }

    pub(crate) fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        self.program(name)
    }

    pub(crate) fn program<'a, T>(&'a mut self, name: &str) -> Result<&'a mut T>
    where
        &'a mut T: TryFrom<&'a mut Program, Error = ProgramError>,
    {
        let program = self.0.program_mut(name);
        let program = program.with_context(|| format!("no program {name}"))?;
        Ok(program.try_into()?)
    }

    pub(crate) fn map<'a, T>(&'a mut self, name: &str) -> Result<T>
    where
        T: TryFrom<&'a mut Map, Error = MapError>,
    {
        let map = self.0.map_mut(name);
        Ok(map.with_context(|| format!("no map {name}"))?.try_into()?)
    }
}

/// Keeps this thread on the CPU that it runs on: flows belong to the CPU that sees them.
pub(crate) fn stay_on_this_cpu() -> Result<()> {
    // SAFETY: the call takes no pointers.
    let cpu = unsafe { libc::sched_getcpu() };
    // SAFETY: zeros are a set without CPUs.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel does not name CPUs that the set has no room for.
    unsafe { libc::CPU_SET(usize::try_from(cpu)?, &mut set) };
    // SAFETY: the set is as long as is said.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    ensure!(done == 0, io::Error::last_os_error());
    Ok(())
}
