//! Who has which address on a link, and how to make the kernel keep knowing it.

use std::net::IpAddr;

use super::{
    Error,
    message::{Message, Request, family, ip, u16_at, u32_at},
    socket::{call, dump},
};

/// Length of `struct ndmsg`.
const HEADER: usize = 12;
/// `NDA_FLAGS_EXT` and its bit `NTF_EXT_MANAGED`
const FLAGS_EXT: u16 = 15;
const MANAGED: u32 = 1;

/// An entry of the kernel's neighbor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbor {
    /// The interface it is reached through.
    pub ifindex: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its Ethernet address, as far as known.
    pub mac: Option<[u8; 6]>,
    /// How sure the kernel is.
    pub state: NeighborState,
    /// Whether the kernel keeps it fresh without traffic.
    pub managed: bool,
}

impl Neighbor {
    /// The Ethernet address to send to now.
    pub fn resolved(&self) -> Option<[u8; 6]> {
        self.mac.filter(|_| self.state.usable())
    }

    /// Whether the kernel never resolves it: making such an entry managed would lose its address.
    const fn fixed(&self) -> bool {
        matches!(self.state, NeighborState::Permanent | NeighborState::NoArp)
    }
}

/// How sure the kernel is of a neighbor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NeighborState {
    /// Nothing known and nothing asked.
    None,
    /// Asked, no answer yet.
    Incomplete,
    /// Answered lately.
    Reachable,
    /// Answered once.
    Stale,
    /// About to be asked again.
    Delay,
    /// Being asked again.
    Probe,
    /// Does not answer.
    Failed,
    /// Needs no resolution.
    NoArp,
    /// Set by hand.
    Permanent,
}

impl NeighborState {
    /// Whether the Ethernet address may be used (the kernel's `NUD_VALID`).
    pub const fn usable(self) -> bool {
        match self {
            Self::Reachable
            | Self::Stale
            | Self::Delay
            | Self::Probe
            | Self::NoArp
            | Self::Permanent => true,
            Self::None | Self::Incomplete | Self::Failed => false,
        }
    }

    const fn from_bits(bits: u16) -> Self {
        match bits {
            libc::NUD_INCOMPLETE => Self::Incomplete,
            libc::NUD_REACHABLE => Self::Reachable,
            libc::NUD_STALE => Self::Stale,
            libc::NUD_DELAY => Self::Delay,
            libc::NUD_PROBE => Self::Probe,
            libc::NUD_FAILED => Self::Failed,
            libc::NUD_NOARP => Self::NoArp,
            libc::NUD_PERMANENT => Self::Permanent,
            _ => Self::None,
        }
    }
}

/// All IPv4 and IPv6 neighbors.
pub fn neighbors() -> Result<Vec<Neighbor>, Error> {
    dump("list neighbors", libc::RTM_GETNEIGH, &[0; HEADER], read)
}

/// One neighbor; none if the kernel has no entry.
pub fn neighbor(ifindex: u32, address: IpAddr) -> Result<Option<Neighbor>, Error> {
    let request = Request::new(
        libc::RTM_GETNEIGH,
        libc::NLM_F_ACK,
        &header(ifindex, address),
    )
    .address(libc::NDA_DST, address);
    match call("read a neighbor", request, read) {
        Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
        result => result,
    }
}

/// Makes the kernel resolve `address` on the interface and keep it fresh, with no traffic to it.
///
/// May be repeated, and must be after the interface lost its carrier: the kernel then forgets its neighbors.
/// An entry that was set by hand stays as it is.
pub fn manage_neighbor(ifindex: u32, address: IpAddr) -> Result<(), Error> {
    if neighbor(ifindex, address)?.is_some_and(|entry| entry.fixed()) {
        return Ok(());
    }
    let flags = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let request = Request::new(libc::RTM_NEWNEIGH, flags, &header(ifindex, address))
        .address(libc::NDA_DST, address)
        .attribute(FLAGS_EXT, &MANAGED.to_ne_bytes());
    call("manage a neighbor", request, nothing)?;
    // An older kernel skips the attribute without a word.
    match neighbor(ifindex, address)? {
        Some(entry) if !entry.managed && !entry.fixed() => Err(Error::Unsupported {
            what: "keeping a neighbor resolved without traffic",
            since: "5.16",
        }),
        _ => Ok(()),
    }
}

/// Removes a neighbor; one that is not there is no error.
pub fn forget_neighbor(ifindex: u32, address: IpAddr) -> Result<(), Error> {
    let request = Request::new(
        libc::RTM_DELNEIGH,
        libc::NLM_F_ACK,
        &header(ifindex, address),
    )
    .address(libc::NDA_DST, address);
    match call("forget a neighbor", request, nothing) {
        Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
        result => result.map(drop),
    }
}

fn nothing(_: Message<'_>) -> Option<()> {
    None
}

/// `struct ndmsg`
fn header(ifindex: u32, address: IpAddr) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family(address);
    header[4..8].copy_from_slice(&ifindex.to_ne_bytes());
    header
}

fn read(message: Message<'_>) -> Option<Neighbor> {
    if message.kind != libc::RTM_NEWNEIGH {
        return None;
    }
    let ifindex = u32_at(message.payload, 4)?;
    let state = NeighborState::from_bits(u16_at(message.payload, 8)?);
    let mut address = None;
    let mut mac = None;
    let mut managed = false;
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::NDA_DST => address = ip(value),
            libc::NDA_LLADDR => mac = value.try_into().ok(),
            FLAGS_EXT => managed = u32_at(value, 0)? & MANAGED != 0,
            _ => {}
        }
    }
    Some(Neighbor {
        ifindex,
        address: address?,
        mac,
        state,
        managed,
    })
}
