//! What the tables say of a rule.

use std::collections::BTreeSet;

use dataplane_core::table::{Filter, Index, RuleAction, flag, kind, verb};

use crate::{
    compile::words,
    rule::{Action, Destination, Endpoint, EndpointAddress, FilterType, Rule, Tunnel},
    shared::Shared,
};

/// An action that drops.
pub(super) fn new(rank: u64, slot: u32, kind: u8) -> RuleAction {
    RuleAction {
        rank,
        nat: [0; 2],
        rule: slot,
        first: u32::MAX,
        second: u32::MAX,
        verb: verb::DROP,
        flags: 0,
        kind,
        padding: 0,
        nat_port: 0,
        padding_too: [0; 3],
    }
}

/// The action of a rule that has these places.
pub(super) fn of(rule: &Rule, rank: u64, slot: u32, [first, second]: [u32; 2]) -> RuleAction {
    let kind = match rule.filter_type {
        FilterType::Flow => kind::FLOW,
        FilterType::Packet => kind::PACKET,
    };
    let mut action = RuleAction {
        first,
        second,
        verb: match &rule.action {
            Action::Drop => verb::DROP,
            Action::Passthrough => verb::PASSTHROUGH,
            Action::Forward { .. } => verb::FORWARD,
            Action::Duplicate { .. } => verb::DUPLICATE,
            Action::Balance(_) => verb::BALANCE,
        },
        ..new(rank, slot, kind)
    };
    if let Action::Forward { tunnel, .. } | Action::Duplicate { tunnel, .. } = rule.action
        && tunnel == Tunnel::Encapsulated
    {
        action.flags |= flag::ENCAPSULATED;
    }
    match rule.action.destination() {
        Some(Destination::Inline { .. }) => action.flags |= flag::INLINE,
        Some(Destination::One(endpoint)) => lead(&mut action, endpoint),
        None => {}
    }
    action
}

/// Has an action lead to an endpoint.
pub(super) fn lead(action: &mut RuleAction, endpoint: &Endpoint) {
    match endpoint.address {
        EndpointAddress::Mac(_) => {}
        EndpointAddress::Ip {
            address,
            nat,
            nat_port,
        } => {
            action.flags |= flag::ROUTE;
            if nat {
                action.flags |= flag::NAT;
                action.nat = words(address);
                action.nat_port = nat_port.unwrap_or(0);
            }
        }
        EndpointAddress::Tunnel(_) => action.flags |= flag::ROUTE | flag::TUNNEL,
    }
}

/// The cells that packets can reach from `root` by what filters name: that of all filters that are not free.
pub(super) fn in_use(
    filters: &Shared<Filter>,
    root: Index,
    named: impl Fn(&Filter) -> Option<u32>,
) -> BTreeSet<u32> {
    if root == Index::END {
        return BTreeSet::new();
    }
    // Free cells may still name one; keeping that costs a cell until the next start at most.
    filters
        .iter()
        .filter(|filter| filter.kind != 0)
        .filter_map(named)
        .collect()
}
