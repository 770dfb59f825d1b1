//! The core on the host: a packet in memory, and tables in memory.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use dataplane_core::{
    Action,
    packet::Buffer,
    session,
    steer::{self, Scratch},
    table::{Hop, NO_PORT, Port, port},
};
use dataplane_user::{
    Binding, Flow, Role,
    rule::{Endpoint, EndpointAddress, RuleSet},
};

use super::memory::Memory;
use crate::{
    packet::{MacAddress, Packet},
    scenario::{Executor, Exit, Seen},
    world::{self, World},
};

/// The core, with tables of its own.
#[derive(Debug)]
pub struct Host {
    world: World,
    memory: Memory,
}

impl Host {
    /// A host without rules.
    pub fn new() -> Self {
        let world = World::new();
        Self {
            memory: Memory::new(ports(&world)),
            world,
        }
    }
}

impl Host {
    /// While the next packet arrives, who looks for the session of one UE in zone 0 reads which is that of another: the kernel
    /// gives the entries of its tables to other keys while they are looked at.
    pub fn reuse_session(&self, of: &Packet, by: &Packet) {
        self.memory.reuse_session(of.source, by.source);
    }

    /// How often the map of sessions was written to.
    pub fn session_updates(&self) -> u64 {
        self.memory.session_updates.get()
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Executor for Host {
    fn prepare(&mut self, rules: &RuleSet) -> Result<()> {
        self.memory = Memory::new(ports(&self.world));
        for peer in world::peers() {
            self.memory.tables.expect(&peer)?;
        }
        self.change(rules)
    }

    fn change(&mut self, rules: &RuleSet) -> Result<()> {
        let world = &self.world;
        let applied = self.memory.tables.apply(rules, &|address, port| {
            let address = match address {
                EndpointAddress::Ip { address, .. } => EndpointAddress::Ip {
                    address,
                    nat: false,
                    nat_port: None,
                },
                other @ (EndpointAddress::Mac(_) | EndpointAddress::Tunnel(_)) => other,
            };
            let port = port.map(str::to_owned);
            let (port, mac) = world.resolve(&Endpoint { address, port })?;
            Some(Hop {
                mac: number(mac),
                slot: slot(world, port),
            })
        })?;
        ensure!(
            applied.not_installed.is_empty(),
            "{:?}",
            applied.not_installed
        );
        Ok(())
    }

    fn provision(&mut self, binding: &Binding) -> Result<()> {
        let there = session::provision(&self.memory, &binding.words()?);
        ensure!(there.is_some(), "no room for {binding:?}");
        Ok(())
    }

    fn withdraw(&mut self, zone: u16, ue: IpAddr) -> Result<()> {
        let withdrawn = self.memory.withdraw(zone, ue);
        ensure!(withdrawn, "no session of {ue}");
        Ok(())
    }

    fn arrive(&mut self, port: &str, frame: &[u8]) -> Result<Seen> {
        let memory = &self.memory;
        memory.tick();
        let before = memory.rule_packets();
        let mut bytes = vec![0; Buffer::HEADROOM];
        bytes.extend(frame);
        let mut packet = Buffer::new(&mut bytes, Buffer::HEADROOM);
        let interface = u32::from(slot(&self.world, port)) + 1;
        let mut scratch = Scratch::default();
        let verdict = steer::packet(&mut packet, interface, memory, || Some(&mut scratch));
        memory.reused.set(None);
        let frame = packet.bytes().to_vec();
        let out = match verdict.action() {
            Action::Discard => vec![],
            Action::Pass => vec![(Exit::Kernel, frame)],
            Action::Reflect => vec![(Exit::Port(Some(port.to_owned())), frame)],
            Action::Redirect(slot) => {
                let port = self.world.ports.get(usize::from(slot));
                let name = port
                    .with_context(|| format!("no port in slot {slot}"))?
                    .name;
                vec![(Exit::Port(Some(name.to_owned())), frame)]
            }
        };
        let mut rules = Vec::new();
        for ((slot, after), before) in (0..).zip(memory.rule_packets()).zip(before) {
            let rule = memory.tables.rule(slot);
            rules.extend((before..after).filter_map(|_| rule.cloned()));
        }
        Ok(Seen {
            reasons: memory.counted.take(),
            rules,
            out,
        })
    }

    fn wait(&mut self, seconds: u32) -> bool {
        self.memory.wait(seconds);
        true
    }

    fn flows(&self) -> Vec<Flow> {
        self.memory.flows()
    }
}

/// The ports as the data path sees them; the slot of each is its place.
fn ports(world: &World) -> Vec<Port> {
    let port = |port: &world::Port| Port {
        mac: number(port.mac),
        mtu: port.mtu.into(),
        slot: slot(world, port.name),
        pair: port.pair.map_or(NO_PORT, |pair| slot(world, pair)),
        zone: port.zone,
        role: match port.role {
            world::Role::Access => Role::Access,
            world::Role::Core => Role::Core,
            world::Role::App => Role::App,
        } as u8,
        flags: port::PRESENT | port::GTPU | if port.mss_clamp { port::MSS_CLAMP } else { 0 },
        ifindex: u32::from(slot(world, port.name)) + 1,
    };
    world.ports.iter().map(port).collect()
}

fn slot(world: &World, name: &str) -> u16 {
    let found = world.ports.iter().position(|port| port.name == name);
    found.map_or(NO_PORT, |place| place as u16)
}

fn number(mac: MacAddress) -> u64 {
    mac.iter()
        .fold(0, |number, octet| number << 8 | u64::from(*octet))
}
