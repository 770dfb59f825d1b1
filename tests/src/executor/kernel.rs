//! The loaded program, run on frames by BPF_PROG_TEST_RUN.

use std::{
    collections::HashMap,
    hint, io, mem,
    net::IpAddr,
    slice,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{TestRun as _, TestRunOptions, programs::Xdp};
use aya_obj::programs::XdpAttachType;
use dataplane_user::{Binding, Flow, netlink, rule::RuleSet};

use super::Rig;
use crate::scenario::{Executor, Exit, Seen};

/// Frames shorter than this are not accepted by the kernel's test run.
pub const SHORTEST: usize = 14;

/// The program in the kernel, without its interfaces.
#[derive(Debug)]
pub struct Kernel {
    /// The host that it is attached to.
    pub rig: Rig,
    program: Xdp,
    interfaces: HashMap<String, u32>,
}

impl Kernel {
    /// Loads and attaches the program.
    pub fn new() -> Result<Self> {
        Self::on(Rig::new()?)
    }

    /// The same, where UEs may be behind tunnels.
    pub fn mobile() -> Result<Self> {
        Self::on(Rig::mobile()?)
    }

    /// The same on a host that is there.
    pub fn on(rig: Rig) -> Result<Self> {
        let info = rig.program()?;
        let program = Xdp::from_program_info(info, "steer".into(), XdpAttachType::Interface)?;
        let links = rig.bench.host.enter(netlink::links)?;
        Ok(Self {
            rig,
            program,
            interfaces: links
                .into_iter()
                .map(|link| (link.name, link.index))
                .collect(),
        })
    }

    /// The host, and a way for frames in, for threads in its namespace.
    pub fn parts(&mut self) -> (&mut Rig, Shooter<'_>) {
        let Self {
            rig,
            program,
            interfaces,
        } = self;
        (
            rig,
            Shooter {
                program,
                interfaces,
            },
        )
    }

    /// Lets frames arrive on two CPUs at the same time, pair by pair.
    pub fn arrive_together(&self, port: [&str; 2], pairs: &[[Vec<u8>; 2]]) -> Result<()> {
        let arrived = AtomicUsize::new(0);
        let (program, arrived) = (&self.program, &arrived);
        let sides = [0, 1].map(|side| (side, self.interfaces[port[side]]));
        let run = |(side, interface): (usize, u32)| -> Result<()> {
            pin(side)?;
            for (number, pair) in pairs.iter().enumerate() {
                arrived.fetch_add(1, Ordering::SeqCst);
                while arrived.load(Ordering::SeqCst) < 2 * (number + 1) {
                    hint::spin_loop();
                }
                test_run(program, interface, &pair[side])?;
            }
            Ok(())
        };
        self.rig.bench.host.enter(|| {
            thread::scope(|scope| {
                let other = scope.spawn(|| run(sides[1]));
                run(sides[0])?;
                other.join().expect("it does not panic")
            })
        })
    }
}

/// Runs the program on frames, beside whatever else happens to its host.
#[derive(Clone, Copy, Debug)]
pub struct Shooter<'a> {
    program: &'a Xdp,
    interfaces: &'a HashMap<String, u32>,
}

impl Shooter<'_> {
    /// Lets a frame arrive on this thread's CPU. Answers whether it was redirected.
    pub fn shoot(&self, port: &str, frame: &[u8]) -> Result<bool> {
        const XDP_REDIRECT: u32 = 4;
        let (action, _) = test_run(self.program, self.interfaces[port], frame)?;
        Ok(action == XDP_REDIRECT)
    }
}

/// Keeps the thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    // SAFETY: all zeros is an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is initialized, and there are not that many CPUs.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the pointer and the length are of one set.
    let done = unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) };
    ensure!(done == 0, "CPU {cpu}: {}", io::Error::last_os_error());
    Ok(())
}

impl Executor for Kernel {
    fn prepare(&mut self, rules: &RuleSet) -> Result<()> {
        self.rig.prepare(rules)
    }

    fn change(&mut self, rules: &RuleSet) -> Result<()> {
        self.rig.change(rules)
    }

    fn provision(&mut self, binding: &Binding) -> Result<()> {
        Ok(self.rig.dataplane.provision(slice::from_ref(binding))?)
    }

    fn withdraw(&mut self, zone: u16, ue: IpAddr) -> Result<()> {
        let withdrawn = self.rig.dataplane.withdraw(&[(zone, ue)]);
        ensure!(withdrawn == 1, "no session of {ue}");
        Ok(())
    }

    fn arrive(&mut self, port: &str, frame: &[u8]) -> Result<Seen> {
        let before = self.rig.counters(port);
        let interface = self.interfaces.get(port).copied();
        let interface = interface.with_context(|| format!("no interface {port}"))?;
        let program = &self.program;
        let run = || test_run(program, interface, frame);
        let (action, frame) = self.rig.bench.host.enter(run)?;
        let out = match action {
            1 => vec![],
            2 => vec![(Exit::Kernel, frame)],
            4 => vec![(Exit::Port(None), frame)],
            other => bail!("XDP action {other}"),
        };
        Ok(Seen {
            out,
            ..self.rig.counters(port).since(&before)
        })
    }

    fn flows(&self) -> Vec<Flow> {
        self.rig.dataplane.flows()
    }
}

/// Runs the program on a frame that comes by an interface: its action, and the frame afterwards.
fn test_run(program: &Xdp, interface: u32, frame: &[u8]) -> Result<(u32, Vec<u8>)> {
    let mut context = [0u8; 24];
    let mut set = |field: usize, value: u32| {
        context[field * 4..field * 4 + 4].copy_from_slice(&value.to_ne_bytes());
    };
    // Of struct xdp_md: data_end and ingress_ifindex.
    set(1, frame.len() as u32);
    set(3, interface);
    let mut out = vec![0; frame.len() + 256];
    let result = program.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(&context),
        ..TestRunOptions::default()
    })?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}
