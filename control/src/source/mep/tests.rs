//! A platform answers in every ugly way; what counts is what the store then holds.

mod standin;

use std::sync::Mutex;

use prometheus::Registry;
use serde_json::{Value, json};

use self::standin::{Reply, StandIn};
use super::{super::Metrics, *};
use crate::{mec::TrafficRule, store::Source};

#[test]
fn whatever_goes_wrong_the_last_good_rules_stay() {
    let mut lab = Lab::new(&["one"]);
    lab.standin
        .on(V2, Reply::json(json!([rule("r1"), rule("r2")])));
    lab.round();
    assert_eq!(lab.rules("one"), ["r1", "r2"]);
    assert_eq!(lab.failures(), "");

    let whole = json!([rule("r3")]).to_string();
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let huge = vec![b' '; (16 << 20) + 1];
    let deep = "[".repeat(100_000);
    for (name, reply, words) in [
        (
            "error",
            Reply::new("500 Internal Server Error", "", "oops"),
            "answered 500",
        ),
        (
            "busy",
            Reply::new("503 Service Unavailable", "retry-after: 1\r\n", ""),
            "answered 503",
        ),
        (
            "limited",
            Reply::new("429 Too Many Requests", "", ""),
            "answered 429",
        ),
        (
            "forbidden",
            Reply::new("403 Forbidden", "", ""),
            "answered 403",
        ),
        (
            "unauthorized",
            Reply::new("401 Unauthorized", "www-authenticate: Bearer\r\n", ""),
            "answered 401",
        ),
        (
            "bad request",
            Reply::new("400 Bad Request", "", ""),
            "answered 400",
        ),
        (
            "no content",
            Reply::new("204 No Content", "", ""),
            "answered 204",
        ),
        (
            "unasked 304",
            Reply::new("304 Not Modified", "", ""),
            "answered 304",
        ),
        (
            "slow",
            Reply::json(&whole).after(Duration::from_secs(2)),
            "timeout",
        ),
        ("silent", Reply::raw(""), V2),
        (
            "truncated",
            Reply::raw(format!(
                "HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{whole}"
            )),
            V2,
        ),
        (
            "truncated chunks",
            Reply::raw(format!("{chunked}fff\r\n{whole}")),
            V2,
        ),
        (
            "cut header",
            Reply::raw("HTTP/1.1 200 OK\r\ncontent-le"),
            V2,
        ),
        ("not HTTP", Reply::raw("SSH-2.0-OpenSSH_9.2p1\r\n"), V2),
        ("binary", Reply::raw([0, 255, 254, 10, 13, 10, 13, 10]), V2),
        ("empty", Reply::json(""), "EOF"),
        ("cut JSON", Reply::json(&whole[..whole.len() - 2]), "EOF"),
        (
            "HTML",
            Reply::json("<html>It works!</html>"),
            "expected value",
        ),
        (
            "bad UTF-8",
            Reply::new("200 OK", "", b"[\"\xff\"]"),
            "line 1",
        ),
        ("string", Reply::json("\"rules\""), "a string where"),
        ("number", Reply::json("42"), "a number where"),
        ("boolean", Reply::json("true"), "a boolean where"),
        (
            "problem",
            Reply::json(json!({"status": 500, "detail": "no"})),
            "another object",
        ),
        ("huge", Reply::new("200 OK", "", &huge), "limit"),
        ("deep", Reply::json(&deep), "recursion limit"),
        (
            "loop",
            Reply::new("302 Found", &format!("location: {V2}\r\n"), ""),
            "redirect",
        ),
        (
            "nowhere",
            Reply::new("302 Found", "location: http://127.0.0.1:1/\r\n", ""),
            "refused",
        ),
    ] {
        lab.standin.on(V2, reply);
        lab.round();
        let failures = lab.failures();
        assert!(failures.contains(words), "{name}: {words} in {failures}");
        assert_eq!(lab.rules("one"), ["r1", "r2"], "{name}");
    }
    lab.standin.on(V2, Reply::json(&whole));
    lab.round();
    assert_eq!(lab.rules("one"), ["r3"]);
    assert_eq!(lab.failures(), "");
}

