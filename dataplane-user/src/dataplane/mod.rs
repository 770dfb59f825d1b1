//! The data path of a host, in one handle.

mod attach;
mod changes;
mod counters;
mod explain;
mod provision;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    path::Path,
    sync::mpsc,
};

use aya::{
    Ebpf,
    maps::{Array, DevMap, MapData},
};
use dataplane_core::table::{Port, RuleAction, flag};

use self::explain::jiffies;
pub use self::{
    changes::{Change, NextHop},
    counters::{
        BackendCounter, FlowCache, PortCounter, Pressure, RuleCounter, SentCounter, Status,
    },
    explain::Explanation,
};
use crate::{
    Error, Expired, Flow, FlowFilter, Limits, Mode, Options, PortStatus,
    clock::Clock,
    ended::Ended,
    flows::{Context, Entry, Flows},
    install::Rules,
    memory::{self, Memory},
    netlink,
    openings::Openings,
    options::possible_cpus,
    ports::{self, View},
    program::{self, Found, Pins},
    records,
    rule::{RuleId, RuleSet},
    sessions::{self, Sessions},
};

/// The programs on the ports of this host, and the tables they look in.
///
/// Dropping it changes nothing for packets: the programs and tables stay until [`Self::detach`].
pub struct Dataplane {
    options: Options,
    limits: Limits,
    names: program::Names,
    pins: Pins,
    adopted: bool,
    /// Whether some rule asks for copies.
    copying: bool,
    /// Whether some port is still without the program that makes them.
    copies_due: bool,
    ports: Vec<PortStatus>,
    /// Addresses that are looked after, each with the port it is said to be behind.
    watched: BTreeSet<(IpAddr, Option<String>)>,
    routes: BTreeMap<IpAddr, netlink::Route>,
    neighbors: Vec<netlink::Neighbor>,
    memory: Memory,
    rules: Rules,
    flows: Flows,
    sessions: Sessions,
    openings: Openings,
    ended: Ended,
    /// Flows that were forgotten before their time.
    evicted: u64,
    clock: Clock,
    port_table: Array<MapData, Entry<Port>>,
    devices: DevMap<MapData>,
    steer: Ebpf,
    explain: Ebpf,
}

impl fmt::Debug for Dataplane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            options,
            limits,
            adopted,
            ports,
            ..
        } = self;
        let mut shown = formatter.debug_struct("Dataplane");
        shown.field("options", options).field("limits", limits);
        shown
            .field("adopted", adopted)
            .field("ports", ports)
            .finish_non_exhaustive()
    }
}

/// What a transaction changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The number of the rule set now in force.
    pub epoch: u32,
    /// New rules.
    pub added: usize,
    /// Rules that were there and are different now.
    pub changed: usize,
    /// Rules that are gone.
    pub removed: usize,
    /// Rules left out, each with the reason.
    pub not_installed: BTreeMap<RuleId, String>,
}

impl Dataplane {
    /// Loads the program and attaches it to the ports, or takes over what an earlier process left.
    pub fn open(options: Options) -> Result<Self, Error> {
        options.check()?;
        let cpus = possible_cpus()?;
        let pins = Pins::new(&options.pin_directory);
        let (limits, adopted) = match pins.examine(cpus)? {
            Found::Nothing => (options.limits, false),
            Found::State(limits) => (limits, true),
        };
        let opened = pins.slots(&options.ports).and_then(|slots| {
            Self::load(
                &pins,
                limits,
                cpus,
                adopted,
                &options,
                ports::new(&options.ports, &slots),
            )
        });
        if opened.is_err() && !adopted {
            // Nothing was there before; nothing shall be there after. The first error matters.
            let _ = pins.remove();
        }
        opened
    }

