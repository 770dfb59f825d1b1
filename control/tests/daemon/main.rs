//! The program as it is run: a daemon on ports of its own, and the command line in front of it. It needs root.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

mod announcing;
mod host;
mod sessions;
mod unit;
mod vips;

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

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
fn a_change_is_shown_before_it_is_made() {
    let host = Host::new();
    let daemon = host.start().ready(&host);
    let mut wanted = application("video", "203.0.113.9");
    let line = "video/r1 prio 1 flow to 203.0.113.9 proto udp dport 443 forward ip 198.18.1.2";
    let file = write(&host, "rules.json", &wanted);
    assert_eq!(
        host.said(&["apply", "-f", &file, "--dry-run"]),
        format!("+ {line}\n")
    );
    assert_eq!(host.said(&["get", "rules"]), "none\n");
    let said = host.said(&["apply", "-f", &file]);
    assert_eq!(said, format!("+ {line}\nin force, revision 1\n"));
    let said = host.said(&["apply", "-f", &file]);
    assert_eq!(said, "no changes\nin force, revision 1\n");

    wanted["trafficRules"][0]["dstInterface"][0]["x-port"] = json!("nowhere");
    let file = write(&host, "rules.json", &wanted);
    let said = host.said(&["apply", "-f", &file]);
    let expected = format!(
        "~ {line} via nowhere\n  was {line}\nin force, revision 2, but NOT all rules:\n! video/r1 is left out: "
    );
    assert!(said.starts_with(&expected), "{said}");
    assert!(
        said.contains("app0"),
        "it says which ports there are: {said}"
    );

    let said = host.said(&["delete", "application", "video"]);
    assert_eq!(
        said,
        format!("- {line} via nowhere\napplication `video` is removed, revision 3\n")
    );
    let refused = host.refused(&["delete", "application", "video"]);
    assert_eq!(refused, "edgesteer: there is no application `video`\n");
    assert!(daemon.stop());
}

#[test]
fn flows_that_ended_are_counted_by_rule() {
    let host = Host::new();
    host.configure("[timeouts]\nudp = 2\n");
    let daemon = host.start().ready(&host);
    let (video, audio) = (
        application("video", "203.0.113.9"),
        application("audio", "203.0.113.10"),
    );
    let file = write(&host, "rules.json", &json!([video, audio]));
    host.said(&["apply", "-f", &file]);
    host.shell(
        "ip address add 10.45.0.7/16 dev far-access0 && ip route add 203.0.113.0/24 dev far-access0 &&
         for last in 9 10; do
             ip neighbor add 203.0.113.$last lladdr 02:00:00:00:00:01 nud permanent dev far-access0
         done",
    );
    let send = |last: &str| {
        host.shell(&format!(
            "bash -c 'echo > /dev/udp/203.0.113.{last}/443 && echo > /dev/udp/203.0.113.{last}/443'"
        ));
    };
    let counted = |app: &str, rule: &str, count: u64| {
        let line =
            format!("edgesteer_flows_ended_total{{app=\"{app}\",rule=\"{rule}\"}} {count}\n");
        let end = Instant::now() + PATIENCE;
        while !host.metrics().contains(&line) {
            assert!(Instant::now() < end, "{line} in {}", host.metrics());
            sleep(Duration::from_millis(100));
        }
    };
    counted("video", "r1", 0);
    send("9");
    counted("video", "r1", 2);
    counted("audio", "r1", 0);
    counted("", "", 0);

    send("10");
    host.said(&["delete", "application", "audio"]);
    counted("", "", 2);
    counted("video", "r1", 2);
    let metrics = host.metrics();
    assert!(!metrics.contains("audio"), "{metrics}");
    assert!(
        metrics.contains("edgesteer_flows_ended_lost_total 0\n"),
        "{metrics}"
    );
    assert!(daemon.stop());
}

#[test]
fn a_packet_is_explained_in_three_ways() {
    let host = Host::new();
    let daemon = host.start().ready(&host);
    let file = write(&host, "rules.json", &application("video", "203.0.113.9"));
    host.said(&["apply", "-f", &file]);
    let flow = "udp 10.45.0.7:5000 > 203.0.113.9:443";
    let ask = |option, packet: &str| host.json(&["explain", "--in", "access0", option, packet]);
    let steered = ask("--flow", flow);
    assert_eq!(steered["reason"], "steered");
    assert_eq!(steered["rule"], "video/r1");
    assert_eq!(steered["targetPort"], "app0");

    // The same packet as it is on the wire, alone and in a capture.
    let mac = &host.json(&["get", "ports", "access0"])[0]["mac"];
    let mac = mac.as_str().unwrap().replace(':', "");
    let hex = format!("{mac}0200000000010800{IP}");
    assert_eq!(ask("--hex", &hex), steered);
    let capture = host.path("frames.pcap");
    fs::write(&capture, pcap(&[&hex, "0200"])).unwrap();
    let refused = host.refused(&[
        "explain",
        "--in",
        "access0",
        "--pcap",
        capture.to_str().unwrap(),
    ]);
    assert!(
        refused.contains("frame 2") && refused.contains("at least 14"),
        "{refused}"
    );
    fs::write(&capture, pcap(&[&hex, &hex])).unwrap();
    assert_eq!(
        ask("--pcap", capture.to_str().unwrap()),
        json!([steered, steered])
    );

    let refused = host.refused(&["explain", "--in", "nowhere", "--flow", flow]);
    assert!(refused.contains("access0, core0, app0"), "{refused}");
    assert!(daemon.stop());
}

/// The packet that `explain --flow` makes of the line above, from the IP header on.
const IP: &str =
    "4500002c000040004011f4830a2d0007cb007109138801bb0018a43d00000000000000000000000000000000";

/// A capture of frames given in hex.
fn pcap(frames: &[&str]) -> Vec<u8> {
    let mut file = [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65535, 1]
        .map(u32::to_le_bytes)
        .concat();
    for frame in frames {
        let digits = frame.as_bytes().chunks(2);
        let bytes: Vec<u8> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect();
        let length = bytes.len() as u32;
        file.extend([0, 0, length, length].map(u32::to_le_bytes).concat());
        file.extend(bytes);
    }
    file
}

#[test]
fn ports_say_why_nothing_passes() {
    let host = Host::new();
    let daemon = host.start().ready(&host);
    let reason = |port| host.json(&["get", "ports", port])[0]["reason"].clone();
    assert_eq!(reason("app0"), Value::Null);
    host.shell("ip link set far-app0 down");
    assert_eq!(reason("app0"), "the interface has no carrier");
    host.shell("ip link set app0 down");
    assert_eq!(reason("app0"), "the interface is switched off");
    let refused = host.refused(&["get", "ports", "app1"]);
    assert_eq!(
        refused,
        "edgesteer: there is no `app1`; there is access0, core0, app0\n"
    );
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
