//! The kinds of tunnels, from a rule to what is on the wire.

use dataplane_core::{
    flow::{FlowKey, KeyRest},
    parse::mapped,
};

use crate::scenario::{Family, addressing::at, to_app};
use crate::{
    packet::{GTPU_PORT, Gre, Gtpu, Packet, Session, Transport, VXLAN_PORT, Vxlan},
    world::{OWN, World},
};

pub(super) const TEID: u32 = 0x0102_0304;
pub(super) const KEY: u32 = 0xfedc_ba98;
pub(super) const VNI: u32 = 0x00ab_cdef;
pub(super) const MAC: [u8; 6] = [2, 0, 0, 0, 0xff, 9];

/// A kind of tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gtpu,
    GtpuWithQfi,
    Gre,
    GreWithKey,
    Vxlan,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [
        Self::Gtpu,
        Self::GtpuWithQfi,
        Self::Gre,
        Self::GreWithKey,
        Self::Vxlan,
    ];

    /// As a destination, between addresses of this family.
    pub(super) fn rule(self, outer: &Family) -> String {
        self.rule_to(outer, outer.app0)
    }

    /// The same with another far end.
    pub(super) fn rule_to(self, outer: &Family, far: &str) -> String {
        let ends = format!("{far} from {}", own(outer));
        match self {
            Self::Gtpu => format!("gtpu {ends} teid {TEID}"),
            Self::GtpuWithQfi => format!("gtpu {ends} teid {TEID} qfi 5"),
            Self::Gre => format!("gre {ends}"),
            Self::GreWithKey => format!("gre {ends} key {KEY}"),
            Self::Vxlan => format!("vxlan {ends} vni {VNI} mac 02:00:00:00:ff:09"),
        }
    }

    /// `inner` on its way to the other end, out of `app0`.
    pub(super) fn sent(
        self,
        world: &World,
        outer: &Family,
        inner: &Packet,
        flow: &Packet,
    ) -> Packet {
        self.sent_to(world, outer, ("app0", outer.app0), inner, flow)
    }

    /// The same to another far end, behind this port.
    pub(super) fn sent_to(
        self,
        world: &World,
        outer: &Family,
        (port, far): (&'static str, &str),
        inner: &Packet,
        flow: &Packet,
    ) -> Packet {
        let inner = &inner.clone().macs(world.port(port).mac, MAC);
        let packet = self.between(own(outer), far, inner, source_port(flow));
        let is_udp = matches!(packet.transport, Transport::Udp { .. });
        let packet = if is_udp && outer.is_v4() {
            packet.without_checksum()
        } else {
            packet
        };
        let class = inner.class & 0xfc;
        to_app(world, port, &packet.dont_fragment())
            .identification(0)
            .class(class)
    }

    /// `inner` on its way back from the other end.
    pub(super) fn answered(self, outer: &Family, inner: &Packet) -> Packet {
        self.between(outer.app0, own(outer), inner, 40_000)
    }

    pub(super) fn between(self, from: &str, to: &str, inner: &Packet, source_port: u16) -> Packet {
        let gtpu = |gtpu: Gtpu| gtpu.over(&at(from, GTPU_PORT), &at(to, GTPU_PORT));
        let pdu = Gtpu::pdu(TEID, inner.network_bytes());
        match self {
            Self::Gtpu => gtpu(pdu),
            Self::GtpuWithQfi => gtpu(pdu.session(Session::Uplink(5))),
            Self::Gre => Gre::new(inner).over(from, to),
            Self::GreWithKey => Gre::new(inner).key(KEY).over(from, to),
            Self::Vxlan => Vxlan::new(VNI, inner).over(&at(from, source_port), &at(to, VXLAN_PORT)),
        }
    }
}

/// The address of the host.
pub(super) fn own(family: &Family) -> &'static str {
    OWN[usize::from(!family.is_v4())]
}

/// The UDP source port of what is sent of a flow.
pub(crate) fn source_port(packet: &Packet) -> u16 {
    flow_key(packet).source_port_outside()
}

/// The key of a packet in zone 0.
pub(crate) fn flow_key(packet: &Packet) -> FlowKey {
    let words = |address| match address {
        std::net::IpAddr::V4(address) => mapped(address.into()),
        std::net::IpAddr::V6(address) => {
            let bits = address.to_bits();
            [(bits >> 64) as u64, bits as u64]
        }
    };
    let (source, destination) = packet.flow_ports();
    let ports = u32::from(source) << 16 | u32::from(destination);
    FlowKey {
        source: words(packet.source),
        destination: words(packet.destination),
        rest: KeyRest::new(ports, 0, packet.protocol()),
    }
}
