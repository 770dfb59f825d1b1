//! Next hops: where rules send packets, and where that is now.

use std::net::IpAddr;

use dataplane_core::{Word, table::Hop};

use super::Rules;
use crate::{
    Error,
    memory::Memory,
    rule::{Endpoint, EndpointAddress, Mac, Rule},
    shared::Shared,
};

/// What a next hop is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HopKey {
    pub(crate) address: HopAddress,
    pub(crate) port: Option<String>,
}

/// The address of a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum HopAddress {
    /// On the link of the port.
    Mac(Mac),
    /// To be resolved.
    Ip(IpAddr),
}

/// A next hop that rules need.
#[derive(Debug)]
pub(super) struct NextHop {
    cell: u32,
    users: usize,
    resolved: Option<Hop>,
}

/// Tells ports and next hops as they are now.
pub(crate) trait Surroundings {
    /// Why packets that match `rule` cannot be sent to the next hops that it needs, ever.
    fn refuse(&self, rule: &Rule, hops: &[HopKey]) -> Option<String>;
    /// Where packets for `hop` go now.
    fn resolve(&self, hop: &HopKey) -> Option<Hop>;
}

impl Rules {
    pub(super) fn take_hop(
        &mut self,
        memory: &Memory,
        surroundings: &impl Surroundings,
        key: &HopKey,
    ) -> Result<u32, Error> {
        if let Some(hop) = self.next_hops.get_mut(key) {
            hop.users += 1;
            return Ok(hop.cell);
        }
        let cell = self.hops.take(self.limits.rules)?;
        let resolved = surroundings.resolve(key);
        set(&memory.hops, cell, resolved);
        self.next_hops.insert(
            key.clone(),
            NextHop {
                cell,
                users: 1,
                resolved,
            },
        );
        Ok(cell)
    }

    /// One user less of a next hop. Answers its cell when that was the last.
    pub(super) fn leave_hop(&mut self, key: &HopKey) -> Option<u32> {
        let hop = self.next_hops.get_mut(key)?;
        hop.users -= 1;
        (hop.users == 0)
            .then(|| self.next_hops.remove(key))?
            .map(|hop| hop.cell)
    }

    /// Looks again for every next hop. Answers those that changed.
    pub(crate) fn resolve(
        &mut self,
        memory: &Memory,
        surroundings: &impl Surroundings,
    ) -> Vec<HopKey> {
        let mut changed = Vec::new();
        for (key, hop) in &mut self.next_hops {
            let resolved = surroundings.resolve(key);
            if resolved != hop.resolved {
                hop.resolved = resolved;
                set(&memory.hops, hop.cell, resolved);
                changed.push(key.clone());
            }
        }
        changed
    }

    /// Next hops, and where they are.
    pub(crate) fn next_hops(&self) -> impl Iterator<Item = (&HopKey, Option<Hop>)> {
        self.next_hops.iter().map(|(key, hop)| (key, hop.resolved))
    }
}

/// Tells packets where a next hop is.
pub(super) fn set(hops: &Shared<Word>, cell: u32, resolved: Option<Hop>) {
    if let Some(word) = hops.get(cell as usize) {
        word.set(resolved.map_or(0, Hop::word));
    }
}

/// The next hops that a rule needs.
pub(super) fn keys(rule: &Rule) -> Vec<HopKey> {
    let key = |endpoint: &Endpoint| HopKey {
        address: match endpoint.address {
            EndpointAddress::Mac(mac) => HopAddress::Mac(mac),
            EndpointAddress::Ip { address, .. } => HopAddress::Ip(address),
        },
        port: endpoint.port.clone(),
    };
    rule.action
        .destination()
        .map_or_else(Vec::new, |it| it.endpoints().map(key).collect())
}
