//! Random packets of UEs behind tunnels: few UEs, stations and numbers, so that tunnels move, end, and
//! become those of others.

use std::net::IpAddr;

use dataplane_user::{Bearer, Binding, QosFlow};
use proptest::{option, prelude::*, sample::select};

use super::{
    Arrival, Case, again, fragments_of, from_any_of,
    rules::{self, QCI, Ues},
    turn, vips,
};
use crate::{
    oracle::envelope::{Envelope, Tunnel, Way},
    packet::{Gtpu, Packet, Session},
};

/// UEs behind tunnels. The first two IPv6 addresses are of one prefix.
const UES: [&str; 2] = ["10.45.0.1", "10.45.0.2"];
const UES6: [&str; 3] = ["2001:db8:45::1", "2001:db8:45:0:8000::", "2001:db8:46::1"];
/// UEs that are behind none.
const OTHERS: [&str; 2] = ["10.45.0.3", "10.46.0.0"];
const OTHERS6: [&str; 1] = ["2001:db8:47::1"];
/// Ends of tunnels: in the RAN and in the core, over IPv4 and over IPv6.
const RAN: [[&str; 2]; 2] = [
    ["192.0.2.1", "192.0.2.2"],
    ["2001:db8:2::1", "2001:db8:2::2"],
];
const CORE: [[&str; 2]; 2] = [
    ["198.51.100.1", "198.51.100.2"],
    ["2001:db8:51::1", "2001:db8:51::2"],
];
const QFI: [u8; 3] = [0, 9, 63];

/// Cases with up to `rules` rules and up to `arrivals` arrivals of UEs behind tunnels.
pub fn cases(rules: usize, arrivals: usize) -> impl Strategy<Value = Case> {
    let few = |version| cases_over(version, 1, arrivals, 12).prop_map(Case::with_few);
    prop_oneof![
        2 => cases_over(0, rules, arrivals, 2),
        2 => cases_over(1, rules, arrivals, 2),
        1 => few(0),
        1 => few(1),
    ]
}

/// The same, with an outer network that is mostly of one IP version: IPv4 is 0, IPv6 is 1.
fn cases_over(
    version: usize,
    rules: usize,
    arrivals: usize,
    changes_of_vips: u32,
) -> BoxedStrategy<Case> {
    let arrival = prop_oneof![
        94 => arrival(version),
        2 => fragments_of(arrival(version)),
        2 => rules::change(rules, Ues::Mobile).prop_map(Arrival::Rules),
        changes_of_vips => vips::change(Ues::Mobile).prop_map(Arrival::Rules),
        2 => vips::wait(),
    ];
    let arrivals = prop::collection::vec(arrival, 1..=arrivals);
    let parts = (
        rules::rule_set(rules - 1, Ues::Mobile),
        rules::forwarding(),
        arrivals,
    );
    let case = parts.prop_map(|(mut rules, last, arrivals)| {
        rules.extend(last);
        Case { rules, arrivals }
    });
    case.boxed()
}

fn arrival(version: usize) -> BoxedStrategy<Arrival> {
    let tunnel = |way| tunnel(version, way);
    let before = || 0..12usize;
    let any = select(&["app0", "app1", "app0", "app1", "core0", "access0"][..]);
    let by = prop_oneof![3 => Just(None), 1 => any.prop_map(Some)];
    let arrival = prop_oneof![
        8 => (access(), from_any_of(&UES, &UES6), tunnel(Way::Uplink), qfi()).prop_map(uplink),
        5 => (core(), from_any_of(&UES, &UES6), tunnel(Way::Downlink), qfi()).prop_map(downlink),
        2 => (select(&["app0", "app1"][..]), from_any_of(&UES, &UES6))
            .prop_map(|(port, packet)| Arrival::Packet(port, packet.reversed())),
        1 => (access(), from_any_of(&OTHERS, &OTHERS6))
            .prop_map(|(port, packet)| Arrival::Packet(port, packet)),
        2 => (peered(), from_any_of(&UES, &UES6))
            .prop_map(|(port, packet)| Arrival::Peered(port, packet)),
        3 => (before(), tunnel(Way::Uplink), qfi())
            .prop_map(|(before, tunnel, qfi)| Arrival::Elsewhere(before, tunnel, qfi)),
        2 => message(version),
        1 => said(version),
        1 => ue().prop_map(|(zone, ue)| Arrival::Withdrawn(zone, ue)),
        3 => again(before()),
        14 => (before(), by, turn()).prop_map(|(before, by, turn)| Arrival::Back(before, by, turn)),
    ];
    arrival.boxed()
}

fn access() -> impl Strategy<Value = &'static str> {
    prop_oneof![16 => Just("access0"), 3 => Just("access1"), 1 => Just("access2"), 1 => Just("core0")]
}

/// Where the tunnel of a peer comes in, or from where else it seems to.
fn peered() -> impl Strategy<Value = &'static str> {
    prop_oneof![16 => Just("app1"), 8 => Just("access0"), 1 => Just("core0"), 1 => Just("access1")]
}

fn core() -> impl Strategy<Value = &'static str> {
    prop_oneof![14 => Just("core0"), 3 => Just("core1"), 1 => Just("access0"), 1 => Just("access1")]
}