#[test]
fn a_platform_that_is_not_there() {
    let mut lab = Lab::before(&["one", "two"]);
    lab.round();
    assert_eq!(
        lab.names(),
        Vec::<String>::new(),
        "404 removes even what was in force before"
    );

    let gone = "http://127.0.0.1:1".to_owned();
    let mut lab = Lab::at(gone, lab.standin, &["one", "two"], &["one", "two"]);
    lab.round();
    assert_eq!(
        lab.names(),
        ["one", "two"],
        "what was in force before stays"
    );
    assert_eq!(
        lab.status.snapshot().failures.len(),
        1,
        "nobody waits twice"
    );
    assert!(
        lab.text()
            .contains("{reason=\"unreachable\",source=\"mep\"} 1")
    );

    let mut lab = Lab::at(
        "http://mep.invalid".to_owned(),
        lab.standin,
        &["one"],
        &["one"],
    );
    lab.round();
    assert_eq!(lab.names(), ["one"]);
}

#[test]
fn only_an_application_that_is_missing_everywhere_is_removed() {
    let mut lab = Lab::new(&["one", "two"]);
    let two = V2.replace("one", "two");
    lab.standin.on(V2, Reply::json(json!([rule("r1")])));
    lab.standin.on(&two, Reply::json(json!([])));
    lab.round();
    assert_eq!(
        lab.names(),
        ["one", "two"],
        "no rules is not the same as no application"
    );

    // It moves to the older edition: never without rules.
    lab.standin.forget();
    lab.standin.on(V1, Reply::json(json!([rule("r2")])));
    lab.round();
    assert_eq!(lab.names(), ["one"]);
    assert_eq!(lab.rules("one"), ["r2"]);

    lab.standin.on(V1, Reply::new("500 Oops", "", ""));
    lab.round();
    assert_eq!(lab.rules("one"), ["r2"]);
    lab.standin.on(
        V1,
        Reply::new("404 Not Found", "", json!({"status": 404}).to_string()),
    );
    lab.standin.on(V2, Reply::new("500 Oops", "", ""));
    lab.round();
    assert_eq!(
        lab.rules("one"),
        ["r2"],
        "one edition is in trouble: it may know"
    );
    lab.standin.on(V2, Reply::new("410 Gone", "", ""));
    lab.round();
    assert_eq!(lab.names(), Vec::<String>::new());
    assert_eq!(lab.failures(), "");
    lab.standin.on(V2, Reply::json(json!([rule("r3")])));
    lab.round();
    assert_eq!(lab.rules("one"), ["r3"]);
}

#[test]
fn an_older_edition_is_found_and_remembered() {
    let mut lab = Lab::new(&["one"]);
    lab.standin.on(V1, Reply::json(json!([rule("r1")])));
    for newer in [
        Reply::new("404 Not Found", "", ""),
        Reply::new("405 Method Not Allowed", "", ""),
        Reply::json("<html>front page</html>"),
    ] {
        lab.standin.on(V2, newer);
        lab.round();
        assert_eq!(lab.rules("one"), ["r1"]);
        assert_eq!(lab.failures(), "");
    }
    lab.standin.requests();
    lab.round();
    assert_eq!(lab.standin.requests().len(), 1);
    assert_eq!(
        roots("http://a/mec_app_support/v1/"),
        ["http://a/mec_app_support/v1"]
    );
    assert_eq!(roots("http://a/x/").len(), 2);
}

#[test]
fn an_unchanged_list_is_not_sent_again() {
    let mut lab = Lab::new(&["one"]);
    let list = json!([rule("r1"), {"trafficRuleId": "r2"}]).to_string();
    lab.standin
        .on(V2, Reply::new("200 OK", "etag: \"v7\"\r\n", list));
    lab.round();
    assert!(!lab.standin.requests()[0].contains("if-none-match"));
    lab.standin
        .on(V2, Reply::new("304 Not Modified", "etag: \"v7\"\r\n", ""));
    lab.round();
    assert!(lab.standin.requests()[0].contains("if-none-match: \"v7\""));
    assert_eq!(lab.rules("one"), ["r1"]);
    assert!(
        lab.failures().contains("/1"),
        "what was wrong still is: {}",
        lab.failures()
    );
    assert_eq!(lab.deliveries(), 1);
}

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
            broken("a", "trafficFilter", json!([{"srcAddress": "10.0.0.1"}])),
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

#[test]
fn ids_are_written_so_that_they_stay_one_part_of_the_path() {
    let id = "a/b?c#d e%ü".parse().unwrap();
    let expected = "http://m/applications/a%2Fb%3Fc%23d%20e%25%C3%BC/traffic_rules";
    assert_eq!(url("http://m", &id), expected);
}

#[test]
fn trouble_slows_polling_down() {
    let mut lab = Lab::new(&["one"]);
    lab.standin.on(V2, Reply::json(json!([])));
    assert!(lab.round() < Duration::from_secs(12));
    lab.standin.on(
        V2,
        Reply::new("503 Service Unavailable", "retry-after: 120\r\n", ""),
    );
    assert_eq!(lab.round(), Duration::from_secs(120));
}

