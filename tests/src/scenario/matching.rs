//! Which rule wins.

use dataplane_core::Reason::{FragmentUnknown, NoRule, Passthrough, Replied, RuleDrop, Steered};

use super::{Family, Scenario, Then, answer, to_app, to_ue};
use crate::{
    packet::{Extension, Packet},
    world::World,
};

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let udp = family.udp(443);
    let app0 = |packet: &Packet| to_app(&world, "app0", packet);
    let app1 = |packet: &Packet| to_app(&world, "app1", packet);

    all.push(
        Scenario::new(
            "lower priority numbers come first, then application, then rule",
            family,
            &[
                "b/1 prio 1 packet proto tcp drop",
                "a/2 prio 1 packet proto tcp passthrough",
                "a/10 prio 1 packet proto tcp dport 443 forward mac 02:00:00:00:0a:01 via app0",
                "a/0 prio 2 packet any drop",
            ],
        )
        .sent(
            "access0",
            &family.tcp(443),
            Steered,
            "app0",
            &app0(&family.tcp(443)),
        )
        .original("access0", &family.tcp(80), Passthrough)
        .discarded("access0", &udp, RuleDrop),
    );
    all.push(
        Scenario::new(
            "values are OR, attributes are AND, filters are OR",
            family,
            &["a/1 prio 1 packet from UE,OTHER-UE proto udp dport 443,8000-8001 or proto 47 drop"],
        )
        .discarded("access0", &udp, RuleDrop)
        .discarded("access0", &family.udp(8001), RuleDrop)
        .original("access0", &family.udp(8002), NoRule)
        .original("access0", &family.tcp(443), NoRule)
        .original("access0", &family.udp(443).from(family.app1), NoRule)
        .discarded(
            "access0",
            &Packet::other(family.app1, family.service, 47),
            RuleDrop,
        ),
    );
    all.push(
        Scenario::new(
            "ports are for packets that have them",
            family,
            &["a/1 prio 1 packet sport 0-65535 drop"],
        )
        .discarded("access0", &udp, RuleDrop)
        .discarded("access0", &family.tcp(0), RuleDrop)
        .discarded("access0", &family.sctp(65535), RuleDrop)
        .original("access0", &family.echo(), NoRule)
        .original(
            "access0",
            &Packet::other(family.ue, family.service, 47),
            NoRule,
        ),
    );
    let class = if family.is_v4() { "dscp 46" } else { "tc 184" };
    let marked = udp.clone().dscp(46);
    all.push(
        Scenario::new(
            "a PACKET rule looks at every packet",
            family,
            &[
                &format!(
                    "a/1 prio 1 packet to SERVICE {class} forward mac 02:00:00:00:0a:02 via app1"
                ),
                "a/2 prio 2 flow to SERVICE forward mac 02:00:00:00:0a:01 via app0",
            ],
        )
        .sent("access0", &marked, Steered, "app1", &app1(&marked))
        .sent("access0", &udp, Steered, "app0", &app0(&udp))
        .sent("access0", &marked, Steered, "app1", &app1(&marked))
        .sent("access0", &udp, Steered, "app0", &app0(&udp))
        .flow(&udp, 2, &udp, 0),
    );
    all.push(
        Scenario::new(
            "a FLOW rule is decided by the first packet",
            family,
            &[&format!(
                "a/1 prio 1 flow to SERVICE {class} forward mac 02:00:00:00:0a:01 via app0"
            )],
        )
        .original("access0", &udp, NoRule)
        .sent("access0", &marked, Steered, "app0", &app0(&marked))
        .sent("access0", &udp, Steered, "app0", &app0(&udp)),
    );
    let reply = answer(&app0(&udp));
    let marked_reply = answer(&app0(&marked));
    all.push(
        Scenario::new(
            "a PACKET rule before the flow's comes first for replies too",
            family,
            &[
                &format!("a/1 prio 1 packet {class} drop"),
                "a/2 prio 2 flow to SERVICE forward mac 02:00:00:00:0a:01 via app0",
                "a/3 prio 3 packet any drop",
            ],
        )
        .sent("access0", &udp, Steered, "app0", &app0(&udp))
        .discarded("app0", &marked_reply, RuleDrop)
        .sent("app0", &reply, Replied, "access0", &to_ue(&reply, &udp))
        .flow(&udp, 1, &reply, 1),
    );
    all.push(
        Scenario::new(
            "FLOW rules are for packets of UEs",
            family,
            &["a/1 prio 1 flow any drop"],
        )
        .original("core0", &udp, NoRule)
        .original("app1", &udp, NoRule)
        .discarded("access0", &udp, RuleDrop),
    );
    all.push(
        Scenario::new(
            "zones do not mix",
            family,
            &[
                "a/1 prio 1 flow zone 2 forward mac 02:00:00:00:0a:02 via app1",
                "a/2 prio 2 flow zone 0 drop",
            ],
        )
        .sent("access1", &udp, Steered, "app1", &app1(&udp))
        .discarded("access0", &udp, RuleDrop)
        .sent("access1", &udp, Steered, "app1", &app1(&udp)),
    );
    let other_class = if family.is_v4() { "tc 184" } else { "dscp 46" };
    all.push(
        Scenario::new(
            "each family has its own class",
            family,
            &[&format!("a/1 prio 1 packet {other_class} drop")],
        )
        .original("access0", &marked, NoRule),
    );
    fragments(&world, family, all);
    headers(&world, family, all);
}

