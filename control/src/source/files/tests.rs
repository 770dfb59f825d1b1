//! Real files, changed in every way an editor, a script or a tired person does.

mod lab;

use std::{fs, os::unix::fs::symlink};

use serde_json::json;

use self::lab::Lab;

#[test]
fn one_or_several_applications_in_json_and_yaml() {
    let lab = Lab::new();
    lab.write("one.json", &json!(application("one", "r1")).to_string());
    lab.write(
        "list.json",
        &json!([application("two", "r1"), application("three", "r1")]).to_string(),
    );
    lab.write(
        "whole.json",
        &json!({"applications": [application("four", "r1")]}).to_string(),
    );
    lab.write(
        "two.yaml",
        &format!("{YAML}---\n{}", YAML.replace("five", "six")),
    );
    lab.write("empty.yml", "# nothing yet\n");
    lab.write(".hidden.json", "garbage");
    lab.write("notes.txt", "garbage");
    lab.start();
    assert_eq!(lab.names(), ["five", "four", "one", "six", "three", "two"]);
    let snapshot = lab.snapshot();
    assert_eq!(snapshot.failures, []);
    assert_eq!((snapshot.applications, snapshot.rules), (6, 6));
    assert!(snapshot.last_success.is_some() && snapshot.last_error.is_none());
}

#[test]
fn vips_are_in_files_too() {
    let vip = |port: u16| {
        json!({"vips": [{
            "vipId": "web", "address": "203.0.113.9", "protocol": "TCP", "port": port, "mode": "DSR", "backends": []
        }]})
        .to_string()
    };
    let lab = Lab::new();
    lab.write("a.json", &vip(443));
    lab.write("b.json", &json!(application("one", "r1")).to_string());
    lab.write("c.json", &vip(80));
    lab.start();
    assert_eq!(
        (lab.names(), lab.vip_ports()),
        (vec!["one".to_owned()], vec![443])
    );
    assert!(
        lab.failures().contains("c.json: VIP web is already in"),
        "{}",
        lab.failures()
    );
    fs::remove_file(lab.path("c.json")).unwrap();
    for (content, words) in [
        (vip(0), "a.json: /vips/0/port"),
        (vip(443).replace("DSR", "NAT"), "a.json: /vips/0/mode"),
        (vip(443).replace("[{", "[1, {"), "a.json: /vips/0"),
    ] {
        lab.write("a.json", &content);
        lab.until(|| lab.failures().contains(words));
        assert_eq!(lab.vip_ports(), [443], "it keeps what it last said");
    }
    lab.write("a.json", &vip(8443));
    lab.until(|| lab.vip_ports() == [8443] && lab.failures().is_empty());
    fs::remove_file(lab.path("a.json")).unwrap();
    lab.until(|| lab.vip_ports().is_empty());
    assert_eq!(lab.names(), ["one"]);
}

#[test]
fn changes_are_followed() {
    let lab = Lab::new();
    lab.write("a.json", &json!(application("one", "r1")).to_string());
    lab.start();
    assert_eq!(lab.rules("one"), ["r1"]);

    lab.write("a.json", &json!(application("one", "r2")).to_string());
    lab.until(|| lab.rules("one") == ["r2"]);
    lab.write("b.yaml", YAML);
    lab.until(|| lab.names() == ["five", "one"]);
    // As editors do it: a new file takes the place of the old one.
    lab.write("new", &json!(application("one", "r3")).to_string());
    fs::rename(lab.path("new"), lab.path("a.json")).unwrap();
    lab.until(|| lab.rules("one") == ["r3"]);
    fs::remove_file(lab.path("a.json")).unwrap();
    lab.until(|| lab.names() == ["five"]);
    fs::rename(lab.path("b.yaml"), lab.path("b.yaml.off")).unwrap();
    lab.until(|| lab.names().is_empty());
}

