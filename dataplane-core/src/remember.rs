//! Which rule a packet comes under, and making a flow of it.

use crate::{
    classify::{Answer, Query},
    flow::{self, Decision, FlowKey, Found, KeyRest, Record},
    parse::is_icmp,
    steer::{Notes, Steering},
    table::{Direction, FlowRef, Inserted, NO_PORT, PORTS, RuleAction, Tables, flag, kind, verb},
    verdict::Reason,
    wire::transport::TCP,
};

impl<'a, T: Tables> Steering<'a, T> {
    /// The first rule of `kinds` that matches the packet.
    pub(crate) fn classify(&self, kinds: u8) -> Answer {
        if T::TUNNELS {
            self.see_tunnel();
        }
        self.ask(&self.facts.key, self.facts.ip.tos, kinds, self.port.slot)
    }

    /// Asks about packets in the tunnel that was noted last.
    fn ask(&self, key: &FlowKey, tos: u16, kinds: u8, from: u16) -> Answer {
        let Notes {
            query,
            tunnel,
            walk,
            ..
        } = self.notes;
        query.set(Query::new(key, tos, kinds, from));
        walk.begin(self.image.root);
        self.tables.classify(query, tunnel, walk)
    }

    /// The action for a packet of a flow, or why there is none. An ICMP error is not what the flow's
    /// decision was taken for.
    #[inline(always)]
    pub(crate) fn decision(&self, found: &Found<'_>, icmp_error: bool) -> Result<u32, Reason> {
        let word = found.record.decision(found.flow.direction()).get();
        if Decision::holds(word, self.image.epoch) && !icmp_error {
            return Decision::from(word).action.ok_or(Reason::NoRule);
        }
        let word = self.decide(found.record, found.flow, icmp_error);
        Decision::from(word)
            .action
            .ok_or_else(|| self.notes.refusal.get())
    }

    /// A [`Decision`] as a word; without an action, notes why.
    #[inline(never)]
    fn decide(&self, record: &Record, flow: FlowRef, icmp_error: bool) -> u64 {
        self.notes.refusal.set(Reason::NoRule);
        match self.decide_anew(record, flow, icmp_error) {
            Ok(decision) => decision.into(),
            Err(reason) => {
                self.notes.refusal.set(reason);
                0
            }
        }
    }

    /// Rules for packets may come before the rule of the flow.
    fn decide_anew(
        &self,
        record: &Record,
        flow: FlowRef,
        icmp_error: bool,
    ) -> Result<Decision, Reason> {
        let mut refused = None;
        let context = self.context(record, flow, &mut refused)?;
        let own = self.classify(kind::PACKET);
        if own.is_broken() {
            return Err(Reason::RuleSetBroken);
        }
        let mut decision = Decision {
            epoch: self.image.epoch,
            action: context,
            // What is refused now may not be soon.
            sensitive: own.is_sensitive() || refused.is_some(),
        };
        let mut first = false;
        if let Some(action) = own.action().and_then(|cell| self.tables.action(cell)) {
            first = match context.and_then(|cell| self.tables.action(cell)) {
                Some(context) => action.rank < context.rank,
                None => true,
            };
            if first {
                decision.action = own.action();
            }
            // Whether it applies depends on where the packet comes from.
            decision.sensitive |= matches!(action.verb, verb::FORWARD | verb::DUPLICATE);
        }
        if let Some(reason) = refused
            && !first
        {
            return Err(reason);
        }
        if T::TUNNELS && record.rule.get() == Record::LEFT && !first {
            decision.action = None;
        }
        if !icmp_error && !self.tables.read_only() {
            record.decision(flow.direction()).set(decision.into());
        }
        Ok(decision)
    }

