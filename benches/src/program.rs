//! The programs of the benchmarks, and the CPU they run on.

use std::{io, mem, panic, thread};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapError},
    programs::{Program, ProgramError, Xdp},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/benches-ebpf"));

/// Octets of a frame: the shortest that Ethernet has, checksum aside.
pub(crate) const FRAME: usize = 64;
/// Octets of a frame with a tunnel's headers.
pub(crate) const LONG_FRAME: usize = 128;
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

    /// Hands over the frames of flows, as many as a power of two. Answers their length; short ones are padded, as
    /// Ethernet does.
    pub(crate) fn put(&mut self, frames: &[Vec<u8>]) -> Result<usize> {
        let count = frames.len() as u32;
        ensure!(count.is_power_of_two(), "{count} flows");
        let longest = frames.iter().map(Vec::len).max().unwrap_or(0);
        let length = if longest > FRAME { LONG_FRAME } else { FRAME };
        let mut map: Array<_, [u64; LONG_FRAME / 8]> = self.map("FRAMES")?;
        for (flow, bytes) in (0..).zip(frames) {
            let mut frame = [0; LONG_FRAME];
            let room = frame.get_mut(..bytes.len());
            room.context("too long a frame")?.copy_from_slice(bytes);
            let words: [u64; LONG_FRAME / 8] = zerocopy::transmute!(frame);
            map.set(flow, words, 0)?;
        }
        let mut state: Array<_, [u32; 2]> = self.map("STATE")?;
        state.set(0, [0, count - 1], 0)?;
        Ok(length)
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

/// Runs something short on a thread, on the same CPU, that no other program is run before.
pub(crate) fn undisturbed<T: Send>(action: impl FnOnce() -> T + Send) -> Result<T> {
    let result = thread::scope(|scope| {
        let inside = scope.spawn(|| {
            let priority = libc::sched_param { sched_priority: 1 };
            // SAFETY: the pointer is to what the call reads.
            let done =
                unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const priority) };
            ensure!(done == 0, io::Error::last_os_error());
            Ok(action())
        });
        inside.join()
    });
    result.unwrap_or_else(|panic| panic::resume_unwind(panic))
}
