//! The program, loaded and attached to the ports of the test world.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{HashMap, Map, MapData},
    programs::{ProgramInfo, loaded_programs},
};
use dataplane_core::{Reason, table::AffinityKey};
use dataplane_user::{
    Dataplane, Limits, Options, PortConfig, Role, Timeouts,
    netlink::{self, Link},
    rule::{RuleId, RuleSet},
};

use crate::{lab::Bench, scenario::Seen, world};

/// A host with the ports of [`world::World`], steered by a [`Dataplane`] of its own.
#[derive(Debug)]
pub struct Rig {
    /// The ports and their far ends.
    pub bench: Bench,
    /// The data plane; its methods are to be called inside `bench.host`.
    pub dataplane: Dataplane,
    options: Options,
}

impl Rig {
    /// Makes the ports, loads the program and attaches it.
    pub fn new() -> Result<Self> {
        Self::with_limits(Limits::default())
    }

    /// The same, with tables of these sizes.
    pub fn with_limits(limits: Limits) -> Result<Self> {
        Self::with(limits, no_patience())
    }

    /// The same, where flows are forgotten after these times.
    pub fn with(limits: Limits, timeouts: Timeouts) -> Result<Self> {
        Self::make(limits, timeouts, false)
    }

    /// The same, where UEs may be behind tunnels.
    pub fn mobile() -> Result<Self> {
        Self::mobile_with(Limits::default())
    }

    /// The same, with tables of these sizes.
    pub fn mobile_with(limits: Limits) -> Result<Self> {
        Self::make(limits, no_patience(), true)
    }

    fn make(limits: Limits, timeouts: Timeouts, tunnels: bool) -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers()?;
        let world = world::World::new();
        let names: Vec<&str> = world.ports.iter().map(|port| port.name).collect();
        let bench = Bench::new(&names)?;
        dress(&bench, &world)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pins = PathBuf::from(format!("{PINS}{}-{number}", process::id()));
        let options = Options {
            pin_directory: pins,
            ports: world
                .ports
                .iter()
                .map(|port| configuration(port, tunnels))
                .collect(),
            limits,
            timeouts,
            gtpu: world::gtpu(),
            peers: if tunnels { world::peers() } else { Vec::new() },
        };
        let dataplane = bench
            .host
            .enter(|| Dataplane::open(options.clone()))
            .context("cannot load and attach")?;
        Ok(Self {
            bench,
            dataplane,
            options,
        })
    }

    /// Where programs and maps are pinned.
    pub fn pins(&self) -> &Path {
        &self.options.pin_directory
    }

    /// Takes the data plane over, as a new process would.
    pub fn restart(&mut self) -> Result<()> {
        let open = || Dataplane::open(self.options.clone());
        self.dataplane = self.bench.host.enter(open)?;
        Ok(())
    }

    /// Puts rules in force and forgets all flows, and which backends UEs were given.
    pub fn prepare(&mut self, rules: &RuleSet) -> Result<()> {
        self.forget()?;
        self.forget_affinities()?;
        self.change(rules)
    }

    fn forget_affinities(&self) -> Result<()> {
        let map = MapData::from_pin(self.pins().join("AFFINITIES"))?;
        let map = Map::from_map_data(map)?;
        let mut map = HashMap::<_, [u8; size_of::<AffinityKey>()], u64>::try_from(map)?;
        let keys: Vec<_> = map.keys().collect::<Result<_, _>>()?;
        Ok(keys.iter().try_for_each(|key| map.remove(key))?)
    }

    /// Forgets all flows.
    pub fn forget(&mut self) -> Result<()> {
        let Self {
            bench, dataplane, ..
        } = self;
        bench.host.enter(|| forget_flows(dataplane))
    }

    /// Puts rules in force.
    pub fn change(&mut self, rules: &RuleSet) -> Result<()> {
        let Self {
            bench, dataplane, ..
        } = self;
        let applied = bench.host.enter(|| dataplane.apply(rules))?;
        ensure!(
            applied.not_installed.is_empty(),
            "{:?}",
            applied.not_installed
        );
        Ok(())
    }

    /// The interface of a port.
    pub fn link(&self, port: &str) -> Result<Link> {
        let links = self.bench.host.enter(netlink::links)?;
        let found = links.into_iter().find(|link| link.name == port);
        found.with_context(|| format!("no interface {port}"))
    }

    /// What the kernel tells of the program on the ports.
    pub fn program(&self) -> Result<ProgramInfo> {
        let id = self
            .link("access0")?
            .xdp
            .context("no program on access0")?
            .program;
        loaded_programs()
            .find_map(|info| info.ok().filter(|info| info.id() == id))
            .context("the program on access0 is gone")
    }

    /// What was counted so far of packets from a port.
    pub fn counters(&self, port: &str) -> Counters {
        let here = self.dataplane.port_counters().into_iter();
        let here = here.filter(|counter| counter.port == port);
        let rules = self.dataplane.rule_counters().into_iter();
        Counters {
            reasons: here
                .map(|counter| (counter.reason, counter.packets))
                .collect(),
            rules: rules.map(|counter| (counter.id, counter.packets)).collect(),
        }
    }
}

