//! Following what changes around the data path: next hops, and the routes and neighbors they are found by.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use dataplane_core::table::Hop;

use super::{Dataplane, names};
use crate::{
    Error, Mode, PortStatus,
    install::{HopKey, hop_keys},
    netlink,
    ports::{self, View, mac_of},
    rule::{Mac, Rule},
};

/// Where packets for an address go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextHop {
    /// The address in the rule.
    pub address: IpAddr,
    /// The port in the rule.
    pub port: Option<String>,
    /// The port and the MAC address, once the kernel knows them.
    pub resolved: Option<(String, Mac)>,
}

/// Something that is different from before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A port came, went, or runs in another mode.
    Port(PortStatus),
    /// A next hop was found or lost.
    NextHop(NextHop),
}

impl fmt::Display for Change {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => {
                let (name, interface) = (&port.config.name, &port.config.interface);
                match (port.mode, &port.reason) {
                    (Mode::Native | Mode::Generic, _) if !port.up => {
                        write!(formatter, "port {name} ({interface}) is switched off")
                    }
                    (Mode::Native, _) => write!(formatter, "port {name} ({interface}) is up"),
                    (Mode::Generic, _) => {
                        write!(
                            formatter,
                            "port {name} ({interface}) is up, in the slower generic mode"
                        )
                    }
                    (Mode::Down, None) => write!(formatter, "port {name} ({interface}) is down"),
                    (Mode::Down, Some(reason)) => {
                        write!(formatter, "port {name} is down: {reason}")
                    }
                }
            }
            Self::NextHop(hop) => match &hop.resolved {
                Some((port, mac)) => {
                    write!(formatter, "next hop {} is {mac} on {port}", hop.address)
                }
                None => write!(formatter, "next hop {} is lost", hop.address),
            },
        }
    }
}

impl Dataplane {
    /// The next hops that rules in force need.
    pub fn next_hops(&self) -> Vec<NextHop> {
        let names = names(&self.ports);
        self.rules
            .next_hops()
            .filter_map(|(key, hop)| next_hop(key, hop, &names))
            .collect()
    }

    /// Looks at interfaces, neighbors and routes again, and follows what has changed. To be called when the
    /// kernel reports a change, and every few seconds.
    pub fn refresh(&mut self) -> Result<Vec<Change>, Error> {
        let links = netlink::links()?;
        self.let_go(&links)?;
        let ports = self.follow(&links)?;
        let mut changes: Vec<_> = ports.into_iter().map(Change::Port).collect();
        if self.copying
            && (self.copies_due || !changes.is_empty())
            && let Err(error) = self.attach_copies()
        {
            tracing::warn!(%error, "packets are not copied on every port");
        }
        let addresses: BTreeSet<(IpAddr, Option<String>)> = self
            .rules
            .next_hops()
            .flat_map(|(key, _)| looked_after(key))
            .collect();
        self.watch(addresses)?;
        let Self {
            rules,
            memory,
            ports,
            neighbors,
            routes,
            openings,
            ..
        } = self;
        let view = View {
            ports,
            neighbors,
            routes,
        };
        let moved = rules.resolve(memory, &view);
        if !moved.is_empty() {
            openings.follow(&rules.openings())?;
        }
        let names = names(ports);
        let moved = rules.next_hops().filter(|(key, _)| moved.contains(key));
        changes.extend(
            moved.filter_map(|(key, hop)| Some(Change::NextHop(next_hop(key, hop, &names)?))),
        );
        Ok(changes)
    }

    /// Looks up where the destinations of new rules are, before they are needed.
    pub(super) fn look_up(&mut self, fresh: &[&Arc<Rule>]) -> Result<(), Error> {
        let keys: BTreeSet<_> = fresh.iter().flat_map(|rule| hop_keys(rule)).collect();
        let mut addresses: BTreeSet<_> = keys.iter().flat_map(looked_after).collect();
        // What is known is kept up to date by refreshing.
        if addresses.is_subset(&self.watched) {
            return Ok(());
        }
        addresses.extend(self.watched.iter().cloned());
        self.watch(addresses)
    }

    /// Learns routes to addresses and has the kernel resolve them, then reads all neighbors.
    fn watch(&mut self, addresses: BTreeSet<(IpAddr, Option<String>)>) -> Result<(), Error> {
        self.routes.clear();
        for (address, port) in &addresses {
            match netlink::route(*address) {
                Ok(Some(route)) => _ = self.routes.insert(*address, route),
                Ok(None) => {}
                Err(error) => tracing::warn!(%address, %error, "cannot look up the route"),
            }
            let port = port
                .as_ref()
                .and_then(|name| self.ports.iter().find(|it| it.config.name == *name));
            let hop = ports::next_hop(port, *address, &self.routes);
            if let Some((ifindex, neighbor)) = hop
                && self.ports.iter().any(|port| port.ifindex == Some(ifindex))
                && let Err(error) = netlink::manage_neighbor(ifindex, neighbor)
            {
                // The kernel may still resolve it when something else asks; until then it is unresolved.
                tracing::debug!(%neighbor, ifindex, %error, "cannot keep the neighbor resolved");
            }
        }
        self.watched = addresses;
        self.neighbors = netlink::neighbors()?;
        Ok(())
    }
}

/// The addresses that tell where a next hop is, each with the port it is said to be behind.
fn looked_after(key: &HopKey) -> impl Iterator<Item = (IpAddr, Option<String>)> {
    let resolved = key
        .resolved_by()
        .map(|(address, port)| (address, port.cloned()));
    let own = key.own().map(|address| (address, None));
    [resolved, own].into_iter().flatten()
}

fn next_hop(key: &HopKey, hop: Option<Hop>, names: &BTreeMap<u16, String>) -> Option<NextHop> {
    let (address, _) = key.resolved_by()?;
    Some(NextHop {
        address,
        port: key.port.clone(),
        resolved: hop.and_then(|hop| Some((names.get(&hop.slot)?.clone(), mac_of(hop.mac)))),
    })
}
