//! Edgesteer as a wire between the RAN and the core of a mobile network.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::Duration,
};

use dataplane_core::Reason;
use dataplane_user::netlink::{self, XdpMode};
use etherparse::{SlicedPacket, TransportSlice};
use tests::{
    lab::{Lab, Mobile, Mode, RawSocket, Server, Steering, Ue, http_get, http_post, ping},
    packet::{G_PDU, Gtpu, Opened, Tunnel, open},
    tshark,
};

/// How long a frame may be under way that is expected to come.
const QUIET: Duration = Duration::from_millis(100);

#[test]
fn tunnels_pass_a_wire_without_rules() {
    let (mut mobile, steering) = Mobile::start(|host| Steering::open(host, Mode::Wire)).unwrap();
    for link in mobile.host.enter(netlink::links).unwrap() {
        if ["access0", "core0"].contains(&&*link.name) {
            assert_eq!(link.xdp.unwrap().mode, XdpMode::Native, "{}", link.name);
        }
    }
    let teids = mobile.ues.each_ref().map(|ue| (ue.uplink, ue.downlink));
    assert_eq!(teids, [(1, 1), (2, 1), (3, 1)]);
    let _servers = mobile.serve().unwrap();
    for ue in &mobile.ues {
        echo_through_the_tunnel(&mobile, ue);
        ping(&mobile.network, ue.address).unwrap();
        talk(&mobile, ue);
    }
    let unsteered = [Reason::NoRule, Reason::NotIp, Reason::NeighborDiscovery];
    for counter in steering.dataplane.port_counters() {
        let expected = counter.packets == 0 || unsteered.contains(&counter.reason);
        assert!(expected, "{counter:?}");
    }
    mobile.detach(0).unwrap();
    let [gone, stays, _] = &mobile.ues;
    ping(&mobile.network, gone.address).unwrap_err();
    ping(&mobile.network, stays.address).unwrap();
}

#[test]
fn ues_behind_tunnels_are_served_by_the_application() {
    let (mobile, mut steering) = Mobile::start(|host| Steering::open(host, Mode::Wire)).unwrap();
    let _servers = mobile.serve().unwrap();
    let ask = |ue: &Ue, who: &str| {
        let page = http_get(&ue.namespace, service(ue), "/page").unwrap();
        assert_eq!(page, format!("{who}: GET /page"), "{}", ue.address);
    };
    for ue in &mobile.ues {
        ask(ue, "network");
    }
    let rules = [
        "a/1 prio 1 flow to 203.0.113.9 proto tcp forward ip 198.18.1.2 nat via app0",
        "a/2 prio 1 flow to 2001:db8:203::9 proto tcp forward ip 2001:db8:a1::2 nat via app0",
    ];
    steering.apply(&mobile.host, &rules).unwrap();
    // The last connection with the network is being closed still, where it was.
    thread::sleep(Duration::from_millis(500));
    let injected = RawSocket::open(&mobile.ran, "n3").unwrap();
    let passed = RawSocket::open(&mobile.core, "n3").unwrap();
    for ue in &mobile.ues {
        ask(ue, "app-a");
        let long = "edge".repeat(50_000);
        let echoed = http_post(&ue.namespace, service(ue), "/echo", &long).unwrap();
        assert!(echoed == format!("app-a: POST /echo\n{long}"));
    }
    let answers = segments(messages(&injected), Mobile::GATEWAY.into());
    assert!(answers.len() > 100, "{} packets to UEs", answers.len());
    for (station, teid) in answers {
        let ue = mobile
            .ues
            .iter()
            .find(|ue| IpAddr::from(ue.station) == station);
        assert_eq!(ue.unwrap().downlink, teid, "to {station}");
    }
    for ue in &mobile.ues {
        let to_core = segments(messages(&passed), ue.station.into());
        assert!(to_core.is_empty(), "the core got {to_core:?}");
    }
    let sessions = steering.dataplane.sessions();
    for ue in &mobile.ues {
        let session = sessions.iter().find(|it| it.ue == ue.address).unwrap();
        let tunnels = session.bearers.iter().map(|it| (it.uplink, it.downlink));
        assert!(
            tunnels.eq([(Some(ue.uplink), Some(ue.downlink))]),
            "{session:?}"
        );
        assert_eq!(session.ran, IpAddr::from(ue.station), "{session:?}");
    }
    steering.apply(&mobile.host, &[]).unwrap();
    for ue in &mobile.ues {
        ask(ue, "network");
    }
}

