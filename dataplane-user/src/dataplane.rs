//! The data path of a host, in one handle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::IpAddr,
    path::Path,
    time::SystemTime,
};

use aya::{
    Ebpf, TestRun as _, TestRunOptions,
    maps::{Array, DevMap, MapData},
};
use dataplane_core::{
    Reason,
    table::{FlowRef, INTERFACES, PORTS, Port},
};

use crate::{
    Error, Flow, Limits, Mode, Options, PortConfig, PortStatus,
    clock::Clock,
    flows::{Context, Entry, Flows},
    install::{HopAddress, Rules},
    memory::{self, Memory},
    netlink,
    ports::{self, View, mac_of},
    program::{self, Found, Pins},
    rule::{Action, EndpointAddress, Mac, RuleId, RuleSet},
};

/// The programs on the ports of this host, and the tables they look in.
///
/// Dropping it changes nothing for packets: the programs and tables stay until [`Self::detach`].
pub struct Dataplane {
    options: Options,
    limits: Limits,
    pins: Pins,
    cpus: u32,
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
    clock: Clock,
    slots: Array<MapData, u32>,
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

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => {
                let (name, interface) = (&port.config.name, &port.config.interface);
                match (port.mode, &port.reason) {
                    (Mode::Native, _) => write!(formatter, "port {name} ({interface}) is up"),
                    (Mode::Generic, _) => {
                        write!(
                            formatter,
                            "port {name} ({interface}) is up, in the slower generic mode"
                        )
                    }
                    (Mode::Down, None) => write!(formatter, "port {name} ({interface}) is down"),
                    (Mode::Down, Some(reason)) => {
                        write!(formatter, "port {name} is down: {reason}")
                    }
                }
            }
            Self::NextHop(hop) => match &hop.resolved {
                Some((port, mac)) => {
                    write!(formatter, "next hop {} is {mac} on {port}", hop.address)
                }
                None => write!(formatter, "next hop {} is lost", hop.address),
            },
        }
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

/// The state of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The number of the rule set in force.
    pub epoch: u32,
    /// Whether this process found the data path running.
    pub adopted: bool,
    /// How full each table is.
    pub pressure: Vec<Pressure>,
    /// Instructions that the kernel's verifier looked at.
    pub verified_instructions: u32,
    /// Bytes of the program, as loaded.
    pub program_bytes: u32,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// The table.
    pub name: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries there is room for.
    pub max: u64,
}

/// What was counted of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCounter {
    /// The port that packets came by.
    pub port: String,
    /// Why they ended as they did.
    pub reason: Reason,
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer header included.
    pub bytes: u64,
}

/// What a port sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentCounter {
    /// The port that packets left by.
    pub port: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, as they came in.
    pub bytes: u64,
}

/// What was counted of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCounter {
    /// The rule.
    pub id: RuleId,
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
    /// When the last one came.
    pub last_hit: Option<SystemTime>,
}

/// What would become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// Why it would end as it does.
    pub reason: Reason,
    /// The rule it comes under.
    pub rule: Option<RuleId>,
    /// The flow it belongs to, as it is now.
    pub flow: Option<Flow>,
    /// Where it would go: `pass`, `drop` or `redirect`.
    pub action: &'static str,
    /// The port it would leave by.
    pub target_port: Option<String>,
    /// The packet as it would be then.
    pub frame_out: Vec<u8>,
}

/// Where packets for an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The address in the rule.
    pub address: IpAddr,
    /// The port in the rule.
    pub port: Option<String>,
    /// The port and the MAC address, once the kernel knows them.
    pub resolved: Option<(String, Mac)>,
}

/// Something that is different from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A port came, went, or runs in another mode.
    Port(PortStatus),
    /// A next hop was found or lost.
    NextHop(NextHop),
}

