//! A host between two veths, with a generator of frames in the kernel before it and a sink behind it.

use std::mem;

use anyhow::{Context as _, Result, ensure};
use aya::{
    TestRun as _, TestRunAttrs, TestRunOptions,
    maps::{Array, DevMap},
    programs::XdpMode,
};
use dataplane_user::{netlink, rule::RuleSet};
use tests::{
    executor::Rig,
    lab::{Bench, Namespace},
};

use crate::{
    Host, LIMITS,
    path::Path,
    program::{FRAME, Programs, stay_on_this_cpu, undisturbed},
};

/// Flows that take turns.
pub(crate) const FLOWS: u32 = 1 << 10;
/// Frames that are on their way together.
const BATCH: u32 = 64;

/// What is between the veths.
#[derive(Debug)]
enum World {
    Edgesteer(Box<Rig>),
    Other(Bench),
}

/// One way from the generator to the sink.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) id: &'static str,
    world: World,
    programs: Programs,
    length: usize,
}

impl Lane {
    /// Through edgesteer, by one of the paths that leave by `exit`.
    pub(crate) fn path(id: &'static str, path: &Path, mobile: bool, exit: &str) -> Result<Self> {
        let rules = path.rules.iter().map(|rule| rule.parse());
        let mut lane = Self::edgesteer(id, mobile, &rules.collect::<Result<RuleSet, _>>()?, exit)?;
        for (port, packet) in path.first {
            lane.load(port, *packet)?;
            lane.send(FLOWS, BATCH)?;
        }
        lane.load(path.port, path.packet)?;
        Ok(lane)
    }

    /// Through edgesteer, from `access0` to `exit`, under these rules.
    pub(crate) fn edgesteer(
        id: &'static str,
        mobile: bool,
        rules: &RuleSet,
        exit: &str,
    ) -> Result<Self> {
        let Host(mut rig) = Host::new(LIMITS, mobile)?;
        rig.prepare(rules)?;
        Self::new(id, World::Edgesteer(Box::new(rig)), exit)
    }

    /// Through something else, from `access0` to `app0`.
    pub(crate) fn other(id: &'static str, bench: Bench) -> Result<Self> {
        Self::new(id, World::Other(bench), "app0")
    }

    fn new(id: &'static str, world: World, exit: &str) -> Result<Self> {
        const NAMES: &[&str] = &["send", "send_long", "pace", "pace_long", "sink", "redirect"];
        stay_on_this_cpu()?;
        let mut lane = Self {
            id,
            world,
            programs: Programs::load(NAMES, FLOWS)?,
            length: FRAME,
        };
        let exit = format!("far-{exit}");
        let sink = lane.programs.xdp("sink")?;
        let bench = lane.world.bench();
        bench.far.enter(|| sink.attach(&exit, XdpMode::Driver))?;
        Ok(lane)
    }

    /// Whether edgesteer is in it.
    pub(crate) fn is_edgesteer(&self) -> bool {
        matches!(self.world, World::Edgesteer(_))
    }

    /// The host that packets go through, and the programs for it.
    pub(crate) fn host(&mut self) -> (&Namespace, &mut Programs) {
        (&self.world.bench().host, &mut self.programs)
    }

    /// Hands the generator the packets of all flows, which come by this port.
    pub(crate) fn load(&mut self, port: &str, packet: impl Fn(u32) -> Vec<u8>) -> Result<()> {
        let frames: Vec<Vec<u8>> = (0..FLOWS).map(packet).collect();
        self.length = self.programs.put(&frames)?;
        let far = &self.world.bench().far;
        let device = interface(far, &format!("far-{port}"))?;
        let mut wire: DevMap<_> = self.programs.map("WIRE")?;
        Ok(far.enter(|| wire.set(0, device, None, 0))?)
    }

    /// Frames that arrive in a second, in millions.
    pub(crate) fn rate(&mut self, frames: u32) -> Result<f64> {
        let (arrived, nanoseconds) = self.send(frames, BATCH)?;
        ensure!(
            u64::from(arrived) * 100 >= u64::from(frames) * 95,
            "{}: only {arrived} of {frames} frames arrived",
            self.id
        );
        Ok(f64::from(arrived) * 1e3 / nanoseconds)
    }

    /// Sends frames. Answers how many arrived, and the nanoseconds that all took.
    pub(crate) fn send(&mut self, frames: u32, batch: u32) -> Result<(u32, f64)> {
        self.pace([0; 2])?;
        let mut arrived: Array<_, u32> = self.programs.map("ARRIVED")?;
        arrived.set(0, 0, 0)?;
        let each = self.run("send", frames, batch)?;
        Ok((self.arrived()?, each * f64::from(frames)))
    }

    /// Nanoseconds from when each of so many packets was due, after these intervals, until it arrived.
    pub(crate) fn delays(&mut self, intervals: &[u32], packets: u32) -> Result<Vec<u32>> {
        /// What runs without a pause.
        const STRETCH: u32 = 50_000;
        let mut map: Array<_, u32> = self.programs.map("INTERVALS")?;
        for (number, interval) in (0..).zip(intervals) {
            map.set(number, interval, 0)?;
        }
        let mut arrived: Array<_, u32> = self.programs.map("ARRIVED")?;
        arrived.set(0, 0, 0)?;
        let mut seen = 0;
        while seen < packets {
            self.pace([0, seen.into()])?;
            self.run("pace", STRETCH, 1)?;
            let before = mem::replace(&mut seen, self.arrived()?);
            ensure!(seen > before, "{}: no frame arrives", self.id);
        }
        let delays: Array<_, u32> = self.programs.map("DELAYS")?;
        let all = (0..packets).map(|number| delays.get(&number, 0));
        Ok(all.collect::<Result<_, _>>()?)
    }

    /// Runs a generator. Answers the nanoseconds of each turn.
    fn run(&mut self, name: &str, turns: u32, batch: u32) -> Result<f64> {
        let long = if self.length == FRAME { "" } else { "_long" };
        let program = self.programs.xdp(&format!("{name}{long}"))?;
        let frame = vec![0; self.length];
        let result = undisturbed(|| {
            program.test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: turns,
                attrs: TestRunAttrs::new().xdp_live_frames(batch),
                ..TestRunOptions::default()
            })
        })?;
        Ok(result?.duration.as_nanos() as f64)
    }

    fn pace(&mut self, pace: [u64; 2]) -> Result<()> {
        let mut map: Array<_, [u64; 2]> = self.programs.map("PACE")?;
        Ok(map.set(0, pace, 0)?)
    }

    fn arrived(&mut self) -> Result<u32> {
        let arrived: Array<_, u32> = self.programs.map("ARRIVED")?;
        Ok(arrived.get(&0, 0)?)
    }
}

impl World {
    fn bench(&self) -> &Bench {
        match self {
            Self::Edgesteer(rig) => &rig.bench,
            Self::Other(bench) => bench,
        }
    }
}

/// The number of an interface in a namespace.
pub(crate) fn interface(namespace: &Namespace, name: &str) -> Result<u32> {
    let links = namespace.enter(netlink::links)?;
    let link = links.into_iter().find(|link| link.name == name);
    Ok(link.with_context(|| format!("no interface {name}"))?.index)
}
