//! Putting a scenario through an executor and comparing.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use dataplane_core::Reason;
use dataplane_user::{
    Binding, Flow,
    rule::{RuleId, RuleSet},
};

use super::{Said, Scenario, Step, Then};
use crate::{
    packet::{Packet, describe, difference},
    world::World,
};

/// Something that packets can be put through: the host core, the loaded program, real interfaces.
pub trait Executor {
    /// Puts these rules in force, with empty flow tables.
    fn prepare(&mut self, rules: &RuleSet) -> Result<()>;
    /// Puts these rules in force, and keeps the flows.
    fn change(&mut self, rules: &RuleSet) -> Result<()>;
    /// Says what the tunnels of a UE are.
    fn provision(&mut self, binding: &Binding) -> Result<()>;
    /// Says nothing of a UE any more.
    fn withdraw(&mut self, zone: u16, ue: IpAddr) -> Result<()>;
    /// Lets a frame arrive, and tells what became of it.
    fn arrive(&mut self, port: &str, frame: &[u8]) -> Result<Seen>;
    /// Lets seconds pass. `false`: time is not ours here.
    fn wait(&mut self, _seconds: u32) -> bool {
        false
    }
    /// The flow table.
    fn flows(&self) -> Vec<Flow>;
    /// Whether copies can be seen: they are not made by the program that steers.
    fn copies(&self) -> bool {
        false
    }
}

/// What became of a frame.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The reasons that were counted, each as often as it was.
    pub reasons: Vec<Reason>,
    /// The rules that were counted, likewise.
    pub rules: Vec<RuleId>,
    /// The frames that came out: of which port, if that can be told, or to the kernel.
    pub out: Vec<(Exit, Vec<u8>)>,
}

/// Where a frame came out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Given to the kernel of the host.
    Kernel,
    /// Redirected, to this port if that can be told.
    Port(Option<String>),
}

/// What the flow table should hold of a flow: its key, and packets and bytes in each direction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowCount {
    source: (IpAddr, u16),
    destination: (IpAddr, u16),
    protocol: u8,
    upstream: (u64, u64, u64),
    downstream: (u64, u64, u64),
}

impl FlowCount {
    pub(super) fn new(up: &Packet, packets: u64, down: &Packet, replies: u64) -> Self {
        let (source, destination) = up.flow_ports();
        let count = |packet: &Packet, packets: u64| {
            let octets = |bytes: Vec<u8>| packets * bytes.len() as u64;
            (
                packets,
                octets(packet.network_bytes()),
                octets(packet.bytes()),
            )
        };
        Self {
            source: (up.source, source),
            destination: (up.destination, destination),
            protocol: up.protocol(),
            upstream: count(up, packets),
            downstream: count(down, replies),
        }
    }

    /// The same, but what came down was a tunnel with this inside.
    pub(super) fn answered_with(mut self, inner: &Packet) -> Self {
        self.downstream.1 = self.downstream.0 * inner.network_bytes().len() as u64;
        self
    }
}

impl From<&Flow> for FlowCount {
    fn from(flow: &Flow) -> Self {
        let count = |count: &dataplane_user::Count| (count.packets, count.bytes, count.wire_bytes);
        Self {
            source: (flow.source, flow.source_port),
            destination: (flow.destination, flow.destination_port),
            protocol: flow.protocol,
            upstream: count(&flow.upstream),
            downstream: count(&flow.downstream),
        }
    }
}

/// Runs scenarios, and panics with a list of those that fail.
pub fn run_all(scenarios: Vec<Scenario>, executor: &mut impl Executor) {
    let mut failures = Vec::new();
    for scenario in &scenarios {
        if let Err(error) = run(scenario, executor) {
            let rules = scenario.rules.join("\n    ");
            failures.push(format!("{}\n    {rules}\n  {error:#}\n", scenario.name));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} scenarios fail:\n\n{}",
        failures.len(),
        scenarios.len(),
        failures.join("\n")
    );
}