impl Dataplane {
    /// Loads the program and attaches it to the ports, or takes over what an earlier process left.
    pub fn open(options: Options) -> Result<Self, Error> {
        ports::check(&options.ports)?;
        let cpus = possible_cpus()?;
        options.limits.check(cpus)?;
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
        let failed = |error: &dyn std::error::Error| Error::kernel("cannot use the maps", error);
        let mut steer = pins.load(&limits, cpus, false)?;
        let mut explain = pins.load(&limits, cpus, true)?;
        let memory = Memory::map(&steer)?;
        let take = |ebpf: &mut Ebpf, name| {
            ebpf.take_map(name)
                .ok_or_else(|| Error::Options(format!("the object has no map {name}")))
        };
        let slots = Array::try_from(take(&mut steer, "SLOTS")?).map_err(|error| failed(&error))?;
        let port_table =
            Array::try_from(take(&mut steer, "PORTS")?).map_err(|error| failed(&error))?;
        let devices =
            DevMap::try_from(take(&mut steer, "DEVICES")?).map_err(|error| failed(&error))?;
        let keys = aya::maps::HashMap::try_from(take(&mut steer, "FLOWS")?)
            .map_err(|error| failed(&error))?;
        let free = aya::maps::Stack::try_from(take(&mut steer, "FREE")?)
            .map_err(|error| failed(&error))?;
        let records = memory::table(&steer, "RECORDS")?;
        let mut flows = Flows::new(records, keys, free);
        if !adopted {
            flows.fill().map_err(|error| failed(&error))?;
            pins.seal()?;
        }
        let splits = memory::table(&steer, "SPLITS")?;
        let filters = memory::table(&steer, "FILTERS")?;
        let rules = Rules::new(splits, filters, &memory, limits, cpus);
        let clock = Clock::new(&mut || jiffies(&mut explain, &memory))?;
        let mut dataplane = Self {
            options: options.clone(),
            limits,
            pins: pins.clone(),
            cpus,
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
            clock,
            slots,
            port_table,
            devices,
            steer,
            explain,
        };
        dataplane
            .pins
            .pin_program(program::xdp(&mut dataplane.steer)?)?;
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
        self.look_up(wanted)?;
        let copies = wanted
            .iter()
            .any(|rule| matches!(rule.action, Action::Duplicate { .. }));
        if copies {
            self.attach_copies()?;
        }
        let Self {
            rules,
            memory,
            ports,
            neighbors,
            routes,
            flows,
            ..
        } = self;
        let view = View {
            ports,
            neighbors,
            routes,
        };
        let applied = rules.apply(memory, wanted, &view, grace)?;
        flows.orphan(&rules.released());
        if !copies {
            self.detach_copies();
        }
        Ok(applied)
    }

    /// The state of the data path.
    pub fn status(&self) -> Status {
        let info = self
            .steer
            .program("steer")
            .and_then(|program| program.info().ok());
        let mut pressure: Vec<_> = self.rules.pressure();
        pressure.push(("flows", self.flows.used(), self.limits.flows as usize));
        let pressure = pressure.into_iter().map(|(name, used, max)| Pressure {
            name,
            used: used as u64,
            max: max as u64,
        });
        Status {
            epoch: self.memory.image().epoch,
            adopted: self.adopted,
            pressure: pressure.collect(),
            verified_instructions: info
                .as_ref()
                .and_then(aya::programs::ProgramInfo::verified_instruction_count)
                .unwrap_or(0),
            program_bytes: info
                .as_ref()
                .and_then(aya::programs::ProgramInfo::size_translated)
                .unwrap_or(0),
        }
    }

    /// The ports.
    pub fn ports(&self) -> Vec<PortStatus> {
        self.ports.clone()
    }

