//! The tunnel of a destination around a packet, as the oracle sees it.

use std::net::IpAddr;

use dataplane_user::rule::{Action, Destination, Encapsulation, EndpointAddress, Target};

use super::{Frame, endpoint, rules::Rules};
use crate::{
    packet::{GTPU_PORT, Gre, Gtpu, MacAddress, Packet, Session, VXLAN_PORT, Vxlan},
    scenario::source_port,
    world,
};

/// What is around a packet on its way to or from the far end, without a link layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outside {
    target: Target,
    /// The IP packet, and the UDP header if there is one.
    outer: Packet,
    /// Source and destination of the frame in VXLAN.
    macs: [MacAddress; 2],
}

/// What tells a tunnel from all others, as seen from here.
#[derive(PartialEq, Eq)]
struct Known {
    ends: (Option<IpAddr>, IpAddr),
    identifier: (u8, Option<u32>),
}

impl Outside {
    /// What the host builds around `frame`, which is sent from a port with this MAC address (RFC 2784, 2890 and
    /// 7348; 3GPP TS 29.281, 4.4): DSCP as inside, not to be fragmented, a UDP checksum over IPv6 only.
    pub(super) fn built(target: Target, frame: &Frame, from: MacAddress) -> Self {
        let class = match &frame.envelope {
            Some(envelope) => envelope.outer.class,
            None => frame.packet.class,
        };
        let near = target.source.expect("rules of the oracle say it");
        let ends = (near, target.destination);
        let outer = datagram(target.encapsulation, ends, source_port(&frame.packet));
        let outer = outer.identification(0).dont_fragment().class(class & 0xfc);
        let is_bare = near.is_ipv6() || outer.ports().is_none();
        Self {
            target,
            outer: if is_bare {
                outer
            } else {
                outer.without_checksum()
            },
            macs: match target.encapsulation {
                Encapsulation::Vxlan { mac, .. } => [from, mac.octets()],
                Encapsulation::Gtpu { .. } | Encapsulation::Gre { .. } => [from, from],
            },
        }
    }

    /// What a peer builds.
    pub(super) fn of_peer(peer: &str) -> Self {
        let target = world::peer_at(peer);
        let near = target.source.expect("it is said");
        Self {
            target,
            outer: datagram(target.encapsulation, (target.destination, near), 0),
            macs: [[0; 6]; 2],
        }
    }

    /// Whether this comes from a peer.
    fn is_from_peer(&self) -> bool {
        let mut peers = world::peers().into_iter();
        peers.any(
            |it| matches!(it.address, EndpointAddress::Tunnel(target) if self.comes_by(&target)),
        )
    }

    /// The way back into the tunnel that this came by.
    pub(super) fn back(&self, frame: &Frame, from: MacAddress) -> Self {
        Self::built(self.target, frame, from)
    }

    /// The same from the other end.
    pub(super) fn answer(&self) -> Self {
        let ends = (self.outer.destination, self.outer.source);
        let [from, to] = self.macs;
        Self {
            target: self.target,
            outer: datagram(self.target.encapsulation, ends, 40_000),
            macs: [to, from],
        }
    }

    /// The packet with this link layer and this inside.
    pub(super) fn around(&self, link: &Packet, inside: &[u8]) -> Packet {
        let payload = match self.target.encapsulation {
            Encapsulation::Gtpu { teid, qfi } => {
                let pdu = Gtpu::pdu(teid, inside.to_vec());
                let session = |qfi| pdu.clone().session(Session::Uplink(qfi));
                qfi.map_or_else(|| pdu.clone(), session).bytes()
            }
            Encapsulation::Gre { key } => {
                let gre = Gre {
                    protocol: ethertype(inside),
                    key,
                    sequence: None,
                    checksum: false,
                    content: inside.to_vec(),
                };
                gre.bytes()
            }
            Encapsulation::Vxlan { vni, .. } => {
                let [from, to] = self.macs;
                let ethertype = ethertype(inside).to_be_bytes();
                let content = [&to[..], &from, &ethertype, inside].concat();
                Vxlan { vni, content }.bytes()
            }
        };
        Packet {
            source_mac: link.source_mac,
            destination_mac: link.destination_mac,
            tags: link.tags.clone(),
            payload,
            ..self.outer.clone()
        }
    }

    /// Whether it goes from one address to another.
    pub(super) fn is_between(&self, from: IpAddr, to: IpAddr) -> bool {
        (self.outer.source, self.outer.destination) == (from, to)
    }

    /// Whether this comes by the tunnel that `action` sends into.
    pub(super) fn is_from(&self, action: &Action) -> bool {
        let Some(Destination::One(endpoint)) = action.destination() else {
            return false;
        };
        let EndpointAddress::Tunnel(target) = endpoint.address else {
            return false;
        };
        self.comes_by(&target)
    }

    /// Whether this comes from the far end of a tunnel.
    fn comes_by(&self, target: &Target) -> bool {
        let ends = (Some(self.outer.destination), self.outer.source);
        let identifier = known(&self.target).identifier;
        known(target) == Known { ends, identifier }
    }
}

impl Frame {
    /// The tunnel of a peer, if it comes from one, which has it from a UE.
    pub(super) fn of_peer(&self) -> Option<&Outside> {
        let outside = self.outside.as_ref()?;
        (outside.is_from_peer() && self.envelope.is_none()).then_some(outside)
    }
}

impl Rules<'_> {
    /// Whether what is in this tunnel is looked at: it comes from a peer, or the far end of one that a rule leads to.
    pub(super) fn open(&self, outside: &Outside) -> bool {
        if outside.is_from_peer() {
            return true;
        }
        let mut actions = self.all().map(|rule| &rule.action);
        actions.any(|action| {
            let resolved = || self.world.resolve(endpoint(action, false)?);
            outside.is_from(action) && resolved().is_some()
        })
    }
}

/// The far end tells neither the QFI nor the MAC address of the application.
fn known(target: &Target) -> Known {
    Known {
        ends: (target.source, target.destination),
        identifier: match target.encapsulation {
            Encapsulation::Gtpu { teid, .. } => (0, Some(teid)),
            Encapsulation::Gre { key } => (1, key),
            Encapsulation::Vxlan { vni, .. } => (2, Some(vni)),
        },
    }
}

/// The headers around a tunnel's own.
fn datagram(encapsulation: Encapsulation, (from, to): (IpAddr, IpAddr), port: u16) -> Packet {
    let udp = |from_port, to_port| {
        let at = |address: IpAddr, port| std::net::SocketAddr::new(address, port).to_string();
        Packet::udp(&at(from, from_port), &at(to, to_port))
    };
    match encapsulation {
        Encapsulation::Gtpu { .. } => udp(GTPU_PORT, GTPU_PORT),
        Encapsulation::Vxlan { .. } => udp(port, VXLAN_PORT),
        Encapsulation::Gre { .. } => Packet::other(&from.to_string(), &to.to_string(), 47),
    }
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}
