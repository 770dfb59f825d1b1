//! Choosing a backend for the flows of a VIP, and for good reasons another.

use crate::{
    flow::{Decision, FlowKey, Found, Record},
    steer::Steering,
    table::{Affinity, AffinityKey, Backend, Direction, RuleAction, Tables, balance, flag, verb},
    wire::transport::Tcp,
};

impl<T: Tables> Steering<'_, T> {
    /// The cell of the backend's action, plus 1, for flows with the noted key that come under `group`; 0 when there is none.
    /// One that was chosen before, and is counted in the slot before `kept`, stays for as long as it lives.
    #[inline(never)]
    pub(crate) fn choose(&self, group: &RuleAction, kept: u64) -> u64 {
        let tables = self.tables;
        let of_vip = |slot| {
            let backend = Backend::from(tables.backend(slot)?.get());
            (backend.lives() && backend.vip() == group.rule).then_some(backend)
        };
        if kept != 0
            && let Some(backend) = of_vip(kept as u32 - 1)
        {
            return u64::from(backend.cell()) + 1;
        }
        let key = &self.notes.key.get();
        // The time-out.
        if group.second == 0 {
            return self.spread(group, key);
        }
        let ue = AffinityKey {
            ue: key.source,
            vip: group.rule,
            zone: key.rest.zone().into(),
        };
        let now = tables.now();
        let until = (now + u64::from(group.second)) / Affinity::UNIT;
        if let Some(word) = tables.affinity(&ue) {
            let known = Affinity::from(word.get());
            if known.until >= now / Affinity::UNIT
                && let Some(backend) = of_vip(known.slot).filter(|it| it.is_up())
            {
                if !tables.read_only() {
                    word.set(Affinity { until, ..known }.into());
                }
                return u64::from(backend.cell()) + 1;
            }
        }
        let chosen = self.spread(group, key);
        if !tables.read_only()
            && let Some(action) = tables.action((chosen as u32).wrapping_sub(1))
            && action.flags & flag::FALLBACK == 0
        {
            let slot = action.rule;
            tables.remember_affinity(&ue, Affinity { slot, until }.into());
        }
        chosen
    }

    /// The backend that the table of the group has for a key.
    #[inline(always)]
    fn spread(&self, group: &RuleAction, key: &FlowKey) -> u64 {
        let (word, shift) = balance::place(key.spread());
        let choice = self.tables.choice(group.first, word);
        choice.map_or(0, |choice| choice.get() >> shift & u64::from(u32::MAX))
    }

    /// The cell of the action, plus 1, that a packet of a balanced flow comes under: that of another backend when that of
    /// the flow is gone, or when a connection begins. 0: there is none.
    #[inline(never)]
    pub(crate) fn rebalance(&self, found: &Found<'_>, cell: u32) -> u64 {
        let Found { record, flow, .. } = *found;
        let tables = self.tables;
        let stays = u64::from(cell) + 1;
        let begins = self.facts.tcp_flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN;
        let Some(action) = tables.action(cell) else {
            return 0;
        };
        let word = tables.backend(action.rule).map_or(0, |it| it.get());
        let lives = Backend::from(word).lives();
        // What an application gives back, or anybody sends from another side, moves no flow.
        if lives && !begins || !self.is_upstream() {
            return stays;
        }
        let Some(group) = tables.action(action.second) else {
            return 0;
        };
        self.notes.key.copy(&record.key);
        let chosen = self.choose(group, 0);
        if chosen == stays {
            return stays;
        }
        let Some(new) = tables.action((chosen as u32).wrapping_sub(1)) else {
            return 0;
        };
        if tables.read_only() {
            return chosen;
        }
        let forwards = T::TUNNELS && new.verb == verb::FORWARD;
        // What goes on with the data network does so until answers find the UE.
        let left = forwards && record.forwarded.get() == 0 && !self.reaches_ue(record);
        if left || self.rekey(record, flow, new).is_err() {
            return if lives { stays } else { 0 };
        }
        if T::TUNNELS {
            record.forwarded.set(forwards.into());
        }
        if !lives {
            tables.rechosen();
        }
        record.rule.set(u64::from(new.rule) + 1);
        record.choose(tables, chosen as u32 - 1, self.image.epoch);
        chosen
    }
}

impl Record {
    /// Has packets of both directions come under the action in `cell` from now on.
    fn choose<T: Tables>(&self, tables: &T, cell: u32, epoch: u32) {
        let upstream = self.decision(Direction::Upstream);
        let decision = Decision {
            epoch,
            action: Some(cell),
            sensitive: Decision::from(upstream.get()).sensitive,
        };
        upstream.set(decision.into());
        let decision = Decision {
            sensitive: false,
            ..decision
        };
        self.context.set(decision.into());
        // To be decided anew.
        self.decision(Direction::Downstream).set(0);
        self.moved(tables);
    }
}
