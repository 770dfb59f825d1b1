//! A UE that moves is answered where it is, and nothing goes into a tunnel that has ended.

use dataplane_core::Reason::{GtpuEndMarker, NoRule, SessionConflict, WrongSide};

use super::{
    CORE, Interface, OTHER_RAN, RAN,
    story::{AWAY, FORWARDING, HOME, OTHER_CORE, Place, Story},
};
use crate::{
    packet::Gtpu,
    scenario::{Family, Scenario},
};

pub(super) fn scenarios(family: &'static Family, interface: Interface, all: &mut Vec<Scenario>) {
    let begin = |name: &str| Story::of(name, family, interface);
    let stories = [
        without_forwarding(begin("a UE that moves is answered where it is")),
        marker_first(begin(
            "the end of the tunnel is told before the UE has moved",
        )),
        direct_forwarding(begin("a station forwards to the other one")),
        indirect_forwarding(begin("the core forwards to the other station")),
        late_forwarding(begin("the core forwards longer than it has to")),
        markers(begin("the end of a tunnel is told as often as one likes")),
        other_markers(begin("the end of another tunnel changes nothing")),
        ping_pong(begin("a UE comes back")),
        cancelled(begin("a UE has not moved after all")),
        late_uplink(begin("packets from where the UE was come late")),
        relocation(begin("another endpoint of the core takes over")),
    ];
    all.extend(stories.map(|story| story.scenario));
}

fn without_forwarding(story: Story) -> Story {
    story
        // By a tunnel that leads to where nothing comes from.
        .downlink(FORWARDING, WrongSide)
        .answered(HOME)
        .uplink(AWAY)
        .lost()
        // What was under way says nothing new.
        .downlink(HOME, WrongSide)
        .lost()
        .end_marker(HOME)
        .lost()
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
        .uplink(AWAY)
        .answered(AWAY)
}

fn marker_first(story: Story) -> Story {
    story
        .end_marker(HOME)
        .lost()
        .uplink(HOME)
        .lost()
        .uplink(AWAY)
        .lost()
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
}

/// TS 38.300 section 9.2.3.2.3, TS 36.300 section 10.1.2.3: between the stations.
fn direct_forwarding(story: Story) -> Story {
    let forwarded = story.between(&Gtpu::end_marker(0xf), RAN, OTHER_RAN);
    story
        .forwarded_to_station()
        .answered(HOME)
        .uplink(AWAY)
        .lost()
        .forwarded_to_station()
        .lost()
        .end_marker(HOME)
        .lost()
        .forwarded_to_station()
        .lost()
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
        .passes("access0", &forwarded, NoRule)
        .answered(AWAY)
}

/// Up to the core as if it were from the UE, and down again as if it were the tunnel that stays.
fn indirect_forwarding(story: Story) -> Story {
    let forwarded = story.between(&Gtpu::end_marker(0xf0), RAN, CORE);
    story
        .forwarded_to_core(WrongSide)
        .answered(HOME)
        .downlink(FORWARDING, WrongSide)
        .answered(HOME)
        .uplink(AWAY)
        .lost()
        .forwarded_to_core(WrongSide)
        .lost()
        // The UE is there now, and this is not yet told from the tunnel that stays.
        .downlink(FORWARDING, WrongSide)
        .answered(FORWARDING)
        .end_marker(HOME)
        .answered(FORWARDING)
        .passes("access0", &forwarded, GtpuEndMarker)
        .answered(FORWARDING)
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
        .uplink(AWAY)
        .answered(AWAY)
        .flow(444)
        .uplink(AWAY)
        .answered(AWAY)
        .end_marker(FORWARDING)
        .answered(AWAY)
}

fn late_forwarding(story: Story) -> Story {
    story
        .uplink(AWAY)
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
        .downlink(FORWARDING, WrongSide)
        .end_marker(FORWARDING)
        .lost()
        .downlink(FORWARDING, WrongSide)
        .lost()
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
}

fn markers(story: Story) -> Story {
    story
        .end_marker(HOME)
        .end_marker_of_flow(HOME)
        .lost()
        .uplink(AWAY)
        .end_marker(HOME)
        .lost()
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
        .end_marker_of_flow(HOME)
        .end_marker(HOME)
        .answered(AWAY)
        .end_marker_of_flow(AWAY)
        .lost()
        .end_marker(AWAY)
        .lost()
}

fn other_markers(story: Story) -> Story {
    let other = [
        Place { down: 1, ..HOME },
        Place {
            ran: OTHER_RAN,
            ..HOME
        },
        Place {
            core: OTHER_CORE,
            ..HOME
        },
        // The number of the tunnel to the core.
        Place {
            down: HOME.up,
            ..HOME
        },
    ];
    let story = other.iter().fold(story, |story, place| {
        story.end_marker(*place).answered(HOME)
    });
    // From where tunnels to UEs do not begin.
    let marker = Gtpu::end_marker(HOME.down);
    let uplink = story.between(&marker, RAN, CORE);
    let forged = story.between(&marker, CORE, RAN);
    story
        .passes("access0", &uplink, GtpuEndMarker)
        .answered(HOME)
        .passes("access0", &forged, GtpuEndMarker)
        .answered(HOME)
}

fn ping_pong(story: Story) -> Story {
    story
        .uplink(AWAY)
        .end_marker(HOME)
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
        .uplink(HOME)
        .lost()
        .downlink(AWAY, WrongSide)
        .lost()
        .end_marker(AWAY)
        .lost()
        // The station may give the tunnel its old number.
        .downlink(HOME, WrongSide)
        .answered(HOME)
        .uplink(HOME)
        .answered(HOME)
}

fn cancelled(story: Story) -> Story {
    story
        .uplink(AWAY)
        .lost()
        .uplink(HOME)
        .lost()
        .downlink(HOME, WrongSide)
        .answered(HOME)
}

fn late_uplink(story: Story) -> Story {
    story
        .uplink(AWAY)
        .uplink(HOME)
        .lost()
        .downlink(AWAY, WrongSide)
        .lost()
        .uplink(AWAY)
        .downlink(AWAY, WrongSide)
        .answered(AWAY)
}

/// TS 23.401 section 5.5.1.1.3, TS 23.502 section 4.9.1.2.3: with another SGW or UPF.
fn relocation(story: Story) -> Story {
    let relocated = Place {
        core: OTHER_CORE,
        up: 0x4321,
        ..AWAY
    };
    story
        // As yet it may as well be another UE of the same address.
        .unsteered(relocated, SessionConflict)
        .answered(HOME)
        .downlink(relocated, WrongSide)
        .answered(HOME)
        .end_marker(HOME)
        .lost()
        .uplink(relocated)
        .lost()
        .downlink(relocated, WrongSide)
        .answered(relocated)
        .end_marker(HOME)
        .answered(relocated)
}
