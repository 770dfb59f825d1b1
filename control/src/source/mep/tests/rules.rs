//! What becomes of a list of rules.

use serde_json::{Value, json};

use super::{Lab, V2, rule, standin::Reply};

#[test]
fn shapes_and_spellings_of_real_platforms() {
    let mut lab = Lab::new(&["one"]);
    let interface = json!({"interfaceType": "IP", "dstIpAddress": "192.0.2.10"});
    let older = json!({"interfaceType": "MAC", "dstMACAddress": "02-00-00-00-00-01"});
    let with = |id: &str, action: &str, interface: &Value| {
        let mut rule = rule(id);
        rule["action"] = json!(action);
        rule["dstInterface"] = interface.clone();
        rule["serName"] = json!("unknown members are ignored");
        rule
    };
    let list = json!([
        with("object", "FORWARD_DECAPSULATED", &interface),
        with("array", "FORWARD_DECAPSULATED", &json!([interface])),
        with("as-is", "FORWARD_AS_IS", &older),
        with("tap", "DUPLICATE_AS_IS", &json!([older, older])),
        with("duplicated", "DUPLICATED_DECAPSULATED", &json!([interface])),
        {"TrafficRule": rule("wrapped")},
    ]);
    let ids = ["object", "array", "as-is", "tap", "duplicated", "wrapped"];
    lab.standin.on(V2, Reply::json(&list));
    lab.round();
    assert_eq!(lab.failures(), "");
    assert_eq!(lab.rules("one"), ids);

    for (body, expected) in [
        (
            json!({"trafficRules": [rule("r1")]}).to_string(),
            &["r1"][..],
        ),
        (json!({"TrafficRule": rule("r2")}).to_string(), &["r2"]),
        (rule("r3").to_string(), &["r3"]),
        (format!("\u{feff}{}", json!([rule("r4")])), &["r4"]),
        ("null".to_owned(), &[]),
    ] {
        lab.standin.on(V2, Reply::json(&body));
        lab.round();
        assert_eq!(lab.rules("one"), expected, "{body}");
        assert_eq!(lab.failures(), "");
    }
}

#[test]
fn a_bad_rule_stays_what_it_was_and_the_others_change() {
    let mut lab = Lab::new(&["one"]);
    lab.standin
        .on(V2, Reply::json(json!([rule("a"), rule("b"), rule("c")])));
    lab.round();
    let broken = |id: &str, member: &str, value: Value| {
        let mut rule = rule(id);
        rule[member] = value;
        rule
    };
    let urgent = broken("b", "priority", json!(9));
    for (bad, words) in [
        (broken("a", "action", json!("EXPLODE")), "/0/action"),
        (broken("a", "priority", json!(555)), "/0/priority"),
        (broken("a", "priority", json!("high")), "/0/priority"),
        (broken("a", "filterType", json!("2FLOW22")), "/0/filterType"),
        (broken("a", "trafficFilter", json!([])), "/0/trafficFilter"),
        (
            broken("a", "trafficFilter", json!([{"dstPort": ["http"]}])),
            "/0/trafficFilter/0/dstPort/0",
        ),
        (
            broken("a", "trafficFilter", json!([{"srcAddress": {"from": 1}}])),
            "/0/trafficFilter/0/srcAddress",
        ),
        (broken("a", "state", Value::Null), "/0/state"),
        (
            broken("a", "action", json!("FORWARD_DECAPSULATED")),
            "/0/dstInterface",
        ),
    ] {
        lab.standin.on(V2, Reply::json(json!([bad, urgent])));
        lab.round();
        assert!(
            lab.failures().contains(words),
            "{words} in {}",
            lab.failures()
        );
        let rules = lab.application("one");
        let found: Vec<_> = rules
            .iter()
            .map(|r| (r.traffic_rule_id.as_str(), r.priority))
            .collect();
        assert_eq!(found, [("a", 1), ("b", 9)]);
    }
    // A new rule that is bad is simply not there.
    let new = broken("new", "action", json!("EXPLODE"));
    lab.standin.on(V2, Reply::json(json!([rule("a"), new])));
    lab.round();
    assert_eq!(lab.rules("one"), ["a"]);
    // The first of two rules with one id counts.
    lab.standin.on(
        V2,
        Reply::json(json!([rule("a"), broken("a", "priority", json!(7))])),
    );
    lab.round();
    assert_eq!(lab.application("one")[0].priority, 1);
    assert!(lab.failures().contains("/1/trafficRuleId"));
    // A good rule after a bad one with its id counts.
    lab.standin.on(
        V2,
        Reply::json(json!([
            broken("a", "action", json!(1)),
            broken("a", "priority", json!(7))
        ])),
    );
    lab.round();
    assert_eq!(lab.rules("one"), ["a"]);
    assert_eq!(lab.application("one")[0].priority, 7);
}

#[test]
fn a_rule_without_a_name_may_be_any_of_those_missing() {
    let mut lab = Lab::new(&["one"]);
    lab.standin
        .on(V2, Reply::json(json!([rule("a"), rule("b")])));
    lab.round();
    for nameless in [
        json!(null),
        json!(42),
        json!({}),
        json!({"trafficRuleId": 7}),
        json!({"trafficRuleId": ""}),
    ] {
        lab.standin
            .on(V2, Reply::json(json!([rule("b"), nameless])));
        lab.round();
        assert_eq!(lab.rules("one"), ["b", "a"], "{nameless}");
        assert!(!lab.failures().is_empty());
    }
    lab.standin.on(V2, Reply::json(json!([rule("b")])));
    lab.round();
    assert_eq!(lab.rules("one"), ["b"]);
}
