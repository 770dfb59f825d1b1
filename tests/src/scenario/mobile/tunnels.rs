//! Tunnels that end, begin and change while the UE stays where it is.

use dataplane_core::Reason::{GtpuErrorIndication, NoDownlinkTunnel, NoRule, WrongSide};

use super::{
    CORE, Interface, OTHER_RAN, RAN,
    story::{HOME, OTHER_CORE, Place, Story},
};
use crate::{
    packet::Gtpu,
    scenario::{Family, Scenario, V4, V6},
};

/// Other tunnels between the same endpoints.
const RENEWED: Place = Place {
    up: 0x1111,
    down: 0x2222,
    ..HOME
};
/// The same tunnel to the core, and another one to the UE.
const AWAKE: Place = Place {
    down: 0x3333,
    ..HOME
};

pub(super) fn scenarios(family: &'static Family, interface: Interface, all: &mut Vec<Scenario>) {
    let begin = |name: &str| Story::of(name, family, interface);
    let stories = [
        unknown_to_station(begin("a station that does not know a tunnel is believed")),
        unknown_to_core(begin("the core knows tunnels to the core only")),
        lost_by_core(begin("a core that does not know a tunnel is believed")),
        renewed_by_uplink(begin("another UE has the address, and sends first")),
        renewed_by_downlink(begin("another UE has the address, and is sent to first")),
        awake(begin("a UE wakes up with another tunnel")),
        awake_as_before(begin("a UE wakes up with the tunnel that it had")),
        relocated(begin("another endpoint of the core sends first")),
        other_zone(begin("the same address in another zone is another UE")),
    ];
    all.extend(stories.map(|story| story.scenario));
    if interface == Interface::S1u {
        all.push(bearers(begin("a UE has two bearers")).scenario);
    }
    let reassigned = [
        reassigned(family, interface),
        reassigned_by_station(family, interface),
        reassigned_to_forward(family, interface),
        reassigned_by_saying(family, interface),
    ];
    all.extend(reassigned.map(|story| story.scenario));
}

/// Of both IP versions at once.
pub(super) fn mixed(interface: Interface, all: &mut Vec<Scenario>) {
    all.push(dual_stack(interface).scenario);
}

fn unknown_to_station(story: Story) -> Story {
    let other = [
        Place { down: 1, ..HOME },
        Place {
            down: HOME.up,
            ..HOME
        },
        Place {
            ran: OTHER_RAN,
            ..HOME
        },
    ];
    other
        .iter()
        .fold(story, |story, place| {
            story.unknown_to_station(*place).answered(HOME)
        })
        .unknown_to_station(HOME)
        .lost()
        .flow(444)
        .unsteered(HOME, NoDownlinkTunnel)
        .downlink(AWAKE, NoRule)
        .uplink(HOME)
        .answered(AWAKE)
}

fn unknown_to_core(story: Story) -> Story {
    let elsewhere = [
        Place {
            ran: OTHER_RAN,
            ..HOME
        },
        Place {
            core: OTHER_CORE,
            ..HOME
        },
    ];
    let story = elsewhere.iter().fold(story, |story, place| {
        story.unknown_to_core(*place, HOME.up).answered(HOME)
    });
    // From where the core is not.
    let message = Gtpu::error_indication(HOME.up, HOME.core);
    let forged = story.between(&message, CORE, RAN);
    story
        .unknown_to_core(HOME, HOME.down)
        .answered(HOME)
        .passes("access0", &forged, GtpuErrorIndication)
        .answered(HOME)
}

/// The station releases the tunnel to the UE as well.
fn lost_by_core(story: Story) -> Story {
    story
        .unknown_to_core(HOME, HOME.up)
        .lost()
        .unknown_to_core(HOME, HOME.up)
        .flow(444)
        .unsteered(HOME, NoDownlinkTunnel)
        .flow(443)
        .uplink(HOME)
        .lost()
        // The UE begins anew.
        .downlink(RENEWED, WrongSide)
        .answered(RENEWED)
        .uplink(RENEWED)
        .unknown_to_core(HOME, HOME.up)
        .answered(RENEWED)
        .unknown_to_core(RENEWED, RENEWED.up)
        .lost()
        // What was under way says nothing new.
        .downlink(RENEWED, WrongSide)
        .lost()
        .uplink(RENEWED)
        .downlink(RENEWED, WrongSide)
        .answered(RENEWED)
}

fn renewed_by_uplink(story: Story) -> Story {
    story
        .flow(444)
        .unsteered(RENEWED, NoDownlinkTunnel)
        .flow(443)
        .lost()
        .uplink(RENEWED)
        .lost()
        .downlink(RENEWED, WrongSide)
        .answered(RENEWED)
        .flow(444)
        .uplink(RENEWED)
        .answered(RENEWED)
}

fn renewed_by_downlink(story: Story) -> Story {
    story
        .downlink(RENEWED, WrongSide)
        .answered(RENEWED)
        .uplink(RENEWED)
        .answered(RENEWED)
        .flow(444)
        .uplink(RENEWED)
        .answered(RENEWED)
        .end_marker(RENEWED)
        .lost()
}

/// TS 23.502 section 4.2.3.2: the tunnel to the station is released while the UE is idle, which is not
/// to be seen, and there is another one afterwards.
fn awake(story: Story) -> Story {
    story
        .flow(444)
        .downlink(AWAKE, NoRule)
        .uplink(AWAKE)
        .answered(AWAKE)
        .flow(443)
        .answered(AWAKE)
        .uplink(AWAKE)
        .answered(AWAKE)
        .end_marker(AWAKE)
        .lost()
}

fn awake_as_before(story: Story) -> Story {
    story
        .unknown_to_station(HOME)
        .lost()
        // What was under way says nothing new.
        .downlink(HOME, WrongSide)
        .lost()
        .uplink(HOME)
        .lost()
        .downlink(HOME, WrongSide)
        .answered(HOME)
}

