//! The story of a UE: where its packets come from and go to, and where it is answered.

use dataplane_core::Reason::{
    self, DownlinkPending, GtpuEndMarker, GtpuErrorIndication, NoRule, Replied, Steered,
};

use super::{CORE, DOWN, Interface, OTHER_DOWN, OTHER_RAN, QFI, RAN, RULE, UP};
use crate::{
    packet::{Gtpu, Packet, Session},
    scenario::{Family, Scenario, Then, answer, to_app},
    world::World,
};

pub(super) const OTHER_CORE: &str = "198.51.100.2";

/// The ends of a UE's tunnels.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) ran: &'static str,
    pub(super) core: &'static str,
    /// TEID towards the core.
    pub(super) up: u32,
    /// TEID towards the UE.
    pub(super) down: u32,
}

/// Where the UE is first.
pub(super) const HOME: Place = Place {
    ran: RAN,
    core: CORE,
    up: UP,
    down: DOWN,
};
/// At another station, and the core is told.
pub(super) const AWAY: Place = Place {
    ran: OTHER_RAN,
    down: OTHER_DOWN,
    ..HOME
};
/// By this tunnel the core forwards to that station what comes back from the first one.
pub(super) const FORWARDING: Place = Place { down: 0xf1, ..AWAY };

/// Builds a scenario.
pub(super) struct Story {
    family: &'static Family,
    interface: Interface,
    inner: Packet,
    pub(super) scenario: Scenario,
}

impl Story {
    /// The tunnel at [`HOME`] is known, and used.
    pub(super) fn of(name: &str, family: &'static Family, interface: Interface) -> Self {
        Self::under(name, family, interface, &[RULE])
            .downlink(HOME, NoRule)
            .uplink(HOME)
            .answered(HOME)
    }

    /// Nothing has come yet.
    pub(super) fn under(
        name: &str,
        family: &'static Family,
        interface: Interface,
        rules: &[&str],
    ) -> Self {
        let interface_name = match interface {
            Interface::N3 => "N3",
            Interface::N3Ipv6 => "N3 over IPv6",
            Interface::S1u => "S1-U",
        };
        Self {
            family,
            interface,
            inner: family.udp(443),
            scenario: Scenario::new(&format!("{name}, {interface_name}"), family, rules),
        }
    }

    /// From now on it is about the flow to this port of the service.
    pub(super) fn flow(mut self, port: u16) -> Self {
        self.inner = self.family.udp(port);
        self
    }

    /// From now on it is about another UE, with this address.
    pub(super) fn ue(mut self, family: &'static Family, address: &str) -> Self {
        self.family = family;
        self.inner = family.udp(443).from(address);
        self
    }

    /// The UE sends, and the application receives it.
    pub(super) fn uplink(mut self, place: Place) -> Self {
        let (packet, there) = (self.packet(place), self.there());
        self.scenario = self
            .scenario
            .sent("access0", &packet, Steered, "app0", &there);
        self
    }

    /// The UE sends, and it goes on to the core.
    pub(super) fn unsteered(self, place: Place, reason: Reason) -> Self {
        let packet = self.packet(place);
        self.passes("access0", &packet, reason)
    }

    /// The core sends to the UE.
    pub(super) fn downlink(self, place: Place, reason: Reason) -> Self {
        let packet = self.to_ue(place, &self.inner.reversed());
        self.passes("core0", &packet, reason)
    }

    /// The application answers, and that goes by this tunnel.
    pub(super) fn answered(mut self, place: Place) -> Self {
        let question = self.packet(place);
        let reply = answer(&self.there());
        let restored = Packet {
            source: self.inner.destination,
            ..reply.clone().ttl(63)
        };
        let injected = self.interface.sent(self.to_ue(place, &restored), &question);
        self.scenario = self
            .scenario
            .sent("app0", &reply, Replied, "access0", &injected);
        self
    }

    /// The application answers, and nobody receives it.
    pub(super) fn lost(mut self) -> Self {
        let reply = answer(&self.there());
        self.scenario = self.scenario.discarded("app0", &reply, DownlinkPending);
        self
    }

    pub(super) fn end_marker(self, place: Place) -> Self {
        let marker = Gtpu::end_marker(place.down);
        let packet = self.between(&marker, place.core, place.ran);
        self.passes("core0", &packet, GtpuEndMarker)
    }

    /// One with a PDU Session Container.
    pub(super) fn end_marker_of_flow(self, place: Place) -> Self {
        let marker = Gtpu::end_marker(place.down).session(Session::Downlink(QFI));
        let packet = self.between(&marker, place.core, place.ran);
        self.passes("core0", &packet, GtpuEndMarker)
    }

    /// The station says that it has no such tunnel.
    pub(super) fn unknown_to_station(self, place: Place) -> Self {
        let message = Gtpu::error_indication(place.down, place.ran);
        let packet = self.between(&message, place.ran, place.core);
        self.passes("access0", &packet, GtpuErrorIndication)
    }

    /// The core says that it has no such tunnel.
    pub(super) fn unknown_to_core(self, place: Place, teid: u32) -> Self {
        let message = Gtpu::error_indication(teid, place.core);
        let packet = self.between(&message, place.core, place.ran);
        self.passes("core0", &packet, GtpuErrorIndication)
    }

    /// The first station sends a packet of the UE's on to the second one.
    pub(super) fn forwarded_to_station(self) -> Self {
        let pdu = Gtpu::pdu(0xf, self.inner.reversed().network_bytes());
        let packet = self.between(&pdu, RAN, OTHER_RAN);
        self.passes("access0", &packet, NoRule)
    }

    /// The first station sends a packet for the UE back to the core, which is to forward it.
    pub(super) fn forwarded_to_core(self, reason: Reason) -> Self {
        let from = Place { up: 0xf0, ..HOME };
        let packet = self.uplink_of(from, &self.inner.reversed());
        self.passes("access0", &packet, reason)
    }

    /// A packet that goes on as it is.
    pub(super) fn passes(mut self, port: &'static str, packet: &Packet, reason: Reason) -> Self {
        self.scenario = self
            .scenario
            .frame(port, packet.bytes(), reason, Then::Original);
        self
    }

    /// The message on its way between endpoints.
    pub(super) fn between(&self, message: &Gtpu, from: &str, to: &str) -> Packet {
        self.interface.between(message, from, to)
    }

    /// A packet of the UE's in its tunnel.
    pub(super) fn packet(&self, place: Place) -> Packet {
        self.uplink_of(place, &self.inner)
    }

    fn uplink_of(&self, place: Place, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(place.up, inner.network_bytes());
        let pdu = match self.interface {
            Interface::N3 | Interface::N3Ipv6 => pdu.session(Session::Uplink(QFI)),
            Interface::S1u => pdu,
        };
        self.between(&pdu, place.ran, place.core)
    }

    fn to_ue(&self, place: Place, inner: &Packet) -> Packet {
        let pdu = Gtpu::pdu(place.down, inner.network_bytes());
        let pdu = match self.interface {
            Interface::N3 | Interface::N3Ipv6 => pdu.session(Session::Downlink(QFI)),
            Interface::S1u => pdu,
        };
        self.between(&pdu, place.core, place.ran)
    }

    fn there(&self) -> Packet {
        to_app(&World::new(), "app0", &self.inner).ttl(63)
    }
}
