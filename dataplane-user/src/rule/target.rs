//! Tunnels that rules send packets into (MEC 011, 7.1.5.4 `TunnelInfo`).

use std::{
    fmt::{self, Display, Formatter},
    net::IpAddr,
};

use super::Mac;

/// A tunnel from this host to where an application is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// What packets are put into.
    pub encapsulation: Encapsulation,
    /// Address of the other end.
    pub destination: IpAddr,
    /// Address of this host that the tunnel begins at; that of the route when absent.
    pub source: Option<IpAddr>,
}

/// A kind of tunnel, with what tells one from others between the same ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// GTP-U (3GPP TS 29.281).
    Gtpu {
        /// Tunnel endpoint identifier, in both directions.
        teid: u32,
        /// QoS flow identifier for a PDU Session Container; none is sent without.
        qfi: Option<u8>,
    },
    /// GRE (RFC 2784).
    Gre {
        /// The key (RFC 2890), in both directions; none is sent and none accepted without.
        key: Option<u32>,
    },
    /// VXLAN (RFC 7348).
    Vxlan {
        /// Network identifier.
        vni: u32,
        /// The MAC address of the application in that network.
        mac: Mac,
    },
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let name = match self.encapsulation {
            Encapsulation::Gtpu { .. } => "gtpu",
            Encapsulation::Gre { .. } => "gre",
            Encapsulation::Vxlan { .. } => "vxlan",
        };
        write!(f, "{name} {}", self.destination)?;
        if let Some(source) = self.source {
            write!(f, " from {source}")?;
        }
        match self.encapsulation {
            Encapsulation::Gtpu { teid, qfi } => {
                write!(f, " teid {teid}")?;
                qfi.map_or(Ok(()), |qfi| write!(f, " qfi {qfi}"))
            }
            Encapsulation::Gre { key } => key.map_or(Ok(()), |key| write!(f, " key {key}")),
            Encapsulation::Vxlan { vni, mac } => write!(f, " vni {vni} mac {mac}"),
        }
    }
}