/// On N3 mostly; else on S1-U.
fn qfi() -> impl Strategy<Value = Option<u8>> {
    option::weighted(0.7, prop_oneof![4 => Just(9), 1 => select(&QFI[..])])
}

fn tunnel(version: usize, way: Way) -> impl Strategy<Value = Tunnel> {
    let version = prop_oneof![15 => Just(version), 1 => Just(1 - version)];
    let ran = prop_oneof![5 => Just(0usize), 1 => Just(1)];
    let core = prop_oneof![15 => Just(0usize), 1 => Just(1)];
    let teid = prop_oneof![12 => Just(1), 2 => Just(2), 1 => 3..=5u32];
    (version, ran, core, teid).prop_map(move |(version, ran, core, teid)| Tunnel {
        ran: RAN[version][ran].parse().expect("an address"),
        core: CORE[version][core].parse().expect("an address"),
        teid: match way {
            Way::Uplink => teid,
            Way::Downlink => teid | Envelope::DOWNLINK,
        },
    })
}

fn uplink((port, packet, tunnel, qfi): (&'static str, Packet, Tunnel, Option<u8>)) -> Arrival {
    let mut envelope = Envelope::of_packet(Way::Uplink, tunnel, qfi);
    if packet.class == 0 {
        // Some stations number their packets.
        envelope.gtpu = envelope.gtpu.sequence(7);
    } else if packet.class == 1 {
        // Others spread them.
        envelope = envelope.at_port(40_000);
    }
    Arrival::Tunneled(port, Box::new((packet, envelope)))
}

fn downlink((port, packet, tunnel, qfi): (&'static str, Packet, Tunnel, Option<u8>)) -> Arrival {
    let envelope = Envelope::of_packet(Way::Downlink, tunnel, qfi);
    Arrival::Tunneled(port, Box::new((packet.reversed(), envelope)))
}

/// A message between the ends of tunnels.
fn message(version: usize) -> impl Strategy<Value = Arrival> {
    let ports = || select(&["core0", "access0", "access1"][..]);
    let zone = prop_oneof![3 => Just(["access0", "core0"]), 1 => Just(["access1", "core1"])];
    let parts = (
        0..10u8,
        tunnel(version, Way::Downlink),
        zone,
        ports(),
        qfi(),
    );
    parts.prop_map(|(kind, tunnel, [access, core], port, qfi)| {
        let (port, way, gtpu) = match kind {
            0..=2 => {
                let marker = Gtpu::end_marker(tunnel.teid);
                let marker = match qfi {
                    Some(qfi) if kind == 1 => marker.session(Session::Downlink(qfi)),
                    _ => marker,
                };
                (core, Way::Downlink, marker)
            }
            3 | 4 => {
                let message = Gtpu::error_indication(tunnel.teid, &tunnel.ran.to_string());
                (access, Way::Uplink, message)
            }
            5 => (port, Way::Uplink, Gtpu::end_marker(tunnel.teid)),
            6..=8 => {
                let (port, teid) = match kind {
                    6 => (port, tunnel.teid),
                    _ => (core, tunnel.teid ^ Envelope::DOWNLINK),
                };
                let message = Gtpu::error_indication(teid, &tunnel.core.to_string());
                (port, Way::Downlink, message)
            }
            _ => (port, Way::Uplink, Gtpu::echo_request(7)),
        };
        let link = Packet::udp("192.0.2.1:1", "192.0.2.2:1");
        Arrival::Tunneled(port, Box::new((link, Envelope::new(way, tunnel, gtpu))))
    })
}

/// A UE in a zone.
fn ue() -> impl Strategy<Value = (u16, IpAddr)> {
    let ues: Vec<&str> = UES.iter().chain(&UES6).copied().collect();
    (prop_oneof![3 => Just(0), 2 => Just(2)], select(ues))
        .prop_map(|(zone, ue)| (zone, ue.parse().expect("an address")))
}

/// What is said of a UE. No two UEs of a zone are said to have a tunnel in common.
fn said(version: usize) -> impl Strategy<Value = Arrival> {
    let qci = || option::weighted(0.7, select(&QCI[..]));
    let parts = (ue(), tunnel(version, Way::Downlink), 1..=2u32, qci(), qci());
    parts.prop_map(|((zone, ue), tunnel, count, qci, five_qi)| {
        let own = UES6
            .iter()
            .chain(&UES)
            .take_while(|it| it.parse() != Ok(ue));
        // The first two are one UE.
        let own = own.count().saturating_sub(1) as u32;
        let bearer = |number: u32| Bearer {
            uplink: number,
            downlink: (1 + own + 10 * (number - 1)) ^ Envelope::DOWNLINK,
            qci: qci.filter(|_| number == 1),
        };
        Arrival::Said(Binding {
            zone,
            ue,
            ran: tunnel.ran,
            core: tunnel.core,
            bearers: (1..=count).map(bearer).collect(),
            qos_flows: (five_qi
                .map(|five_qi| QosFlow { qfi: 9, five_qi })
                .into_iter())
            .collect(),
        })
    })
}
