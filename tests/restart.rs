//! The daemon dies under traffic and comes back: no packet is lost and no counter starts over.

use std::{
    net::{SocketAddr, UdpSocket},
    thread,
    time::Duration,
};

use anyhow::ensure;
use tests::lab::{Daemon, Lab, Mode, exchange, http_get, wait};

const RULES: &str = r#"{
  "appInstanceId": "video",
  "trafficRules": [{
    "trafficRuleId": "all",
    "filterType": "FLOW",
    "priority": 10,
    "trafficFilter": [{ "dstAddress": ["203.0.113.9"] }],
    "action": "FORWARD_DECAPSULATED",
    "dstInterface": [{ "interfaceType": "IP", "dstIpAddress": "198.18.1.2", "x-nat": true }],
    "state": "ACTIVE"
  }]
}"#;
/// Datagrams that are sent, and the time between two.
const DATAGRAMS: u32 = 3_000;
const GAP: Duration = Duration::from_millis(1);

#[test]
fn no_packet_and_no_counter_is_lost() {
    let lab = Lab::new(Mode::Wire).unwrap();
    let _servers = lab.serve().unwrap();
    let service = SocketAddr::new(Lab::SERVICE, Lab::PORT);
    let mut daemon = Daemon::new(&lab.host, RULES, false).unwrap();
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
