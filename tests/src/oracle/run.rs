//! Putting a random case through an executor and comparing with the oracle.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
};

use anyhow::{Context as _, Result, ensure};
use dataplane_core::Reason;

use super::{
    Arrival, Case, Fate, Frame, Oracle, Outcome,
    envelope::Envelope,
    generate::{Again, Turn},
    outside::Outside,
    watch::Watch,
};
use crate::{
    packet::{SYN, Transport},
    scenario::{Executor, Exit, Seen, compare},
    world::{self, Port, World},
};

/// Runs a case; the error says which packet fared otherwise than it should. Answers what the packets
/// that were put through ended for, where that is not left open.
pub fn run(case: &Case, executor: &mut impl Executor) -> Result<Vec<Option<Reason>>> {
    let world = World::new();
    let mut rules = case.rules.clone();
    executor.prepare(&rules.iter().cloned().collect())?;
    let mut oracle = Oracle::new(&world, &rules);
    let mut past = Past::default();
    let mut watch = Watch::default();
    let mut reasons = Vec::new();
    for (index, arrival) in case.arrivals.iter().enumerate() {
        if let Arrival::Rules(change) = arrival {
            change.apply(&mut rules);
            executor.change(&rules.iter().cloned().collect())?;
            oracle.change(&rules);
        }
        match arrival {
            Arrival::Said(binding) => {
                executor.provision(binding)?;
                oracle.provision(binding);
                watch.said(binding);
            }
            Arrival::Withdrawn(zone, ue) if oracle.withdraw(*zone, *ue) => {
                executor.withdraw(*zone, *ue)?;
                watch.withdrawn(*zone, *ue);
            }
            Arrival::Wait(seconds) if executor.wait(*seconds) => oracle.wait(*seconds),
            Arrival::Packet(..)
            | Arrival::Wait(_)
            | Arrival::Peered(..)
            | Arrival::Tunneled(..)
            | Arrival::Elsewhere(..)
            | Arrival::Withdrawn(..)
            | Arrival::Again(..)
            | Arrival::Back(..)
            | Arrival::Fragments(..)
            | Arrival::Rules(_) => {}
        }
        for (port, frame) in past.frames(arrival) {
            let port = world.port(port);
            let wanted = oracle.see(port, &frame);
            if oracle.is_lost() {
                return Ok(reasons);
            }
            let seen = executor.arrive(port.name, &frame.bytes())?;
            reasons.push(wanted.as_ref().map(|outcome| outcome.reason));
            let watched = watch.see(&world, port, &frame, &seen);
            let checked = check(port, &frame, wanted.as_ref(), &seen);
            watched.and(checked).with_context(|| {
                let wanted = wanted
                    .as_ref()
                    .map_or_else(|| "anything".to_owned(), ToString::to_string);
                format!(
                    "packet {index}, {arrival:?}\n  {}: {frame}\n  wanted {wanted}",
                    port.name
                )
            })?;
            past.note(port, frame, wanted);
        }
    }
    Ok(reasons)
}

