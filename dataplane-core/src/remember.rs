//! Which rule a packet comes under, and making a flow of it.

use crate::{
    classify::{self, Answer, Query},
    flow::{self, Decision, FlowKey, Record},
    steer::Steering,
    table::{Action, Direction, FlowRef, Inserted, NO_PORT, Tables, flag, kind, verb},
    verdict::Reason,
};

impl<'a, T: Tables> Steering<'a, T> {
    /// The first rule of `kinds` that matches the packet.
    pub(crate) fn classify(&self, kinds: u8) -> Option<Answer> {
        let query = Query::new(&self.facts.key, self.facts.ip.tos, kinds, self.port.slot);
        classify::first_match(self.tables, self.image, &query)
    }

    /// The action for a packet of a flow. An ICMP error is not what the flow's decision was taken for.
    pub(crate) fn decision(
        &self,
        record: &Record,
        direction: Direction,
        icmp_error: bool,
    ) -> Result<Option<u32>, Reason> {
        let decision = Decision::from(record.decision(direction).get());
        if decision.epoch == self.image.epoch && !decision.sensitive && !icmp_error {
            return Ok(decision.action);
        }
        self.decide(record, direction, icmp_error)
    }

    /// Rules for packets may come before the rule of the flow.
    #[inline(never)]
    fn decide(
        &self,
        record: &Record,
        direction: Direction,
        icmp_error: bool,
    ) -> Result<Option<u32>, Reason> {
        let context = self.context(record)?;
        let own = self.classify(kind::PACKET).ok_or(Reason::RuleSetBroken)?;
        let mut decision = Decision {
            epoch: self.image.epoch,
            action: context,
            sensitive: own.sensitive,
        };
        if let Some(action) = own.action.and_then(|cell| self.tables.action(cell)) {
            let first = match context.and_then(|cell| self.tables.action(cell)) {
                Some(context) => action.rank < context.rank,
                None => true,
            };
            if first {
                decision.action = own.action;
            }
            // Whether it applies depends on where the packet comes from.
            decision.sensitive |= matches!(action.verb, verb::FORWARD | verb::DUPLICATE);
        }
        if !icmp_error && !self.tables.read_only() {
            record.decision(direction).set(decision.into());
        }
        Ok(decision.action)
    }

    /// The action of the flow's own rule in this epoch, found as if its first packet came now.
    fn context(&self, record: &Record) -> Result<Option<u32>, Reason> {
        let context = Decision::from(record.context.get());
        if context.epoch == self.image.epoch {
            return Ok(context.action);
        }
        let key = record.upstream_key();
        let tos = record.tos.get() as u16;
        let slot = record.way_back().ue.get() as u16;
        let query = Query::new(&key, tos, kind::FLOW, slot);
        let answer = classify::first_match(self.tables, self.image, &query)
            .ok_or(Reason::RuleSetBroken)?;
        if self.tables.read_only() {
            return Ok(answer.action);
        }
        if let Some(action) = answer.action.and_then(|cell| self.tables.action(cell)) {
            let old = record.reply_key();
            let new = self.reply_key(&key, action)?;
            if new != old {
                let flow = self.tables.flow(&old).ok_or(Reason::ReplyConflict)?;
                match self.tables.insert(&new, flow) {
                    Inserted::Done => {}
                    Inserted::Exists => return Err(Reason::ReplyConflict),
                    Inserted::Full => return Err(Reason::FlowTableFull),
                }
                Record::set_key(&record.reply, &new);
                self.tables.remove(&old);
            }
        }
        let decision = Decision {
            epoch: self.image.epoch,
            action: answer.action,
            sensitive: false,
        };
        record.context.set(decision.into());
        Ok(answer.action)
    }

    /// Makes a flow that comes under the action in `cell`.
    pub(crate) fn remember(
        &self,
        action: &Action,
        cell: u32,
        sensitive: bool,
    ) -> Result<&'a Record, Reason> {
        let tables = self.tables;
        let key = &self.facts.key;
        let reply = self.reply_key(key, action)?;
        let id = tables.allocate().ok_or(Reason::FlowTableFull)?;
        let record = tables.record(id).ok_or(Reason::FlowTableFull)?;
        let mut decision = Decision {
            epoch: self.image.epoch,
            action: Some(cell),
            sensitive: false,
        };
        record.context.set(decision.into());
        decision.sensitive = sensitive;
        let [upstream, downstream] = &record.decided;
        upstream.set(decision.into());
        downstream.set(0);
        Record::set_key(&record.key, key);
        Record::set_key(&record.reply, &reply);
        record.tos.set(self.facts.ip.tos.into());
        record.first_seen.set(tables.now());
        record.follow(&self.facts.link, self.port.slot);
        let mut flow = FlowRef {
            id,
            generation: record.generation.get() as u32,
            direction: Direction::Downstream,
        };
        // The reply's key first: while nothing leads to the record, it can be given back.
        match tables.insert(&reply, flow) {
            Inserted::Done => record.live.set(1),
            refused => {
                tables.release(id);
                return match (refused, flow::find(tables, key)) {
                    // Another CPU made the flow at the same time.
                    (_, Some((record, _))) => Ok(record),
                    (Inserted::Exists, None) => Err(Reason::ReplyConflict),
                    _ => Err(Reason::FlowTableFull),
                };
            }
        }
        flow.direction = Direction::Upstream;
        match tables.insert(key, flow) {
            Inserted::Done => Ok(record),
            refused => {
                // Somebody may hold the record by now: it stays until it expires.
                tables.remove(&reply);
                match (refused, flow::find(tables, key)) {
                    (_, Some((record, _))) => Ok(record),
                    _ => Err(Reason::FlowTableFull),
                }
            }
        }
    }

    /// The key of the answers to packets with `key`, once they have been through `action`.
    fn reply_key(&self, key: &FlowKey, action: &Action) -> Result<FlowKey, Reason> {
        let mut reply = key.reversed();
        if action.verb == verb::FORWARD && action.flags & flag::INLINE == 0 {
            let hop = self.tables.hop(action.first).ok_or(Reason::NextHopUnresolved)?;
            let port = self.tables.port_in(hop.slot).ok_or(Reason::PortDown)?;
            reply.zone = port.zone;
            if action.flags & flag::NAT != 0 {
                reply.source = action.nat;
            }
        }
        Ok(reply)
    }

    /// Whether answers find their way without an entry in the flow table: the kernel routes them.
    pub(crate) const fn works_without_flow(&self, action: &Action) -> bool {
        match action.verb {
            verb::PASSTHROUGH => true,
            verb::FORWARD => {
                self.port.pair == NO_PORT && action.flags & (flag::NAT | flag::INLINE) == 0
            }
            _ => false,
        }
    }

    /// Whether the packet, which an application sends, answers the copy of a packet.
    pub(crate) fn answers_copy(&self) -> bool {
        let query = Query::new(
            &self.facts.key.reversed(),
            self.facts.ip.tos,
            kind::PACKET,
            NO_PORT,
        );
        classify::first_match(self.tables, self.image, &query)
            .and_then(|answer| self.tables.action(answer.action?))
            .is_some_and(|action| {
                action.verb == verb::DUPLICATE
                    && [action.first, action.second]
                        .into_iter()
                        .any(|hop| self.tables.hop(hop).is_some_and(|hop| hop.slot == self.port.slot))
            })
    }
}
