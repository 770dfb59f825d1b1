//! Links: each keeps a program attached to an interface, and is pinned so that it outlives this process.

use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use aya::programs::{
    Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    xdp::XdpLink,
};

use crate::{Error, Mode, netlink};

/// Stands for a dot in names of pins: BPF file systems refuse dots.
pub(crate) const DOT: &str = "%2e";

/// The directory with the pinned links.
#[derive(Debug, Clone)]
pub(crate) struct Links(pub(crate) PathBuf);

/// What a pinned link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The interface it attaches to; 0 when that is gone.
    pub(crate) ifindex: u32,
    /// The program it attaches.
    pub(crate) program: u32,
}

impl Links {
    /// Attaches the program to an interface, or puts it in the place of the one of an earlier process.
    pub(crate) fn attach(
        &self,
        program: &mut Xdp,
        interface: (&str, u32),
        port: &str,
        allow_generic: bool,
    ) -> Result<Mode, Error> {
        let (name, ifindex) = interface;
        fs::create_dir_all(&self.0)
            .map_err(|error| Error::kernel("cannot make the links directory", &error))?;
        for (pin, mode) in self.of(port) {
            if pin.exists() {
                if replace(program, &pin).is_ok() && runs(&pin, ifindex) {
                    return Ok(mode);
                }
                // Its interface is gone.
                end(&pin).map_err(|error| Error::kernel("cannot remove a stale link", &error))?;
            }
        }
        let [(native, _), (generic, _)] = self.of(port);
        let mut refused = match attach(program, ifindex, XdpMode::Driver, &native) {
            Ok(()) => return Ok(Mode::Native),
            Err(error) => Error::kernel(format!("cannot attach to {name} in native mode"), &*error),
        };
        if allow_generic {
            refused = match attach(program, ifindex, XdpMode::Skb, &generic) {
                Ok(()) => return Ok(Mode::Generic),
                Err(error) => Error::kernel(
                    format!("cannot attach to {name}, not even in generic mode"),
                    &*error,
                ),
            };
        }
        Err(refused)
    }

    /// Whether a link of the port attaches `program` to the interface.
    pub(crate) fn hold(&self, port: &str, ifindex: u32, program: u32) -> bool {
        let wanted = Link { ifindex, program };
        self.of(port)
            .iter()
            .any(|(pin, _)| Link::read(pin).is_ok_and(|link| link == wanted))
    }

    /// Removes the links that do not attach to the interface of a port: `ports` are their names and the
    /// interfaces they have now.
    pub(crate) fn prune(&self, ports: &[(&str, Option<u32>)]) -> io::Result<()> {
        for entry in fs::read_dir(&self.0).into_iter().flatten() {
            let entry = entry?;
            let owner = ports.iter().find(|(port, _)| {
                names(port)
                    .iter()
                    .any(|name| entry.file_name() == name.as_str())
            });
            let ifindex = owner.and_then(|(_, ifindex)| *ifindex);
            let there = Link::read(&entry.path()).map(|link| link.ifindex).ok();
            if ifindex.is_none() || ifindex != there {
                end(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Where the link of the program that makes copies is pinned.
    pub(crate) fn copy(&self, port: &str) -> PathBuf {
        let [.., copy] = names(port);
        self.0.join(copy)
    }

    /// Detaches all programs. Answers what was detached.
    pub(crate) fn remove(&self) -> io::Result<Vec<String>> {
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.0).into_iter().flatten() {
            let entry = entry?;
            end(&entry.path())?;
            let name = entry.file_name().to_string_lossy().replace(DOT, ".");
            let port = name.split_once('-').map_or(name.as_str(), |(_, port)| port);
            removed.push(format!("the program on {port}"));
        }
        Ok(removed)
    }

    /// Where the XDP links of a port are pinned.
    fn of(&self, port: &str) -> [(PathBuf, Mode); 2] {
        let [native, generic, _] = names(port).map(|name| self.0.join(name));
        [(native, Mode::Native), (generic, Mode::Generic)]
    }
}

impl Link {
    /// Asks the kernel about a pinned link.
    pub(crate) fn read(pin: &Path) -> io::Result<Self> {
        /// The start of `struct bpf_link_info`, which is the same for XDP and traffic control.
        #[repr(C)]
        #[derive(Default)]
        struct Info {
            kind: u32,
            id: u32,
            program: u32,
            padding: u32,
            ifindex: u32,
            attach_type: u32,
        }
        let fd = open(pin)?;
        let mut info = Info::default();
        let query = [fd.as_raw_fd() as u32, size_of::<Info>() as u32];
        bpf(
            command::GET_INFO,
            [
                zerocopy::transmute!(query),
                (&raw mut info).expose_provenance() as u64,
            ],
        )?;
        Ok(Self {
            ifindex: info.ifindex,
            program: info.program,
        })
    }
}

/// Ends a pinned link at once. (Without its pin alone, it would attach its program until the kernel finds time.)
pub(crate) fn end(pin: &Path) -> io::Result<()> {
    let detach = |fd: OwnedFd| {
        let link = [fd.as_raw_fd() as u32, 0];
        bpf(command::DETACH, [zerocopy::transmute!(link), 0])
    };
    let detached = open(pin).and_then(detach);
    if let Err(error) = detached {
        tracing::debug!(pin = %pin.display(), %error, "the kernel will detach the program in a while");
    }
    fs::remove_file(pin)
}

/// What the links of a port are pinned as: in native mode, in generic mode, and that of copies.
fn names(port: &str) -> [String; 3] {
    ["native", "generic", "copy"].map(|mode| format!("{mode}-{}", port.replace('.', DOT)))
}

fn attach(
    program: &mut Xdp,
    ifindex: u32,
    mode: XdpMode,
    pin: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let id = program.attach_to_if_index(ifindex, mode)?;
    let link = program.take_link(id)?;
    // Without a BPF link there is nothing to pin: then it ends here, and is not left half attached.
    let link = FdLink::try_from(link)?;
    let pinned = link.pin(pin)?;
    drop(FdLink::from(pinned));
    Ok(())
}

fn replace(program: &mut Xdp, pin: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let link = FdLink::from(PinnedLink::from_pin(pin)?);
    let link = XdpLink::try_from(link)?;
    let id = program.attach_to_link(link)?;
    // The pin holds it; this process must not, or its end would be the end of the link.
    drop(program.take_link(id)?);
    Ok(())
}

/// Whether the program of a link runs on the interface. (Another namespace may have one of that index.)
fn runs(pin: &Path, ifindex: u32) -> bool {
    let Ok(link) = Link::read(pin) else {
        return false;
    };
    link.ifindex == ifindex
        && netlink::links().is_ok_and(|links| {
            links.iter().any(|it| {
                it.index == ifindex && it.xdp.is_some_and(|xdp| xdp.program == link.program)
            })
        })
}

/// Commands of `bpf(2)`.
mod command {
    pub(super) const GET: libc::c_long = 7;
    pub(super) const GET_INFO: libc::c_long = 15;
    pub(super) const DETACH: libc::c_long = 34;
}

/// Opens what is pinned.
fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let fd = bpf(command::GET, [path.as_ptr().expose_provenance() as u64, 0])?;
    // SAFETY: the kernel has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The system call `bpf(2)`; its attributes are words, of which smaller ones share one.
fn bpf(command: libc::c_long, attributes: [u64; 2]) -> io::Result<i32> {
    let size = size_of_val(&attributes);
    // SAFETY: the attributes are as long as said, and what they point to outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes.as_ptr(), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}