/// What arrived and what came out so far, of whole packets.
#[derive(Default)]
struct Past {
    arrived: Vec<(&'static str, Frame)>,
    sent: Vec<(&'static str, Frame)>,
}

impl Past {
    /// The frames of an arrival, and the port that they come by.
    fn frames(&self, arrival: &Arrival) -> Vec<(&'static str, Frame)> {
        match arrival {
            Arrival::Packet(port, packet) => vec![(port, packet.clone().into())],
            Arrival::Tunneled(port, inside) => {
                let (packet, envelope) = (**inside).clone();
                vec![(port, Frame::from(packet).within(Some(envelope)))]
            }
            Arrival::Peered(port, packet) => {
                let frame = Frame::from(packet.clone());
                let peer = match *port {
                    "access0" => world::PEER_AT_ACCESS,
                    _ => world::PEER,
                };
                vec![(port, frame.through(Some(Outside::of_peer(peer))))]
            }
            Arrival::Elsewhere(before, tunnel, qfi) => {
                let again = latest(&self.arrived, *before);
                let again = again.map(|(port, frame)| {
                    let envelope = frame.envelope.as_ref();
                    let moved = envelope.map(|it| Envelope::of_packet(it.way, *tunnel, *qfi));
                    (*port, frame.clone().within(moved))
                });
                again.into_iter().collect()
            }
            Arrival::Again(before, again) => {
                let Again {
                    class,
                    moved,
                    begins,
                } = *again;
                let again = latest(&self.arrived, *before).map(|(port, frame)| {
                    let mut packet = frame.packet.clone().class(class);
                    if begins && matches!(packet.transport, Transport::Tcp { .. }) {
                        packet = packet.flags(SYN);
                    }
                    if moved {
                        packet = packet.untagged().tag(0x8100, 9);
                        packet.source_mac = [2, 0, 0, 0, 0, 7];
                    }
                    let again = Frame::from(packet);
                    let again = again.within(frame.envelope.clone());
                    (*port, again.through(frame.outside.clone()))
                });
                again.into_iter().collect()
            }
            Arrival::Back(before, by, turn) => {
                let back = latest(&self.sent, *before)
                    .map(|(port, frame)| (by.unwrap_or(port), turned(frame, *turn)));
                back.into_iter().collect()
            }
            Arrival::Fragments(whole, order) => {
                // Unlike any other, since the data path remembers them from one case to the next.
                static NEXT: AtomicU16 = AtomicU16::new(0);
                let identification = NEXT.fetch_add(1, Relaxed).into();
                let whole = self.frames(whole).into_iter();
                whole
                    .filter(|(_, frame)| frame.is_plain())
                    .flat_map(|(port, frame)| {
                        let piece =
                            move |index: &usize| (port, frame.fragment(*index, identification));
                        order.iter().map(piece)
                    })
                    .collect()
            }
            Arrival::Rules(_) | Arrival::Said(_) | Arrival::Withdrawn(..) | Arrival::Wait(_) => {
                vec![]
            }
        }
    }

    fn note(&mut self, port: &Port, frame: Frame, wanted: Option<Outcome>) {
        if frame.piece.is_some() {
            return;
        }
        if frame.is_plain() {
            self.arrived.push((port.name, frame.clone()));
        }
        match wanted.map(|outcome| outcome.fate) {
            // Nobody has looked into it, but an answer to it might be.
            Some(Fate::Sent(_, sent))
                if frame.outside.is_some()
                    && sent.packet.payload == frame.outermost().packet.payload => {}
            Some(Fate::Sent(to, sent)) => self.sent.push((to, sent)),
            Some(Fate::Original | Fate::Copied) => {
                self.sent.extend(port.pair.map(|pair| (pair, frame)));
            }
            Some(Fate::Discarded | Fate::Routed(_)) | None => {}
        }
    }
}

/// The one of `values` that came `before` others.
fn latest<T>(values: &[T], before: usize) -> Option<&T> {
    let before = before.checked_rem(values.len())?;
    values.iter().rev().nth(before)
}

fn turned(sent: &Frame, turn: Turn) -> Frame {
    let packet = &sent.packet;
    let back = |answer: Frame| {
        let answer = answer.within(sent.envelope.as_ref().map(Envelope::answer));
        answer.through(sent.outside.as_ref().map(Outside::answer))
    };
    match turn {
        Turn::Error(kind, from_router, quote) if sent.is_plain() => {
            let router: IpAddr = if packet.source.is_ipv4() {
                [198, 18, 1, 77].into()
            } else {
                [0x2001, 0xdb8, 0xa1, 0, 0, 0, 0, 0x77].into()
            };
            let from = if from_router {
                router
            } else {
                packet.destination
            };
            back(Frame::error(from, kind, packet, quote))
        }
        Turn::Answer if sent.is_plain() => back(packet.reversed().ttl(64).into()),
        Turn::Same | Turn::Answer | Turn::Error(..) => {
            let mut same = sent.clone();
            same.packet = same.packet.macs(packet.destination_mac, packet.source_mac);
            same
        }
    }
}

fn check(port: &Port, frame: &Frame, wanted: Option<&Outcome>, seen: &Seen) -> Result<()> {
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
        Reason::NextHopUnresolved
            | Reason::OwnOutput
            | Reason::ReplyConflict
            | Reason::TtlExpired
            | Reason::TunnelUnsupported
    ) {
        let rules: Vec<_> = wanted.rule.iter().cloned().collect();
        ensure!(seen.rules == rules, "counted by {:?}", seen.rules);
    }
    let original = frame.bytes();
    let expected = match (&wanted.fate, port.pair) {
        (Fate::Discarded, _) => vec![],
        (Fate::Sent(to, sent), _) => vec![(Exit::Port(Some((*to).into())), sent.bytes())],
        (Fate::Routed(sent), _) => vec![(Exit::Kernel, sent.bytes())],
        (Fate::Original, Some(pair)) => vec![(Exit::Port(Some(pair.into())), original)],
        (Fate::Original | Fate::Copied, _) => vec![(Exit::Kernel, original)],
    };
    compare(expected, seen.out.clone())
}
