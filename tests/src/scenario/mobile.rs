//! UEs behind tunnels.

mod copies;
mod filters;
mod handover;
mod messages;
mod mss;
mod mtu;
mod outer;
mod provisioned;
mod steering;
mod story;
mod tunnels;

use dataplane_user::{Bearer, Binding, QosFlow};

use super::{Family, Scenario, addressing::at, balance};
use crate::packet::{GTPU_PORT, Gtpu, Packet, Session};

pub(super) const RAN: &str = "192.0.2.1";
const OTHER_RAN: &str = "192.0.2.2";
const CORE: &str = "198.51.100.1";
/// TEIDs towards the core, and towards the UE at each of its places.
const UP: u32 = 0x1234;
pub(super) const DOWN: u32 = 0x5678;
const OTHER_DOWN: u32 = 0x9abc;
const QFI: u8 = 9;
const RULE: &str = "a/1 prio 1 flow to SERVICE proto udp forward ip APP0 via app0";

/// Whether the tunnels are those of N3, with PDU Session Containers, over IPv4 or IPv6, or of S1-U.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Interface {
    N3,
    N3Ipv6,
    S1u,
}

impl Interface {
    pub(super) fn uplink(self, from: &str, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(UP, inner.network_bytes());
        let pdu = match self {
            Self::N3 | Self::N3Ipv6 => pdu.session(Session::Uplink(QFI)),
            // Some stations number their packets.
            Self::S1u => pdu.sequence(7),
        };
        self.between(&pdu, from, CORE)
    }

    pub(super) fn downlink(self, to: &str, teid: u32, inner: &Packet) -> Packet {
        self.carrying(to, teid, inner.network_bytes())
    }

    /// A downlink packet with this inside.
    fn carrying(self, to: &str, teid: u32, inner: Vec<u8>) -> Packet {
        let pdu = Gtpu::pdu(teid, inner);
        let pdu = match self {
            Self::N3 | Self::N3Ipv6 => pdu.session(Session::Downlink(QFI)),
            Self::S1u => pdu,
        };
        self.between(&pdu, CORE, to)
    }

    /// What goes on to the core of `original`, once an application has given it back.
    fn continued(self, from: &str, inner: &Packet, original: &Packet) -> Packet {
        let pdu = Gtpu::pdu(UP, inner.network_bytes());
        let pdu = match self {
            Self::N3 | Self::N3Ipv6 => pdu.session(Session::Uplink(QFI)),
            Self::S1u => pdu,
        };
        let packet = self.sent(self.between(&pdu, from, CORE), original);
        packet.macs(original.source_mac, original.destination_mac)
    }

    /// What is sent to the UE in answer to `question`.
    pub(super) fn injected(self, to: &str, teid: u32, inner: &Packet, question: &Packet) -> Packet {
        self.sent(self.downlink(to, teid, inner), question)
    }

    /// The downlink `packet` as it is sent in answer to `question`.
    fn sent(self, packet: Packet, question: &Packet) -> Packet {
        let packet = Packet {
            identification: 0,
            tags: question.tags.clone(),
            source_mac: question.destination_mac,
            destination_mac: question.source_mac,
            ..packet.dont_fragment()
        };
        if self == Self::N3Ipv6 {
            packet
        } else {
            packet.without_checksum()
        }
    }

    /// The session of the UE that sends `inner`, with this QCI or 5QI.
    fn binding(self, inner: &Packet, ran: &str, downlink: u32, qci: u8) -> Binding {
        let address = |named| self.address(named).parse().expect("an address");
        let of_flows = self != Self::S1u;
        let flow = QosFlow {
            qfi: QFI,
            five_qi: qci,
        };
        Binding {
            zone: 0,
            ue: inner.source,
            ran: address(ran),
            core: address(CORE),
            bearers: vec![Bearer {
                uplink: UP,
                downlink,
                qci: (!of_flows).then_some(qci),
            }],
            qos_flows: if of_flows { vec![flow] } else { vec![] },
        }
    }

    /// The address of an endpoint that is named by its IPv4 address, or a rule with some.
    fn address(self, named: &str) -> String {
        if self == Self::N3Ipv6 {
            let address = named.replace("192.0.2.", "2001:db8:2::");
            address.replace("198.51.100.", "2001:db8:51::")
        } else {
            named.to_owned()
        }
    }

    /// Octets that the tunnels towards UEs add to a packet.
    fn overhead(self) -> usize {
        match self {
            Self::N3 => 44,
            Self::N3Ipv6 => 64,
            Self::S1u => 36,
        }
    }

    /// The message on its way between these endpoints.
    fn between(self, message: &Gtpu, from: &str, to: &str) -> Packet {
        let [from, to] = [from, to].map(|named| at(&self.address(named), GTPU_PORT));
        message.over(&from, &to)
    }
}

pub(super) fn scenarios(family: &'static Family, all: &mut Vec<Scenario>) {
    for interface in [Interface::N3, Interface::N3Ipv6, Interface::S1u] {
        steering::scenarios(family, interface, all);
        handover::scenarios(family, interface, all);
        mss::scenarios(family, interface, all);
        mtu::scenarios(family, interface, all);
        provisioned::scenarios(family, interface, all);
        copies::scenarios(family, interface, all);
        filters::scenarios(family, interface, all);
        tunnels::scenarios(family, interface, all);
        balance::mobile(family, interface, all);
    }
    steering::in_tunnels(family, all);
    filters::attributes(family, all);
    messages::scenarios(family, all);
    outer::scenarios(family, all);
}

/// Those of both IP versions at once.
pub(super) fn mixed(all: &mut Vec<Scenario>) {
    for interface in [Interface::N3, Interface::S1u] {
        tunnels::mixed(interface, all);
    }
}

/// The port of GTP-U at `address`.
fn gtpu(address: &str) -> String {
    format!("{address}:{GTPU_PORT}")
}