#[test]
fn a_bad_file_keeps_what_it_last_said_and_says_where() {
    let lab = Lab::new();
    lab.write("a.json", &json!(application("one", "r1")).to_string());
    lab.write("b.json", &json!(application("two", "r1")).to_string());
    lab.start();
    let bad_action = application("one", "r1")
        .to_string()
        .replace("DROP", "EXPLODE");
    let bad_port = application("one", "r1")
        .to_string()
        .replace("[\"80\"]", "[\"http\"]");
    let twice = json!([application("one", "r1"), application("one", "r2")]).to_string();
    for (content, words) in [
        ("{\n\"appInstanceId\": \"one\",\n", "line 3"),
        ("[1]", "/0"),
        ("\"text\"", "expected"),
        (bad_action.as_str(), "/trafficRules/0/action"),
        (
            bad_port.as_str(),
            "/trafficRules/0/trafficFilter/0/dstPort/0",
        ),
        (twice.as_str(), "/1/appInstanceId"),
        ("\u{0}", "line 1"),
    ] {
        lab.write("a.json", content);
        lab.until(|| lab.failures().contains(words));
        assert!(lab.failures().contains("a.json"), "{}", lab.failures());
        assert_eq!(lab.rules("one"), ["r1"], "{content}");
        assert_eq!(lab.names(), ["one", "two"], "the other file is not touched");
    }
    assert!(lab.snapshot().last_error.is_some());
    lab.write("a.json", &json!(application("one", "r9")).to_string());
    lab.until(|| lab.rules("one") == ["r9"] && lab.failures().is_empty());
    lab.write("a.json", "");
    lab.until(|| lab.failures().contains("a.json: is empty"));
    assert_eq!(lab.rules("one"), ["r9"]);
    lab.write("a.json", "[]");
    lab.until(|| lab.names() == ["two"]);
}

