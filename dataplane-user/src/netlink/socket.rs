//! A route netlink socket: ask and collect the answer, or listen to groups.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    time::Duration,
};

use super::{
    Error,
    message::{Message, Request, attributes, i32_at, messages, text},
};

/// Room for one datagram: the kernel fills dumps up to 32 KiB.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// The kernel answers at once; a longer silence means that the answer got lost.
const ANSWER_TIMEOUT: libc::time_t = 5;
/// A dump that changes under us is asked again this often.
const DUMP_ATTEMPTS: usize = 8;

/// `NLMSGERR_ATTR_MSG`
const ERROR_MESSAGE: u16 = 1;

/// A `NETLINK_ROUTE` socket in the namespace of the thread that opened it.
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe {
            libc::socket(
                libc::AF_NETLINK,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC,
                libc::NETLINK_ROUTE,
            )
        };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and nobody else has it.
        let socket = Self(unsafe { OwnedFd::from_raw_fd(fd) });
        socket.set(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, &1)?;
        socket.set(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, &1)?;
        let timeout = libc::timeval {
            tv_sec: ANSWER_TIMEOUT,
            tv_usec: 0,
        };
        socket.set(libc::SOL_SOCKET, libc::SO_RCVTIMEO, &timeout)?;
        Ok(socket)
    }

    /// Joins a multicast group; only a bound socket hears it.
    pub(super) fn join(&self, group: u32) -> io::Result<()> {
        self.set(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, &group)
    }

    /// Sets an option to a plain C value.
    pub(super) fn set<T: Copy>(&self, level: i32, option: i32, value: &T) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `value`, which outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                level,
                option,
                std::ptr::from_ref(value).cast(),
                size_of::<T>() as libc::socklen_t,
            )
        };
        check(result as isize).map(drop)
    }

    /// Receives one datagram; `flags` as of `recv(2)`.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8], flags: i32) -> io::Result<&'a [u8]> {
        // SAFETY: the pointer and the length describe `buffer`.
        let length = unsafe {
            libc::recv(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                flags | libc::MSG_TRUNC,
            )
        };
        let length = check(length)?;
        // With MSG_TRUNC the kernel tells the true length, which may be beyond the buffer.
        buffer
            .get(..length)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))
    }

    /// Waits until there is something to receive; `false` when the time is over.
    pub(super) fn readable(&self, timeout: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.0.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        // Rounded up, so that a short wait does not become a busy loop.
        let timeout = timeout.as_nanos().div_ceil(1_000_000);
        let timeout = i32::try_from(timeout).unwrap_or(i32::MAX);
        // SAFETY: the pointer is to one pollfd, as the count says.
        match check(unsafe { libc::poll(&raw mut poll, 1, timeout) } as isize) {
            Ok(ready) => Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets the kernel give the socket an address.
    pub(super) fn bind(&self) -> io::Result<()> {
        // SAFETY: all zeros is a valid address structure.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as u16;
        // SAFETY: the pointer and the length describe `address`.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                std::ptr::from_ref(&address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        check(result as isize).map(drop)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `bytes`.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
        check(sent).map(drop)
    }

    /// Collects what `read` makes of the messages of one answer; `true` if the dump was interrupted by a change.
    fn collect<T>(
        &self,
        doing: &'static str,
        read: &impl Fn(Message<'_>) -> Option<T>,
        found: &mut Vec<T>,
    ) -> Result<bool, Error> {
        let mut buffer = vec![0; RECEIVE_BUFFER];
        let mut interrupted = false;
        loop {
            let datagram = self
                .receive(&mut buffer, 0)
                .map_err(|source| Error::from_io(doing, source))?;
            for message in messages(datagram) {
                interrupted |= message.flags & libc::NLM_F_DUMP_INTR != 0;
                match i32::from(message.kind) {
                    libc::NLMSG_DONE | libc::NLMSG_ERROR => {
                        return answer(doing, &message).map(|()| interrupted);
                    }
                    libc::NLMSG_NOOP => {}
                    _ => found.extend(read(message)),
                }
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lists everything of a kind, asking again when the list changed while it was read.
pub(super) fn dump<T>(
    doing: &'static str,
    kind: u16,
    header: &[u8],
    read: impl Fn(Message<'_>) -> Option<T>,
) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for _ in 0..DUMP_ATTEMPTS {
        found.clear();
        let request = Request::new(kind, libc::NLM_F_DUMP, header);
        if !ask(doing, request, &read, &mut found)? {
            break;
        }
    }
    Ok(found)
}

/// Asks for or changes one thing.
pub(super) fn call<T>(
    doing: &'static str,
    request: Request,
    read: impl Fn(Message<'_>) -> Option<T>,
) -> Result<Option<T>, Error> {
    let mut found = Vec::new();
    ask(doing, request, &read, &mut found)?;
    Ok(found.pop())
}

/// One request on a socket of its own: a late answer can never be taken for that of the next request.
fn ask<T>(
    doing: &'static str,
    request: Request,
    read: &impl Fn(Message<'_>) -> Option<T>,
    found: &mut Vec<T>,
) -> Result<bool, Error> {
    let from_io = |source| Error::from_io(doing, source);
    let socket = Socket::open().map_err(from_io)?;
    socket.send(&request.finish()).map_err(from_io)?;
    socket.collect(doing, read, found)
}

/// What the closing message of an answer says.
fn answer(doing: &'static str, message: &Message<'_>) -> Result<(), Error> {
    /// The error number and the header of the request it is about.
    const FIXED: usize = 4 + 16;
    let code = i32_at(message.payload, 0).ok_or(Error::Malformed { doing })?;
    if code >= 0 {
        return Ok(());
    }
    let explanation = message
        .payload
        .get(FIXED..)
        .and_then(|tail| attributes(tail).find(|(kind, _)| *kind == ERROR_MESSAGE))
        .map(|(_, value)| text(value));
    let source = io::Error::from_raw_os_error(-code);
    Err(Error::with_message(doing, source, explanation))
}

fn check(result: isize) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
