//! Which backend of a VIP a flow comes under, and what becomes of echo requests.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use dataplane_core::Reason;
use dataplane_user::rule::{
    Action, Affinity, Backend, BackendId, BackendState, Balance, Destination, Endpoint, FilterType,
    Rule, RuleId, Tunnel,
};

use super::{Fate, Frame, Oracle, Outcome, flows::Key, mobile::turn_to, original, rules::Rules};
use crate::{
    packet::{ACK, Packet, SYN, Transport},
    scenario::flow_key,
    world::Port,
};

/// A rule, or what flows under a rule that balances come under: it is as if that was their rule.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) rule: Rule,
    pub(super) chosen: Option<Chosen>,
}

/// What was chosen for a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    vip: RuleId,
    /// Without one, what takes flows when no backend does.
    pub(super) backend: Option<BackendId>,
}

/// The backends that UEs were given, by VIP, zone and address, and for how long.
#[derive(Clone, Debug, Default)]
pub(super) struct Affinities {
    known: HashMap<(RuleId, u16, IpAddr), (BackendId, u64)>,
    /// Seconds.
    now: u64,
}

impl Affinities {
    /// Lets seconds pass.
    pub(super) fn wait(&mut self, seconds: u32) {
        self.now += u64::from(seconds);
        self.known.retain(|_, (_, until)| *until >= self.now);
    }

    /// Forgets backends that are not there any more.
    pub(super) fn forget(&mut self, rules: &Rules<'_>) {
        self.known.retain(|(vip, ..), (backend, _)| {
            let chosen = Chosen {
                vip: vip.clone(),
                backend: Some(backend.clone()),
            };
            rules.place(&chosen).is_some()
        });
    }
}

impl Listed {
    /// A rule and, if it balances, all that may be chosen.
    pub(super) fn all(rule: &Rule) -> Vec<Self> {
        let mut all = vec![Self {
            rule: rule.clone(),
            chosen: None,
        }];
        if let Action::Balance(balance) = &rule.action {
            let backends = balance.backends.iter();
            let backends = backends.map(|it| (Some(it.id.clone()), Some(&it.endpoint)));
            let others = [(None, balance.fallback.as_ref())];
            let chosen = backends.chain(others);
            all.extend(chosen.map(|(backend, endpoint)| Self::of(rule, backend, endpoint)));
        }
        all
    }

    fn of(rule: &Rule, backend: Option<BackendId>, endpoint: Option<&Endpoint>) -> Self {
        let to = |endpoint: &Endpoint| Action::Forward {
            destination: Destination::One(endpoint.clone()),
            tunnel: Tunnel::Decapsulated,
        };
        Self {
            rule: Rule {
                filter_type: FilterType::Flow,
                action: endpoint.map_or(Action::Passthrough, to),
                ..rule.clone()
            },
            chosen: Some(Chosen {
                vip: rule.id.clone(),
                backend,
            }),
        }
    }

    /// The rule as it is with each backend in the same state.
    fn stateless(&self) -> Self {
        let mut same = self.clone();
        if let Action::Balance(balance) = &mut same.rule.action {
            for backend in &mut balance.backends {
                (backend.state, backend.weight) = (BackendState::Up, 1);
            }
        }
        same
    }
}

