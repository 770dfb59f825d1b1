//! The program in traffic control that makes copies. It is attached only while a rule asks for copies,
//! because every packet that the kernel gets has to pass it then.

use std::{io, path::Path};

use aya::{
    Ebpf,
    programs::{
        SchedClassifier, TcAttachType,
        links::{FdLink, LinkOrder, PinnedLink},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
    },
    util::KernelVersion,
};

use crate::{Error, links};

/// Name of the program.
const PROGRAM: &str = "copy";

type Failure = Box<dyn std::error::Error>;

/// Attaches the program to an interface, or puts it in the place of an earlier process's. `pin` is where
/// a link is kept; kernels before 6.6 have none for traffic control, but keep the program by themselves.
pub(crate) fn attach(ebpf: &mut Ebpf, interface: &str, pin: &Path) -> Result<(), Error> {
    let failed = |error: Failure| {
        Error::kernel(
            format!("cannot attach the program that makes copies to {interface}"),
            &*error,
        )
    };
    let program = program(ebpf).map_err(failed)?;
    let links = KernelVersion::current().is_ok_and(|now| now >= KernelVersion::new(6, 6, 0));
    if links {
        with_link(program, interface, pin).map_err(failed)
    } else {
        with_qdisc(program, interface).map_err(failed)
    }
}

/// Detaches it; that it is not there is no error.
pub(crate) fn detach(interface: &str, pin: &Path) -> io::Result<()> {
    if pin.exists() {
        return links::end(pin);
    }
    // Most often there is nothing to detach, not even an interface.
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Ingress, PROGRAM);
    Ok(())
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

fn with_link(program: &mut SchedClassifier, interface: &str, pin: &Path) -> Result<(), Failure> {
    if pin.exists() {
        let link = FdLink::from(PinnedLink::from_pin(pin)?);
        if let Ok(link) = SchedClassifierLink::try_from(link)
            && let Ok(id) = program.attach_to_link(link)
        {
            drop(FdLink::try_from(program.take_link(id)?)?);
            return Ok(());
        }
        // Its interface is gone.
        links::end(pin)?;
    }
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, order)?;
    let link = FdLink::try_from(program.take_link(id)?)?;
    drop(FdLink::from(link.pin(pin)?));
    Ok(())
}

fn with_qdisc(program: &mut SchedClassifier, interface: &str) -> Result<(), Failure> {
    // It may have one already.
    let _ = tc::qdisc_add_clsact(interface);
    // The program of an earlier process, if there is one.
    let _ = tc::qdisc_detach_program(interface, TcAttachType::Ingress, PROGRAM);
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let id = program.attach_with_options(interface, TcAttachType::Ingress, options)?;
    // It stays when this process ends.
    std::mem::forget(program.take_link(id)?);
    Ok(())
}
