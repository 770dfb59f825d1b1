//! Frames sent and received as they are on the wire, through packet(7) sockets.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};

use super::Namespace;

/// A socket that sends and receives whole Ethernet frames on one interface.
#[derive(Debug)]
pub struct RawSocket {
    descriptor: OwnedFd,
}

impl RawSocket {
    /// Opens a socket on an interface inside the namespace.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        let descriptor = namespace
            .enter(|| open(interface))
            .with_context(|| format!("{}: {interface}", namespace.name()))?;
        Ok(Self { descriptor })
    }

    /// Puts a frame on the wire.
    pub fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: the pointer and the length are of one slice.
        let sent = unsafe {
            libc::send(
                self.descriptor.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        ensure!(sent == frame.len() as isize, io::Error::last_os_error());
        Ok(())
    }

    /// The next frame that arrives, or none when `patience` is over.
    pub fn receive(&self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let mut poll = libc::pollfd {
            fd: self.descriptor.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        // SAFETY: one initialized structure, and the count says one.
        let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as i32) };
        match ready {
            0 => Ok(None),
            1 => Ok(Some(receive(self.descriptor.as_raw_fd())?)),
            _ => Err(io::Error::last_os_error().into()),
        }
    }

    /// Everything that arrives until nothing has come for `quiet`.
    pub fn drain(&self, quiet: Duration) -> Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive(quiet)? {
            frames.push(frame);
        }
        Ok(frames)
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let name = CString::new(interface)?;
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no pointers are passed.
    let descriptor = unsafe { libc::socket(libc::AF_PACKET, kind, i32::from(protocol)) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    // SAFETY: the name is terminated.
    address.sll_ifindex = unsafe { libc::if_nametoindex(name.as_ptr()) } as i32;
    if address.sll_ifindex == 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the pointer and the length are of one structure.
    let bound = unsafe {
        libc::bind(
            descriptor.as_raw_fd(),
            (&raw const address).cast(),
            size_of_val(&address) as u32,
        )
    };
    if bound != 0 {
        return Err(io::Error::last_os_error());
    }
    for option in [libc::PACKET_AUXDATA, libc::PACKET_IGNORE_OUTGOING] {
        let on = 1i32;
        // SAFETY: the pointer and the length are of one integer.
        let set = unsafe {
            libc::setsockopt(
                descriptor.as_raw_fd(),
                libc::SOL_PACKET,
                option,
                (&raw const on).cast(),
                size_of_val(&on) as u32,
            )
        };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(descriptor)
}

/// Reads one frame and puts the VLAN tag back that the kernel moves from it into metadata.
fn receive(descriptor: i32) -> io::Result<Vec<u8>> {
    let mut frame = vec![0u8; 65536];
    let mut control = [0u64; 32];
    let mut part = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the message points to buffers that live until the end of this function.
    let length = unsafe { libc::recvmsg(descriptor, &raw mut message, 0) };
    if length < 0 {
        return Err(io::Error::last_os_error());
    }
    frame.truncate(length as usize);
    // SAFETY: the kernel has filled the message in.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    if !header.is_null() {
        // SAFETY: the only control message asked for is the auxiliary data of packet(7).
        let data = unsafe { libc::CMSG_DATA(header).cast::<libc::tpacket_auxdata>() };
        // SAFETY: as above; the data may be at any alignment.
        let data = unsafe { data.read_unaligned() };
        if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
            let protocol = match data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
                0 => 0x8100,
                _ => data.tp_vlan_tpid,
            };
            let tag = [protocol.to_be_bytes(), data.tp_vlan_tci.to_be_bytes()].concat();
            frame.splice(12..12, tag);
        }
    }
    Ok(frame)
}
