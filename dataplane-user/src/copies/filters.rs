//! The program as a filter of the clsact qdisc, as kernels before 6.6 have it. Nothing of it can be pinned: that it
//! is there is noted in directories, for a BPF file system has no files.

use std::{fs, io, mem, path::PathBuf};

use aya::programs::{
    Link as _, ProgramError, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};

use super::Failure;
use crate::netlink;

/// The filter's place among others, and its own number, by which it is found again.
const PRIORITY: u16 = 0xed6e;
const HANDLE: TcHandle = TcHandle::new(0x6564, 0x6765);

/// A directory with one for each interface that has the filter, named by its index.
#[derive(Debug, Clone)]
pub(crate) struct Filters(pub(crate) PathBuf);

impl Filters {
    /// Adds the filter to an interface, or puts the program in the place of the one of an earlier process.
    pub(super) fn attach(
        &self,
        program: &mut SchedClassifier,
        interface: &str,
        ifindex: u32,
    ) -> Result<(), Failure> {
        fs::create_dir_all(self.0.join(ifindex.to_string()))?;
        // It may have one already.
        let _ = tc::qdisc_add_clsact(interface);
        let id = match program.attach_to_link(filter(interface)?) {
            Ok(id) => id,
            // There is none yet.
            Err(_) => {
                let options = NlOptions {
                    priority: PRIORITY,
                    handle: HANDLE,
                    classid: None,
                };
                let options = TcAttachOptions::Netlink(options);
                program.attach_with_options(interface, TcAttachType::Ingress, options)?
            }
        };
        // It stays when this process ends.
        mem::forget(program.take_link(id)?);
        Ok(())
    }

    /// Removes the filter from all interfaces but these. Answers the names of those that had it.
    pub(crate) fn prune(&self, keep: &[u32]) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0).into_iter().flatten() {
            let entry = entry?;
            let ifindex = entry.file_name().to_string_lossy().parse().ok();
            if ifindex.is_some_and(|ifindex| keep.contains(&ifindex)) {
                continue;
            }
            let links = netlink::links().map_err(io::Error::other)?;
            // With an interface goes its filter.
            if let Some(link) = links.into_iter().find(|link| Some(link.index) == ifindex) {
                remove(&link.name)?;
                names.push(link.name);
            }
            fs::remove_dir(entry.path())?;
        }
        Ok(names)
    }
}

/// The filter on an interface, whether it is there or not.
fn filter(interface: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(interface, TcAttachType::Ingress, PRIORITY, HANDLE, None)
}

/// Removes the filter; that it is not there is no error.
fn remove(interface: &str) -> io::Result<()> {
    match filter(interface)?.detach() {
        Err(ProgramError::NetlinkError(error))
            // No filter, and no qdisc.
            if [Some(libc::ENOENT), Some(libc::EINVAL)].contains(&error.raw_os_error()) =>
        {
            Ok(())
        }
        result => result.map_err(io::Error::other),
    }
}
