//! Programs on interfaces, and these in the tables.

use dataplane_core::table::{INTERFACES, PORTS, Port};

use super::Dataplane;
use crate::{
    Error, Mode, PortConfig, PortStatus, flows::Entry, netlink, ports, program, rule::Mac,
};

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
            let entered = self.interfaces.get(&port.ifindex, 0);
            if entered.is_ok_and(|Entry(it)| it.slot == port.slot) {
                self.set_interface(port.ifindex, gone)?;
            }
        }
        Ok(())
    }

    /// Makes one port what its interface is now. Answers whether that is something new.
    pub(super) fn follow(&mut self, at: usize, links: &[netlink::Link]) -> Result<bool, Error> {
        let port = &self.ports[at];
        let link = links.iter().find(|link| link.name == port.config.interface);
        let mut now = PortStatus {
            reason: ports::refuse(link, &port.config.interface),
            ifindex: link.map(|link| link.index),
            mac: link.and_then(|link| link.mac).map(Mac::from),
            mtu: link.map_or(0, |link| link.mtu),
            ..port.clone()
        };
        let same = now.ifindex == port.ifindex
            && port.mode != Mode::Down
            && link.is_some_and(|link| {
                let program = link.xdp.map(|xdp| xdp.program);
                program.is_some_and(|it| self.pins.links().hold(&port.config.name, link.index, it))
            });
        if now.reason.is_some() {
            now.mode = Mode::Down;
        } else if let (false, Some(ifindex)) = (same, now.ifindex) {
            // The tables first: the first packet may come the moment the program is attached.
            now.mode = Mode::Native;
            self.enter(&now)?;
            let config = &now.config;
            let attached = self.pins.links().attach(
                program::xdp(&mut self.steer, self.names.steer)?,
                (&config.interface, ifindex),
                &config.name,
                config.allow_generic,
            );
            match attached {
                Ok(mode) => now.mode = mode,
                Err(error) => {
                    now.mode = Mode::Down;
                    now.reason = Some(error.to_string());
                }
            }
        }
        let changed = now != self.ports[at];
        if changed || !same {
            self.enter(&now)?;
            self.ports[at] = now;
        }
        Ok(changed)
    }

    /// Writes a port into the tables.
    fn enter(&mut self, port: &PortStatus) -> Result<(), Error> {
        let failed = |error: &dyn std::error::Error| {
            Error::kernel(
                format!("cannot enter port {} into the tables", port.config.name),
                error,
            )
        };
        let pair = port.config.pair.as_ref();
        let pair = pair.and_then(|name| self.ports.iter().find(|it| it.config.name == *name));
        let entry = port.entry(pair.map(|pair| pair.slot));
        self.port_table
            .set(port.slot.into(), Entry(entry), 0)
            .map_err(|error| failed(&error))?;
        let Some(ifindex) = port.ifindex.filter(|ifindex| *ifindex < INTERFACES) else {
            return Ok(());
        };
        if port.mode != Mode::Down {
            self.devices
                .set(port.slot.into(), ifindex, None, 0)
                .map_err(|error| failed(&error))?;
        }
        self.set_interface(ifindex, entry)
    }

    fn set_interface(&mut self, ifindex: u32, port: Port) -> Result<(), Error> {
        if ifindex >= INTERFACES {
            // It never was in the table.
            return Ok(());
        }
        let set = self.interfaces.set(ifindex, Entry(port), 0);
        set.map_err(|error| Error::kernel("cannot enter an interface into the tables", &error))
    }
}