/// Where the TCP segments from an endpoint went, and by which tunnels. What else there is does not count: a UE with
/// an IPv6 address reports its multicast groups whenever it likes.
fn segments(messages: Vec<Opened>, source: IpAddr) -> Vec<(IpAddr, u32)> {
    let messages = messages.into_iter().filter(|it| it.source == source);
    messages
        .filter_map(|opened| match opened.tunnel {
            Tunnel::Gtpu(gtpu) if gtpu.message == G_PDU && is_tcp(&gtpu.content) => {
                Some((opened.destination, gtpu.teid))
            }
            Tunnel::Gtpu(_) | Tunnel::Gre(_) | Tunnel::Vxlan(_) => None,
        })
        .collect()
}

fn is_tcp(packet: &[u8]) -> bool {
    let packet = SlicedPacket::from_ip(packet);
    packet.is_ok_and(|packet| matches!(packet.transport, Some(TransportSlice::Tcp(_))))
}

#[test]
fn a_gateway_that_forgot_its_sessions_says_so() {
    let (mut mobile, _steering) = Mobile::start(|host| Steering::open(host, Mode::Wire)).unwrap();
    mobile.restart_gateway().unwrap();
    let downlink = RawSocket::open(&mobile.ran, "n3").unwrap();
    // The second, whose TEIDs differ.
    let ue = &mobile.ues[1];
    ping(&ue.namespace, Lab::SERVICE).unwrap_err();
    let indication = Gtpu::error_indication(ue.uplink, &Mobile::GATEWAY.to_string());
    let messages = messages(&downlink);
    assert!(
        messages.iter().any(|opened| {
            opened.destination == ue.station && opened.tunnel == Tunnel::Gtpu(indication.clone())
        }),
        "{messages:?}"
    );
}

/// An echo request and its reply, as they are on the wire.
fn echo_through_the_tunnel(mobile: &Mobile, ue: &Ue) {
    let [uplink, downlink] =
        [&mobile.core, &mobile.ran].map(|end| RawSocket::open(end, "n3").unwrap());
    ping(&ue.namespace, service(ue).ip()).unwrap();
    let station = IpAddr::from(ue.station);
    let gateway = IpAddr::from(Mobile::GATEWAY);
    for (socket, source, destination, teid) in [
        (&uplink, station, gateway, ue.uplink),
        (&downlink, gateway, station, ue.downlink),
    ] {
        let mut messages = messages(socket);
        // The others are never quite silent.
        messages.retain(|it| (it.source, it.destination) == (source, destination));
        assert!(!messages.is_empty(), "from {source}");
        for opened in messages {
            assert_eq!(opened.source_port, Some(2152));
            let Tunnel::Gtpu(gtpu) = opened.tunnel else {
                panic!("{:?}", opened.tunnel);
            };
            assert_eq!((gtpu.message, gtpu.teid), (G_PDU, teid));
            assert!(gtpu.sequence.is_some(), "{gtpu:?}");
            assert_eq!((gtpu.npdu, gtpu.extensions), (None, vec![]));
        }
    }
}

/// What has come of tunnels, and every frame is sound.
fn messages(socket: &RawSocket) -> Vec<Opened> {
    let frames = socket.drain(QUIET).unwrap();
    tshark::dissect(&frames, &[]).unwrap();
    frames.iter().filter_map(|frame| open(frame).ok()).collect()
}

/// TCP in both directions, with as many octets as fill many packets.
fn talk(mobile: &Mobile, ue: &Ue) {
    let long = "edge".repeat(250_000);
    let echoed = http_post(&ue.namespace, service(ue), "/echo", &long).unwrap();
    assert!(echoed == format!("network: POST /echo\n{long}"));
    let own = SocketAddr::new(ue.address, Lab::PORT);
    let _server = Server::start(&ue.namespace, "ue", &[own]).unwrap();
    let page = http_get(&mobile.network, own, "/page").unwrap();
    assert_eq!(page, "ue: GET /page");
}

/// The service as this UE can reach it.
fn service(ue: &Ue) -> SocketAddr {
    let address = match ue.address {
        IpAddr::V4(_) => Lab::SERVICE,
        IpAddr::V6(_) => Lab::SERVICE6,
    };
    SocketAddr::new(address, Lab::PORT)
}
