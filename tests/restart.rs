//! The daemon dies under traffic and comes back: no packet is lost and no counter starts over.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::ensure;
use tests::lab::{Daemon, Lab, Mode, exchange, http_get, wait};

/// To an address, and into a tunnel to it.
const DESTINATIONS: [&str; 2] = [
    r#"{"interfaceType": "IP", "dstIpAddress": "198.18.1.2", "x-nat": true}"#,
    r#"{"interfaceType": "TUNNEL", "dstMacAddress": "02:00:00:00:ff:09", "tunnelInfo": {
      "tunnelType": "VXLAN", "tunnelSrcAddress": "198.18.1.1", "tunnelDstAddress": "198.18.1.2",
      "tunnelSpecificData": {"vni": 9}
    }}"#,
];
/// Datagrams that are sent, and the time between two.
const DATAGRAMS: u32 = 10_000;
const GAP: Duration = Duration::from_millis(1);

#[test]
fn no_packet_and_no_counter_is_lost() {
    restart(DESTINATIONS[0]);
}

#[test]
fn none_is_lost_with_rules_that_send_into_tunnels() {
    restart(DESTINATIONS[1]);
}

/// The daemon is killed, and comes back; it is stopped, and comes back.
fn restart(destination: &str) {
    let rules = format!(
        r#"{{
          "appInstanceId": "video",
          "trafficRules": [{{
            "trafficRuleId": "all",
            "filterType": "FLOW",
            "priority": 10,
            "trafficFilter": [{{ "dstAddress": ["203.0.113.9"] }}],
            "action": "FORWARD_DECAPSULATED",
            "dstInterface": [{destination}],
            "state": "ACTIVE"
          }}]
        }}"#
    );
    let lab = Lab::new(Mode::Wire).unwrap();
    let _servers = lab.serve().unwrap();
    if destination == DESTINATIONS[1] {
        lab.end_tunnel("local 198.18.1.2 remote 198.18.1.1")
            .unwrap();
    }
    let service = SocketAddr::new(Lab::SERVICE, Lab::PORT);
    let mut daemon = Daemon::new(&lab.host, &rules, false).unwrap();
    daemon.start(&lab.host).unwrap();
    wait("steering", || {
        let answer = http_get(&lab.ue, service, "/")?;
        ensure!(answer == "app-a: GET /", "{answer}");
        Ok(())
    })
    .unwrap();
    let before = daemon.rule_packets(&lab.host).unwrap();

    let socket = lab.ue.enter(|| {
        let socket = UdpSocket::bind("10.45.0.7:0").unwrap();
        socket.connect(service).unwrap();
        socket
    });
    let own = socket.local_addr().unwrap().port();
    let answers = thread::scope(|scope| {
        let traffic = scope.spawn(|| exchange(&socket, DATAGRAMS, GAP));
        thread::sleep(Duration::from_millis(500));
        daemon.kill().unwrap();
        thread::sleep(Duration::from_millis(500));
        http_get(&lab.ue, service, "/alone").expect("new flows are steered without a daemon");
        daemon.start(&lab.host).unwrap();
        daemon.stop().unwrap();
        http_get(&lab.ue, service, "/alone").expect("new flows are steered without a daemon");
        daemon.start(&lab.host).unwrap();
        assert!(!traffic.is_finished(), "it was over before");
        traffic.join().unwrap()
    });
    let by_application = |it: &&Option<String>| it.as_deref() == Some("app-a");
    let answered = answers.iter().filter(by_application).count();
    assert_eq!(answered, DATAGRAMS as usize, "answered by the application");

    let flow = daemon.flow(&lab.host, own).unwrap();
    for direction in ["upstream", "downstream"] {
        let packets = flow[direction]["packets"].as_u64();
        assert_eq!(packets, Some(DATAGRAMS.into()), "{direction}: {flow}");
    }
    let counted = daemon.rule_packets(&lab.host).unwrap() - before;
    assert!(
        counted >= 2 * u64::from(DATAGRAMS),
        "the rule counted {counted} packets"
    );
}
