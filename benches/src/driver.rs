//! Runs programs in the kernel on packets of many flows, and takes the time.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use aya::{
    TestRun as _, TestRunOptions,
    maps::{Array, DevMap, HashMap, ProgramArray},
    programs::{Xdp, XdpMode},
};
use aya_obj::programs::XdpAttachType;
use dataplane_core::Reason;
use dataplane_user::rule::RuleSet;
use tests::executor::Rig;
use zerocopy::IntoBytes as _;

use crate::{
    Costs, Host, Target, limits,
    path::Path,
    program::{FRAME, Programs, stay_on_this_cpu},
    rules::Miss,
};

/// How long packets of the rules before may be under way.
const SETTLED: Duration = Duration::from_millis(50);
/// What a program answers that redirects.
const XDP_REDIRECT: u32 = 4;
/// Packets in a row. Few, so that some rows pass without an interrupt.
const ROW: u32 = 8_192;
/// Flows that are new in a row of misses.
pub const NEW_FLOWS: u32 = 16_384;

/// A host with edgesteer attached, and the program that drives it.
#[derive(Debug)]
pub struct Driver {
    rig: Rig,
    steer: Xdp,
    programs: Programs,
    port: &'static str,
    interface: u32,
    flows: u32,
    /// Octets of the frames.
    length: usize,
    /// Octets that the front of packets moves by.
    shift: i32,
    /// Whether the references know such packets.
    plain: bool,
}

