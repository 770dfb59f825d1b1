//! Next hops: where rules send packets, and where that is now.

use std::{collections::BTreeMap, net::IpAddr};

use dataplane_core::{
    flow::FlowKey,
    table::{Hop, TARGETS, Target as Entry, encapsulation},
    tunnel::Tunnel,
};

use super::Rules;
use crate::{
    Error,
    compile::words,
    memory::Memory,
    ports::mac_bits,
    rule::{Encapsulation, Endpoint, EndpointAddress, Mac, Rule, Target},
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
    /// To be resolved, and packets are put into the tunnel that ends there.
    Tunnel(Target),
}

impl HopKey {
    /// The address that is to be resolved, and the port that it is said to be behind.
    pub(crate) fn resolved_by(&self) -> Option<(IpAddr, Option<&String>)> {
        let address = match self.address {
            HopAddress::Mac(_) => return None,
            HopAddress::Ip(address) => address,
            HopAddress::Tunnel(target) => target.destination,
        };
        Some((address, self.port.as_ref()))
    }

    /// The address that this host should have.
    pub(crate) const fn own(&self) -> Option<IpAddr> {
        match self.address {
            HopAddress::Tunnel(target) => target.source,
            HopAddress::Mac(_) | HopAddress::Ip(_) => None,
        }
    }
}

/// Where a next hop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) hop: Hop,
    /// The address of this host that a tunnel to it begins at.
    pub(crate) source: Option<IpAddr>,
}

/// A next hop that rules need.
#[derive(Debug)]
pub(super) struct NextHop {
    cell: u32,
    users: usize,
    /// Whether it is a peer, and stays without users.
    peer: bool,
    resolved: Option<Place>,
}

/// Tells ports and next hops as they are now.
pub(crate) trait Surroundings {
    /// Why packets that match `rule` cannot be sent to the next hops that it needs, ever.
    fn refuse(&self, rule: &Rule, hops: &[HopKey]) -> Option<String>;
    /// Where packets for `hop` go now.
    fn resolve(&self, hop: &HopKey) -> Option<Place>;
}

impl Rules {
    pub(super) fn take_hop(
        &mut self,
        memory: &mut Memory,
        surroundings: &impl Surroundings,
        key: &HopKey,
    ) -> Result<u32, Error> {
        if let Some(hop) = self.next_hops.get_mut(key) {
            hop.users += 1;
            return Ok(hop.cell);
        }
        let cell = match key.address {
            HopAddress::Mac(_) | HopAddress::Ip(_) => self.hops.take(self.limits.rules)?,
            HopAddress::Tunnel(_) => {
                let room = Error::TooManyTunnels { limit: TARGETS };
                self.targets.take(TARGETS).map_err(|_| room)?
            }
        };
        let resolved = surroundings.resolve(key);
        let hop = NextHop {
            cell,
            users: 1,
            peer: false,
            resolved,
        };
        hop.tell(memory, key);
        self.next_hops.insert(key.clone(), hop);
        Ok(cell)
    }

    /// Has packets taken that come from a peer, as from UEs, whatever rules send there. Flows know peers by their cells, which
    /// are those that they had in an earlier process. Where a peer is, [`Self::resolve`] finds out.
    pub(crate) fn expect(&mut self, memory: &Memory, peer: &Endpoint) -> Result<(), Error> {
        let key = key(peer);
        let HopAddress::Tunnel(wanted) = key.address else {
            return Err(Error::Options(format!(
                "a peer is not at the end of a tunnel: {peer}"
            )));
        };
        let is_it = |cell: &u32| {
            let target = memory.targets.get(*cell as usize);
            target.is_some_and(|it| {
                let now = entry(wanted, it.source);
                it.peer != 0 && Entry { peer: 1, ..now } == *it
            })
        };
        let room = Error::TooManyTunnels { limit: TARGETS };
        let cell = match (0..TARGETS).find(is_it) {
            Some(cell) => {
                self.targets.remove(cell);
                cell
            }
            None => self.targets.take(TARGETS).map_err(|_| room)?,
        };
        let hop = NextHop {
            cell,
            users: 1,
            peer: true,
            resolved: None,
        };
        self.next_hops.insert(key, hop);
        Ok(())
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
        memory: &mut Memory,
        surroundings: &impl Surroundings,
    ) -> Vec<HopKey> {
        let mut changed = Vec::new();
        for (key, hop) in &mut self.next_hops {
            let resolved = surroundings.resolve(key);
            if resolved != hop.resolved {
                hop.resolved = resolved;
                hop.tell(memory, key);
                changed.push(key.clone());
            }
        }
        changed
    }

