//! The tunnel around a packet, as the oracle sees it.

use std::net::IpAddr;

use crate::packet::{G_PDU, GTPU_PORT, Gtpu, Packet, Session, Transport};

/// Which way a tunnel leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// From the RAN to the core.
    Uplink,
    /// From the core to the RAN.
    Downlink,
}

/// A GTP-U header and the datagram around it, without what is inside and without a link layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Which way it goes.
    pub way: Way,
    /// The datagram.
    pub outer: Packet,
    /// The header; of messages other than G-PDUs, all of it.
    pub gtpu: Gtpu,
}

/// The ends of a tunnel, and its number at the end that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tunnel {
    /// The end in the RAN.
    pub ran: IpAddr,
    /// The end in the core.
    pub core: IpAddr,
    /// The TEID.
    pub teid: u32,
}

impl Envelope {
    /// A message that goes this way between the ends of a tunnel, which begins with the header `gtpu`.
    pub fn new(way: Way, tunnel: Tunnel, gtpu: Gtpu) -> Self {
        let at = |address: IpAddr| match address {
            IpAddr::V4(_) => format!("{address}:{GTPU_PORT}"),
            IpAddr::V6(_) => format!("[{address}]:{GTPU_PORT}"),
        };
        let (from, to) = match way {
            Way::Uplink => (tunnel.ran, tunnel.core),
            Way::Downlink => (tunnel.core, tunnel.ran),
        };
        Self {
            way,
            outer: Packet::udp(&at(from), &at(to)),
            gtpu,
        }
    }

    /// That of a packet by this tunnel, on N3 if it has a QFI and on S1-U if not.
    pub fn of_packet(way: Way, tunnel: Tunnel, qfi: Option<u8>) -> Self {
        // Numbered where it leads to.
        let teid = match way {
            Way::Uplink => tunnel.teid & !Self::DOWNLINK,
            Way::Downlink => tunnel.teid | Self::DOWNLINK,
        };
        let tunnel = Tunnel { teid, ..tunnel };
        Self::new(way, tunnel, Self::pdu(way, teid, qfi))
    }

    fn pdu(way: Way, teid: u32, qfi: Option<u8>) -> Gtpu {
        let pdu = Gtpu::pdu(teid, Vec::new());
        match (qfi, way) {
            (None, _) => pdu,
            (Some(qfi), Way::Uplink) => pdu.session(Session::Uplink(qfi)),
            (Some(qfi), Way::Downlink) => pdu.session(Session::Downlink(qfi)),
        }
    }

    /// What the host builds around a packet with this traffic class (3GPP TS 29.281, 4.4 and 5; TS 38.415,
    /// 5.5): DSCP as inside, not to be fragmented, a UDP checksum over IPv6 only.
    pub fn built(way: Way, tunnel: Tunnel, qfi: Option<u8>, class: u8) -> Self {
        let built = Self::new(way, tunnel, Self::pdu(way, tunnel.teid, qfi));
        let outer = built.outer.identification(0).dont_fragment();
        let outer = outer.class(class & 0xfc);
        let checksum = outer.source.is_ipv6();
        Self {
            outer: if checksum {
                outer
            } else {
                outer.without_checksum()
            },
            ..built
        }
    }

    /// The same from this UDP port.
    pub fn at_port(mut self, port: u16) -> Self {
        if let Transport::Udp { source, .. } = &mut self.outer.transport {
            *source = port;
        }
        self
    }

    /// The tunnel.
    pub fn tunnel(&self) -> Tunnel {
        let (source, destination) = (self.outer.source, self.outer.destination);
        let (ran, core) = match self.way {
            Way::Uplink => (source, destination),
            Way::Downlink => (destination, source),
        };
        Tunnel {
            ran,
            core,
            teid: self.gtpu.teid,
        }
    }

    /// The QFI, if there is one.
    pub fn qfi(&self) -> Option<u8> {
        self.gtpu.said().map(|said| match said {
            Session::Uplink(qfi) | Session::Downlink(qfi) => qfi,
        })
    }

    /// The same between the same ends, but the other way, by the tunnel that goes with it.
    pub fn answer(&self) -> Self {
        let way = match self.way {
            Way::Uplink => Way::Downlink,
            Way::Downlink => Way::Uplink,
        };
        Self::of_packet(way, self.tunnel(), self.qfi())
    }

    /// What sets the number of a downlink tunnel apart from that of the uplink tunnel that goes with it.
    pub const DOWNLINK: u32 = 0x5000;

    /// The frame, with a link layer and what is inside.
    pub fn around(&self, link: &Packet, inside: &[u8]) -> Packet {
        let mut gtpu = self.gtpu.clone();
        if gtpu.message == G_PDU {
            gtpu.content = inside.to_vec();
        }
        Packet {
            source_mac: link.source_mac,
            destination_mac: link.destination_mac,
            tags: link.tags.clone(),
            payload: gtpu.bytes(),
            ..self.outer.clone()
        }
    }
}
