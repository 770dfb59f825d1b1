//! The program in traffic control that makes copies. It is attached only while a rule asks for copies,
//! because every packet that the kernel gets has to pass it then.

mod filters;
#[cfg(test)]
mod tests;

use std::io;

use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        links::{FdLink, LinkOrder, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
    util::KernelVersion,
};

pub(crate) use self::filters::Filters;
use crate::{
    Error,
    links::{self, Links},
};

/// Name of the program.
const PROGRAM: &str = "copy";

type Failure = Box<dyn std::error::Error>;

/// What attaches the program.
#[derive(Debug)]
pub(crate) struct Copies {
    links: Links,
    filters: Filters,
    way: Way,
}

/// How a program is attached in traffic control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// By a link, which is pinned.
    Link,
    /// As a filter of the clsact qdisc, on kernels before 6.6. It stays when the process ends.
    Filter,
}

impl Copies {
    /// Those of which traces are kept in the directory of the pins.
    pub(crate) fn new(links: Links, filters: Filters) -> Self {
        let new = KernelVersion::current().is_ok_and(|now| now >= KernelVersion::new(6, 6, 0));
        Self {
            links,
            filters,
            way: if new { Way::Link } else { Way::Filter },
        }
    }

    /// Attaches the program to the interface of a port, or puts it in the place of the one of an earlier process.
    pub(crate) fn attach(
        &self,
        ebpf: &mut Ebpf,
        port: &str,
        (interface, ifindex): (&str, u32),
    ) -> Result<(), Error> {
        let attached = program(ebpf).and_then(|program| match self.way {
            Way::Link => self.link(program, port, interface),
            Way::Filter => self.filters.attach(program, interface, ifindex),
        });
        attached.map_err(|error| {
            Error::kernel(
                format!("cannot attach the program that makes copies to {interface}"),
                &*error,
            )
        })
    }

    /// Detaches it from these ports; that it is not there is no error.
    pub(crate) fn detach(&self, ports: &[&str]) -> io::Result<()> {
        for pin in ports.iter().map(|port| self.links.copy(port)) {
            if pin.exists() {
                links::end(&pin)?;
            }
        }
        self.filters.prune(&[]).map(drop)
    }

    /// Detaches it from interfaces that are none of these. (Its links are pruned with all others.)
    pub(crate) fn prune(&self, interfaces: &[u32]) -> io::Result<()> {
        self.filters.prune(interfaces).map(drop)
    }

    fn link(
        &self,
        program: &mut SchedClassifier,
        port: &str,
        interface: &str,
    ) -> Result<(), Failure> {
        let pin = self.links.copy(port);
        if pin.exists() {
            let link = FdLink::from(PinnedLink::from_pin(&pin)?);
            if let Ok(link) = SchedClassifierLink::try_from(link)
                && let Ok(id) = program.attach_to_link(link)
            {
                drop(FdLink::try_from(program.take_link(id)?)?);
                return Ok(());
            }
            // Its interface is gone.
            links::end(&pin)?;
        }
        let order = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(interface, TcAttachType::Ingress, order)?;
        let link = FdLink::try_from(program.take_link(id)?)?;
        drop(FdLink::from(link.pin(&pin)?));
        Ok(())
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, Failure> {
    let program = ebpf
        .program_mut(PROGRAM)
        .ok_or("the object has no program that makes copies")?;
    let program: &mut SchedClassifier = program.try_into()?;
    if program.fd().is_err() {
        program.load()?;
    }
    Ok(program)
}