    /// Next hops, and where they are.
    pub(crate) fn next_hops(&self) -> impl Iterator<Item = (&HopKey, Option<Hop>)> {
        self.next_hops
            .iter()
            .map(|(key, hop)| (key, hop.resolved.map(|place| place.hop)))
    }

    /// The tunnels that rules send into, by what comes back through them.
    pub(crate) fn openings(&self) -> BTreeMap<FlowKey, u32> {
        // They come last.
        let tunnels = self.next_hops.iter().rev();
        tunnels
            .take_while(|(key, _)| matches!(key.address, HopAddress::Tunnel(_)))
            .filter_map(|(key, hop)| {
                let target = hop.target(key)?;
                Some((target.key(), hop.cell))
            })
            .collect()
    }

    /// Makes a cell free that no packet can reach any more.
    pub(super) fn give_back_hop(&mut self, memory: &Memory, cell: u32) {
        set(memory, cell, None);
        if cell < TARGETS {
            self.targets.give_back(cell);
        } else {
            self.hops.give_back(cell);
        }
    }
}

impl NextHop {
    /// Tells packets where it is, and what tunnel ends there.
    fn tell(&self, memory: &mut Memory, key: &HopKey) {
        if let Some(target) = self.target(key) {
            // Packets use no tunnel whose next hop is not resolved.
            set(memory, self.cell, None);
            memory.targets.write(self.cell as usize, target);
        }
        set(memory, self.cell, self.resolved.map(|place| place.hop));
    }

    /// The tunnel to it, if there is one.
    fn target(&self, key: &HopKey) -> Option<Entry> {
        let HopAddress::Tunnel(target) = key.address else {
            return None;
        };
        Some(Entry {
            peer: self.peer.into(),
            ..entry(target, words(self.resolved?.source?))
        })
    }
}

/// A tunnel from an address of this host.
fn entry(target: Target, source: [u64; 2]) -> Entry {
    let entry = Entry {
        source,
        destination: words(target.destination),
        ..Entry::default()
    };
    match target.encapsulation {
        Encapsulation::Gtpu { teid, qfi } => Entry {
            identifier: teid,
            qfi: qfi.map_or(0, |qfi| Tunnel::CONTAINER | qfi),
            encapsulation: encapsulation::GTPU,
            ..entry
        },
        Encapsulation::Gre { key: None } => Entry {
            encapsulation: encapsulation::GRE,
            ..entry
        },
        Encapsulation::Gre { key: Some(key) } => Entry {
            identifier: key,
            encapsulation: encapsulation::GRE_KEY,
            ..entry
        },
        Encapsulation::Vxlan { vni, mac } => Entry {
            identifier: vni,
            mac: mac_bits(mac),
            encapsulation: encapsulation::VXLAN,
            ..entry
        },
    }
}

fn set(memory: &Memory, cell: u32, resolved: Option<Hop>) {
    let new = resolved.map_or(0, Hop::word);
    if let Some(word) = memory.hops.get(cell as usize)
        && word.get() != new
    {
        word.set(new);
        memory.links_changed();
    }
}

/// The next hops that a rule needs.
pub(crate) fn keys(rule: &Rule) -> Vec<HopKey> {
    rule.action.endpoints().map(key).collect()
}

fn key(endpoint: &Endpoint) -> HopKey {
    HopKey {
        address: match endpoint.address {
            EndpointAddress::Mac(mac) => HopAddress::Mac(mac),
            EndpointAddress::Ip { address, .. } => HopAddress::Ip(address),
            EndpointAddress::Tunnel(target) => HopAddress::Tunnel(target),
        },
        port: endpoint.port.clone(),
    }
}
