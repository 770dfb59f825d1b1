use std::net::IpAddr;

use super::{Balance, Mac, Target};

/// What a rule does with the packets that it matches (MEC 011, 7.1.2.2 `action`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The packet ends here.
    Drop,
    /// The packet goes on as if no rule had matched, and is counted.
    Passthrough,
    /// The packet goes to the application.
    Forward {
        /// The application.
        destination: Destination,
        /// What becomes of a GTP-U header.
        tunnel: Tunnel,
    },
    /// The packet goes on untouched, and a copy goes to the application.
    Duplicate {
        /// The application.
        destination: Destination,
        /// What becomes of a GTP-U header of the copy.
        tunnel: Tunnel,
    },
    /// Each flow goes to one of several applications.
    Balance(Balance),
}

/// Whether the application sees the tunnel that a packet came in. It makes no difference to a plain packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// The application gets the inner packet.
    Decapsulated,
    /// The application gets the packet with its tunnel headers.
    Encapsulated,
}

/// The interfaces of an application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Destination {
    /// Packets of both directions are exchanged with the application over one interface.
    One(Endpoint),
    /// The application sits in line: upstream packets enter it on one side and leave it on the other.
    Inline {
        /// The side of the clients.
        ue: Endpoint,
        /// The side of the core network.
        core: Endpoint,
    },
}

/// Where an interface of an application is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Its address.
    pub address: EndpointAddress,
    /// The name of the port it is behind; found by its address when absent.
    pub port: Option<String>,
}

/// How packets are addressed to an interface of an application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndpointAddress {
    /// As Ethernet frames; the IP packet stays as it is.
    Mac(Mac),
    /// Routed to it as the next hop.
    Ip {
        /// The address of the application.
        address: IpAddr,
        /// Whether the packet's destination address is rewritten to it, and restored in replies.
        nat: bool,
        /// With `nat`: what the destination port of TCP and UDP is rewritten to, and restored from in replies. The
        /// rule matches no packets to port 0 then.
        nat_port: Option<u16>,
    },
    /// Routed into a tunnel to it; answers come back by the same.
    Tunnel(Target),
}

impl Action {
    /// The application that packets are sent to, if they are.
    pub const fn destination(&self) -> Option<&Destination> {
        match self {
            Self::Drop | Self::Passthrough | Self::Balance(_) => None,
            Self::Forward { destination, .. } | Self::Duplicate { destination, .. } => {
                Some(destination)
            }
        }
    }

    /// All places that packets may be sent to.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let balance = match self {
            Self::Balance(balance) => Some(balance),
            Self::Drop | Self::Passthrough | Self::Forward { .. } | Self::Duplicate { .. } => None,
        };
        let balanced = balance.into_iter().flat_map(Balance::endpoints);
        let destination = self.destination().into_iter();
        destination.flat_map(Destination::endpoints).chain(balanced)
    }

    /// The address that destination addresses are rewritten to, if they are.
    pub fn translates_to(&self) -> Option<IpAddr> {
        let mut endpoints = self.destination()?.endpoints();
        endpoints.find_map(Endpoint::translates_to)
    }

    /// Whether destination ports are rewritten.
    pub(crate) fn translates_ports(&self) -> bool {
        self.endpoints().any(Endpoint::translates_port)
    }
}

impl Endpoint {
    /// The address that destination addresses are rewritten to, if they are.
    pub fn translates_to(&self) -> Option<IpAddr> {
        match self.address {
            EndpointAddress::Ip {
                address, nat: true, ..
            } => Some(address),
            EndpointAddress::Mac(_) | EndpointAddress::Ip { .. } | EndpointAddress::Tunnel(_) => {
                None
            }
        }
    }

    /// Whether the destination port is rewritten.
    pub(crate) const fn translates_port(&self) -> bool {
        matches!(
            self.address,
            EndpointAddress::Ip {
                nat_port: Some(_),
                ..
            }
        )
    }
}

impl Destination {
    /// Its endpoints, the one of the UE side first.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let (first, second) = match self {
            Self::One(endpoint) => (endpoint, None),
            Self::Inline { ue, core } => (ue, Some(core)),
        };
        [Some(first), second].into_iter().flatten()
    }
}
