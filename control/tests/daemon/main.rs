//! The program as it is run: a daemon on ports of its own, and the command line in front of it. It needs root.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

mod host;

use std::{fs, time::Duration};

use serde_json::{Value, json};

use self::host::{Host, PATIENCE};

/// An application of which UDP to `address` goes to 198.18.1.2.
fn application(id: &str, address: &str) -> Value {
    json!({
        "appInstanceId": id,
        "trafficRules": [{
            "trafficRuleId": "r1", "filterType": "FLOW", "priority": 1, "state": "ACTIVE",
            "trafficFilter": [{"dstAddress": [address], "protocol": ["UDP"], "dstPort": [443]}],
            "action": "FORWARD_DECAPSULATED",
            "dstInterface": [{"interfaceType": "IP", "dstIpAddress": "198.18.1.2"}]
        }]
    })
}

fn write(host: &Host, name: &str, content: &Value) -> String {
    let path = host.path(name);
    fs::write(&path, content.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn applications(host: &Host) -> Vec<String> {
    let applications = host.json(&["get", "applications"]);
    let ids = applications.as_array().unwrap().iter();
    ids.map(|app| app["appInstanceId"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn systemd_hears_when_the_rules_are_in_force() {
    let host = Host::new();
    host.configure(&host.files());
    write(
        &host,
        "rules.d/video.json",
        &application("video", "203.0.113.9"),
    );
    let daemon = host.start().ready(&host);
    assert_eq!(host.json(&["get", "rules"])[0]["status"]["installed"], true);
    let file = write(&host, "pushed.json", &application("pushed", "203.0.113.10"));
    host.said(&["apply", "-f", &file]);
    let status = daemon.notice("STATUS=2 of 2 ", PATIENCE);
    assert_eq!(
        status.unwrap(),
        "STATUS=2 of 2 active rules in force, revision 2"
    );
    assert!(daemon.stop(), "{}", host.log());
}

#[test]
fn rules_that_do_not_fit_are_no_reason_to_be_ready() {
    let host = Host::new();
    let daemon = host.start().ready(&host);
    let many = json!([
        application("a", "203.0.113.9"),
        application("b", "203.0.113.10")
    ]);
    host.said(&["apply", "-f", &write(&host, "many.json", &many)]);
    assert!(daemon.stop());
    host.said(&["detach", "--yes"]);
    host.configure("[limits]\nrules = 1\n");
    let daemon = host.start();
    let status = daemon.notice("STATUS=", PATIENCE).unwrap();
    assert!(
        status.contains("NOT in force") && status.contains("[limits] rules"),
        "{status}"
    );
    assert_eq!(daemon.notice("READY=1", Duration::from_secs(2)), None);
    let table = host.said(&["get", "status"]);
    assert!(table.contains("[limits] rules"), "{table}");
    host.said(&["delete", "application", "b"]);
    let daemon = daemon.ready(&host);
    assert!(daemon.stop());
}

#[test]
fn a_source_that_is_not_configured_any_more_loses_its_applications() {
    let host = Host::new();
    host.configure(&host.files());
    write(
        &host,
        "rules.d/video.json",
        &application("video", "203.0.113.9"),
    );
    let daemon = host.start().ready(&host);
    let file = write(&host, "pushed.json", &application("pushed", "203.0.113.10"));
    host.said(&["apply", "-f", &file]);
    assert_eq!(applications(&host), ["pushed", "video"]);
    assert!(daemon.stop());

    host.configure("");
    let daemon = host.start().ready(&host);
    assert_eq!(applications(&host), ["pushed"]);
    let log = host.log();
    assert!(
        log.contains("removed: its source is not in the configuration any more"),
        "{log}"
    );
    let flow = |address| {
        let flow = format!("udp 10.45.0.7:5000 > {address}:443");
        host.json(&["explain", "--in", "access0", "--flow", &flow])["rule"].clone()
    };
    assert_eq!(flow("203.0.113.9"), Value::Null);
    assert_eq!(flow("203.0.113.10"), "pushed/r1");
    assert!(daemon.stop());
}

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
    for one in &given {
        let others: Vec<_> = given.iter().copied().filter(|name| name != one).collect();
        assert!(host.start_with(&others).fails(), "{one} is not needed");
        let log = host.log();
        assert!(log.contains(one), "{one} is missing: {log}");
    }
    let daemon = host.start_with(&given).ready(&host);
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

#[test]
fn doctor_speaks_json_with_the_same_exit_code() {
    let host = Host::new();
    let level = |code| {
        let (text, was) = host.edgesteer(&["doctor", "-o", "json"]);
        assert_eq!(was, code, "{text}");
        let report: Value = serde_json::from_str(&text).unwrap();
        let worst = report["findings"].as_array().unwrap().iter();
        assert!(
            worst
                .clone()
                .any(|finding| finding["level"] == report["level"]),
            "{text}"
        );
        let lines = host.edgesteer(&["doctor"]).0;
        for finding in worst {
            let what = finding["what"].as_str().unwrap();
            assert!(lines.contains(what), "{what} in {lines}");
        }
        report["level"].as_str().unwrap().to_owned()
    };
    assert_ne!(level(0), "error");
    host.shell("ip link set access0 down");
    assert_eq!(level(1), "error");
}