impl Driver {
    /// Loads everything, with room for so many rules and flows, a power of two. From here on this thread stays on
    /// its CPU: flows belong to the CPU that sees them. On a `mobile` host UEs are behind tunnels.
    pub fn new(mobile: bool, rules: u32, flows: u32) -> Result<Self> {
        const NAMES: &[&str] = &[
            "drive",
            "drive_long",
            "empty",
            "shift",
            "redirect",
            "lookup",
            "cache",
            "decapsulate",
            "encapsulate",
        ];
        stay_on_this_cpu()?;
        let Host(rig) = Host::new(limits(rules, flows), mobile)?;
        let steer =
            Xdp::from_program_info(rig.program()?, "steer".into(), XdpAttachType::Interface)?;
        let mut programs = Programs::load(NAMES, flows)?;
        let device = rig.link("app0")?.index;
        let mut devices: DevMap<_> = programs.map("DEVICES")?;
        rig.bench.host.enter(|| devices.set(0, device, None, 0))?;
        // Each run of a program that is attached nowhere begins with milliseconds of waiting, after which caches hold
        // something else.
        for (name, interface) in [("drive", "far-access0"), ("drive_long", "far-core0")] {
            let drive = programs.xdp(name)?;
            rig.bench
                .far
                .enter(|| drive.attach(interface, XdpMode::Driver))?;
        }
        Ok(Self {
            rig,
            steer,
            programs,
            port: "",
            interface: 0,
            flows: 0,
            length: FRAME,
            shift: 0,
            plain: false,
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
        // What the rules before have left is away when no packet can be under way any more.
        thread::sleep(SETTLED);
        self.rig.forget()?;
        self.shift = path.shift;
        let mut shift: Array<_, i32> = self.programs.map("SHIFT")?;
        shift.set(0, path.shift, 0)?;
        for (port, packet) in path.first {
            self.load(port, flows, packet)?;
            self.run(Target::Steer, flows)?;
        }
        self.load(path.port, flows, path.packet)?;
        self.run(Target::Steer, flows)?;
        self.expect(path.reason, flows)
    }

    /// The costs of the path that was prepared: the least of many short rows, in turns, or the mean of that over
    /// parts of the flows where a row does not see all. In its turn a target sees all flows before, so that caches
    /// hold what they would hold if it were alone.
    pub fn measure(&mut self, rounds: u32) -> Result<Costs> {
        let parts = (self.flows / ROW).max(1);
        let mut costs = vec![Costs::default(); parts as usize];
        for _ in 0..(rounds / parts).max(3) {
            for target in self.targets() {
                self.run(target, self.flows)?;
                for costs in &mut costs {
                    costs.note(target, self.run(target, ROW)?);
                }
            }
        }
        Ok(Costs::mean(&costs))
    }

    /// Puts rules in force, for [`Self::measure_miss`] and [`Self::measure_hit`].
    pub fn apply(&mut self, rules: &RuleSet) -> Result<()> {
        self.shift = 0;
        self.rig.change(rules)
    }

    /// The cost of the first packet of a flow, under the rules in force.
    pub fn measure_miss(&mut self, packet: &dyn Fn(u32) -> Vec<u8>, rounds: u32) -> Result<Costs> {
        let mut costs = Costs::default();
        for _ in 0..rounds {
            self.rig.forget()?;
            self.load("access0", NEW_FLOWS, packet)?;
            for target in self.targets() {
                costs.note(target, self.run(target, NEW_FLOWS)?);
            }
            ensure!(
                self.rig.dataplane.flows().len() == NEW_FLOWS as usize,
                "not every packet made a flow"
            );
        }
        Ok(costs)
    }

    /// The cost of packets of so many known flows, under the rules in force.
    pub fn measure_hit(&mut self, miss: &Miss, flows: u32, rounds: u32) -> Result<Costs> {
        self.rig.forget()?;
        self.load("access0", flows, |flow| miss.packet(flow))?;
        self.run(Target::Steer, flows)?;
        self.expect(Reason::Steered, flows)?;
        self.measure(rounds)
    }

    /// How long so many packets take, flow after flow, the driver's own part included.
    pub fn time(&mut self, target: Target, packets: u64) -> Result<Duration> {
        let row = packets.min(ROW.into()) as u32;
        Ok(Duration::from_nanos(self.run(target, row)? * packets))
    }

    fn targets(&self) -> impl Iterator<Item = Target> + use<> {
        let (plain, tunnel) = (self.plain, self.shift != 0);
        let all = Target::ALL.into_iter();
        all.filter(move |target| match target {
            Target::Empty | Target::Steer => true,
            Target::Cache => plain || tunnel,
            Target::Redirect | Target::Lookup => plain,
        })
    }

    /// Sends `packets` packets, flow after flow. Answers nanoseconds for each.
    fn run(&mut self, target: Target, packets: u32) -> Result<u64> {
        self.choose(target)?;
        let name = if self.length == FRAME {
            "drive"
        } else {
            "drive_long"
        };
        let drive: &Xdp = self.programs.xdp(name)?;
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
        let done = match target {
            Target::Redirect | Target::Lookup | Target::Cache => {
                result.return_value == XDP_REDIRECT
            }
            Target::Empty | Target::Steer => result.return_value != 0,
        };
        ensure!(done, "{target:?} answers {}", result.return_value);
        Ok(result.duration.as_nanos() as u64)
    }

    fn choose(&mut self, target: Target) -> Result<()> {
        let name = match target {
            Target::Empty if self.shift != 0 => "shift",
            Target::Empty => "empty",
            Target::Redirect => "redirect",
            Target::Lookup => "lookup",
            Target::Cache if self.shift > 0 => "decapsulate",
            Target::Cache if self.shift < 0 => "encapsulate",
            Target::Cache => "cache",
            Target::Steer => "",
        };
        let program = match name {
            "" => &self.steer,
            name => self.programs.xdp(name)?,
        };
        let program = program.fd()?.try_clone()?;
        let mut targets: ProgramArray<_> = self.programs.map("TARGET")?;
        Ok(targets.set(0, &program, 0)?)
    }

    /// Puts the packets of `flows` flows, a power of two, in the driver's hands.
    fn load(
        &mut self,
        port: &'static str,
        flows: u32,
        packet: impl Fn(u32) -> Vec<u8>,
    ) -> Result<()> {
        self.interface = self.rig.link(port)?.index;
        (self.port, self.flows) = (port, flows);
        let frames: Vec<Vec<u8>> = (0..flows).map(packet).collect();
        self.length = self.programs.put(&frames)?;
        self.plain = self.shift == 0 && frames.iter().all(|frame| is_plain(frame));
        let mut counts: HashMap<_, [u32; 3], u64> = self.programs.map("COUNTS")?;
        let old: Vec<_> = counts.keys().collect::<Result<_, _>>()?;
        old.iter().try_for_each(|key| counts.remove(key))?;
        let mut keys = frames.iter().map(|frame| key(frame));
        Ok(keys.try_for_each(|key| counts.insert(key, 0, 0))?)
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
}

/// Whether it is a UDP packet over IPv4 in one piece.
fn is_plain(frame: &[u8]) -> bool {
    const UDP: u8 = 17;
    let [kind, fragment] = [12, 20].map(|at| u16::from_be_bytes([frame[at], frame[at + 1]]));
    kind == 0x0800 && fragment & 0x3fff == 0 && frame[23] == UDP
}

/// The bytes by which a hash map of the kernel's knows the packet.
fn key(frame: &[u8]) -> [u32; 3] {
    std::array::from_fn(|at| {
        let at = 26 + 4 * at;
        u32::from_ne_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]])
    })
}
