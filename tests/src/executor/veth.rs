//! Frames sent to real interfaces and caught where they come out.

use std::{
    net::IpAddr,
    slice, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dataplane_core::Reason;
use dataplane_user::{Binding, Flow, rule::RuleSet};

use super::Rig;
use crate::{
    lab::RawSocket,
    scenario::{Executor, Exit, Seen},
    world::World,
};

/// How long a frame may take to be counted, and to come out.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it is waited for frames that should not come.
const QUIET: Duration = Duration::from_millis(4);
/// EtherType of ARP, by which the kernel looks for unresolved next hops.
const ARP: [u8; 2] = [8, 6];

/// The program on its interfaces.
#[derive(Debug)]
pub struct Veth {
    /// The host that it is attached to.
    pub rig: Rig,
    far: Vec<(&'static str, RawSocket)>,
    near: Vec<RawSocket>,
}

impl Veth {
    /// Loads and attaches the program, and listens everywhere.
    pub fn new() -> Result<Self> {
        Self::on(Rig::new()?)
    }

    /// The same, where UEs may be behind tunnels.
    pub fn mobile() -> Result<Self> {
        Self::on(Rig::mobile()?)
    }

    fn on(rig: Rig) -> Result<Self> {
        let world = World::new();
        let (mut far, mut near) = (Vec::new(), Vec::new());
        for port in &world.ports {
            far.push((port.name, rig.bench.socket(port.name)?));
            near.push(RawSocket::open(&rig.bench.host, port.name)?);
        }
        Ok(Self { rig, far, near })
    }

    /// How many frames come out at least of one that came by `port` and was counted like this.
    fn due(&self, port: &str, seen: &Seen) -> usize {
        match seen.reasons[..] {
            // The kernel's, the copy, and the original on the other end of the wire.
            [Reason::Duplicated] => 2 + usize::from(World::new().port(port).pair.is_some()),
            [
                Reason::RuleDrop
                | Reason::DownlinkPending
                | Reason::CopyReply
                | Reason::NoHeadroom
                | Reason::MtuExceededUntold,
            ] => 0,
            [reason] if reason.is_malformed() => 0,
            _ => 1,
        }
    }

    fn collect(&self) -> Result<Vec<(Exit, Vec<u8>)>> {
        let far = self
            .far
            .iter()
            .map(|(name, socket)| (Exit::Port(Some((*name).to_owned())), socket));
        let near = self.near.iter().map(|socket| (Exit::Kernel, socket));
        let mut out = Vec::new();
        for (exit, socket) in far.chain(near) {
            for frame in socket.drain(Duration::ZERO)? {
                out.push((exit.clone(), frame));
            }
        }
        Ok(out)
    }
}

impl Executor for Veth {
    fn prepare(&mut self, rules: &RuleSet) -> Result<()> {
        self.rig.prepare(rules)?;
        self.collect()?;
        Ok(())
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
        for (name, socket) in &self.far {
            if *name == port {
                socket.send(frame)?;
            }
        }
        let sent = Instant::now();
        let counted = || self.rig.counters(port).since(&before);
        while counted().reasons.is_empty() {
            ensure!(sent.elapsed() < PATIENCE, "the frame was not counted");
        }
        let mut out = Vec::new();
        while out.len() < self.due(port, &counted()) && sent.elapsed() < PATIENCE {
            out.extend(self.collect()?);
        }
        thread::sleep(QUIET);
        out.extend(self.collect()?);
        let Seen { reasons, rules, .. } = counted();
        let asking = |frame: &[u8]| frame.get(12..14) == Some(&ARP);
        out.retain(|(exit, out)| *exit == Exit::Kernel || !asking(out) || asking(frame));
        if reasons == [Reason::Duplicated] && World::new().port(port).pair.is_some() {
            // The kernel gets the original before traffic control copies it and sends it on.
            out.retain(|(exit, _)| *exit != Exit::Kernel);
        }
        Ok(Seen {
            reasons,
            rules,
            out,
        })
    }

    fn flows(&self) -> Vec<Flow> {
        self.rig.dataplane.flows()
    }

    fn copies(&self) -> bool {
        true
    }
}