fn other_zone(story: Story) -> Story {
    let (moved, lost) = (
        story.packet(Place {
            ran: OTHER_RAN,
            ..HOME
        }),
        story.between(
            &Gtpu::error_indication(HOME.down, HOME.ran),
            HOME.ran,
            HOME.core,
        ),
    );
    story
        .passes("access1", &moved, NoDownlinkTunnel)
        .answered(HOME)
        .passes("access1", &lost, GtpuErrorIndication)
        .answered(HOME)
        .uplink(HOME)
        .answered(HOME)
}

fn bearers(story: Story) -> Story {
    story
        .flow(444)
        .downlink(RENEWED, NoRule)
        .flow(443)
        .downlink(HOME, WrongSide)
        .answered(HOME)
        .flow(444)
        .uplink(RENEWED)
        .downlink(RENEWED, WrongSide)
        .answered(RENEWED)
        .flow(443)
        .downlink(HOME, WrongSide)
        .answered(HOME)
        .end_marker(HOME)
        .answered(RENEWED)
        .end_marker(RENEWED)
        .lost()
}

/// Without a word, the station gives the number of the tunnel to another UE.
fn reassigned(family: &'static Family, interface: Interface) -> Story {
    let other = other_ue(family);
    Story::of("a tunnel becomes that of another UE", family, interface)
        .ue(family, other)
        .downlink(HOME, NoRule)
        .uplink(RENEWED)
        .answered(HOME)
        .ue(family, family.ue)
        .lost()
        .downlink(AWAKE, WrongSide)
        .answered(AWAKE)
        .ue(family, other)
        .answered(HOME)
        .end_marker(HOME)
        .lost()
        .ue(family, family.ue)
        .end_marker(AWAKE)
        .lost()
        .downlink(HOME, WrongSide)
        .answered(HOME)
        .ue(family, other)
        .downlink(HOME, WrongSide)
        .answered(HOME)
        .ue(family, family.ue)
        .lost()
}

fn other_ue(family: &Family) -> &'static str {
    if family.is_v4() {
        "10.45.0.99"
    } else {
        "2001:db8:45:99::1"
    }
}

/// The station numbers its tunnels, whoever is at their other end (TS 29.281 section 3.1).
fn reassigned_by_station(family: &'static Family, interface: Interface) -> Story {
    let elsewhere = Place {
        core: OTHER_CORE,
        ..HOME
    };
    Story::of(
        "a tunnel becomes that of a UE at another endpoint of the core",
        family,
        interface,
    )
    .ue(family, other_ue(family))
    .downlink(elsewhere, NoRule)
    .uplink(elsewhere)
    .answered(elsewhere)
    .ue(family, family.ue)
    .lost()
    .downlink(HOME, WrongSide)
    .answered(HOME)
}

/// A station uses the number for what is forwarded to another UE, which is not there yet.
fn reassigned_to_forward(family: &'static Family, interface: Interface) -> Story {
    let there = Place {
        ran: OTHER_RAN,
        ..RENEWED
    };
    Story::of(
        "by the tunnel of a UE it is forwarded to another",
        family,
        interface,
    )
    .ue(family, other_ue(family))
    .downlink(there, NoRule)
    .uplink(there)
    .answered(there)
    .downlink(HOME, WrongSide)
    .answered(there)
    .ue(family, family.ue)
    .lost()
}

/// It is said that the tunnel is another UE's.
fn reassigned_by_saying(family: &'static Family, interface: Interface) -> Story {
    let name = "a tunnel is said to be that of another UE";
    let mut story = Story::of(name, family, interface);
    let other = family.udp(443).from(other_ue(family));
    let binding = interface.binding(&other, HOME.ran, HOME.down, 9);
    story.scenario = story.scenario.provisioned(&binding);
    story
        .lost()
        .downlink(HOME, WrongSide)
        .lost()
        .downlink(AWAKE, WrongSide)
        .answered(AWAKE)
        .ue(family, other_ue(family))
        .uplink(HOME)
        .answered(HOME)
}

/// What numbers one endpoint of the core gave says nothing when another has the UE.
fn relocated(story: Story) -> Story {
    let relocated = Place {
        core: OTHER_CORE,
        ..RENEWED
    };
    story
        .end_marker(HOME)
        .lost()
        .downlink(relocated, WrongSide)
        .uplink(relocated)
        .answered(relocated)
        .uplink(Place {
            up: HOME.up,
            ..relocated
        })
        .lost()
        .downlink(relocated, WrongSide)
        .answered(relocated)
}

/// A UE with an IPv4 address and IPv6 addresses of one prefix, all by one tunnel.
fn dual_stack(interface: Interface) -> Story {
    let rules = [
        "a/1 prio 1 flow to 203.0.113.9 proto udp forward ip 198.18.1.2 via app0",
        "a/2 prio 1 flow to 2001:db8:203::9 proto udp forward ip 2001:db8:a1::2 via app0",
    ];
    let addresses: [(&'static Family, &str); 3] = [
        (&V4, "10.45.0.7"),
        (&V6, "2001:db8:45::7"),
        (&V6, "2001:db8:45::1:2:3"),
    ];
    let mut story = Story::under("one tunnel, three addresses", &V4, interface, &rules);
    for (family, address) in addresses {
        story = story
            .ue(family, address)
            .downlink(HOME, NoRule)
            .uplink(HOME)
            .answered(HOME);
    }
    for (family, address) in addresses {
        story = story.ue(family, address).answered(HOME);
    }
    story = story.end_marker(HOME);
    for (family, address) in addresses {
        story = story.ue(family, address).lost();
    }
    story
}