    fn load(
        pins: &Pins,
        limits: Limits,
        cpus: u32,
        adopted: bool,
        options: &Options,
        ports: Vec<PortStatus>,
    ) -> Result<Self, Error> {
        let failed =
            |error: &(dyn std::error::Error + 'static)| Error::kernel("cannot use the maps", error);
        let mut steer = pins.load(&limits, cpus)?;
        let mut explain = pins.load(&limits, cpus)?;
        let memory = Memory::map(&steer)?;
        // The rules of an earlier process stay in force until others are.
        let is_tunnel = |action: &RuleAction| action.flags & flag::TUNNEL != 0;
        let tunnels = options.has_tunnels() || memory.actions.iter().any(is_tunnel);
        let names = program::names(tunnels);
        program::ready(&mut steer, names.steer)?;
        program::ready(&mut explain, names.explain)?;
        let port_table =
            Array::try_from(records::take(&mut steer, "PORTS")?).map_err(|error| failed(&error))?;
        let devices = DevMap::try_from(records::take(&mut steer, "DEVICES")?)
            .map_err(|error| failed(&error))?;
        let openings = aya::maps::HashMap::try_from(records::take(&mut steer, "OPENINGS")?)
            .map_err(|error| failed(&error))?;
        // It stays where it is: programs that are loaded later look in it.
        let endpoints = steer
            .map_mut("ENDPOINTS")
            .ok_or_else(|| Error::Options("the object has no map ENDPOINTS".to_owned()))?;
        let mut endpoints = Array::try_from(endpoints).map_err(|error| failed(&error))?;
        let list = Entry(sessions::endpoints(&options.gtpu)?);
        endpoints.set(0, list, 0).map_err(|error| failed(&error))?;
        let sessions = Sessions::take(&mut steer)?;
        let flows = Flows::take(&steer)?;
        if !adopted {
            flows.fill();
            sessions.fill()?;
            pins.seal()?;
        }
        let splits = memory::table(&steer, "SPLITS")?;
        let filters = memory::table(&steer, "FILTERS")?;
        let mut rules = Rules::new(splits, filters, &memory, limits, cpus);
        let clock = Clock::new(&mut || jiffies(&mut explain, names.explain, &memory))?;
        rules.hz = clock.hz() as u32;
        for peer in &options.peers {
            rules.expect(&memory, peer)?;
        }
        let mut dataplane = Self {
            options: options.clone(),
            limits,
            names,
            pins: pins.clone(),
            adopted,
            copying: false,
            copies_due: false,
            ports,
            watched: BTreeSet::new(),
            routes: BTreeMap::new(),
            neighbors: Vec::new(),
            memory,
            rules,
            flows,
            sessions,
            openings: Openings::new(openings),
            ended: Ended::default(),
            evicted: 0,
            clock,
            port_table,
            devices,
            steer,
            explain,
        };
        dataplane
            .pins
            .pin_program(program::xdp(&mut dataplane.steer, names.steer)?)?;
        dataplane.refresh()?;
        // A port that is not there yet may come; one that refuses the program is an error to be seen at once.
        let refused = dataplane
            .ports
            .iter()
            .find(|port| port.ifindex.is_some() && port.mode == Mode::Down);
        if let Some(port) = refused
            && !adopted
        {
            return Err(Error::Options(format!(
                "port {}: {}",
                port.config.name,
                port.reason.as_deref().unwrap_or("not attached")
            )));
        }
        Ok(dataplane)
    }

    /// Puts `wanted` in force in one transaction. An error means that the old rules are in force.
    pub fn apply(&mut self, wanted: &RuleSet) -> Result<Applied, Error> {
        let difference = self.rules.difference(wanted);
        self.look_up(&difference.fresh)?;
        if difference.copies() {
            self.attach_copies()?;
        }
        let tunnels = self.options.has_tunnels() || difference.tunnels;
        if tunnels {
            self.run(program::names(true))?;
        }
        let Self {
            rules,
            memory,
            ports,
            neighbors,
            routes,
            flows,
            openings,
            ..
        } = self;
        let view = View {
            ports,
            neighbors,
            routes,
        };
        let applied = rules.apply(memory, &difference, &view, grace)?;
        flows.part(&rules.released());
        openings.follow(&rules.openings())?;
        if !self.rules.copies() {
            self.detach_copies();
        }
        if !tunnels {
            self.run(program::names(false))?;
        }
        Ok(applied)
    }

    /// The ports.
    pub fn ports(&self) -> Vec<PortStatus> {
        self.ports.clone()
    }

    /// All flows.
    pub fn flows(&self) -> Vec<Flow> {
        self.flows.snapshot(&self.context())
    }

    /// Hands each flow that ends from now on to the receiver, once, with what was counted of it to the last
    /// packet. There is memory for `room` flows that wait; those that find no room are lost, and counted in
    /// [`Status::ended_lost`]. An earlier receiver gets no more.
    pub fn ended(&mut self, room: usize) -> mpsc::Receiver<Flow> {
        self.ended.listen(room)
    }

    /// A part of the flows that are asked for, `limit` at most, from the place that an earlier call answered; and
    /// the place where the next part begins. A flow that is there all the while is in one part. A part may have
    /// less than `limit`, even none, with more to come.
    pub fn find_flows(
        &self,
        filter: &FlowFilter,
        from: u32,
        limit: usize,
    ) -> (Vec<Flow>, Option<u32>) {
        self.flows.page(filter, from, limit, &self.context())
    }

    /// Forgets flows that are over, some thousands at a time. To be called about every second, and at once while
    /// there is more.
    pub fn expire(&mut self) -> Expired {
        match jiffies(&mut self.explain, self.names.explain, &self.memory) {
            Ok(jiffies) => self.clock.set(jiffies),
            Err(error) => tracing::warn!(%error, "the clock runs on by itself"),
        }
        self.rules.reclaim(&self.memory, false);
        self.flows.part(&self.rules.released());
        let context = Context {
            clock: &self.clock,
            ports: names(&self.ports),
            rules: self.rules.by_slot(),
        };
        let ended = &mut self.ended;
        let (expired, packets) = self
            .flows
            .expire(&self.options.timeouts, &context, grace, ended);
        if let Some(state) = self.memory.state.get(0) {
            state.ended.add(packets);
        }
        self.evicted += expired.evicted as u64;
        if !expired.more {
            let used = self.flows.sessions();
            let patience = self.options.timeouts.session;
            let is_used = |id| used.contains(&id);
            self.sessions.expire(patience, &self.clock, is_used, grace);
        }
        expired
    }

    /// Removes programs and tables: steering stops. Answers what was removed.
    pub fn detach(pin_directory: &Path) -> Result<Vec<String>, Error> {
        Pins::new(pin_directory).remove()
    }

    fn context(&self) -> Context<'_> {
        Context {
            clock: &self.clock,
            ports: names(&self.ports),
            rules: self.rules.by_slot(),
        }
    }
}

/// Names of ports by slot.
fn names(ports: &[PortStatus]) -> BTreeMap<u16, String> {
    ports
        .iter()
        .map(|port| (port.slot, port.config.name.clone()))
        .collect()
}

/// Returns when every packet that was under way has come to its end.
fn grace() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;
    // SAFETY: the call takes no pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Kernels with CPUs that take no interrupts have no such call. A packet is under way for microseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
