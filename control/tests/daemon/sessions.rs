//! UEs behind tunnels, from what is said of them to what becomes of their packets.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    application,
    host::{Daemon, Host},
    write,
};

const GTPU: &str = "[gtpu]\nran = ['192.0.2.0/24']\ncore = ['198.51.100.1']\n";
const FLOW: &str = "udp 10.45.0.7:5000 > 203.0.113.9:443";

fn start() -> (Host, Daemon) {
    let host = Host::new();
    host.configure_gtpu(GTPU);
    let daemon = host.start().ready(&host);
    let said = apply(&host, &application("video", "203.0.113.9"));
    let line =
        "+ session 0/10.45.0.7 ran 192.0.2.1 core 198.51.100.1 teids 4660 22136 qfi 9 5qi 8\n";
    assert!(said.contains(line), "{said}");
    (host, daemon)
}

/// Pushes an application and the session of a UE.
fn apply(host: &Host, application: &Value) -> String {
    let session = json!({
        "ueAddress": "10.45.0.7", "ranAddress": "192.0.2.1", "coreAddress": "198.51.100.1",
        "bearers": [{"uplinkTeid": 4660, "downlinkTeid": 22136}], "qosFlows": [{"qfi": 9, "5qi": 8}]
    });
    let wanted = json!({"applications": [application], "sessions": [session]});
    host.said(&["apply", "-f", &write(host, "wanted.json", &wanted)])
}

#[test]
fn rules_for_tunnels_are_in_force_where_somebody_looks_into_them() {
    let (host, daemon) = start();
    let reason = |host: &Host| {
        let answer = host.json(&["explain", "--in", "access0", "--flow", FLOW]);
        answer["reason"].as_str().unwrap().to_owned()
    };
    let mut video = application("video", "203.0.113.9");
    let common = json!({"tgtTunnelAddress": ["198.51.100.1"], "dstTunnelPort": ["2152"]});
    for (member, value, expected) in [
        ("qCI", json!(9), "no_rule"),
        (
            "srcTunnelAddress",
            json!(["192.0.2.2-192.0.2.9"]),
            "no_rule",
        ),
        ("srcTunnelPort", json!([2153]), "no_rule"),
        ("srcTunnelAddress", json!(["192.0.2.0/28"]), "steered"),
        ("qCI", json!(8), "steered"),
    ] {
        let filter = &mut video["trafficRules"][0]["trafficFilter"][0];
        *filter = common.clone();
        filter[member] = value;
        apply(&host, &video);
        assert_eq!(reason(&host), expected, "{member}");
    }
    assert!(daemon.stop());

    let daemon = host.start().ready(&host);
    assert_eq!(reason(&host), "steered", "after a restart");
    assert!(daemon.stop());

    host.configure("");
    let daemon = host.start().ready(&host);
    let status = host.json(&["get", "rules"])[0]["status"].clone();
    assert_eq!(status["installed"], false);
    let why = status["reason"].as_str().unwrap();
    assert!(why.contains("no port looks into GTP-U"), "{why}");
    assert!(daemon.stop());

    host.configure_gtpu(GTPU);
    let daemon = host.start().ready(&host);
    assert_eq!(host.json(&["get", "rules"])[0]["status"]["installed"], true);
    assert_eq!(reason(&host), "steered");
    assert!(daemon.stop());
}

#[test]
fn what_is_said_of_a_ue_is_in_force_and_stays_so() {
    let (host, daemon) = start();
    let steered = |host: &Host| {
        let answer = host.json(&["explain", "--in", "access0", "--flow", FLOW]);
        assert_eq!(answer["reason"], "steered", "{answer}");
        assert_eq!(answer["rule"], "video/r1");
        let tunnel =
            json!({"source": "192.0.2.1", "destination": "198.51.100.1", "teid": 4660, "qfi": 9});
        assert_eq!(answer["tunnelIn"], tunnel);
        assert!(answer["tunnelOut"].is_null());
    };
    steered(&host);
    let text = host.said(&["explain", "--in", "access0", "--flow", FLOW]);
    assert!(
        text.contains("tunnel   192.0.2.1 > 198.51.100.1 teid 4660 qfi 9"),
        "{text}"
    );
    let table = host.said(&["get", "sessions", "0/10.45.0.7", "-o", "wide"]);
    for word in ["10.45.0.7", "active", "provisioned", "22136", "9=8"] {
        assert!(table.contains(word), "{word} in {table}");
    }
    let status = host.said(&["get", "status"]);
    assert!(status.contains("1 active, provisioned"), "{status}");
    assert!(daemon.stop());

    let daemon = host.start().ready(&host);
    assert_eq!(host.json(&["get", "status"])["dataPath"]["adopted"], true);
    steered(&host);
    assert!(daemon.stop());
    // As after the host has been started anew.
    host.said(&["detach", "--yes"]);
    let daemon = host.start().ready(&host);
    steered(&host);
    assert!(daemon.stop());
}

#[test]
fn tunnels_between_others_are_counted_and_doctor_says_so() {
    let (host, daemon) = start();
    let finding = || {
        let report: Value =
            serde_json::from_str(&host.edgesteer(&["doctor", "-o", "json"]).0).unwrap();
        let findings = report["findings"].as_array().unwrap();
        let mut findings = findings.iter();
        findings
            .find(|it| it["check"] == "gtpu-unconfigured")
            .cloned()
    };
    assert_eq!(finding(), None);
    let socket = host.service("203.0.113.77:2152");
    let done = AtomicBool::new(false);
    let found = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                socket.send(&[0x30, 0xff, 0, 0, 0, 0, 0, 1]).unwrap();
                thread::sleep(Duration::from_millis(20));
            }
        });
        thread::sleep(Duration::from_millis(100));
        let found = finding();
        done.store(true, Relaxed);
        found.unwrap()
    });
    assert_eq!(found["level"], "warning", "{found}");
    assert_eq!(found["at"], "access0");
    assert!(
        found["cure"].as_str().unwrap().contains("[gtpu] ran"),
        "{found}"
    );
    // The counter does not forget, but it is over.
    assert_eq!(finding().unwrap()["level"], "ok");
    assert!(host.metrics().contains("gtpu_unconfigured"));
    assert!(daemon.stop());
}

#[test]
fn what_is_not_said_any_more_is_over() {
    let (host, daemon) = start();
    let refused = host.refused(&["delete", "session", "10.45.0.7"]);
    assert!(refused.contains("ZONE/ADDRESS"), "{refused}");
    let said = host.said(&["delete", "session", "0/10.45.0.7"]);
    assert!(
        said.ends_with("session `0/10.45.0.7` is removed, revision 2\n"),
        "{said}"
    );
    assert_eq!(host.said(&["get", "sessions"]), "none\n");
    for id in ["0/10.45.0.7", "10.45.0.7"] {
        let refused = host.refused(&["get", "sessions", id]);
        assert!(refused.contains(id), "{refused}");
    }
    let refused = host.refused(&["explain", "--in", "access0", "--flow", FLOW]);
    assert!(
        refused.contains("10.45.0.7 is known in zone 0"),
        "{refused}"
    );
    assert!(daemon.stop());
}