/// Runs a scenario; the error is the first thing that is not as it should be.
pub fn run(scenario: &Scenario, executor: &mut impl Executor) -> Result<()> {
    let world = World::new();
    executor.prepare(&read(&scenario.rules)?)?;
    for (index, step) in scenario.steps.iter().enumerate() {
        for (_, said) in scenario.said.iter().filter(|(before, _)| *before == index) {
            match said {
                Said::Provisioned(binding) => executor.provision(binding)?,
                Said::Withdrawn(zone, ue) => executor.withdraw(*zone, *ue)?,
                Said::Rules(rules) => executor.change(&read(rules)?)?,
            }
        }
        let seen = executor.arrive(step.port, &step.frame)?;
        check(&world, step, &seen, executor.copies())
            .with_context(|| format!("step {index}, {}: {}", step.port, describe(&step.frame)))?;
    }
    if !scenario.flows.is_empty() {
        let mut wanted = scenario.flows.clone();
        let mut found: Vec<FlowCount> = executor.flows().iter().map(FlowCount::from).collect();
        wanted.sort();
        found.sort();
        ensure!(
            found == wanted,
            "flows\n  expected {wanted:?}\n  found    {found:?}"
        );
    }
    Ok(())
}

fn read(rules: &[String]) -> Result<RuleSet> {
    let rules = rules.iter();
    rules
        .map(|rule| rule.parse().with_context(|| rule.clone()))
        .collect()
}

fn check(world: &World, step: &Step, seen: &Seen, copies: bool) -> Result<()> {
    let came_out = || {
        let frames = seen.out.iter();
        let lines = frames.map(|(exit, frame)| format!("\n  {exit:?} {}", describe(frame)));
        lines.collect::<String>()
    };
    ensure!(
        seen.reasons == [step.reason],
        "counted as {:?}, not as {:?}; came out: {}",
        seen.reasons,
        step.reason,
        came_out()
    );
    let original = || match world.port(step.port).pair {
        Some(pair) => (Exit::Port(Some(pair.to_owned())), step.frame.clone()),
        None => (Exit::Kernel, step.frame.clone()),
    };
    let port = |name: &str| Exit::Port(Some(name.to_owned()));
    let expected = match &step.then {
        Then::Discarded => vec![],
        Then::Original => vec![original()],
        Then::Copied(name, frame) if copies => vec![original(), (port(name), frame.clone())],
        // Traffic control makes the copy of what it is given.
        Then::Copied(..) => vec![(Exit::Kernel, step.frame.clone())],
        Then::Sent(name, frame) => vec![(port(name), frame.clone())],
        Then::Routed(frame) => vec![(Exit::Kernel, frame.clone())],
        Then::Answered(check) => {
            let [(exit, frame)] = &seen.out[..] else {
                bail!("no single answer: {}", came_out());
            };
            ensure!(
                [port(step.port), Exit::Port(None)].contains(exit),
                "the answer left by {exit:?}"
            );
            return check(frame)
                .map_err(anyhow::Error::msg)
                .with_context(|| describe(frame));
        }
    };
    compare(expected, seen.out.clone())
}

/// Compares what came out in any order.
pub(crate) fn compare(
    mut expected: Vec<(Exit, Vec<u8>)>,
    mut found: Vec<(Exit, Vec<u8>)>,
) -> Result<()> {
    expected.sort();
    found.sort();
    ensure!(
        expected.len() == found.len(),
        "{} frames came out, not {}: {:?}",
        found.len(),
        expected.len(),
        found
            .iter()
            .map(|(exit, frame)| (exit, describe(frame)))
            .collect::<Vec<_>>()
    );
    for ((to, looking), (exit, frame)) in expected.iter().zip(&found) {
        let unknown = matches!((to, exit), (Exit::Port(_), Exit::Port(None)));
        ensure!(to == exit || unknown, "came out of {exit:?}, not of {to:?}");
        if let Some(difference) = difference(looking, frame) {
            bail!("{exit:?}: {difference}");
        }
    }
    Ok(())
}