    /// The action of the flow's own rule in this epoch, found as if its first packet came now; and why
    /// it cannot be taken now, if so.
    fn context(
        &self,
        record: &Record,
        flow: FlowRef,
        refused: &mut Option<Reason>,
    ) -> Result<Option<u32>, Reason> {
        let context = Decision::from(record.context.get());
        if context.epoch == self.image.epoch {
            return Ok(context.action);
        }
        if T::TUNNELS {
            self.see_tunnel_of_flow(record);
        }
        let key = record.key.get();
        let tos = record.tos.get() as u16;
        let slot = record.way_back().ue.get() as u16;
        let answer = self.ask(&key, tos, kind::FLOW, slot);
        if answer.is_broken() {
            return Err(Reason::RuleSetBroken);
        }
        let mut cell = answer.action();
        let mut action = cell.and_then(|cell| self.tables.action(cell));
        if let Some(group) = action.filter(|it| it.verb == verb::BALANCE) {
            self.notes.key.copy(&record.key);
            // ICMP is nothing for backends: what began before the VIP was there ends on its original path.
            cell = if is_icmp(key.rest.protocol()) {
                None
            } else {
                (self.choose(group, record.rule.get()) as u32).checked_sub(1)
            };
            action = cell.and_then(|cell| self.tables.action(cell));
        }
        let forwards = T::TUNNELS && action.is_some_and(|it| it.verb == verb::FORWARD);
        let mut left = forwards && record.rule.get() == Record::LEFT;
        if forwards && !left && record.forwarded.get() == 0 && !self.reaches_ue(record) {
            // As a new flow would be.
            left = key.rest.protocol() == TCP && !self.tables.read_only();
            if !left {
                *refused = Some(Reason::NoDownlinkTunnel);
                return Ok(cell);
            }
            record.rule.set(Record::LEFT);
        }
        if self.tables.read_only() {
            return Ok(cell);
        }
        if let Some(action) = action.filter(|_| !left) {
            if let Err(reason) = self.rekey(record, flow, action) {
                *refused = Some(reason);
                return Ok(cell);
            }
            record.rule.set(u64::from(action.rule) + 1);
        }
        if T::TUNNELS {
            record.forwarded.set((forwards && !left).into());
        }
        let decision = Decision {
            epoch: self.image.epoch,
            action: cell,
            sensitive: false,
        };
        record.context.set(decision.into());
        Ok(cell)
    }

    /// Follows a change of where the answers come from.
    #[inline(never)]
    pub(crate) fn rekey(
        &self,
        record: &Record,
        flow: FlowRef,
        action: &RuleAction,
    ) -> Result<(), Reason> {
        let (tables, old, new) = (self.tables, &self.notes.old, &self.notes.key);
        self.reply_key(&record.key.get(), action)?;
        if record.reply.is(new) {
            return Ok(());
        }
        old.copy(&record.reply);
        record.reply.copy(new);
        let inserted = tables.add_flow(flow.id());
        if inserted != Inserted::Done {
            record.reply.copy(old);
            return Err(inserted.reason());
        }
        // Flow caches that know the old key lead nowhere now.
        tables.add(&record.half(Direction::Downstream).generation, 1);
        tables.forget_flow(flow.id(), old);
        Ok(())
    }

