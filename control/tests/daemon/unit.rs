//! The unit that runs the daemon as nobody.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    host::{Host, PATIENCE},
    write,
};

#[test]
fn the_unit_gives_the_capabilities_that_are_needed_and_no_other() {
    let unit = include_str!("../../../packaging/edgesteer.service");
    let capabilities = |setting: &str| -> Vec<&str> {
        let line = unit.lines().find_map(|line| line.strip_prefix(setting));
        line.unwrap().split_whitespace().collect()
    };
    let given = capabilities("AmbientCapabilities=");
    assert_eq!(given, capabilities("CapabilityBoundingSet="));
    let host = Host::new();
    host.configure(&host.files());
    host.shell("ip link set lo up");
    write(&host, "rules.d/vips.json", &pinged());
    let health = || host.json(&["get", "vips", "web"])["status"]["backends"][0]["health"].clone();
    for one in &given {
        let others: Vec<_> = given.iter().copied().filter(|name| name != one).collect();
        let daemon = host.start_with(&others);
        // Which VIPs are checked is not known yet when a daemon starts.
        if *one == "CAP_NET_RAW" {
            let daemon = daemon.ready(&host);
            host.logs("the backend cannot be checked");
            assert_eq!(health(), "UNKNOWN");
            assert!(daemon.stop());
        } else {
            assert!(daemon.fails(), "{one} is not needed");
        }
        let log = host.log();
        assert!(log.contains(one), "{one} is missing: {log}");
    }
    let daemon = host.start_with(&given).ready(&host);
    let end = Instant::now() + PATIENCE;
    while health() != "UP" {
        assert!(Instant::now() < end, "{}", host.log());
        sleep(Duration::from_millis(50));
    }
    let copy = json!({
        "appInstanceId": "copy",
        "trafficRules": [{
            "trafficRuleId": "r1", "filterType": "FLOW", "priority": 1, "state": "ACTIVE", "trafficFilter": [{}],
            "action": "DUPLICATE_DECAPSULATED",
            "dstInterface": [{"interfaceType": "IP", "dstIpAddress": "198.18.1.2"}]
        }]
    });
    host.said(&["apply", "-f", &write(&host, "copy.json", &copy)]);
    assert!(daemon.stop());
    // What was left is taken over with the same capabilities.
    let daemon = host.start_with(&given).ready(&host);
    assert_eq!(host.json(&["get", "status"])["dataPath"]["adopted"], true);
    assert_eq!(host.json(&["get", "rules"])[0]["status"]["installed"], true);
    assert!(daemon.stop());
}

/// A VIP of which this host itself is the backend, by ICMP.
fn pinged() -> Value {
    json!({"vips": [{
        "vipId": "web", "address": "203.0.113.9", "protocol": "TCP", "port": 443, "mode": "DSR",
        "backends": [{"address": "198.18.1.1", "x-port": "app0"}],
        "healthCheck": {"type": "ICMP", "intervalSeconds": 1, "timeoutSeconds": 1, "rise": 1, "fall": 1}
    }]})
}
