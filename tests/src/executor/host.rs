//! The core on the host: a packet in memory, and tables in memory.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::Result;
use dataplane_core::{
    Action,
    packet::Buffer,
    steer,
    table::{Hop, Index, NO_PORT, Port, RuleCount, Filter, RuleAction, flag, kind, verb},
};
use dataplane_user::{
    Flow,
    rule::{self, Destination, EndpointAddress, FilterType, Rule, RuleId, RuleSet},
};

use super::tables::Memory;
use crate::{
    packet::MacAddress,
    scenario::{Executor, Exit, Seen},
    world::{Role, World},
};

/// The core, with tables of its own.
#[derive(Debug)]
pub struct Host {
    world: World,
    memory: Memory,
    rules: Vec<RuleId>,
}

impl Host {
    /// A host without rules.
    pub fn new() -> Self {
        let world = World::new();
        Self {
            memory: Memory::new(ports(&world)),
            world,
            rules: Vec::new(),
        }
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
        self.change(rules)
    }

    fn change(&mut self, rules: &RuleSet) -> Result<()> {
        let m = &mut self.memory;
        (m.root, m.splits, m.filters, m.actions, m.hops) = (Index::END, vec![], vec![], vec![], vec![]);
        m.epoch += 1;
        let mut sorted: Vec<&Rule> = rules.iter().collect();
        sorted.sort_by_key(|r| (r.priority, &r.id));
        self.rules = sorted.iter().map(|r| r.id.clone()).collect();
        self.memory.rules = sorted.iter().map(|_| RuleCount::default()).collect();
        for (i, r) in sorted.iter().enumerate() { naive(&self.world, &mut self.memory, i, r); }
        let n = self.memory.filters.len();
        for (i, f) in self.memory.filters.iter_mut().enumerate() {
            f.next = if i + 1 < n { Index::filter(i as u32 + 1) } else { Index::END };
        }
        if n > 0 { self.memory.root = Index::filter(0); }
        Ok(())
    }

    fn arrive(&mut self, port: &str, frame: &[u8]) -> Result<Seen> {
        self.memory.tick();
        let before: Vec<u64> = self.memory.rules.iter().map(|r| r.count.packets.get()).collect();
        let slot = self.world.ports.iter().position(|known| known.name == port);
        let interface = slot.map_or(0, |slot| slot as u32 + 1);
        let mut bytes = vec![0; Buffer::HEADROOM];
        bytes.extend(frame);
        let mut packet = Buffer::new(&mut bytes, Buffer::HEADROOM);
        let mut scratch = steer::Scratch::default();
        let verdict = steer::packet(&mut packet, interface, &self.memory, &mut scratch);
        let frame = packet.bytes().to_vec();
        let out = match verdict.action {
            Action::Discard => vec![],
            Action::Pass => vec![(Exit::Kernel, frame)],
            Action::Reflect => vec![(Exit::Port(Some(port.to_owned())), frame)],
            Action::Redirect(slot) => {
                let name = self.world.ports[usize::from(slot)].name;
                vec![(Exit::Port(Some(name.to_owned())), frame)]
            }
        };
        let mut rules = vec![];
        for (i, r) in self.memory.rules.iter().enumerate() {
            for _ in before[i]..r.count.packets.get() { rules.push(self.rules[i].clone()); }
        }
        Ok(Seen {
            reasons: self.memory.counted.take(),
            rules,
            out,
        })
    }

    fn flows(&self) -> Vec<Flow> {
        let live = self.memory.records.iter().filter(|r| r.live.get() != 0);
        live.map(|r| {
            let k = r.key.get();
            let half = |i: usize| {
                let h = &r.halves[i];
                dataplane_user::Count { packets: h.owned.packets.get() + h.others.packets.get(), bytes: h.owned.bytes.get(), wire_bytes: h.owned.wire_bytes.get() }
            };
            let ip = |a: [u64; 2]| { let b: u128 = (a[0] as u128) << 64 | a[1] as u128; let v6 = Ipv6Addr::from(b); match v6.to_ipv4_mapped() { Some(v4) => IpAddr::V4(v4), None => IpAddr::V6(v6) } };
            Flow { source: ip(k.source), destination: ip(k.destination), protocol: k.protocol, source_port: k.source_port, destination_port: k.destination_port, zone: k.zone, upstream: half(0), downstream: half(1), rule: None, ingress: String::new(), target: None, first_seen: std::time::UNIX_EPOCH, last_seen: std::time::UNIX_EPOCH, tcp_flags: [0; 2] }
        }).collect()
    }
}

