//! The rule tables in memory of this process: what the program would look in, without a kernel.

use std::collections::BTreeMap;

use dataplane_core::{
    Word,
    flow::FlowKey,
    table::{
        CHOICES, Filter, Hop, Names, RuleAction, RuleTables, Split, State, Target, TunnelFilter,
    },
};

use crate::{
    Applied, Error, Limits, PortConfig,
    install::{HopAddress, HopKey, Place, Rules, Surroundings},
    memory::Memory,
    ports::{self, View},
    rule::{Endpoint, EndpointAddress, Rule, RuleId, RuleSet},
};

/// Rule sets as [`Dataplane`](crate::Dataplane) would put them in force, by the same code, for a host
/// that is made up.
#[derive(Debug)]
pub struct HostTables {
    memory: Memory,
    rules: Rules,
}

/// What [`Dataplane::apply`](crate::Dataplane::apply) would answer to these rules as the first, with tables of
/// these sizes; without `ports`, as far as it can be said without. It takes no privileges.
pub fn rehearse(
    limits: Limits,
    ports: Option<&[PortConfig]>,
    rules: &RuleSet,
) -> Result<Applied, Error> {
    let mut tables = HostTables::new(limits);
    let Some(ports) = ports else {
        return tables.apply(rules, &|_, _| None);
    };
    let slots: Vec<u16> = (0..).take(ports.len()).collect();
    let view = View {
        ports: &ports::new(ports, &slots),
        neighbors: &[],
        routes: &BTreeMap::new(),
    };
    let HostTables {
        memory,
        rules: in_force,
    } = &mut tables;
    let difference = in_force.difference(rules);
    in_force.apply(memory, &difference, &view, || ())
}

/// Tells where next hops are.
struct Answers<'a>(&'a dyn Fn(EndpointAddress, Option<&str>) -> Option<Hop>);

impl Surroundings for Answers<'_> {
    fn refuse(&self, _: &Rule, _: &[HopKey]) -> Option<String> {
        None
    }

    fn resolve(&self, hop: &HopKey) -> Option<Place> {
        let address = match hop.address {
            HopAddress::Mac(mac) => EndpointAddress::Mac(mac),
            HopAddress::Ip(address) => EndpointAddress::Ip {
                address,
                nat: false,
                nat_port: None,
            },
            HopAddress::Tunnel(target) => EndpointAddress::Tunnel(target),
        };
        Some(Place {
            hop: (self.0)(address, hop.port.as_deref())?,
            source: hop.own(),
        })
    }
}

impl HostTables {
    /// Empty tables of these sizes.
    pub fn new(limits: Limits) -> Self {
        let (memory, splits, filters) = Memory::heap(&limits);
        let rules = Rules::new(splits, filters, &memory, limits, 1);
        Self { memory, rules }
    }

    /// Has packets taken that come from a peer, from the next rule set on.
    pub fn expect(&mut self, peer: &Endpoint) -> Result<(), Error> {
        self.rules.expect(&self.memory, peer)
    }

    /// Puts `wanted` in force, as [`Dataplane::apply`](crate::Dataplane::apply) does. `resolve` tells where
    /// an address, behind a port if one is said, is found.
    pub fn apply(
        &mut self,
        wanted: &RuleSet,
        resolve: &dyn Fn(EndpointAddress, Option<&str>) -> Option<Hop>,
    ) -> Result<Applied, Error> {
        self.rules.resolve(&mut self.memory, &Answers(resolve));
        let difference = self.rules.difference(wanted);
        self.rules
            .apply(&mut self.memory, &difference, &Answers(resolve), || ())
    }

    /// How full the tables are: in use and in all. The first two are the cells of filters and of splits.
    pub fn pressure(&self) -> Vec<(&'static str, usize, usize)> {
        self.rules.pressure()
    }

    /// What the rules name.
    pub fn names(&self) -> Option<&Names> {
        self.memory.names.get(0)
    }

    /// The cell of a tunnel that packets with this key come by.
    pub fn opening(&self, key: &FlowKey) -> Option<u32> {
        self.rules.openings().get(key).copied()
    }

    /// A word of a table of choices.
    pub fn choice(&self, table: u32, word: u32) -> Option<&Word> {
        let at = table as usize * CHOICES as usize + word as usize;
        self.memory.choices.get(at)
    }

    /// The backend that is counted in `slot`.
    pub fn backend(&self, slot: u32) -> Option<&Word> {
        self.memory.backends.get(slot as usize)
    }

