//! UEs behind tunnels, from what is said of them to what becomes of their packets.

use serde_json::json;

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
    let session = json!({
        "ueAddress": "10.45.0.7", "ranAddress": "192.0.2.1", "coreAddress": "198.51.100.1",
        "bearers": [{"uplinkTeid": 4660, "downlinkTeid": 22136}], "qosFlows": [{"qfi": 9, "5qi": 8}]
    });
    let wanted =
        json!({"applications": [application("video", "203.0.113.9")], "sessions": [session]});
    let said = host.said(&["apply", "-f", &write(&host, "wanted.json", &wanted)]);
    let line =
        "+ session 0/10.45.0.7 ran 192.0.2.1 core 198.51.100.1 teids 4660 22136 qfi 9 5qi 8\n";
    assert!(said.contains(line), "{said}");
    (host, daemon)
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