#[test]
fn a_bad_yaml_file_says_which_line_or_document() {
    let lab = Lab::new();
    lab.write("a.yaml", &format!("{YAML}  - wrong: [\n"));
    lab.write(
        "b.yaml",
        &format!(
            "{}---\n{}",
            YAML.replace("five", "six"),
            YAML.replace("DROP", "NO")
        ),
    );
    lab.write("c.yaml", &"a: ".repeat(100));
    lab.write("d.yaml", "a: &x [*x]\n");
    lab.write("e.yaml", "? [1, 2]\n: 3\n");
    fs::write(lab.path("f.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    lab.start();
    let failures = lab.failures();
    for words in [
        "a.yaml: ",
        "line 1",
        "b.yaml: document 2: /trafficRules/0/action",
    ] {
        assert!(failures.contains(words), "{words} in {failures}");
    }
    assert_eq!(lab.snapshot().failures.len(), 6, "{failures}");
    assert_eq!(lab.names(), Vec::<String>::new());
}

#[test]
fn the_first_file_owns_an_application() {
    let lab = Lab::new();
    lab.write("a.json", &json!(application("one", "r1")).to_string());
    lab.write(
        "b.json",
        &json!([application("one", "r2"), application("two", "r1")]).to_string(),
    );
    lab.start();
    assert_eq!(lab.rules("one"), ["r1"]);
    assert_eq!(lab.names(), ["one", "two"]);
    assert!(
        lab.failures()
            .contains("b.json: application one is already in")
    );
    fs::remove_file(lab.path("a.json")).unwrap();
    lab.until(|| lab.rules("one") == ["r2"] && lab.failures().is_empty());
}

#[test]
fn a_directory_may_come_go_and_be_replaced() {
    let lab = Lab::new();
    fs::remove_dir(lab.directory()).unwrap();
    lab.before(&["one"]);
    lab.start();
    assert_eq!(lab.names(), ["one"], "what was in force stays");
    assert!(!lab.failures().is_empty());

    let other = lab.root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("b.yaml"), YAML).unwrap();
    fs::rename(&other, lab.directory()).unwrap();
    lab.worker.lock().unwrap().as_ref().unwrap().look();
    lab.until(|| lab.names() == ["five"] && lab.failures().is_empty());
    lab.write("c.json", &json!(application("six", "r1")).to_string());
    lab.until(|| lab.names() == ["five", "six"]);

    fs::rename(lab.directory(), &other).unwrap();
    lab.until(|| !lab.failures().is_empty());
    assert_eq!(lab.names(), ["five", "six"]);
}

#[test]
fn a_file_that_was_never_read_keeps_what_was_in_force_before() {
    let lab = Lab::new();
    lab.write("a.json", "{");
    lab.write("b.json", &json!(application("two", "r1")).to_string());
    lab.before(&["one"]);
    lab.start();
    assert_eq!(lab.names(), ["one", "two"]);
    lab.write("a.json", &json!(application("three", "r1")).to_string());
    lab.until(|| lab.names() == ["three", "two"]);
}

#[test]
fn links_as_container_platforms_make_them() {
    let lab = Lab::new();
    for (version, rule) in [("v1", "r1"), ("v2", "r2")] {
        fs::create_dir(lab.path(version)).unwrap();
        let text = json!(application("one", rule)).to_string();
        fs::write(lab.path(version).join("a.json"), text).unwrap();
    }
    symlink("v1", lab.path("..data")).unwrap();
    symlink("..data/a.json", lab.path("a.json")).unwrap();
    lab.start();
    assert_eq!(lab.rules("one"), ["r1"]);
    symlink("v2", lab.path("..new")).unwrap();
    fs::rename(lab.path("..new"), lab.path("..data")).unwrap();
    lab.until(|| lab.rules("one") == ["r2"]);
}

#[test]
fn what_the_store_refuses_is_reported_and_offered_again_only_when_it_failed_as_a_whole() {
    let lab = Lab::new();
    lab.write(
        "a.json",
        &json!([application("one", "r1"), application("two", "r1")]).to_string(),
    );
    lab.refuse(Err("no room".to_owned()));
    lab.start();
    assert!(lab.failures().contains("all applications: no room"));
    lab.refuse(Ok(["two".parse().unwrap()]
        .map(|id| (id, "taken".to_owned()))
        .into()));
    lab.until(|| lab.failures() == "two: taken");
    let deliveries = *lab.deliveries.lock().unwrap();
    for _ in 0..3 {
        let rounds = lab.snapshot().rounds;
        lab.worker.lock().unwrap().as_ref().unwrap().look();
        lab.until(|| lab.snapshot().rounds > rounds);
    }
    assert_eq!(*lab.deliveries.lock().unwrap(), deliveries);
    assert_eq!(lab.failures(), "two: taken");
}

const YAML: &str = "\
appInstanceId: five
trafficRules:
  - trafficRuleId: r1
    filterType: FLOW
    priority: 1
    trafficFilter: [{dstPort: ['80']}]
    action: DROP
    state: ACTIVE
";

fn application(id: &str, rule: &str) -> serde_json::Value {
    json!({"appInstanceId": id, "trafficRules": [{
        "trafficRuleId": rule, "filterType": "FLOW", "priority": 1,
        "trafficFilter": [{"dstPort": ["80"]}], "action": "DROP", "state": "ACTIVE"
    }]})
}

#[test]
fn metrics_tell_the_reasons() {
    let lab = Lab::new();
    lab.write("a.json", "{");
    lab.start();
    lab.until(|| lab.snapshot().rounds >= 1);
    let text = prometheus::TextEncoder::new()
        .encode_to_string(&lab.registry.gather())
        .unwrap();
    for line in [
        "edgesteer_sync_errors_total{reason=\"malformed\",source=\"files\"} ",
        "edgesteer_sync_duration_seconds_count{source=\"files\"} ",
        "edgesteer_sync_applications{source=\"files\"} 0",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}
