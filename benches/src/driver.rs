//! Runs programs in the kernel on packets of many flows, and takes the time.

use std::{io, mem, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, DevMap, HashMap, ProgramArray},
    programs::{Xdp, XdpMode},
};
use aya_obj::programs::XdpAttachType;
use dataplane_core::Reason;
use dataplane_user::rule::RuleSet;
use tests::{executor::Rig, packet::Packet};
use zerocopy::IntoBytes as _;

use crate::{
    Host,
    path::{Miss, Path},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/benches-ebpf"));

/// Octets of a frame: the shortest that Ethernet has, checksum aside.
const FRAME: usize = 64;
/// Octets of a frame with a tunnel's headers.
const LONG_FRAME: usize = 128;
/// Frames there is room for.
const FRAMES: u32 = 65_536;
/// Packets in a row. Few, so that some rows pass without an interrupt.
const ROW: u32 = 8_192;

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A program that does nothing.
    Empty,
    /// A program that steers by a hash map of the kernel's, and no more than that.
    Lookup,
    /// edgesteer.
    Steer,
}

/// Nanoseconds for each packet, the driver's own included.
#[derive(Clone, Copy, Debug)]
pub struct Costs {
    /// Of [`Target::Empty`].
    pub empty: u64,
    /// Of [`Target::Lookup`].
    pub lookup: u64,
    /// Of [`Target::Steer`].
    pub steer: u64,
}

impl Costs {
    /// What edgesteer costs.
    pub fn net(&self) -> u64 {
        self.steer.saturating_sub(self.empty)
    }

    /// What steering by a hash map costs.
    pub fn net_lookup(&self) -> u64 {
        self.lookup.saturating_sub(self.empty)
    }
}

/// A host with edgesteer attached, and the program that drives it.
#[derive(Debug)]
pub struct Driver {
    rig: Rig,
    steer: Xdp,
    ebpf: Ebpf,
    port: &'static str,
    interface: u32,
    /// Octets of the frames.
    length: usize,
    /// Octets that the front of packets moves by.
    shift: i32,
}

impl Driver {
    /// Loads everything. From here on this thread stays on its CPU: flows belong to the CPU that sees them.
    /// On a `mobile` host UEs are behind tunnels.
    pub fn new(mobile: bool) -> Result<Self> {
        ensure!(
            !OBJECT.is_empty(),
            "this build has no eBPF programs in it: cargo xtask setup"
        );
        stay_on_this_cpu()?;
        let Host(rig) = if mobile { Host::mobile() } else { Host::new() }?;
        let steer =
            Xdp::from_program_info(rig.program()?, "steer".into(), XdpAttachType::Interface)?;
        let mut ebpf = Ebpf::load(OBJECT)?;
        for name in ["drive", "drive_long", "empty", "shift", "lookup"] {
            xdp(&mut ebpf, name)?.load()?;
        }
        let device = rig.link("app0")?.index;
        let mut devices: DevMap<_> = map(&mut ebpf, "DEVICES")?.try_into()?;
        rig.bench.host.enter(|| devices.set(0, device, None, 0))?;
        // Each run of a program that is attached nowhere takes milliseconds.
        let drive = xdp(&mut ebpf, "drive")?;
        rig.bench
            .far
            .enter(|| drive.attach("far-access0", XdpMode::Driver))?;
        Ok(Self {
            rig,
            steer,
            ebpf,
            port: "",
            interface: 0,
            length: FRAME,
            shift: 0,
        })
    }

    /// Prepares the rules and `flows` flows of a path, and makes sure that its packets take it.
    pub fn prepare(&mut self, path: &Path, flows: u32) -> Result<()> {
        let rules = path
            .rules
            .iter()
            .map(|rule| rule.parse())
            .collect::<Result<RuleSet, _>>()?;
        self.rig.prepare(&rules)?;
        self.shift = path.shift;
        let mut shift: Array<_, i32> = map(&mut self.ebpf, "SHIFT")?.try_into()?;
        shift.set(0, path.shift, 0)?;
        for (port, packet) in path.first {
            self.load(port, flows, packet)?;
            self.run(Target::Steer, flows)?;
        }
        self.load(path.port, flows, path.packet)?;
        self.run(Target::Steer, flows)?;
        self.expect(path.reason, flows)
    }

    /// The costs of the path that was prepared: the least of many short rows, in turns.
    pub fn measure(&mut self, rounds: u32) -> Result<Costs> {
        let mut costs = Costs {
            empty: u64::MAX,
            lookup: u64::MAX,
            steer: u64::MAX,
        };
        for _ in 0..rounds {
            for (cost, target) in [
                (&mut costs.empty, Target::Empty),
                (&mut costs.lookup, Target::Lookup),
                (&mut costs.steer, Target::Steer),
            ] {
                *cost = self.run(target, ROW)?.min(*cost);
            }
        }
        Ok(costs)
    }

