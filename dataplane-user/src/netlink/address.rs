//! Addresses of this host.

use std::{net::IpAddr, time::Duration};

use super::{
    Error,
    message::{Message, Request, family, ip, u32_at},
    socket::{call, dump},
};

/// Length of `struct ifaddrmsg`.
const HEADER: usize = 8;
/// `IFA_PROTO`: who has set it. Linux 5.18.
const PROTOCOL: u16 = 11;
const FOR_EVER: u32 = u32::MAX;

/// An address on an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface it is on.
    pub ifindex: u32,
    /// The address itself.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix: u8,
    /// The number of who has set it, which newer versions of `ip address` show as `proto`; 0 if that was not said.
    pub protocol: u8,
    /// When it goes by itself, unless renewed; to the second.
    pub lifetime: Option<Duration>,
}

/// How [`set_address`] takes one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Present {
    /// It is an error (`EEXIST`).
    Refused,
    /// It gets the new lifetime.
    Renewed,
}

/// All IPv4 and IPv6 addresses.
pub fn addresses() -> Result<Vec<Address>, Error> {
    dump("list addresses", libc::RTM_GETADDR, &[0; HEADER], read)
}

/// Gives an interface an address, with its whole length as prefix and at once usable, that the host does not choose as
/// a source by itself. Without a lifetime it is for ever.
pub fn set_address(
    ifindex: u32,
    address: IpAddr,
    protocol: u8,
    lifetime: Option<Duration>,
    present: Present,
) -> Result<(), Error> {
    let flags = match present {
        Present::Refused => libc::NLM_F_EXCL,
        Present::Renewed => libc::NLM_F_REPLACE,
    };
    let flags = flags | libc::NLM_F_ACK | libc::NLM_F_CREATE;
    let valid = lifetime.map_or(FOR_EVER, |lifetime| lifetime.as_secs() as u32);
    // `struct ifa_cacheinfo`: not preferred at any time; the kernel fills in the other two.
    let mut times = [0; 16];
    times[4..8].copy_from_slice(&valid.to_ne_bytes());
    let request = Request::new(libc::RTM_NEWADDR, flags, &header(ifindex, address))
        .address(libc::IFA_LOCAL, address)
        .address(libc::IFA_ADDRESS, address)
        // Nobody else on the link answers for it, so there is nothing to detect.
        .attribute(libc::IFA_FLAGS, &libc::IFA_F_NODAD.to_ne_bytes())
        .attribute(libc::IFA_CACHEINFO, &times)
        .attribute(PROTOCOL, &[protocol]);
    call("set an address", request, nothing).map(drop)
}

/// Takes an address that [`set_address`] gave; one that is not there is no error.
pub fn remove_address(ifindex: u32, address: IpAddr) -> Result<(), Error> {
    let request = Request::new(
        libc::RTM_DELADDR,
        libc::NLM_F_ACK,
        &header(ifindex, address),
    )
    .address(libc::IFA_LOCAL, address);
    match call("remove an address", request, nothing) {
        Err(error) if matches!(error.errno(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(()),
        result => result.map(drop),
    }
}

fn nothing(_: Message<'_>) -> Option<()> {
    None
}

/// `struct ifaddrmsg`, with the scope of addresses that are known everywhere.
fn header(ifindex: u32, address: IpAddr) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[0] = family(address);
    header[1] = length(address);
    header[4..].copy_from_slice(&ifindex.to_ne_bytes());
    header
}

const fn length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn read(message: Message<'_>) -> Option<Address> {
    if message.kind != libc::RTM_NEWADDR {
        return None;
    }
    let (mut own, mut other) = (None, None);
    let mut protocol = 0;
    let mut lifetime = None;
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::IFA_LOCAL => own = ip(value),
            // That of the other end, if there is one; over IPv6 often the only one.
            libc::IFA_ADDRESS => other = ip(value),
            libc::IFA_CACHEINFO => {
                let valid = u32_at(value, 4)?;
                lifetime = (valid != FOR_EVER).then(|| Duration::from_secs(valid.into()));
            }
            PROTOCOL => protocol = *value.first()?,
            _ => {}
        }
    }
    Some(Address {
        ifindex: u32_at(message.payload, 4)?,
        address: own.or(other)?,
        prefix: *message.payload.get(1)?,
        protocol,
        lifetime,
    })
}
