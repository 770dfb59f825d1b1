//! Sessions that are said: they outrank what packets teach, which still tells whether they hold.

use dataplane_core::Reason::{
    self, AppInitiated, DownlinkPending, GtpuEndMarker, GtpuErrorIndication, NoDownlinkTunnel,
    NoRule, Replied, SessionConflict, Steered,
};
use dataplane_user::{Bearer, Binding};

use super::{CORE, DOWN, Interface, OTHER_DOWN, OTHER_RAN, RAN, RULE, UP};
use crate::{
    packet::{Gtpu, Packet},
    scenario::{Family, Scenario, addressing::at, answer, to_app},
    world::World,
};

pub(super) fn scenarios(family: &Family, interface: Interface, all: &mut Vec<Scenario>) {
    let talk = Talk::new(family, interface);
    before_lessons(&talk, all);
    against_lessons(&talk, all);
    instead_of_lessons(&talk, all);
    handover(&talk, all);
    ends(&talk, all);
    withdrawn(&talk, all);
    overlapping(&talk, all);
    if interface == Interface::S1u {
        bearers(&talk, all);
    }
}

/// What a UE and an application say to each other.
struct Talk<'a> {
    family: &'a Family,
    interface: Interface,
    /// From the UE, in no tunnel.
    inner: Packet,
    up: Packet,
    /// What the application gets.
    there: Packet,
    reply: Packet,
}

impl<'a> Talk<'a> {
    fn new(family: &'a Family, interface: Interface) -> Self {
        let inner = family.udp(443);
        let there = to_app(&World::new(), "app0", &inner).ttl(63);
        Self {
            family,
            interface,
            up: interface.uplink(RAN, &inner),
            reply: answer(&there),
            inner,
            there,
        }
    }

    fn down(&self, to: &str, teid: u32) -> Packet {
        let inner = self.inner.reversed();
        self.interface.downlink(to, teid, &inner)
    }

    fn injected(&self, to: &str, teid: u32, question: &Packet) -> Packet {
        let reply = self.reply.clone().ttl(63);
        self.interface.injected(to, teid, &reply, question)
    }

    fn scenario(&self, name: &str) -> Scenario {
        Scenario::new(name, self.family, &[RULE])
    }

    fn binding(&self, ran: &str, downlink: u32) -> Binding {
        self.interface.binding(&self.inner, ran, downlink, 9)
    }
}

fn before_lessons(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let injected = talk.injected(RAN, DOWN, up);
    let first = answer(&to_app(&World::new(), "app0", &talk.family.udp(5060)));
    let initiated = talk
        .interface
        .injected(RAN, DOWN, &first.clone().ttl(63), up);
    all.push(
        talk.scenario("what is said needs no lessons")
            .provisioned(&talk.binding(RAN, DOWN))
            // The link-layer addresses on the way to the UE are those of its packets.
            .original("app0", &first, NoDownlinkTunnel)
            .sent("access0", up, Steered, "app0", there)
            .sent("app0", reply, Replied, "access0", &injected)
            .sent("app0", &first, AppInitiated, "access0", &initiated),
    );
}

fn against_lessons(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let injected = talk.injected(RAN, DOWN, up);
    let bytes = || talk.inner.network_bytes();
    let elsewhere = talk
        .interface
        .between(&Gtpu::pdu(UP, bytes()), RAN, "198.51.100.2");
    let unheard = talk
        .interface
        .between(&Gtpu::pdu(UP + 1, bytes()), RAN, CORE);
    all.push(
        talk.scenario("what is said outranks what packets teach")
            .provisioned(&talk.binding(RAN, DOWN))
            .original("core0", &talk.down(RAN, OTHER_DOWN), NoRule)
            .original("access0", &elsewhere, SessionConflict)
            .original("access0", &unheard, SessionConflict)
            .sent("access0", up, Steered, "app0", there)
            .sent("app0", reply, Replied, "access0", &injected)
            .original("core0", &talk.down(RAN, OTHER_DOWN), Reason::WrongSide)
            .original(
                "core0",
                &talk.down(OTHER_RAN, OTHER_DOWN),
                Reason::WrongSide,
            )
            .sent("app0", reply, Replied, "access0", &injected),
    );
}