impl Rules<'_> {
    /// Whether these are the same rules, but for which backends take how many flows.
    pub(super) fn are_but_states(&self, other: &Self) -> bool {
        let mut pairs = self.list.iter().zip(&other.list);
        self.list.len() == other.list.len()
            && pairs.all(|(one, other)| one.stateless() == other.stateless())
    }

    /// How the rule at this place balances, if it does.
    pub(super) fn balance(&self, index: usize) -> Option<&Balance> {
        match &self.at(index)?.action {
            Action::Balance(balance) => Some(balance),
            Action::Drop
            | Action::Passthrough
            | Action::Forward { .. }
            | Action::Duplicate { .. } => None,
        }
    }

    /// What is at this place to be chosen.
    pub(super) fn chosen(&self, index: usize) -> Option<&Chosen> {
        self.list.get(index)?.chosen.as_ref()
    }

    /// The place of what was chosen.
    pub(super) fn place(&self, chosen: &Chosen) -> Option<usize> {
        let mut list = self.list.iter();
        list.position(|it| it.chosen.as_ref() == Some(chosen))
    }

    fn vip(&self, chosen: &Chosen) -> Option<usize> {
        let mut list = self.list.iter();
        list.position(|it| it.chosen.is_none() && it.rule.id == chosen.vip)
    }

    fn backend(&self, chosen: &Chosen) -> Option<&Backend> {
        let balance = self.balance(self.vip(chosen)?)?;
        let mut backends = balance.backends.iter();
        backends.find(|it| Some(&it.id) == chosen.backend.as_ref())
    }

    /// Whether it keeps its flows.
    fn lives(&self, chosen: &Chosen) -> bool {
        let down = |it: &Backend| it.state == BackendState::Down;
        self.place(chosen).is_some() && !self.backend(chosen).is_some_and(down)
    }

    /// The place of what flows that begin with `first`, in this zone, come under if the rule at `vip` matches:
    /// what they had, what their UE had, or what their place in the table says.
    pub(super) fn choose(
        &self,
        vip: usize,
        zone: u16,
        first: &Packet,
        kept: Option<&Chosen>,
        affinities: &mut Affinities,
    ) -> usize {
        let (rule, balance) = (
            &self.list[vip].rule,
            self.balance(vip).expect("it balances"),
        );
        let place = |backend| {
            let vip = rule.id.clone();
            let place = self.place(&Chosen { vip, backend });
            place.expect("it is in the list")
        };
        if let Some(kept) = kept.filter(|kept| kept.vip == rule.id && self.lives(kept)) {
            return place(kept.backend.clone());
        }
        let takes = |id: &BackendId| {
            let mut backends = balance.backends.iter();
            backends.any(|it| it.id == *id && takes_flows(it))
        };
        let Affinity::Ue { timeout } = balance.affinity else {
            return place(spread(balance, first));
        };
        let ue = (rule.id.clone(), zone, first.source);
        let known = affinities.known.get(&ue).map(|(backend, _)| backend);
        let known = known.filter(|it| takes(it)).cloned();
        let chosen = known.or_else(|| spread(balance, first));
        if let Some(backend) = &chosen {
            let until = affinities.now + u64::from(timeout);
            affinities.known.insert(ue, (backend.clone(), until));
        }
        place(chosen)
    }
}

impl Oracle<'_> {
    /// The same for a flow that begins.
    pub(super) fn choose(&mut self, vip: usize, port: &Port, first: &Packet) -> usize {
        let affinities = &mut self.flows.affinities;
        self.rules.choose(vip, port.zone, first, None, affinities)
    }

    /// The place of what a packet from the UE comes under, of a flow that came under what is at `own`: something
    /// else if that is dead, or if a connection begins. `None`: there is nothing.
    pub(super) fn rebalance(&mut self, frame: &Frame, flow: usize, own: usize) -> Option<usize> {
        let Some(chosen) = self.rules.chosen(own) else {
            return Some(own);
        };
        let lives = self.rules.lives(chosen);
        if lives && !begins(frame) {
            return Some(own);
        }
        let vip = self.rules.vip(chosen)?;
        let known = &self.flows.all[flow];
        let (port, first) = (self.rules.world.port(known.port), known.first.clone());
        let new = self.choose(vip, port, &first);
        let known = &self.flows.all[flow];
        let rule = self.rules.at(new)?;
        let forwards = matches!(rule.action, Action::Forward { .. });
        if forwards && !known.forwarded && !self.reaches_ue(known) {
            // It goes on with the data network.
            return lives.then_some(own);
        }
        let reply = self.rules.reply_key(&Key::of(port.zone, &first), rule);
        if !reply.is_some_and(|reply| self.flows.rekey(flow, &reply)) {
            return lives.then_some(own);
        }
        let known = self.flows.all.get_mut(flow)?;
        (known.rule, known.forwarded) = (Some(new), forwards);
        known.chosen = self.rules.chosen(new).cloned();
        Some(new)
    }

    /// What becomes of an ICMP message to the VIP at `vip`.
    pub(super) fn asked(&mut self, port: &Port, frame: &Frame, vip: usize) -> Outcome {
        let chosen = self.choose(vip, port, &frame.packet);
        if self
            .rules
            .chosen(chosen)
            .is_none_or(|it| it.backend.is_none())
        {
            return original(Reason::NoBackend);
        }
        let counted = self.rules.at(vip).map(|rule| rule.id.clone());
        let answer = self.echo(port, frame).map(|answer| Outcome {
            rule: None,
            reason: Reason::VipEcho,
            fate: Fate::Sent(port.name, answer),
        });
        Outcome {
            rule: counted,
            ..answer.unwrap_or_else(|| original(Reason::NoRule))
        }
    }

    /// The answer to an echo request, by the way that it came.
    fn echo(&self, port: &Port, frame: &Frame) -> Option<Frame> {
        let packet = &frame.packet;
        let asks = matches!(packet.transport, Transport::Echo { reply: false, .. });
        if !asks || frame.piece.is_some() {
            return None;
        }
        let mut answer = Frame::from(packet.reversed().ttl(64));
        if let Some(envelope) = &frame.envelope {
            let qfi = envelope.qfi();
            let back = self.sessions.envelope_back(port.zone, packet, qfi)?;
            answer = answer.within(Some(back));
        }
        turn_to(&mut answer, packet);
        let own = answer.packet.source_mac;
        answer.outside = frame.of_peer().map(|peer| peer.back(&answer, own));
        Some(answer)
    }
}