/// Packets by reason and by rule.
#[derive(Debug)]
pub struct Counters {
    reasons: std::collections::HashMap<Reason, u64>,
    rules: BTreeMap<RuleId, u64>,
}

impl Counters {
    /// What was counted since `before`, each as often as it was.
    pub fn since(&self, before: &Self) -> Seen {
        let mut seen = Seen::default();
        for reason in Reason::ALL {
            let count = |counters: &Self| counters.reasons.get(reason).copied().unwrap_or(0);
            let more = count(self) - count(before);
            seen.reasons.extend((0..more).map(|_| *reason));
        }
        for (rule, count) in &self.rules {
            let more = count - before.rules.get(rule).copied().unwrap_or(0);
            seen.rules.extend((0..more).map(|_| rule.clone()));
        }
        seen
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // The namespaces go as well, and the next run looks for what is left.
        let _ = Dataplane::detach(self.pins());
        let _ = fs::remove_dir_all(self.pins());
    }
}

/// Where pins of a running test are, followed by its process id.
const PINS: &str = "/sys/fs/bpf/edgesteer-test-";

fn remove_leftovers() -> Result<()> {
    let directory = PINS.rsplit_once('/').map_or("", |(directory, _)| directory);
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let text = path.to_string_lossy().into_owned();
        let maker = text
            .strip_prefix(PINS)
            .and_then(|rest| rest.split('-').next());
        if let Some(Ok(maker)) = maker.map(str::parse::<u32>)
            && !fs::exists(format!("/proc/{maker}"))?
        {
            fs::remove_dir_all(path)?;
        }
    }
    Ok(())
}

fn dress(bench: &Bench, world: &world::World) -> Result<()> {
    let mut batch = String::new();
    for world::Port { name, mac, mtu, .. } in &world.ports {
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        batch += &format!("link set {name} address {mac} mtu {mtu}\n");
    }
    for (address, port, mac) in &world.neighbors {
        let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
        batch += &format!("neigh replace {address} lladdr {mac} dev {port} nud permanent\n");
    }
    for address in world::OWN {
        batch += &format!("addr add {address} dev lo\n");
    }
    bench.host.ip(&batch)
}

fn configuration(port: &world::Port, tunnels: bool) -> PortConfig {
    PortConfig {
        name: port.name.to_owned(),
        interface: port.name.to_owned(),
        role: match port.role {
            world::Role::Access => Role::Access,
            world::Role::Core => Role::Core,
            world::Role::App => Role::App,
        },
        pair: port.pair.map(str::to_owned),
        zone: port.zone,
        gtpu: tunnels,
        mss_clamp: tunnels && port.mss_clamp,
        allow_generic: false,
    }
}

/// Time-outs that make every flow idle at once.
fn no_patience() -> Timeouts {
    Timeouts {
        tcp_established: Duration::ZERO,
        tcp_transitory: Duration::ZERO,
        tcp_closing: Duration::ZERO,
        udp: Duration::ZERO,
        icmp: Duration::ZERO,
        other: Duration::ZERO,
        session: Duration::ZERO,
    }
}

fn forget_flows(dataplane: &mut Dataplane) -> Result<()> {
    dataplane.reprovision(&[])?;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        dataplane.expire();
        if dataplane.flows().is_empty() && dataplane.sessions().is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "flows do not expire");
        // The clock that flows are timed by ticks every few milliseconds.
        thread::sleep(Duration::from_millis(5));
    }
}
