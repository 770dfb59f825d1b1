//! Waiting for something to change.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use super::{Error, message::messages, socket::Socket};

const DOING: &str = "watch interfaces, neighbors and routes";
/// Events come in bursts; one that is this quiet is over...
const QUIET: Duration = Duration::from_millis(5);
/// ...and one that lasts longer is reported anyway.
const BURST: Duration = Duration::from_millis(100);

/// What changed since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changes {
    /// An interface came, went or changed.
    pub links: bool,
    /// A neighbor came, went or changed.
    pub neighbors: bool,
    /// A route came, went or changed.
    pub routes: bool,
    /// Events were lost: anything may have changed.
    pub resync: bool,
}

impl Changes {
    /// Whether anything changed.
    pub const fn any(self) -> bool {
        self.links || self.neighbors || self.routes || self.resync
    }
}

/// Listens to the kernel's events in the namespace of the thread that opened it.
pub struct Monitor(Socket);

impl Monitor {
    /// Starts listening. Open first, then read the tables: so no change is missed in between.
    pub fn open() -> Result<Self, Error> {
        let from_io = |source| Error::from_io(DOING, source);
        let socket = Socket::open().map_err(from_io)?;
        socket.bind().map_err(from_io)?;
        for group in [
            libc::RTNLGRP_LINK,
            libc::RTNLGRP_NEIGH,
            libc::RTNLGRP_IPV4_ROUTE,
            libc::RTNLGRP_IPV6_ROUTE,
        ] {
            socket.join(group).map_err(from_io)?;
        }
        Ok(Self(socket))
    }

    /// Waits for a change and takes the burst it belongs to with it; nothing changed when the time is over.
    pub fn wait(&self, timeout: Duration) -> Result<Changes, Error> {
        let from_io = |source| Error::from_io(DOING, source);
        let mut changes = Changes::default();
        let mut patience = timeout;
        let mut end = None;
        let mut buffer = vec![0; 64 * 1024];
        while self.0.readable(patience).map_err(from_io)? {
            match self.0.receive(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(datagram) => messages(datagram).for_each(|message| changes.note(message.kind)),
                Err(error) if lost(&error) => changes.resync = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(from_io(error)),
            }
            let end = *end.get_or_insert_with(|| Instant::now() + BURST);
            patience = QUIET.min(end.saturating_duration_since(Instant::now()));
            if patience.is_zero() {
                break;
            }
        }
        Ok(changes)
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Changes {
    const fn note(&mut self, kind: u16) {
        match kind {
            libc::RTM_NEWLINK | libc::RTM_DELLINK => self.links = true,
            libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => self.neighbors = true,
            libc::RTM_NEWROUTE | libc::RTM_DELROUTE => self.routes = true,
            _ => {}
        }
    }
}

/// The socket's buffer overflowed, or one event was too big for ours.
fn lost(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EMSGSIZE))
}

#[cfg(test)]
impl Monitor {
    /// Makes overflow easy.
    pub(super) fn shrink(&self) {
        self.0
            .set(libc::SOL_SOCKET, libc::SO_RCVBUF, &1)
            .expect("the receive buffer can always be made small");
    }
}
