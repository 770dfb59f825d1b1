//! Which way a packet to an address would go.

use std::net::IpAddr;

use super::{
    Error,
    message::{Message, Request, family, ip, u32_at},
    socket::call,
};

/// Length of `struct rtmsg`.
const HEADER: usize = 12;
/// `RTA_VIA`: a gateway of another family.
const VIA: u16 = 18;

/// The way to an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The outgoing interface.
    pub ifindex: u32,
    /// The next hop; none when the address is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The source address the kernel would choose.
    pub preferred_source: Option<IpAddr>,
    /// Whether the address is one of this host's own.
    pub local: bool,
}

/// Looks a route up as the kernel would for a packet of this host; none if there is no way.
pub fn route(address: IpAddr) -> Result<Option<Route>, Error> {
    let mut header = [0; HEADER];
    header[0] = family(address);
    header[1] = if address.is_ipv4() { 32 } else { 128 };
    let request =
        Request::new(libc::RTM_GETROUTE, libc::NLM_F_ACK, &header).address(libc::RTA_DST, address);
    match call("look up a route", request, read) {
        // Unreachable, prohibited and blackhole routes answer with an error.
        Err(error) if error.errno().is_some_and(no_way) => Ok(None),
        result => result,
    }
}

const fn no_way(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::ENETDOWN
    )
}

fn read(message: Message<'_>) -> Option<Route> {
    if message.kind != libc::RTM_NEWROUTE {
        return None;
    }
    let kind = *message.payload.get(7)?;
    if !matches!(kind, libc::RTN_UNICAST | libc::RTN_LOCAL) {
        return None;
    }
    let mut ifindex = None;
    let mut gateway = None;
    let mut preferred_source = None;
    for (kind, value) in message.attributes(HEADER) {
        match kind {
            libc::RTA_OIF => ifindex = u32_at(value, 0),
            libc::RTA_GATEWAY => gateway = ip(value),
            // Two bytes of family come first.
            VIA => gateway = ip(value.get(2..)?),
            libc::RTA_PREFSRC => preferred_source = ip(value),
            _ => {}
        }
    }
    Some(Route {
        ifindex: ifindex?,
        gateway,
        preferred_source,
        local: kind == libc::RTN_LOCAL,
    })
}