fn instead_of_lessons(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let marker = |teid| talk.interface.between(&Gtpu::end_marker(teid), CORE, RAN);
    all.push(
        talk.scenario("what is said takes the place of what was learned")
            .original("core0", &talk.down(RAN, DOWN), NoRule)
            .sent("access0", up, Steered, "app0", there)
            .sent(
                "app0",
                reply,
                Replied,
                "access0",
                &talk.injected(RAN, DOWN, up),
            )
            .provisioned(&talk.binding(RAN, OTHER_DOWN))
            .sent(
                "app0",
                reply,
                Replied,
                "access0",
                &talk.injected(RAN, OTHER_DOWN, up),
            )
            .original("core0", &marker(DOWN), GtpuEndMarker)
            .sent("access0", up, Steered, "app0", there)
            .sent(
                "app0",
                reply,
                Replied,
                "access0",
                &talk.injected(RAN, OTHER_DOWN, up),
            )
            .original("core0", &marker(OTHER_DOWN), GtpuEndMarker)
            .discarded("app0", reply, DownlinkPending),
    );
}

fn handover(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let moved = talk.interface.uplink(OTHER_RAN, &talk.inner);
    let marker = talk.interface.between(&Gtpu::end_marker(DOWN), CORE, RAN);
    let there_now = talk.binding(OTHER_RAN, OTHER_DOWN);
    let before = talk.injected(RAN, DOWN, up);
    let after = talk.injected(OTHER_RAN, OTHER_DOWN, &moved);
    let begin = |name: &str| {
        talk.scenario(name)
            .provisioned(&talk.binding(RAN, DOWN))
            .sent("access0", up, Steered, "app0", there)
            .sent("app0", reply, Replied, "access0", &before)
    };
    all.push(
        begin("what is said anew completes a handover")
            .sent("access0", &moved, Steered, "app0", there)
            .discarded("app0", reply, DownlinkPending)
            .original(
                "core0",
                &talk.down(OTHER_RAN, OTHER_DOWN),
                Reason::WrongSide,
            )
            .discarded("app0", reply, DownlinkPending)
            .provisioned(&there_now)
            .sent("app0", reply, Replied, "access0", &after)
            .original("core0", &marker, GtpuEndMarker)
            .sent("app0", reply, Replied, "access0", &after),
    );
    all.push(
        begin("a handover may be said before it happens")
            .provisioned(&there_now)
            .sent("access0", up, Steered, "app0", there)
            .discarded("app0", reply, DownlinkPending)
            .original("core0", &marker, GtpuEndMarker)
            .sent("access0", &moved, Steered, "app0", there)
            .sent("app0", reply, Replied, "access0", &after),
    );
    all.push(
        begin("a UE may come back")
            .sent("access0", &moved, Steered, "app0", there)
            .discarded("app0", reply, DownlinkPending)
            .sent("access0", up, Steered, "app0", there)
            .sent("app0", reply, Replied, "access0", &before),
    );
    all.push(
        begin("a UE may come back, but not into a tunnel that has ended")
            .original("core0", &marker, GtpuEndMarker)
            .sent("access0", &moved, Steered, "app0", there)
            .sent("access0", up, Steered, "app0", there)
            .discarded("app0", reply, DownlinkPending),
    );
}

fn ends(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let injected = talk.injected(RAN, DOWN, up);
    let marker = talk.interface.between(&Gtpu::end_marker(DOWN), CORE, RAN);
    let missing = talk
        .interface
        .between(&Gtpu::error_indication(DOWN, RAN), RAN, CORE);
    for (port, message, reason) in [
        ("core0", &marker, GtpuEndMarker),
        ("access0", &missing, GtpuErrorIndication),
    ] {
        all.push(
            talk.scenario("a tunnel that was said may end, until it is said again")
                .provisioned(&talk.binding(RAN, DOWN))
                .sent("access0", up, Steered, "app0", there)
                .original(port, message, reason)
                .discarded("app0", reply, DownlinkPending)
                .original("core0", &talk.down(RAN, DOWN), Reason::WrongSide)
                .sent("access0", up, Steered, "app0", there)
                .discarded("app0", reply, DownlinkPending)
                .provisioned(&talk.binding(RAN, DOWN))
                .sent("app0", reply, Replied, "access0", &injected),
        );
    }
}