    /// Makes a flow that comes under the action in `cell`, or notes why it cannot be made. (A result
    /// of both would pass the record through memory, where the verifier loses it.) One that is `left` goes its
    /// original path for as long as it lasts.
    #[inline(never)]
    pub(crate) fn remember(
        &self,
        action: &RuleAction,
        cell: u32,
        sensitive: bool,
        left: bool,
    ) -> Option<&'a Record> {
        let tables = self.tables;
        if left {
            self.notes.key.set(&self.facts.key.reversed());
        } else if let Err(reason) = self.reply_key(&self.facts.key, action) {
            self.notes.refusal.set(reason);
            return None;
        }
        self.notes.refusal.set(Reason::FlowTableFull);
        let id = flow::allocate(tables)?;
        let record = tables.record(id)?;
        let mut decision = Decision {
            epoch: self.image.epoch,
            action: Some(cell),
            sensitive: false,
        };
        record.context.set(decision.into());
        decision.sensitive = sensitive;
        if left {
            decision.action = None;
        }
        let [upstream, downstream] = &record.decided;
        upstream.set(decision.into());
        downstream.set(0);
        record.key.set(&self.facts.key);
        record.reply.copy(&self.notes.key);
        record.tos.set(self.facts.ip.tos.into());
        record.rule.set(if left {
            Record::LEFT
        } else {
            u64::from(action.rule) + 1
        });
        record.first_seen.set(tables.now());
        let mut session = 0;
        if T::TUNNELS {
            self.note_tunnel_ports(record);
            session = self.notes.session.get();
            let forwarded = action.verb == verb::FORWARD && !left;
            record.forwarded.set(forwarded.into());
        }
        record.begin(tables, &self.facts.link, self.port.slot, session);
        let inserted = tables.add_flow(id);
        if inserted == Inserted::Done {
            return Some(record);
        }
        self.notes.refusal.set(inserted.reason());
        if record.live.get() != 0 {
            // Somebody may hold it by now: it stays until it expires.
            return None;
        }
        flow::release(tables, id);
        self.made_elsewhere()
    }

    /// The record of the packet's flow that another CPU has just made.
    fn made_elsewhere(&self) -> Option<&'a Record> {
        let flow = self.tables.flow_at(&self.notes.key)?;
        let record = self.tables.record(flow.id())?;
        (record.key.get() == self.facts.key).then_some(record)
    }

    /// Notes the key of the answers to packets with `key`, once they have been through `action`.
    fn reply_key(&self, key: &FlowKey, action: &RuleAction) -> Result<(), Reason> {
        let mut reply = key.reversed();
        if action.verb == verb::FORWARD && action.flags & flag::INLINE == 0 {
            let hop = self
                .tables
                .hop(action.first)
                .ok_or(Reason::NextHopUnresolved)?;
            let port = self.tables.port_in(hop.slot).ok_or(Reason::PortDown)?;
            let rest = reply.rest;
            reply.rest = KeyRest::new(rest.ports(), port.zone, rest.protocol());
            if action.flags & flag::NAT != 0 {
                reply.source = action.nat;
            }
            if action.nat_port != 0 {
                let ports = u32::from(action.nat_port) << 16 | u32::from(rest.ports() as u16);
                reply.rest = KeyRest::new(ports, port.zone, rest.protocol());
            }
        }
        self.notes.key.set(&reply);
        Ok(())
    }

    /// Whether answers find their way without an entry in the flow table: the kernel routes them.
    pub(crate) fn works_without_flow(&self, action: &RuleAction) -> bool {
        if self.is_from_peer() || !matches!(self.notes.refusal.get(), Reason::FlowTableFull) {
            return false;
        }
        match action.verb {
            verb::PASSTHROUGH => true,
            verb::FORWARD => {
                self.port.pair == NO_PORT
                    && action.flags & (flag::NAT | flag::INLINE | flag::TUNNEL) == 0
            }
            _ => false,
        }
    }

    /// Whether the packet, which an application sends, answers the copy of a packet. The application may
    /// be in another zone than the UEs.
    #[inline(never)]
    pub(crate) fn answers_copy(&self) -> bool {
        let ports = (0..PORTS as u16).filter_map(|slot| self.tables.port_in(slot));
        ports
            .filter(|port| port.is_upstream())
            .any(|port| self.answers_copy_in(port.zone))
    }

    #[inline(never)]
    fn answers_copy_in(&self, zone: u16) -> bool {
        let mut key = self.facts.key;
        key.rest = KeyRest::new(key.rest.ports(), zone, key.rest.protocol());
        let answered = flow::find(self.tables, &key);
        let answer = match answered.filter(|it| it.flow.direction() == Direction::Downstream) {
            Some(Found { record, .. }) => {
                if T::TUNNELS {
                    self.see_tunnel_of_flow(record);
                }
                self.ask(
                    &record.key.get(),
                    record.tos.get() as u16,
                    kind::FLOW | kind::PACKET,
                    record.way_back().ue.get() as u16,
                )
            }
            None => {
                if T::TUNNELS {
                    self.see_tunnel_of_ue(zone);
                }
                self.ask(&key.reversed(), self.facts.ip.tos, kind::PACKET, NO_PORT)
            }
        };
        answer
            .action()
            .and_then(|cell| self.tables.action(cell))
            .is_some_and(|action| {
                action.verb == verb::DUPLICATE
                    && (self.is_from(action.first) || self.is_from(action.second))
            })
    }
}

impl Inserted {
    /// Why a flow could not be made.
    const fn reason(self) -> Reason {
        match self {
            Self::Exists => Reason::ReplyConflict,
            Self::Done | Self::Full => Reason::FlowTableFull,
        }
    }
}
