//! What happens to packets, as examples: rules, frames in, and for each the one reason it is counted
//! for and where it comes out. The same scenarios run on the host, in the kernel and over veth.

mod addressing;
mod balance;
mod boundaries;
mod errors;
mod forwarding;
mod matching;
mod mobile;
mod parsing;
mod peers;
mod run;
mod targets;
mod two_interfaces;

use std::net::IpAddr;

use dataplane_core::Reason;
use dataplane_user::Binding;

pub use addressing::{Family, V4, V6};
pub(crate) use run::compare;
pub use run::{Executor, Exit, FlowCount, Seen, run, run_all};
pub(crate) use targets::{flow_key, source_port};

use crate::{
    packet::Packet,
    world::{Port, World},
};

/// An example.
#[derive(Debug)]
pub struct Scenario {
    /// What it is about.
    pub name: String,
    /// Rules in text form.
    pub rules: Vec<String>,
    /// What is said meanwhile, each before the step with this index.
    pub said: Vec<(usize, Said)>,
    /// What arrives, in order.
    pub steps: Vec<Step>,
    /// What the flow table holds at the end.
    pub flows: Vec<FlowCount>,
}

/// Something that is said of a session, or of the rules.
#[derive(Debug)]
pub enum Said {
    /// These are its tunnels.
    Provisioned(Binding),
    /// Nothing any more.
    Withdrawn(u16, IpAddr),
    /// These, in text form, are in force from now on.
    Rules(Vec<String>),
}

/// A frame that arrives and what should become of it.
#[derive(Debug)]
pub struct Step {
    /// The port it comes by.
    pub port: &'static str,
    /// The frame.
    pub frame: Vec<u8>,
    /// The reason it is counted for.
    pub reason: Reason,
    /// Where it goes.
    pub then: Then,
}

/// Where a frame goes.
#[derive(Clone, Debug)]
pub enum Then {
    /// Nowhere.
    Discarded,
    /// Its original path, unchanged.
    Original,
    /// Its original path, unchanged, and a copy out of a port, looking like this.
    Copied(&'static str, Vec<u8>),
    /// Out of a port, looking like this.
    Sent(&'static str, Vec<u8>),
    /// To the kernel, which routes it, looking like this.
    Routed(Vec<u8>),
    /// Back to where it came from, as an answer that passes this check.
    Answered(fn(&[u8]) -> Result<(), String>),
}

/// Scenarios of UEs behind tunnels.
pub fn mobile() -> Vec<Scenario> {
    let mut all = Vec::new();
    for family in [&V4, &V6] {
        mobile::scenarios(family, &mut all);
        targets::scenarios(family, &mut all);
        peers::scenarios(family, &mut all);
    }
    mobile::mixed(&mut all);
    all
}

/// All other scenarios.
pub fn plain() -> Vec<Scenario> {
    let mut all = Vec::new();
    for family in [&V4, &V6] {
        forwarding::scenarios(family, &mut all);
        two_interfaces::scenarios(family, &mut all);
        boundaries::scenarios(family, &mut all);
        matching::scenarios(family, &mut all);
        errors::scenarios(family, &mut all);
        parsing::scenarios(family, &mut all);
        balance::scenarios(family, &mut all);
    }
    parsing::malformed(&mut all);
    all
}

impl Scenario {
    fn new(name: &str, family: &Family, rules: &[&str]) -> Self {
        Self {
            name: format!("{name}, {}", family.name),
            rules: rules.iter().map(|rule| family.fill_in(rule)).collect(),
            said: Vec::new(),
            steps: Vec::new(),
            flows: Vec::new(),
        }
    }

    fn provisioned(mut self, binding: &Binding) -> Self {
        let said = Said::Provisioned(binding.clone());
        self.said.push((self.steps.len(), said));
        self
    }

    fn rules(mut self, family: &Family, rules: &[&str]) -> Self {
        let rules = rules.iter().map(|rule| family.fill_in(rule)).collect();
        self.said.push((self.steps.len(), Said::Rules(rules)));
        self
    }

    fn withdrawn(mut self, binding: &Binding) -> Self {
        let said = Said::Withdrawn(binding.zone, binding.ue);
        self.said.push((self.steps.len(), said));
        self
    }

    fn frame(mut self, port: &'static str, frame: Vec<u8>, reason: Reason, then: Then) -> Self {
        self.steps.push(Step {
            port,
            frame,
            reason,
            then,
        });
        self
    }

    fn discarded(self, port: &'static str, packet: &Packet, reason: Reason) -> Self {
        self.frame(port, packet.bytes(), reason, Then::Discarded)
    }

    fn original(self, port: &'static str, packet: &Packet, reason: Reason) -> Self {
        self.frame(port, packet.bytes(), reason, Then::Original)
    }

    fn sent(
        self,
        port: &'static str,
        packet: &Packet,
        reason: Reason,
        to: &'static str,
        looking: &Packet,
    ) -> Self {
        self.frame(
            port,
            packet.bytes(),
            reason,
            Then::Sent(to, looking.bytes()),
        )
    }

    /// The flow that `up` belongs to has this many packets like `up`, and like `down`.
    fn flow(mut self, up: &Packet, packets: u64, down: &Packet, replies: u64) -> Self {
        self.flows.push(FlowCount::new(up, packets, down, replies));
        self
    }
}

/// `packet` as it leaves towards the application behind `port`.
fn to_app(world: &World, port: &'static str, packet: &Packet) -> Packet {
    let Port { mac, .. } = *world.port(port);
    let neighbor = world.neighbors.iter().find(|neighbor| neighbor.1 == port);
    let (_, _, destination) = *neighbor.expect("an application behind the port");
    packet.clone().untagged().macs(mac, destination)
}

/// The answer of the application behind `port` to what it received.
fn answer(received: &Packet) -> Packet {
    Packet {
        ttl: 64,
        ..received.reversed()
    }
}

/// `answer` as it comes back to the sender of `question`.
fn to_ue(answer: &Packet, question: &Packet) -> Packet {
    Packet {
        source: question.destination,
        tags: question.tags.clone(),
        source_mac: question.destination_mac,
        destination_mac: question.source_mac,
        ..answer.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_of_scenarios_are_valid() {
        for scenario in plain().into_iter().chain(mobile()) {
            let said = scenario.said.iter().filter_map(|(_, said)| match said {
                Said::Rules(rules) => Some(rules),
                Said::Provisioned(_) | Said::Withdrawn(..) => None,
            });
            for rule in said.flatten().chain(&scenario.rules) {
                let parsed: dataplane_user::rule::Rule = rule.parse().unwrap();
                parsed.check().unwrap();
            }
        }
    }
}