    /// Packets by the port they came by and the reason they ended for.
    pub fn port_counters(&self) -> Vec<PortCounter> {
        let reasons = Reason::ALL.len();
        let mut counters = Vec::with_capacity(self.ports.len() * reasons);
        for port in &self.ports {
            for reason in Reason::ALL {
                let at = |cpu| {
                    (cpu * PORTS as usize + usize::from(port.slot)) * reasons + *reason as usize
                };
                let (packets, bytes) = self.memory.sum(&self.memory.counts, self.cpus, at);
                counters.push(PortCounter {
                    port: port.config.name.clone(),
                    reason: *reason,
                    packets,
                    bytes,
                });
            }
        }
        counters
    }

    /// Packets by the port they left by.
    pub fn sent_counters(&self) -> Vec<SentCounter> {
        let counter = |port: &PortStatus| {
            let at = |cpu| cpu * PORTS as usize + usize::from(port.slot);
            let (packets, bytes) = self.memory.sum(&self.memory.sent, self.cpus, at);
            SentCounter {
                port: port.config.name.clone(),
                packets,
                bytes,
            }
        };
        self.ports.iter().map(counter).collect()
    }

    /// Packets by rule.
    pub fn rule_counters(&self) -> Vec<RuleCounter> {
        let counter = |(id, packets, bytes, last): (&RuleId, u64, u64, u64)| RuleCounter {
            id: id.clone(),
            packets,
            bytes,
            last_hit: (last != 0).then(|| self.clock.time(last)),
        };
        self.rules.counters(&self.memory).map(counter).collect()
    }

    /// All flows.
    pub fn flows(&self) -> Vec<Flow> {
        self.flows.snapshot(&self.context())
    }

    /// Forgets flows that are over, and answers what was counted of them. To be called about every second.
    pub fn expire(&mut self) -> Vec<Flow> {
        match jiffies(&mut self.explain, &self.memory) {
            Ok(jiffies) => self.clock.set(jiffies),
            Err(error) => tracing::warn!(%error, "the clock runs on by itself"),
        }
        self.rules.reclaim(&self.memory, false);
        self.flows.orphan(&self.rules.released());
        let context = Context {
            clock: &self.clock,
            ports: names(&self.ports),
            rules: self.rules.by_slot(),
        };
        self.flows.expire(&self.options.timeouts, &context, grace)
    }

    /// Runs the program on a frame, as if it came by `port`, without any traffic and without a trace.
    pub fn explain(&mut self, port: &str, frame: &[u8]) -> Result<Explanation, Error> {
        let ifindex = self
            .ports
            .iter()
            .find(|it| it.config.name == port && it.mode != Mode::Down);
        let ifindex = ifindex
            .and_then(|port| port.ifindex)
            .ok_or_else(|| Error::NoPort(port.to_owned()))?;
        let (action, frame_out) = test_run(&mut self.explain, ifindex, frame)?;
        let found = self
            .memory
            .explanation
            .get(0)
            .ok_or_else(|| Error::NoPort(port.to_owned()))?;
        let reason = Reason::ALL
            .get(found.reason.get() as usize)
            .copied()
            .unwrap_or(Reason::NoRule);
        let cell = (found.action.get() as u32).checked_sub(1);
        let taken = cell.and_then(|cell| self.memory.actions.get(cell as usize));
        let flow = found.flow.get().checked_sub(1).map(FlowRef::from);
        let sent = (found.sent.get() as u16).checked_sub(1);
        let context = self.context();
        Ok(Explanation {
            reason,
            rule: taken.and_then(|it| context.rules.get(&it.rule).map(|rule| rule.id.clone())),
            flow: flow.and_then(|flow| self.flows.get(flow, &context)),
            action: match action {
                1 => "drop",
                2 => "pass",
                4 => "redirect",
                _ => "aborted",
            },
            target_port: match (action, sent) {
                (4, None) => Some(port.to_owned()),
                _ => sent.and_then(|slot| context.ports.get(&slot).cloned()),
            },
            frame_out,
        })
    }

    /// The next hops that rules in force need.
    pub fn next_hops(&self) -> Vec<NextHop> {
        let names = names(&self.ports);
        self.rules
            .next_hops()
            .filter_map(|(key, hop)| next_hop(key, hop, &names))
            .collect()
    }

