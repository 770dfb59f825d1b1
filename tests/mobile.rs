//! Edgesteer as a wire between the RAN and the core of a mobile network.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::net::{IpAddr, SocketAddr};

use dataplane_user::netlink::{self, XdpMode};
use tests::lab::{Lab, Mobile, Mode, Server, Steering, Ue, http_get, http_post, ping};

#[test]
fn tunnels_pass_a_wire_without_rules() {
    let (mut mobile, _steering) = Mobile::start(|host| Steering::open(host, Mode::Wire)).unwrap();
    for link in mobile.host.enter(netlink::links).unwrap() {
        if ["access0", "core0"].contains(&&*link.name) {
            assert_eq!(link.xdp.unwrap().mode, XdpMode::Native, "{}", link.name);
        }
    }
    let _servers = mobile.serve().unwrap();
    for ue in &mobile.ues {
        ping(&ue.namespace, service(ue).ip()).unwrap();
        ping(&mobile.network, ue.address).unwrap();
        talk(&mobile, ue);
    }
    mobile.detach(0).unwrap();
    let [gone, stays, _] = &mobile.ues;
    ping(&mobile.network, gone.address).unwrap_err();
    ping(&mobile.network, stays.address).unwrap();
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
