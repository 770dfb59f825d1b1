//! UEs behind tunnels.

mod handover;
mod messages;
mod provisioned;
mod steering;

use super::{Family, Scenario};
use crate::packet::{GTPU_PORT, Gtpu, Packet, Session};

const RAN: &str = "192.0.2.1";
const OTHER_RAN: &str = "192.0.2.2";
const CORE: &str = "198.51.100.1";
/// TEIDs towards the core, and towards the UE at each of its places.
const UP: u32 = 0x1234;
const DOWN: u32 = 0x5678;
const OTHER_DOWN: u32 = 0x9abc;
const QFI: u8 = 9;
const RULE: &str = "a/1 prio 1 flow to SERVICE proto udp forward ip APP0 via app0";

/// Whether the tunnels are those of N3, with PDU Session Containers, or of S1-U.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Interface {
    N3,
    S1u,
}

impl Interface {
    fn uplink(self, from: &str, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(UP, inner.network_bytes());
        let pdu = match self {
            Self::N3 => pdu.session(Session::Uplink(QFI)),
            // Some stations number their packets.
            Self::S1u => pdu.sequence(7),
        };
        pdu.over(&gtpu(from), &gtpu(CORE))
    }

    fn downlink(self, to: &str, teid: u32, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(teid, inner.network_bytes());
        let pdu = match self {
            Self::N3 => pdu.session(Session::Downlink(QFI)),
            Self::S1u => pdu,
        };
        pdu.over(&gtpu(CORE), &gtpu(to))
    }

    /// What is sent to the UE in answer to `question`.
    fn injected(self, to: &str, teid: u32, inner: &Packet, question: &Packet) -> Packet {
        let packet = self.downlink(to, teid, inner).dont_fragment();
        Packet {
            identification: 0,
            source_mac: question.destination_mac,
            destination_mac: question.source_mac,
            ..packet
        }
        .without_checksum()
    }
}

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    for interface in [Interface::N3, Interface::S1u] {
        steering::scenarios(family, interface, all);
        handover::scenarios(family, interface, all);
        provisioned::scenarios(family, interface, all);
    }
    steering::in_tunnels(family, all);
    messages::scenarios(family, all);
}

/// The port of GTP-U at `address`.
fn gtpu(address: &str) -> String {
    format!("{address}:{GTPU_PORT}")
}
