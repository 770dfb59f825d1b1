//! Programs on interfaces, and these in the tables.

use std::collections::BTreeSet;

use dataplane_core::table::{INTERFACES, PORTS, Port};

use super::{Dataplane, grace};
use crate::{Error, Mode, PortConfig, PortStatus, flows::Entry, netlink, program};

impl Dataplane {
    /// Has copies made of the packets of all ports.
    pub(super) fn attach_copies(&mut self) -> Result<(), Error> {
        self.copies_due = true;
        let copies = self.pins.copies();
        for port in self.ports.iter().filter(|port| port.mode != Mode::Down) {
            let PortConfig {
                name, interface, ..
            } = &port.config;
            let ifindex = port.ifindex.unwrap_or_default();
            copies.attach(&mut self.explain, name, (interface, ifindex))?;
        }
        self.copying = true;
        self.copies_due = false;
        Ok(())
    }

    /// Has these programs run on all ports. Others do not any more when this returns.
    pub(super) fn run(&mut self, names: program::Names) -> Result<(), Error> {
        if names.steer == self.names.steer {
            return Ok(());
        }
        program::ready(&mut self.explain, names.explain)?;
        let program = program::ready(&mut self.steer, names.steer)?;
        for port in self.ports.iter().filter(|port| port.mode != Mode::Down) {
            let PortConfig {
                name,
                interface,
                allow_generic,
                ..
            } = &port.config;
            let place = (interface.as_str(), port.ifindex.unwrap_or_default());
            self.pins
                .links()
                .attach(program, place, name, *allow_generic)?;
        }
        self.pins.pin_program(program)?;
        self.names = names;
        grace();
        Ok(())
    }

    pub(super) fn detach_copies(&mut self) {
        let names = self.ports.iter().map(|port| port.config.name.as_str());
        if let Err(error) = self.pins.copies().detach(&names.collect::<Vec<_>>()) {
            tracing::warn!(%error, "cannot detach the program that makes copies");
        }
        self.copying = false;
    }

    /// Takes programs off interfaces, and these out of the tables, that are not those of ports any more. For
    /// all ports before the first is followed: one may have got what another had.
    pub(super) fn let_go(&mut self, links: &[netlink::Link]) -> Result<(), Error> {
        let index = |port: &PortStatus| {
            let link = links.iter().find(|it| it.name == port.config.interface);
            link.map(|link| link.index)
        };
        let now: Vec<_> = self
            .ports
            .iter()
            .map(|port| (port.config.name.as_str(), index(port)))
            .collect();
        let interfaces: Vec<u32> = now.iter().filter_map(|(_, ifindex)| *ifindex).collect();
        let pruned = self.pins.links().prune(&now);
        pruned
            .and_then(|()| self.pins.copies().prune(&interfaces))
            .map_err(|error| Error::kernel("cannot detach programs from old interfaces", &error))?;
        let failed = |error| Error::kernel("cannot take an interface out of the tables", &error);
        for slot in 0..PORTS {
            let Entry(port) = self.port_table.get(&slot, 0).map_err(failed)?;
            let is_now =
                |it: &PortStatus| u32::from(it.slot) == slot && index(it) == Some(port.ifindex);
            if port.ifindex == 0 || self.ports.iter().any(is_now) {
                continue;
            }
            let gone = Port {
                flags: 0,
                ifindex: 0,
                ..port
            };
            let set = self.port_table.set(slot, Entry(gone), 0);
            set.map_err(failed)?;
            let entered = self.memory.interfaces.get(port.ifindex as usize);
            if let Some(interface) = entered
                && interface.get().slot == port.slot
            {
                interface.set(gone);
            }
            self.memory.links_changed();
        }
        Ok(())
    }

    /// Makes the ports what their interfaces are now. Answers those that are different.
    pub(super) fn follow(&mut self, links: &[netlink::Link]) -> Result<Vec<PortStatus>, Error> {
        let before = self.ports.clone();
        // All of them before the first is entered: it has to tell of the other end of its wire.
        for port in &mut self.ports {
            port.see(links.iter().find(|it| it.name == port.config.interface));
        }
        let mut attached = BTreeSet::new();
        for (at, before) in before.iter().enumerate() {
            if self.ports[at].mode != Mode::Down && !self.runs(before, links) {
                self.attach(at)?;
                attached.insert(at);
            }
        }
        let new: BTreeSet<usize> = (0..before.len())
            .filter(|at| before[*at] != self.ports[*at])
            .collect();
        for at in 0..self.ports.len() {
            let pair = self.pair(at).filter(|pair| new.contains(pair));
            if new.contains(&at) || attached.contains(&at) || pair.is_some() {
                self.enter(at)?;
            }
        }
        Ok(new.iter().map(|at| self.ports[*at].clone()).collect())
    }

    /// Whether the program runs where it ran before.
    fn runs(&self, before: &PortStatus, links: &[netlink::Link]) -> bool {
        let config = &before.config;
        let link = links.iter().find(|it| it.name == config.interface);
        before.mode != Mode::Down
            && link.is_some_and(|link| {
                let program = link.xdp.map(|xdp| xdp.program);
                before.ifindex == Some(link.index)
                    && program
                        .is_some_and(|it| self.pins.links().hold(&config.name, link.index, it))
            })
    }

    /// Attaches the program to the interface of a port.
    fn attach(&mut self, at: usize) -> Result<(), Error> {
        // The tables first: the first packet may come the moment the program is attached.
        self.enter(at)?;
        let port = &mut self.ports[at];
        let config = &port.config;
        let attached = self.pins.links().attach(
            program::xdp(&mut self.steer, self.names.steer)?,
            (&config.interface, port.ifindex.unwrap_or_default()),
            &config.name,
            config.allow_generic,
        );
        match attached {
            Ok(mode) => port.mode = mode,
            Err(error) => {
                port.mode = Mode::Down;
                port.reason = Some(error.to_string());
            }
        }
        Ok(())
    }

    /// The other end of a port's wire.
    fn pair(&self, at: usize) -> Option<usize> {
        let name = self.ports[at].config.pair.as_ref()?;
        self.ports.iter().position(|it| it.config.name == *name)
    }

    /// Writes a port into the tables.
    fn enter(&mut self, at: usize) -> Result<(), Error> {
        let port = &self.ports[at];
        let failed = |error: &(dyn std::error::Error + 'static)| {
            Error::kernel(
                format!("cannot enter port {} into the tables", port.config.name),
                error,
            )
        };
        let entry = port.entry(self.pair(at).map(|pair| &self.ports[pair]));
        let exit = Port {
            flags: if port.takes_packets() { entry.flags } else { 0 },
            ..entry
        };
        self.port_table
            .set(port.slot.into(), Entry(exit), 0)
            .map_err(|error| failed(&error))?;
        if let Some(ifindex) = port.ifindex.filter(|ifindex| *ifindex < INTERFACES) {
            if port.mode != Mode::Down {
                self.devices
                    .set(port.slot.into(), ifindex, None, 0)
                    .map_err(|error| failed(&error))?;
            }
            if let Some(interface) = self.memory.interfaces.get(ifindex as usize) {
                interface.set(entry);
            }
        }
        // At last: what packets note from here on is of the port as it is now.
        self.memory.links_changed();
        Ok(())
    }
}