#[test]
fn a_running_poller_follows_and_stops() {
    let lab = Lab::new(&["one"]);
    lab.standin.on(V2, Reply::json(json!([rule("r1")])));
    let (status, delivered) = (Arc::clone(&lab.status), Arc::clone(&lab.delivered));
    let mut poller = lab.poller;
    let worker = Worker::spawn("mep", move |alarm| poller.run(alarm)).unwrap();
    let until = |condition: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < end, "not in time");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    until(&|| status.snapshot().rounds == 1);
    lab.standin
        .on(V2, Reply::json(json!([rule("r1"), rule("r2")])));
    worker.look();
    until(&|| {
        let delivered = delivered.lock().unwrap();
        delivered
            .1
            .values()
            .any(|application| application.traffic_rules.len() == 2)
    });
    drop(worker);
    until(&|| Arc::strong_count(&status) == 2);
}

#[test]
fn certificates_that_cannot_be_used_are_refused_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let timeout = Duration::from_secs(1);
    let refused = |words: &str| {
        let error = Client::new(timeout, Some(&path)).err().unwrap();
        assert!(format!("{error:#}").contains(words), "{error:#}");
    };
    refused("cannot read certificates");
    std::fs::write(&path, "not a certificate").unwrap();
    refused("no certificate");
}

const V2: &str = "/mec_app_support/v2/applications/one/traffic_rules";
const V1: &str = "/mec_app_support/v1/applications/one/traffic_rules";

fn rule(id: &str) -> Value {
    json!({
        "trafficRuleId": id, "filterType": "FLOW", "priority": 1,
        "trafficFilter": [{"dstPort": ["80"]}], "action": "DROP", "state": "ACTIVE"
    })
}

struct Lab {
    standin: StandIn,
    poller: Poller,
    status: Arc<Status>,
    registry: Registry,
    delivered: Arc<Mutex<(usize, Applications)>>,
}

impl Lab {
    fn new(names: &[&str]) -> Self {
        let standin = StandIn::start();
        Self::at(standin.url(), standin, names, &[])
    }

    /// With applications that were in force before.
    fn before(names: &[&str]) -> Self {
        let standin = StandIn::start();
        Self::at(standin.url(), standin, names, names)
    }

    fn at(url: String, standin: StandIn, names: &[&str], before: &[&str]) -> Self {
        let registry = Registry::new();
        let metrics = Metrics::register(&registry).unwrap();
        let status = Arc::new(Status::new(Source::Mep, metrics));
        let delivered: Arc<Mutex<(usize, Applications)>> = Arc::default();
        let shared = Arc::clone(&delivered);
        let deliver = move |applications: &Applications| {
            let mut delivered = shared.lock().unwrap();
            *delivered = (delivered.0 + 1, applications.clone());
            Ok(BTreeMap::new())
        };
        let applications = names
            .iter()
            .map(|name| (name.parse().unwrap(), Interface::default()));
        let platform = Platform {
            url,
            applications: applications.collect(),
            interval: Duration::from_secs(10),
            timeout: Duration::from_millis(500),
            authority: None,
        };
        let before = before
            .iter()
            .map(|name| (name.parse().unwrap(), Application::default()));
        let poller = Poller::new(
            platform,
            before.collect(),
            Box::new(deliver),
            Arc::clone(&status),
        );
        Self {
            standin,
            poller: poller.unwrap(),
            status,
            registry,
            delivered,
        }
    }

    fn round(&mut self) -> Duration {
        self.poller.round()
    }

    fn deliveries(&self) -> usize {
        self.delivered.lock().unwrap().0
    }

    fn names(&self) -> Vec<String> {
        let delivered = self.delivered.lock().unwrap();
        delivered.1.keys().map(ToString::to_string).collect()
    }

    fn application(&self, name: &str) -> Vec<TrafficRule> {
        let delivered = self.delivered.lock().unwrap();
        delivered.1[&name.parse().unwrap()].traffic_rules.clone()
    }

    fn rules(&self, name: &str) -> Vec<String> {
        let rules = self.application(name).into_iter();
        rules.map(|rule| rule.traffic_rule_id).collect()
    }

    fn failures(&self) -> String {
        let failures = self.status.snapshot().failures;
        let lines: Vec<_> = failures.iter().map(ToString::to_string).collect();
        lines.join("\n")
    }

    fn text(&self) -> String {
        let families = self.registry.gather();
        prometheus::TextEncoder::new()
            .encode_to_string(&families)
            .unwrap()
    }
}