fn withdrawn(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let other = talk.interface.uplink(RAN, &talk.family.udp(444));
    let binding = talk.binding(RAN, DOWN);
    let injected = talk.injected(RAN, DOWN, up);
    all.push(
        talk.scenario("what is said no more is learned")
            .provisioned(&binding)
            .sent("access0", up, Steered, "app0", there)
            // The second finds what the first left in the flow cache.
            .sent("app0", reply, Replied, "access0", &injected)
            .sent("app0", reply, Replied, "access0", &injected)
            .withdrawn(&binding)
            .discarded("app0", reply, DownlinkPending)
            .original("access0", &other, NoDownlinkTunnel)
            .sent("access0", up, Steered, "app0", there)
            .discarded("app0", reply, DownlinkPending)
            .original("core0", &talk.down(RAN, OTHER_DOWN), Reason::WrongSide)
            .sent(
                "app0",
                reply,
                Replied,
                "access0",
                &talk.injected(RAN, OTHER_DOWN, up),
            ),
    );
}

/// Two UEs of one address, in two zones.
fn overlapping(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let family = talk.family;
    let inner = Packet::udp(&at(family.ue, 5001), &at(family.service, 443));
    let other_up = talk.interface.uplink(OTHER_RAN, &inner);
    let other_there = to_app(&World::new(), "app0", &inner).ttl(63);
    let other_reply = answer(&other_there);
    let other_injected = talk.interface.injected(
        OTHER_RAN,
        OTHER_DOWN,
        &other_reply.clone().ttl(63),
        &other_up,
    );
    let elsewhere = Binding {
        zone: 2,
        ..talk.binding(OTHER_RAN, OTHER_DOWN)
    };
    all.push(
        talk.scenario("UEs of one address in two zones have sessions of their own")
            .provisioned(&talk.binding(RAN, DOWN))
            .original("access1", &other_up, NoDownlinkTunnel)
            .provisioned(&elsewhere)
            .sent("access0", up, Steered, "app0", there)
            .sent("access1", &other_up, Steered, "app0", &other_there)
            .sent(
                "app0",
                reply,
                Replied,
                "access0",
                &talk.injected(RAN, DOWN, up),
            )
            .sent("app0", &other_reply, Replied, "access1", &other_injected)
            .withdrawn(&talk.binding(RAN, DOWN))
            .discarded("app0", reply, DownlinkPending)
            .sent("app0", &other_reply, Replied, "access1", &other_injected),
    );
}

/// Answers go by the bearer that their flow came by.
fn bearers(talk: &Talk<'_>, all: &mut Vec<Scenario>) {
    let Talk {
        up, there, reply, ..
    } = talk;
    let mut binding = talk.binding(RAN, DOWN);
    let (dedicated_up, dedicated_down) = (0x77, 0x88);
    binding.bearers.push(Bearer {
        uplink: dedicated_up,
        downlink: dedicated_down,
        qci: Some(1),
    });
    let voice = talk.family.udp(444);
    let voice_up =
        talk.interface
            .between(&Gtpu::pdu(dedicated_up, voice.network_bytes()), RAN, CORE);
    let voice_there = to_app(&World::new(), "app0", &voice).ttl(63);
    let voice_reply = answer(&voice_there);
    let injected = |teid| {
        let reply = voice_reply.clone().ttl(63);
        talk.interface.injected(RAN, teid, &reply, &voice_up)
    };
    let rule = "a/1 prio 1 flow to SERVICE qci 1 forward ip APP0 via app0";
    all.push(
        Scenario::new("a rule may be about one bearer", talk.family, &[rule])
            .provisioned(&binding)
            .original("access0", up, NoRule)
            .sent("access0", &voice_up, Steered, "app0", &voice_there)
            .sent(
                "app0",
                &voice_reply,
                Replied,
                "access0",
                &injected(dedicated_down),
            ),
    );
    let marker = talk
        .interface
        .between(&Gtpu::end_marker(dedicated_down), CORE, RAN);
    all.push(
        talk.scenario("answers go by the bearer that their flow came by")
            .provisioned(&binding)
            .sent("access0", up, Steered, "app0", there)
            .sent("access0", &voice_up, Steered, "app0", &voice_there)
            .sent(
                "app0",
                reply,
                Replied,
                "access0",
                &talk.injected(RAN, DOWN, up),
            )
            .sent(
                "app0",
                &voice_reply,
                Replied,
                "access0",
                &injected(dedicated_down),
            )
            .original("core0", &marker, GtpuEndMarker)
            .sent("app0", &voice_reply, Replied, "access0", &injected(DOWN)),
    );
}