    /// The rule that is counted in `slot`.
    pub fn rule(&self, slot: u32) -> Option<&RuleId> {
        self.rules.by_slot().get(&slot).map(|it| &it.rule.id)
    }
}

impl RuleTables for HostTables {
    const TUNNELS: bool = true;

    fn state(&self) -> Option<&State> {
        self.memory.state.get(0)
    }

    fn split(&self, cell: u32) -> Option<&Split> {
        self.rules.split(cell)
    }

    fn filter(&self, cell: u32) -> Option<&Filter> {
        self.rules.filter(cell)
    }

    fn tunnel_filter(&self, cell: u32) -> Option<&TunnelFilter> {
        self.memory.tunnel_filters.get(cell as usize)
    }

    fn action(&self, cell: u32) -> Option<&RuleAction> {
        self.memory.actions.get(cell as usize)
    }

    fn hop(&self, cell: u32) -> Option<Hop> {
        Hop::of(self.memory.hops.get(cell as usize)?.get())
    }

    fn target(&self, cell: u32) -> Option<&Target> {
        self.memory.targets.get(cell as usize)
    }
}

#[cfg(test)]
mod tests {
    use dataplane_core::table::Index;

    use super::*;

    /// The rules that a packet which all of them match is compared with, in order.
    fn order(tables: &HostTables) -> Vec<RuleId> {
        let mut order = Vec::new();
        let mut at = tables.memory.image().root;
        while at != Index::END {
            assert!(at.is_filter(), "nothing can be split here");
            let filter = tables.filter(at.cell()).unwrap();
            let action = tables.action(filter.action).unwrap();
            order.push(tables.rule(action.rule).unwrap().clone());
            at = filter.next;
        }
        order
    }

    /// The last octets of the tunnels' first source addresses that packets are compared with, in order.
    fn tunnels(tables: &HostTables) -> Vec<u8> {
        let mut found = Vec::new();
        let mut at = tables.memory.image().root;
        while at != Index::END {
            assert!(at.is_filter(), "nothing can be split here");
            let filter = tables.filter(at.cell()).unwrap();
            let tunnel = tables.tunnel_filter(filter.tunnel - 1).unwrap();
            found.push(tunnel.source[0][1] as u8);
            at = filter.next;
        }
        found
    }

    #[test]
    fn what_is_wanted_of_tunnels_changes_with_its_rule() {
        let mut tables = HostTables::new(Limits {
            flows: 1,
            filters: 1000,
            rules: 4,
            sessions: 1,
            fragments: 1,
            vips: 1,
        });
        let rule = |id: &str, first: u8, count: u8| {
            let list = (0..count).map(|n| format!("192.0.2.{}", first + 2 * n));
            let list = list.collect::<Vec<_>>().join(",");
            let rule = format!("x/{id} prio 1 packet tunnel-from {list} drop");
            rule.parse::<Rule>().unwrap()
        };
        // More often than there are cells.
        for round in 0..20 {
            let wanted = [rule("a", round, 3), rule("b", 100, 1)]
                .into_iter()
                .collect();
            tables.apply(&wanted, &|_, _| None).unwrap();
            assert_eq!(tunnels(&tables), [round, round + 2, round + 4, 100]);
        }
        let many = [rule("a", 0, 3), rule("b", 100, 2)].into_iter().collect();
        let error = tables.apply(&many, &|_, _| None).unwrap_err();
        assert!(error.to_string().contains("5 needed, 4 allowed"), "{error}");
        assert_eq!(tunnels(&tables), [19, 21, 23, 100]);
    }

    #[test]
    fn rules_stay_in_order_when_places_run_out() {
        let mut tables = HostTables::new(Limits {
            flows: 1,
            filters: 1000,
            rules: 200,
            sessions: 1,
            fragments: 1,
            vips: 1,
        });
        let mut wanted = RuleSet::default();
        // Each comes right after the one before, so the room behind it is halved each time.
        for n in 1..=100 {
            let name = "a".repeat(n);
            wanted.insert(format!("x/{name} prio 1 packet any drop").parse().unwrap());
            let applied = tables.apply(&wanted, &|_, _| None).unwrap();
            assert_eq!((applied.added, applied.changed, applied.removed), (1, 0, 0));
            assert!(applied.not_installed.is_empty());
            let ids: Vec<RuleId> = wanted.iter().map(|rule| rule.id.clone()).collect();
            assert_eq!(order(&tables), ids, "after {n} rules");
        }
    }
}