fn fragments(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let rules = ["a/1 prio 1 flow to SERVICE proto udp dport 443 forward ip APP0 nat via app0"];
    let sent = |packet: &Packet| to_app(world, "app0", packet).ttl(63).to(family.app0);
    let big = family.udp(443).payload(100).identification(7);
    let expected = sent(&big).fragments(48);
    let mut scenario = Scenario::new("fragments follow the first", family, &rules);
    for (frame, looking) in big.fragments(48).into_iter().zip(expected) {
        scenario = scenario.frame("access0", frame, Steered, Then::Sent("app0", looking));
    }
    all.push(scenario);

    let late = big.clone().identification(8);
    let [first, second, third] = late.fragments(48).try_into().expect("three fragments");
    let expected = sent(&late).fragments(48);
    let looking = |index: usize| Then::Sent("app0", expected[index].clone());
    all.push(
        Scenario::new("a fragment before the first cannot be told", family, &rules)
            .frame("access0", second, FragmentUnknown, Then::Original)
            .frame("access0", first, Steered, looking(0))
            .frame("access0", third, Steered, looking(2)),
    );

    let reply = answer(&sent(&big)).payload(100).identification(9);
    let restored = to_ue(&reply, &big).ttl(63).fragments(48);
    let mut scenario = Scenario::new("fragmented replies are restored", family, &rules).sent(
        "access0",
        &family.udp(443),
        Steered,
        "app0",
        &sent(&family.udp(443)),
    );
    for (frame, looking) in reply.fragments(48).into_iter().zip(restored) {
        scenario = scenario.frame("app0", frame, Replied, Then::Sent("access0", looking));
    }
    all.push(scenario);
}

/// Options and extension headers in front of what is looked for.
fn headers(world: &World, family: &Family, all: &mut Vec<Scenario>) {
    let rules = ["a/1 prio 1 flow to SERVICE dport 443 forward ip APP0 nat via app0"];
    let shapes: Vec<Packet> = if family.is_v4() {
        [1, 5, 10]
            .map(|words| family.tcp(443).options(words))
            .into()
    } else {
        use Extension::{AtomicFragment, Authentication, DestinationOptions, HopByHop, Routing};
        let chains = [
            &[HopByHop][..],
            &[Routing],
            &[DestinationOptions, AtomicFragment],
            &[Authentication],
            &[
                HopByHop,
                DestinationOptions,
                Routing,
                AtomicFragment,
                Authentication,
                DestinationOptions,
            ],
        ];
        let with = |chain: &[Extension]| {
            chain.iter().fold(family.tcp(443), |packet, &extension| {
                packet.extension(extension)
            })
        };
        chains.map(with).into()
    };
    for (index, up) in shapes.iter().enumerate() {
        let there = to_app(world, "app0", up).ttl(63).to(family.app0);
        let back = answer(&there);
        all.push(
            Scenario::new(
                &format!("headers before ports, shape {index}"),
                family,
                &rules,
            )
            .sent("access0", up, Steered, "app0", &there)
            .sent("app0", &back, Replied, "access0", &to_ue(&back, up).ttl(63))
            .flow(up, 1, &back, 1),
        );
    }
}