    /// Looks at interfaces, neighbors and routes again, and follows what has changed. To be called when the
    /// kernel reports a change, and every few seconds.
    pub fn refresh(&mut self) -> Result<Vec<Change>, Error> {
        let links = netlink::links()?;
        self.let_go(&links)?;
        let mut changes = Vec::new();
        for at in 0..self.ports.len() {
            if self.follow(at, &links)? {
                changes.push(Change::Port(self.ports[at].clone()));
            }
        }
        if self.copying
            && (self.copies_due || !changes.is_empty())
            && let Err(error) = self.attach_copies()
        {
            tracing::warn!(%error, "packets are not copied on every port");
        }
        let addresses: Vec<(IpAddr, Option<String>)> = self
            .rules
            .next_hops()
            .filter_map(|(key, _)| match key.address {
                HopAddress::Ip(address) => Some((address, key.port.clone())),
                HopAddress::Mac(_) => None,
            })
            .collect();
        self.watch(&addresses)?;
        let Self {
            rules,
            memory,
            ports,
            neighbors,
            routes,
            ..
        } = self;
        let view = View {
            ports,
            neighbors,
            routes,
        };
        let moved = rules.resolve(memory, &view);
        let names = names(ports);
        let moved = rules.next_hops().filter(|(key, _)| moved.contains(key));
        changes.extend(
            moved.filter_map(|(key, hop)| Some(Change::NextHop(next_hop(key, hop, &names)?))),
        );
        Ok(changes)
    }

    /// Removes programs and tables: steering stops. Answers what was removed.
    pub fn detach(pin_directory: &Path) -> Result<Vec<String>, Error> {
        Pins::new(pin_directory).remove()
    }

    /// Has copies made of the packets of all ports.
    fn attach_copies(&mut self) -> Result<(), Error> {
        self.copies_due = true;
        let copies = self.pins.copies();
        for port in self.ports.iter().filter(|port| port.mode != Mode::Down) {
            let PortConfig {
                name, interface, ..
            } = &port.config;
            let ifindex = port.ifindex.unwrap_or_default();
            copies.attach(&mut self.explain, name, (interface, ifindex))?;
        }
        self.copying = true;
        self.copies_due = false;
        Ok(())
    }

    fn detach_copies(&mut self) {
        let names = self.ports.iter().map(|port| port.config.name.as_str());
        if let Err(error) = self.pins.copies().detach(&names.collect::<Vec<_>>()) {
            tracing::warn!(%error, "cannot detach the program that makes copies");
        }
        self.copying = false;
    }

