//! What becomes of an answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    super::{super::Worker, roots, url},
    Lab, V1, V2, rule,
    standin::Reply,
};

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
            .applications
            .values()
            .any(|application| application.traffic_rules.len() == 2)
    });
    drop(worker);
    until(&|| Arc::strong_count(&status) == 2);
}