/// Whether a packet begins a connection.
fn begins(frame: &Frame) -> bool {
    let later = frame.piece.is_some_and(|piece| piece.index > 0);
    let Transport::Tcp { flags, .. } = frame.packet.transport else {
        return false;
    };
    !later && flags & (SYN | ACK) == SYN
}

fn takes_flows(backend: &Backend) -> bool {
    backend.state == BackendState::Up && backend.weight > 0
}

/// The backend at the place of a flow in the table of those that take flows, if one does.
fn spread(balance: &Balance, first: &Packet) -> Option<BackendId> {
    type Tables = BTreeMap<Vec<(BackendId, u16)>, Arc<[usize]>>;
    /// Slow to make, and few.
    static TABLES: Mutex<Tables> = Mutex::new(BTreeMap::new());
    let backends = balance.backends.iter().filter(|it| takes_flows(it));
    let backends: Vec<_> = backends.map(|it| (it.id.clone(), it.weight)).collect();
    if backends.is_empty() {
        return None;
    }
    let table = {
        let mut tables = TABLES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = tables.entry(backends.clone());
        Arc::clone(known.or_insert_with_key(|backends| table(backends).into()))
    };
    let place = flow_key(first).spread() as usize % PLACES;
    Some(backends[table[place]].0.clone())
}

/// Places in a table.
const PLACES: usize = 65_537;

/// Which backend has which place ("Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4): each
/// in its turn takes the first free place in an order of its own. In a round the heaviest has a turn, and who
/// has a part of its weight in that part of the rounds, as soon as may be.
fn table(backends: &[(BackendId, u16)]) -> Vec<usize> {
    let weights = backends.iter().map(|(_, weight)| usize::from(*weight));
    let heaviest = weights.clone().max().unwrap_or(0);
    let hashes = backends.iter().map(|(id, _)| fnv_1a(id.as_ref()));
    let mut orders: Vec<_> = hashes
        .map(|hash| {
            let offset = split_mix(hash) % PLACES as u64;
            let skip = split_mix(!hash) % (PLACES as u64 - 1) + 1;
            (0..PLACES as u64).map(move |step| ((offset + step * skip) % PLACES as u64) as usize)
        })
        .collect();
    let mut table = vec![None; PLACES];
    let mut left = PLACES;
    for round in 0.. {
        for ((number, order), weight) in orders.iter_mut().enumerate().zip(weights.clone()) {
            let turns = |rounds: usize| (rounds * weight).div_ceil(heaviest);
            if left > 0 && turns(round + 1) > turns(round) {
                let free = order.find(|place| table[*place].is_none());
                table[free.expect("a place is left")] = Some(number);
                left -= 1;
            }
        }
        if left == 0 {
            break;
        }
    }
    table.into_iter().flatten().collect()
}

fn fnv_1a(text: &str) -> u64 {
    let mut hash = 14_695_981_039_346_656_037;
    for byte in text.bytes() {
        hash ^= u64::from(byte);
        hash = u64::wrapping_mul(hash, 1_099_511_628_211);
    }
    hash
}

/// The finalizer of SplitMix64.
fn split_mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use dataplane_core::maglev;

    use super::*;

    #[test]
    fn the_data_path_makes_the_same_table() {
        for weights in [
            &[("a", 1)][..],
            &[("a", 1), ("b", 1)],
            &[("B", 3), ("a", 1), ("ab", 2)],
            &[("app-1", 65_535), ("app-2", 1), ("app-3", 300)],
        ] {
            let backends = weights
                .iter()
                .map(|(id, weight)| (id.parse().unwrap(), *weight));
            let members = weights.iter();
            let members = members.map(|(id, weight)| maglev::Member::new(id.as_bytes(), *weight));
            let mut other = [maglev::NOBODY; maglev::SIZE];
            maglev::fill(&mut members.collect::<Vec<_>>(), &mut other);
            let backends: Vec<_> = backends.collect();
            let other: Vec<_> = other.into_iter().map(usize::from).collect();
            assert!(table(&backends) == other, "{weights:?}");
        }
    }
}