    fn context(&self) -> Context<'_> {
        Context {
            clock: &self.clock,
            ports: names(&self.ports),
            rules: self.rules.by_slot(),
        }
    }

    /// Looks up where the rules' destinations are, before they are needed.
    fn look_up(&mut self, wanted: &RuleSet) -> Result<(), Error> {
        let mut addresses = BTreeSet::new();
        for rule in wanted.iter() {
            let endpoints = rule
                .action
                .destination()
                .into_iter()
                .flat_map(|it| it.endpoints());
            for endpoint in endpoints {
                if let EndpointAddress::Ip { address, .. } = endpoint.address {
                    addresses.insert((address, endpoint.port.as_ref()));
                }
            }
        }
        let addresses: Vec<_> = addresses
            .into_iter()
            .map(|(address, port)| (address, port.cloned()))
            .collect();
        // What is known is kept up to date by refreshing.
        if addresses.iter().all(|it| self.watched.contains(it)) {
            return Ok(());
        }
        self.watch(&addresses)
    }

    /// Learns routes to addresses and has the kernel resolve them, then reads all neighbors.
    fn watch(&mut self, addresses: &[(IpAddr, Option<String>)]) -> Result<(), Error> {
        self.routes.clear();
        self.watched = addresses.iter().cloned().collect();
        for (address, port) in addresses {
            match netlink::route(*address) {
                Ok(Some(route)) => _ = self.routes.insert(*address, route),
                Ok(None) => {}
                Err(error) => tracing::warn!(%address, %error, "cannot look up the route"),
            }
            let port = port
                .as_ref()
                .and_then(|name| self.ports.iter().find(|it| it.config.name == *name));
            let hop = ports::next_hop(port, *address, &self.routes);
            if let Some((ifindex, neighbor)) = hop
                && self.ports.iter().any(|port| port.ifindex == Some(ifindex))
                && let Err(error) = netlink::manage_neighbor(ifindex, neighbor)
            {
                // The kernel may still resolve it when something else asks; until then it is unresolved.
                tracing::debug!(%neighbor, ifindex, %error, "cannot keep the neighbor resolved");
            }
        }
        self.neighbors = netlink::neighbors()?;
        Ok(())
    }

    /// Takes programs off interfaces, and these out of the tables, that are not those of ports any more. For
    /// all ports before the first is followed: one may have got what another had.
    fn let_go(&mut self, links: &[netlink::Link]) -> Result<(), Error> {
        let index = |port: &PortStatus| {
            let link = links.iter().find(|it| it.name == port.config.interface);
            link.map(|link| link.index)
        };
        let now: Vec<_> = self
            .ports
            .iter()
            .map(|port| (port.config.name.as_str(), index(port)))
            .collect();
        let interfaces: Vec<u32> = now.iter().filter_map(|(_, ifindex)| *ifindex).collect();
        let pruned = self.pins.links().prune(&now);
        pruned
            .and_then(|()| self.pins.copies().prune(&interfaces))
            .map_err(|error| Error::kernel("cannot detach programs from old interfaces", &error))?;
        let failed = |error| Error::kernel("cannot take an interface out of the tables", &error);
        for slot in 0..PORTS {
            let Entry(port) = self.port_table.get(&slot, 0).map_err(failed)?;
            let is_now =
                |it: &PortStatus| u32::from(it.slot) == slot && index(it) == Some(port.ifindex);
            if port.ifindex == 0 || self.ports.iter().any(is_now) {
                continue;
            }
            let gone = Port {
                present: 0,
                ifindex: 0,
                ..port
            };
            let set = self.port_table.set(slot, Entry(gone), 0);
            set.map_err(failed)?;
            if self
                .slots
                .get(&port.ifindex, 0)
                .is_ok_and(|it| it == slot + 1)
            {
                self.set_slot(port.ifindex, 0)?;
            }
        }
        Ok(())
    }

    /// Makes one port what its interface is now. Answers whether that is something new.
    fn follow(&mut self, at: usize, links: &[netlink::Link]) -> Result<bool, Error> {
        let port = &self.ports[at];
        let link = links.iter().find(|link| link.name == port.config.interface);
        let mut now = PortStatus {
            reason: ports::refuse(link, &port.config.interface),
            ifindex: link.map(|link| link.index),
            mac: link.and_then(|link| link.mac).map(Mac::from),
            mtu: link.map_or(0, |link| link.mtu),
            ..port.clone()
        };
        let same = now.ifindex == port.ifindex
            && port.mode != Mode::Down
            && link.is_some_and(|link| {
                let program = link.xdp.map(|xdp| xdp.program);
                program.is_some_and(|it| self.pins.links().hold(&port.config.name, link.index, it))
            });
        if now.reason.is_some() {
            now.mode = Mode::Down;
        } else if let (false, Some(ifindex)) = (same, now.ifindex) {
            // The tables first: the first packet may come the moment the program is attached.
            now.mode = Mode::Native;
            self.enter(&now)?;
            let config = &now.config;
            let attached = self.pins.links().attach(
                program::xdp(&mut self.steer)?,
                (&config.interface, ifindex),
                &config.name,
                config.allow_generic,
            );
            match attached {
                Ok(mode) => now.mode = mode,
                Err(error) => {
                    now.mode = Mode::Down;
                    now.reason = Some(error.to_string());
                }
            }
        }
        let changed = now != self.ports[at];
        if changed || !same {
            self.enter(&now)?;
            self.ports[at] = now;
        }
        Ok(changed)
    }

    /// Writes a port into the tables.
    fn enter(&mut self, port: &PortStatus) -> Result<(), Error> {
        let failed = |error: &dyn std::error::Error| {
            Error::kernel(
                format!("cannot enter port {} into the tables", port.config.name),
                error,
            )
        };
        let pair = port.config.pair.as_ref();
        let pair = pair.and_then(|name| self.ports.iter().find(|it| it.config.name == *name));
        let entry = Entry(port.entry(pair.map(|pair| pair.slot)));
        self.port_table
            .set(port.slot.into(), entry, 0)
            .map_err(|error| failed(&error))?;
        let Some(ifindex) = port.ifindex.filter(|ifindex| *ifindex < INTERFACES) else {
            return Ok(());
        };
        if port.mode == Mode::Down {
            return self.set_slot(ifindex, 0);
        }
        self.devices
            .set(port.slot.into(), ifindex, None, 0)
            .map_err(|error| failed(&error))?;
        self.set_slot(ifindex, u32::from(port.slot) + 1)
    }

    fn set_slot(&mut self, ifindex: u32, slot: u32) -> Result<(), Error> {
        if ifindex >= INTERFACES {
            // It never was in the table.
            return Ok(());
        }
        let set = self.slots.set(ifindex, slot, 0);
        set.map_err(|error| Error::kernel("cannot enter an interface into the tables", &error))
    }
}

