//! Putting a random case through an executor and comparing with the oracle.

use anyhow::{Context as _, Result, ensure};
use dataplane_core::Reason;

use super::{Arrival, Case, Fate, Oracle, Outcome};
use crate::{
    packet::Packet,
    scenario::{Executor, Exit, Seen, compare},
    world::{Port, World},
};

/// Runs a case; the error says which packet fared otherwise than it should. Answers how many were
/// put through.
pub fn run(case: &Case, executor: &mut impl Executor) -> Result<usize> {
    let world = World::new();
    executor.prepare(&case.rules.iter().cloned().collect())?;
    let mut oracle = Oracle::new(&world, &case.rules);
    let mut answers: Vec<(&'static str, Packet)> = Vec::new();
    let mut packets = 0;
    for (index, arrival) in case.arrivals.iter().enumerate() {
        let arriving = match arrival {
            Arrival::Packet(port, packet) => Some((*port, packet.clone())),
            Arrival::Reply(to) => {
                let back = to.checked_rem(answers.len());
                back.map(|back| answers[answers.len() - 1 - back].clone())
            }
            Arrival::Rules(rules) => {
                executor.change(&rules.iter().cloned().collect())?;
                oracle.change(rules);
                None
            }
        };
        let Some((port, packet)) = arriving else {
            continue;
        };
        let port = world.port(port);
        let wanted = oracle.see(port, &packet);
        if oracle.is_lost() {
            break;
        }
        let seen = executor.arrive(port.name, &packet.bytes())?;
        packets += 1;
        check(port, &packet, wanted.as_ref(), &seen).with_context(|| {
            let wanted = wanted
                .as_ref()
                .map_or_else(|| "anything".to_owned(), ToString::to_string);
            format!("packet {index}, {arrival:?}\n  wanted {wanted}")
        })?;
        if let Some(Fate::Sent(port, sent)) = wanted.map(|outcome| outcome.fate) {
            let answer = Packet {
                ttl: 64,
                ..sent.reversed()
            };
            answers.push((port, answer));
        }
    }
    Ok(packets)
}

fn check(port: &Port, packet: &Packet, wanted: Option<&Outcome>, seen: &Seen) -> Result<()> {
    let Some(wanted) = wanted else {
        ensure!(seen.reasons.len() == 1, "counted as {:?}", seen.reasons);
        return Ok(());
    };
    ensure!(
        seen.reasons == [wanted.reason],
        "counted as {:?}; by {:?}",
        seen.reasons,
        seen.rules
    );
    // Whether a rule that could not do its work is counted is nobody's promise.
    if !matches!(
        wanted.reason,
        Reason::NextHopUnresolved | Reason::ReplyConflict
    ) {
        let rules: Vec<_> = wanted.rule.iter().cloned().collect();
        ensure!(seen.rules == rules, "counted by {:?}", seen.rules);
    }
    let frame = packet.bytes();
    let expected = match (&wanted.fate, port.pair) {
        (Fate::Discarded, _) => vec![],
        (Fate::Sent(to, packet), _) => vec![(Exit::Port(Some((*to).into())), packet.bytes())],
        (Fate::Original, Some(pair)) => vec![(Exit::Port(Some(pair.into())), frame)],
        (Fate::Original | Fate::Copied, _) => vec![(Exit::Kernel, frame)],
    };
    compare(expected, seen.out.clone())
}