    /// The cost of the first packet of a flow.
    pub fn measure_miss(&mut self, miss: &Miss, rounds: u32) -> Result<Costs> {
        const FLOWS: u32 = 16_384;
        let rules = miss.rules();
        let mut costs = Costs {
            empty: u64::MAX,
            lookup: u64::MAX,
            steer: u64::MAX,
        };
        for _ in 0..rounds {
            self.rig.prepare(&rules)?;
            self.load("access0", FLOWS, |flow| miss.packet(flow))?;
            costs.empty = self.run(Target::Empty, FLOWS)?.min(costs.empty);
            costs.lookup = self.run(Target::Lookup, FLOWS)?.min(costs.lookup);
            costs.steer = self.run(Target::Steer, FLOWS)?.min(costs.steer);
            ensure!(
                self.rig.dataplane.flows().len() == FLOWS as usize,
                "not every packet made a flow"
            );
        }
        Ok(costs)
    }

    /// Sends `packets` packets, flow after flow. Answers nanoseconds for each.
    pub fn run(&mut self, target: Target, packets: u32) -> Result<u64> {
        self.choose(target)?;
        let name = if self.length == FRAME {
            "drive"
        } else {
            "drive_long"
        };
        let drive: &Xdp = self.ebpf.program(name).context("no driver")?.try_into()?;
        // `struct xdp_md`: where the data ends, and the interface it came by.
        let mut context = [0u32; 6];
        context[1] = self.length as u32;
        context[3] = self.interface;
        let frame = vec![0; self.length];
        let run = || {
            drive.test_run(TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(context.as_bytes()),
                repeat: packets,
                ..TestRunOptions::default()
            })
        };
        let result = self.rig.bench.host.enter(run)?;
        ensure!(result.return_value != 0, "the driver cannot run {target:?}");
        Ok(result.duration.as_nanos() as u64)
    }

    fn choose(&mut self, target: Target) -> Result<()> {
        let fd = match target {
            Target::Empty if self.shift != 0 => xdp(&mut self.ebpf, "shift")?.fd()?.try_clone()?,
            Target::Empty => xdp(&mut self.ebpf, "empty")?.fd()?.try_clone()?,
            Target::Lookup => xdp(&mut self.ebpf, "lookup")?.fd()?.try_clone()?,
            Target::Steer => self.steer.fd()?.try_clone()?,
        };
        let mut targets: ProgramArray<_> = map(&mut self.ebpf, "TARGET")?.try_into()?;
        Ok(targets.set(0, &fd, 0)?)
    }

    /// Puts the packets of `flows` flows, a power of two, in the driver's hands.
    fn load(
        &mut self,
        port: &'static str,
        flows: u32,
        packet: impl Fn(u16) -> Packet,
    ) -> Result<()> {
        ensure!(flows.is_power_of_two() && flows <= FRAMES, "{flows} flows");
        self.interface = self.rig.link(port)?.index;
        self.port = port;
        let mut keys = Vec::with_capacity(flows as usize);
        let mut frames: Array<_, [u64; LONG_FRAME / 8]> =
            map(&mut self.ebpf, "FRAMES")?.try_into()?;
        for flow in 0..flows {
            let bytes = packet(flow as u16).bytes();
            ensure!(
                [FRAME, LONG_FRAME].contains(&bytes.len()),
                "a frame of {} octets",
                bytes.len()
            );
            self.length = bytes.len();
            let mut frame = [0; LONG_FRAME];
            frame[..bytes.len()].copy_from_slice(&bytes);
            let words: [u64; LONG_FRAME / 8] = zerocopy::transmute!(frame);
            frames.set(flow, words, 0)?;
            keys.push(std::array::from_fn(|at| word(&frame, 26 + 4 * at)));
        }
        let mut counts: HashMap<_, [u32; 3], u64> = map(&mut self.ebpf, "COUNTS")?.try_into()?;
        let old: Vec<_> = counts.keys().collect::<Result<_, _>>()?;
        old.iter().try_for_each(|key| counts.remove(key))?;
        keys.iter().try_for_each(|key| counts.insert(key, 0, 0))?;
        let mut state: Array<_, [u32; 2]> = map(&mut self.ebpf, "STATE")?.try_into()?;
        Ok(state.set(0, [0, flows - 1], 0)?)
    }

    /// Makes sure that packets end for `reason` and for no other.
    fn expect(&mut self, reason: Reason, packets: u32) -> Result<()> {
        let before = self.rig.counters(self.port);
        self.run(Target::Steer, packets)?;
        let seen = self.rig.counters(self.port).since(&before).reasons;
        ensure!(
            seen.len() == packets as usize && seen.iter().all(|it| *it == reason),
            "{} packets ended, not all for {reason:?}: {:?}",
            seen.len(),
            seen.iter().find(|it| **it != reason)
        );
        Ok(())
    }

    /// As [`Self::run`], as a duration of all packets.
    pub fn time(&mut self, target: Target, packets: u64) -> Result<Duration> {
        let row = packets.min(ROW.into()) as u32;
        Ok(Duration::from_nanos(self.run(target, row)? * packets))
    }
}

fn word(frame: &[u8; LONG_FRAME], at: usize) -> u32 {
    u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut aya::maps::Map> {
    ebpf.map_mut(name).with_context(|| format!("no map {name}"))
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf
        .program_mut(name)
        .with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

fn stay_on_this_cpu() -> Result<()> {
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