fn next_hop(
    key: &crate::install::HopKey,
    hop: Option<dataplane_core::table::Hop>,
    names: &BTreeMap<u16, String>,
) -> Option<NextHop> {
    let HopAddress::Ip(address) = key.address else {
        return None;
    };
    Some(NextHop {
        address,
        port: key.port.clone(),
        resolved: hop.and_then(|hop| Some((names.get(&hop.slot)?.clone(), mac_of(hop.mac)))),
    })
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

fn possible_cpus() -> Result<u32, Error> {
    let cpus = aya::util::nr_cpus();
    cpus.map(|cpus| cpus as u32)
        .map_err(|(file, error)| Error::kernel(format!("cannot read {file}"), &error))
}

/// Runs the program on a frame. Answers the XDP action and the frame afterwards.
fn test_run(ebpf: &mut Ebpf, ifindex: u32, frame: &[u8]) -> Result<(u32, Vec<u8>), Error> {
    if frame.len() < 14 {
        return Err(Error::ShortFrame(frame.len()));
    }
    // `struct xdp_md`: where the data ends, and the interface it came by.
    let mut context = [0u32; 6];
    context[1] = frame.len() as u32;
    context[3] = ifindex;
    let mut out = vec![0; frame.len() + 256];
    let result = program::xdp(ebpf)?.test_run(TestRunOptions {
        data_in: Some(frame),
        data_out: Some(&mut out),
        ctx_in: Some(zerocopy::IntoBytes::as_bytes(&context)),
        ..TestRunOptions::default()
    });
    let result =
        result.map_err(|error| Error::kernel("cannot run the program on the frame", &error))?;
    out.truncate(result.data_size_out as usize);
    Ok((result.return_value, out))
}

/// The kernel's jiffies.
fn jiffies(ebpf: &mut Ebpf, memory: &Memory) -> Result<u64, Error> {
    // Loopback is no port, so the program only notes the time.
    test_run(ebpf, 0, &[0; 14])?;
    let missing = || {
        Error::kernel(
            "cannot read the time",
            &io::Error::from(io::ErrorKind::NotFound),
        )
    };
    memory
        .explanation
        .get(0)
        .map(|found| found.now.get())
        .ok_or_else(missing)
}
