//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4), with one socket per family for all backends.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dataplane_core::checksum::fold;
use tokio::{net::UdpSocket, sync::oneshot, task::JoinSet};

use crate::random;

/// Length of the header of an echo message, octets; our mark comes after it.
const HEADER: usize = 8;
/// Room for an answer with an IPv4 header before it.
const RECEIVE_BUFFER: usize = 1500;
/// `ICMP_FILTER` of `SOL_RAW` and `ICMPV6_FILTER` of `SOL_ICMPV6`
const FILTER: i32 = 1;
const SOL_RAW: i32 = 255;
const SOL_ICMPV6: i32 = 58;

/// Asks for echoes. Sockets are made when first needed.
#[derive(Default)]
pub(super) struct Pinger {
    v4: Mutex<Option<Line>>,
    v6: Mutex<Option<Line>>,
}

/// A socket and the task that reads it, which ends with it.
struct Line {
    shared: Arc<Shared>,
    _reader: JoinSet<()>,
}

struct Shared {
    /// Datagrams of ICMP rather than UDP: sockets of both kinds are read and written alike.
    socket: UdpSocket,
    /// In every request and its answer, so that others' answers are not taken for ours.
    mark: u64,
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u16,
    /// Who waits for the answer to which sequence number, from where.
    by_sequence: HashMap<u16, (IpAddr, oneshot::Sender<()>)>,
}

/// A sequence number in use.
struct Turn<'a> {
    shared: &'a Shared,
    sequence: u16,
}

impl Pinger {
    /// Returns when the answer is there.
    pub(super) async fn echo(&self, address: IpAddr) -> io::Result<()> {
        let line = if address.is_ipv4() {
            &self.v4
        } else {
            &self.v6
        };
        let shared = {
            let mut line = lock(line);
            let line = match line.as_mut() {
                Some(line) => line,
                None => line.insert(Line::open(address.is_ipv4())?),
            };
            Arc::clone(&line.shared)
        };
        let (sender, answer) = oneshot::channel();
        let turn = shared.register(address, sender)?;
        let request = shared.request(address.is_ipv4(), turn.sequence);
        shared
            .socket
            .send_to(&request, SocketAddr::new(address, 0))
            .await?;
        answer.await.map_err(io::Error::other)
    }
}

impl Line {
    fn open(v4: bool) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            socket: socket(v4)?,
            mark: random::number(),
            waiting: Mutex::default(),
        });
        let mut reader = JoinSet::new();
        let reading = Arc::clone(&shared);
        reader.spawn(async move { reading.read().await });
        Ok(Self {
            shared,
            _reader: reader,
        })
    }
}

impl Shared {
    fn register(&self, from: IpAddr, sender: oneshot::Sender<()>) -> io::Result<Turn<'_>> {
        let mut waiting = lock(&self.waiting);
        if waiting.by_sequence.len() > usize::from(u16::MAX) {
            return Err(io::Error::other(
                "too many echo requests wait for an answer",
            ));
        }
        while waiting.by_sequence.contains_key(&waiting.next) {
            waiting.next = waiting.next.wrapping_add(1);
        }
        let sequence = waiting.next;
        waiting.next = sequence.wrapping_add(1);
        waiting.by_sequence.insert(sequence, (from, sender));
        Ok(Turn {
            shared: self,
            sequence,
        })
    }

    /// An echo request. Over IPv6 the kernel does the checksum.
    fn request(&self, v4: bool, sequence: u16) -> [u8; HEADER + 8] {
        let mut message = [0; HEADER + 8];
        message[0] = if v4 { 8 } else { 128 };
        message[4..6].copy_from_slice(&(self.mark as u16).to_be_bytes());
        message[6..8].copy_from_slice(&sequence.to_be_bytes());
        message[8..].copy_from_slice(&self.mark.to_be_bytes());
        if v4 {
            let halves = message.as_chunks::<2>().0.iter();
            let sum = halves
                .map(|half| u32::from(u16::from_be_bytes(*half)))
                .sum();
            message[2..4].copy_from_slice(&(!fold(sum)).to_be_bytes());
        }
        message
    }

    async fn read(&self) {
        let mut buffer = [0; RECEIVE_BUFFER];
        loop {
            match self.socket.recv_from(&mut buffer).await {
                Ok((length, from)) => self.take(&buffer[..length], from.ip()),
                // What is wrong with the way to one backend is found out by its check.
                Err(error) => tracing::debug!(%error, "reading echo replies"),
            }
        }
    }

    /// Lets whoever waits for this answer know. Anybody may send anything here.
    fn take(&self, datagram: &[u8], from: IpAddr) {
        if let Some(sequence) = answer(datagram, from.is_ipv4(), self.mark) {
            let mut waiting = lock(&self.waiting);
            if waiting
                .by_sequence
                .get(&sequence)
                .is_some_and(|(to, _)| *to == from)
                && let Some((_, sender)) = waiting.by_sequence.remove(&sequence)
            {
                // It may have given up just now.
                let _ = sender.send(());
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.shared.waiting)
            .by_sequence
            .remove(&self.sequence);
    }
}

/// The sequence number of an echo reply to one of our requests.
fn answer(datagram: &[u8], v4: bool, mark: u64) -> Option<u16> {
    // Over IPv4, raw sockets see the IP header.
    let header = match v4 {
        true => usize::from(datagram.first()? & 15) * 4,
        false => 0,
    };
    let message = datagram.get(header..)?;
    let kind = if v4 { 0 } else { 129 };
    let ours = message.get(HEADER..)? == mark.to_be_bytes();
    if *message.first()? != kind || !ours {
        return None;
    }
    Some(u16::from_be_bytes([message[6], message[7]]))
}

/// A socket that sees the echo replies to this host.
fn socket(v4: bool) -> io::Result<UdpSocket> {
    let (family, protocol) = match v4 {
        true => (libc::AF_INET, libc::IPPROTO_ICMP),
        false => (libc::AF_INET6, libc::IPPROTO_ICMPV6),
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes no pointer.
    let descriptor = unsafe { libc::socket(family, kind, protocol) };
    if descriptor < 0 {
        return Err(explained(io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    only_replies(&descriptor, v4)?;
    UdpSocket::from_std(std::net::UdpSocket::from(descriptor))
}

fn explained(error: io::Error) -> io::Error {
    if error.raw_os_error() != Some(libc::EPERM) {
        return error;
    }
    let text = "ICMP echo is not permitted: give this process CAP_NET_RAW";
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// A raw socket sees all messages of its protocol; a set bit keeps a type away.
fn only_replies(socket: &OwnedFd, v4: bool) -> io::Result<()> {
    let mut blocked = [u32::MAX; 8];
    let (level, length) = match v4 {
        true => {
            blocked[0] &= !1;
            (SOL_RAW, 4)
        }
        false => {
            blocked[129 / 32] &= !(1 << (129 % 32));
            (SOL_ICMPV6, 32)
        }
    };
    // SAFETY: the pointer is to an array of 32 octets, no more than which the length says.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            FILTER,
            blocked.as_ptr().cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half done under a lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