fn words(a: IpAddr) -> [u64; 2] {
    let v6 = match a { IpAddr::V4(a) => a.to_ipv6_mapped(), IpAddr::V6(a) => a };
    let b = u128::from(v6);
    [(b >> 64) as u64, b as u64]
}

fn naive(world: &World, m: &mut Memory, i: usize, r: &Rule) {
    let mut act = RuleAction { rank: i as u64, nat: [0; 2], rule: i as u32, first: u32::MAX, second: u32::MAX, verb: 0, flags: 0,
        kind: match r.filter_type { FilterType::Flow => kind::FLOW, FilterType::Packet => kind::PACKET }, padding: 0 };
    let mut hop = |e: &rule::Endpoint| {
        let w = world.resolve(e).map_or(0, |(p, mac)| Hop { mac: mac48(mac), slot: world.ports.iter().position(|x| x.name == p).unwrap() as u16 }.word());
        m.hops.push(w);
        m.hops.len() as u32 - 1
    };
    match &r.action {
        rule::Action::Drop => act.verb = verb::DROP,
        rule::Action::Passthrough => act.verb = verb::PASSTHROUGH,
        rule::Action::Forward { destination, .. } | rule::Action::Duplicate { destination, .. } => {
            act.verb = if matches!(r.action, rule::Action::Forward { .. }) { verb::FORWARD } else { verb::DUPLICATE };
            match destination {
                Destination::One(e) => {
                    act.first = hop(e);
                    if let EndpointAddress::Ip { address, nat } = e.address {
                        act.flags |= flag::ROUTE;
                        if nat { act.flags |= flag::NAT; act.nat = words(address); }
                    }
                }
                Destination::Inline { ue, core } => { act.first = hop(ue); act.second = hop(core); act.flags |= flag::INLINE; }
            }
        }
    }
    m.actions.push(act);
    let all = [[0, 0], [u64::MAX, u64::MAX]];
    let addr = |v: &[rule::AddressRange]| -> Vec<[[u64; 2]; 2]> { if v.is_empty() { vec![all] } else { v.iter().flat_map(|r| {
        let (f, l) = (words(r.first()), words(r.last()));
        if r.first().is_ipv6() && f < [0, 0xffff_0000_0000] && l > [0, 0xffff_ffff_ffff] { vec![[f, [0, 0xfffe_ffff_ffff]], [[0, 0x1_0000_0000_0000], l]] } else { vec![[f, l]] }
    }).collect() } };
    let port = |v: &[rule::PortRange]| -> Vec<[u32; 2]> { if v.is_empty() { vec![[0, 0x10000]] } else { v.iter().map(|r| [r.first() as u32, r.last() as u32]).collect() } };
    for f in &r.filters {
        let tos: Vec<[u16; 2]> = match (f.dscp, f.traffic_class) {
            (None, None) => vec![[0, 511]],
            (d, t) => d.map(|d| [d as u16, d as u16]).into_iter().chain(t.map(|t| [256 + t as u16, 256 + t as u16])).collect(),
        };
        let proto: Vec<[u8; 2]> = if f.protocol.is_empty() { vec![[0, 255]] } else { f.protocol.iter().map(|p| [*p, *p]).collect() };
        for s in addr(&f.src) { for d in addr(&f.dst) { for sp in port(&f.src_port) { for dp in port(&f.dst_port) { for t in &tos { for p in &proto {
            m.filters.push(Filter { source: s, destination: d, source_port: sp, destination_port: dp, tos: *t, zone: f.zone.map_or([0, 65535], |z| [z, z]), protocol: *p, kind: act.kind, padding: 0, action: i as u32, next: Index::END, padding2: 0 });
        }}}}}}
    }
}

/// The ports as the data path sees them; the slot of each is its place.
fn ports(world: &World) -> Vec<Port> {
    let slot = |name: &str| world.ports.iter().position(|port| port.name == name).map_or(NO_PORT, |slot| slot as u16);
    world
        .ports
        .iter()
        .map(|port| Port {
            mac: mac48(port.mac),
            mtu: port.mtu.into(),
            slot: slot(port.name),
            pair: port.pair.map_or(NO_PORT, slot),
            zone: port.zone,
            role: match port.role {
                Role::Access => 0,
                Role::Core => 1,
                Role::App => 2,
            },
            present: 1,
            ifindex: slot(port.name).into(),
        })
        .collect()
}

fn mac48(mac: MacAddress) -> u64 {
    mac.iter().fold(0, |word, octet| word << 8 | u64::from(*octet))
}
