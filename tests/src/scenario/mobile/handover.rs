//! A UE that moves is answered where it is, and never where it was.

use dataplane_core::Reason::{self, DownlinkPending, GtpuEndMarker, NoRule, Replied, Steered};

use super::{CORE, DOWN, Interface, OTHER_DOWN, OTHER_RAN, RAN, RULE};
use crate::{
    packet::{Gtpu, Packet},
    scenario::{Family, Scenario, answer, to_app},
    world::World,
};

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    handover(family, interface, all);
}

/// The UE moves to another station.
fn handover(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let world = World::new();
    let inner = family.udp(443);
    let up = interface.uplink(RAN, &inner);
    let down = interface.downlink(RAN, DOWN, &inner.reversed());
    let moved = interface.uplink(OTHER_RAN, &inner);
    let forwarded = interface.downlink("192.0.2.3", 0xf, &inner.reversed());
    let arrived = interface.downlink(OTHER_RAN, OTHER_DOWN, &inner.reversed());
    let there = to_app(&world, "app0", &inner).ttl(63);
    let reply = answer(&there);
    let restored = Packet {
        ttl: 63,
        ..reply.clone()
    };
    let before = interface.injected(RAN, DOWN, &restored, &up);
    let after = interface.injected(OTHER_RAN, OTHER_DOWN, &restored, &moved);
    all.push(
        Scenario::new("a UE that moves is answered where it is", family, &[RULE])
            .original("core0", &down, NoRule)
            .sent("access0", &up, Steered, "app0", &there)
            .sent("app0", &reply, Replied, "access0", &before)
            // By a tunnel that leads to where nothing comes from.
            .original("core0", &forwarded, Reason::WrongSide)
            .sent("app0", &reply, Replied, "access0", &before)
            .sent("access0", &moved, Steered, "app0", &there)
            .discarded("app0", &reply, DownlinkPending)
            .original("core0", &down, Reason::WrongSide)
            .original("core0", &forwarded, Reason::WrongSide)
            .discarded("app0", &reply, DownlinkPending)
            .original("core0", &arrived, Reason::WrongSide)
            .sent("app0", &reply, Replied, "access0", &after)
            .original(
                "core0",
                &interface.between(&Gtpu::end_marker(DOWN), CORE, RAN),
                GtpuEndMarker,
            )
            .sent("app0", &reply, Replied, "access0", &after),
    );
}
