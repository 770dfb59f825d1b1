//! The rule tables of the data path in memory of this process.

use std::{cell::Cell, net::IpAddr};

use anyhow::{Result, ensure};
use dataplane_core::{
    classify::{InTunnel, Query, first_match},
    flow::{FlowKey, KeyRest},
    parse::mapped,
    table::{Filter, Hop, RuleAction, RuleTables, Split, State, Target, TunnelFilter, kind},
};
use dataplane_user::{
    HostTables, Limits,
    rule::{RuleId, RuleSet},
};

use crate::shapes::Header;

/// Rules in force.
#[derive(Debug)]
pub struct RuleTree(pub HostTables);

impl RuleTree {
    /// Puts rules in force, with room for `copies` filters for each.
    pub fn new(rules: &RuleSet, copies: u32) -> Result<Self> {
        let mut tree = Self(HostTables::new(Limits {
            flows: 1,
            filters: (copies * rules.len() as u32).max(1024),
            rules: rules.len() as u32 + 1024,
            fragments: 1,
            sessions: 1,
            vips: 1,
        }));
        tree.change(rules)?;
        Ok(tree)
    }

    /// Puts others in force.
    pub fn change(&mut self, rules: &RuleSet) -> Result<()> {
        let applied = self.0.apply(rules, &|_, _| None)?;
        ensure!(
            applied.not_installed.is_empty(),
            "{:?}",
            applied.not_installed
        );
        Ok(())
    }

    /// The rule of a packet, and whether others of its flow may come under another.
    pub fn rule(&self, query: &Query, tunnel: &InTunnel) -> (Option<&RuleId>, bool) {
        let answer = first_match(&self.0, self.0.image().root, query, tunnel);
        let action = answer.action().and_then(|cell| self.0.action(cell));
        let rule = action.and_then(|action| self.0.rule(action.rule));
        (rule, answer.is_sensitive())
    }

    /// The action for a packet.
    pub fn find(&self, query: &Query) -> Option<u32> {
        first_match(&self.0, self.0.image().root, query, &InTunnel::NONE).action()
    }

    /// Octets of all cells in use.
    pub fn size(&self) -> usize {
        let sizes = [size_of::<Filter>(), size_of::<Split>()];
        let used = self.0.pressure().into_iter().map(|(_, used, _)| used);
        used.zip(sizes).map(|(used, size)| used * size).sum()
    }

    /// Cells that a packet comes by.
    pub fn steps(&self, query: &Query) -> u32 {
        let counting = Counting {
            tables: &self.0,
            steps: Cell::new(0),
        };
        first_match(&counting, self.0.image().root, query, &InTunnel::NONE);
        counting.steps.get()
    }
}

/// Tables that count how often splits and filters are looked at.
struct Counting<'a> {
    tables: &'a HostTables,
    steps: Cell<u32>,
}

impl RuleTables for Counting<'_> {
    const TUNNELS: bool = HostTables::TUNNELS;

    fn state(&self) -> Option<&State> {
        self.tables.state()
    }

    fn split(&self, cell: u32) -> Option<&Split> {
        self.steps.set(self.steps.get() + 1);
        self.tables.split(cell)
    }

    fn filter(&self, cell: u32) -> Option<&Filter> {
        self.steps.set(self.steps.get() + 1);
        self.tables.filter(cell)
    }

    fn tunnel_filter(&self, cell: u32) -> Option<&TunnelFilter> {
        self.tables.tunnel_filter(cell)
    }

    fn action(&self, cell: u32) -> Option<&RuleAction> {
        self.tables.action(cell)
    }

    fn hop(&self, index: u32) -> Option<Hop> {
        self.tables.hop(index)
    }

    fn target(&self, cell: u32) -> Option<&Target> {
        self.tables.target(cell)
    }
}

/// What is asked about a packet of a flow.
pub fn query(header: &Header) -> Query {
    let address = |address| match address {
        IpAddr::V4(address) => mapped(address.into()),
        IpAddr::V6(address) => {
            let bits: u128 = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    };
    let key = FlowKey {
        source: address(header.source),
        destination: address(header.destination),
        rest: KeyRest::new(
            u32::from(header.source_port) << 16 | u32::from(header.destination_port),
            0,
            header.protocol,
        ),
    };
    let tos = if header.source.is_ipv4() { 0 } else { 256 };
    Query::new(&key, tos, kind::FLOW, 0)
}
