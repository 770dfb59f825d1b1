use std::sync::Mutex;

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::store::tests::{Script, scripted};

struct Client {
    router: Router,
    store: Arc<Store>,
    script: Arc<Mutex<Script>>,
    _directory: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    /// Checks that it is a problem as MEC 009 wants it, and returns its pointer.
    #[track_caller]
    fn problem(&self, status: u16) -> Option<String> {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(!problem["detail"].as_str().unwrap().is_empty());
        problem["pointer"].as_str().map(str::to_owned)
    }
}

impl Client {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (dataplane, script) = scripted();
        let store = Store::open(directory.path(), dataplane).unwrap();
        let context = Context::new("test", Arc::clone(&store), &FlowMetrics { top: 2 });
        Self {
            router: router(context),
            store,
            script,
            _directory: directory,
        }
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .router
            .clone()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap().to_vec();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(
            "PUT",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    async fn put_if(&self, path: &str, tag: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[("if-match", tag)], body.to_string())
            .await
    }
}

const APP: &str = "/mp2/v1/applications/video";
const RULE: &str = "/mec_app_support/v2/applications/video/traffic_rules/r1";
const DNS: &str = "/mec_app_support/v1/applications/video/dns_rules/d1";

fn rule() -> Value {
    json!({
        "trafficRuleId": "r1", "filterType": "FLOW", "priority": 1, "state": "ACTIVE",
        "trafficFilter": [{"dstAddress": ["203.0.113.9"]}], "action": "FORWARD_DECAPSULATED",
        "dstInterface": {"interfaceType": "IP", "dstIpAddress": "192.0.2.10"}
    })
}

fn application() -> Value {
    json!({
        "appName": "Video", "interface": {"port": "app0"}, "trafficRules": [rule()],
        "dnsRules": [{"dnsRuleId": "d1", "domainName": "video.example", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.10", "state": "ACTIVE"}]
    })
}

async fn with_application() -> Client {
    let client = Client::new();
    let answer = client.put(APP, &application()).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    client
}

#[tokio::test]
async fn an_application_comes_and_goes() {
    let client = Client::new();
    assert_eq!(client.get("/mp2/v1/applications").await.json(), json!([]));
    let created = client.put(APP, &application()).await;
    assert_eq!(
        (created.status, created.header("location").as_str()),
        (201, APP)
    );
    assert_eq!(created.json()["revision"], 1);
    assert_eq!(
        created.json()["changes"][0]["text"],
        "video/r1 prio 1 flow to 203.0.113.9 forward ip 192.0.2.10 via app0"
    );
    assert_eq!(
        client.script.lock().unwrap().applied.last().unwrap().len(),
        1
    );

    let got = client.get(APP).await;
    assert_eq!(got.json()["appInstanceId"], "video");
    assert_eq!(got.json()["source"], "mp2");
    assert_eq!(got.header("etag"), created.header("etag"));
    let again = client.put_if(APP, &got.header("etag"), &got.json()).await;
    assert_eq!(
        (again.status, again.json()["revision"].as_u64()),
        (200, Some(1)),
        "what was read can be written back"
    );

    let gone = client.send("DELETE", APP, &[], Body::empty()).await;
    assert_eq!(gone.status, 200);
    assert_eq!(gone.json()["changes"][0]["kind"], "removed");
    assert_eq!(
        client.script.lock().unwrap().applied.last().unwrap().len(),
        0
    );
    client.get(APP).await.problem(404);
    client
        .send("DELETE", APP, &[], Body::empty())
        .await
        .problem(404);
}

#[tokio::test]
async fn both_editions_of_mp1_show_and_update_rules() {
    let client = with_application().await;
    for edition in ["v1", "v2"] {
        let root = format!("/mec_app_support/{edition}/applications/video");
        assert_eq!(
            client.get(&format!("{root}/traffic_rules")).await.json(),
            json!([rule()])
        );
        assert_eq!(
            client.get(&format!("{root}/traffic_rules/r1")).await.json(),
            rule()
        );
        assert_eq!(
            client
                .get(&format!("{root}/dns_rules"))
                .await
                .json()
                .as_array()
                .unwrap()
                .len(),
            1
        );
    }
    let mut wanted = rule();
    wanted["state"] = "INACTIVE".into();
    wanted["trafficRuleId"] = "the URL wins".into();
    wanted["dstInterface"] = json!([wanted["dstInterface"]]);
    let answer = client.put(RULE, &json!({"TrafficRule": wanted})).await;
    assert_eq!(answer.status, 200);
    wanted["trafficRuleId"] = "r1".into();
    assert_eq!(answer.json(), wanted);
    assert_eq!(answer.header("etag"), client.get(RULE).await.header("etag"));
    assert_eq!(
        client.script.lock().unwrap().applied.last().unwrap().len(),
        0
    );

    let dns = json!({"domainName": "v.example", "ipAddressType": "IPv6", "ipAddress": "::9", "ttl": 3, "state": "INACTIVE"});
    let answer = client.put(DNS, &dns).await;
    assert_eq!(
        (answer.status, answer.json()["ipAddressType"].clone()),
        (200, json!("IP_V6"))
    );
    assert_eq!(answer.header("etag"), client.get(DNS).await.header("etag"));
}

#[tokio::test]
async fn preconditions_hold_or_fail_with_412() {
    let client = with_application().await;
    for path in [RULE, DNS, APP] {
        let got = client.get(path).await;
        let tag = got.header("etag");
        for wrong in ["INVALID_ETAG", "\"x\"", "", "\"", &format!("W/{tag}")] {
            client.put_if(path, wrong, &got.json()).await.problem(412);
        }
        client
            .put_if(path, "INVALID_ETAG", &json!("no rule at all"))
            .await
            .problem(412);
        for right in [tag.clone(), "*".to_owned(), format!("\"x\", {tag}")] {
            assert_eq!(
                client.put_if(path, &right, &got.json()).await.status,
                200,
                "{path} {right}"
            );
        }
        let cached = client
            .send("GET", path, &[("if-none-match", &tag)], Body::empty())
            .await;
        assert_eq!((cached.status, cached.body.len()), (304, 0));
    }
    client
        .put_if("/mp2/v1/applications/new", "*", &application())
        .await
        .problem(412);
    client
        .send("DELETE", APP, &[("if-match", "\"x\"")], Body::empty())
        .await
        .problem(412);
}

#[tokio::test]
async fn refusals_point_at_the_member() {
    let client = with_application().await;
    let before = client.get(APP).await.body;
    for (pointer, value, expected) in [
        ("/priority", json!(555), "/priority"),
        ("/filterType", json!("2FLOW22"), "/filterType"),
        ("/action", json!("UNKNOWN_VALUE"), "/action"),
        ("/trafficFilter", json!([]), "/trafficFilter"),
        (
            "/trafficFilter/0/dstAddress",
            json!(["free text"]),
            "/trafficFilter/0/dstAddress/0",
        ),
        ("/dstInterface", json!(null), "/dstInterface"),
    ] {
        let mut wanted = rule();
        match wanted.pointer_mut(pointer) {
            Some(member) => *member = value,
            None => panic!("{pointer}"),
        }
        let problem = client.put(RULE, &wanted).await.problem(400);
        assert_eq!(problem.as_deref(), Some(expected));
        let whole = json!({"trafficRules": [rule(), wanted]});
        let problem = client.put(APP, &whole).await.problem(400);
        assert_eq!(problem, Some(format!("/trafficRules/1{expected}")));
    }
    for (body, expected) in [
        (
            json!({"trafficRules": [rule(), rule()]}),
            "/trafficRules/1/trafficRuleId",
        ),
        (
            json!({"interface": {"macAddress": "x"}}),
            "/interface/macAddress",
        ),
        (
            json!({"interface": {"ipAddresses": ["x"]}}),
            "/interface/ipAddresses/0",
        ),
        (
            json!({"dnsRules": [{"dnsRuleId": "d", "domainName": "a b", "ipAddressType": "IP_V4", "ipAddress": "192.0.2.1", "state": "ACTIVE"}]}),
            "/dnsRules/0/domainName",
        ),
        (
            json!({"dnsRules": [{"dnsRuleId": "d", "domainName": "a", "ipAddressType": "IP_V6", "ipAddress": "192.0.2.1", "state": "ACTIVE"}]}),
            "/dnsRules/0/ipAddress",
        ),
        (json!([]), ""),
    ] {
        assert_eq!(
            client.put(APP, &body).await.problem(400).as_deref(),
            Some(expected),
            "{body}"
        );
    }
    client
        .put(
            &format!("/mp2/v1/applications/{}", "x".repeat(256)),
            &application(),
        )
        .await
        .problem(400);
    assert_eq!(client.get(APP).await.body, before);
    assert_eq!(client.store.snapshot().revision, 1);
}

#[tokio::test]
async fn errors_of_http_are_problems_too() {
    let client = with_application().await;
    client.get("/nothing").await.problem(404);
    client
        .get("/mec_app_support/v1/applications/none/traffic_rules")
        .await
        .problem(404);
    client
        .get("/mec_app_support/v1/applications/video/traffic_rules/none")
        .await
        .problem(404);
    client
        .put(
            "/mec_app_support/v1/applications/video/traffic_rules/none",
            &rule(),
        )
        .await
        .problem(404);
    client
        .send("POST", RULE, &[], Body::empty())
        .await
        .problem(405);
    client
        .send("DELETE", RULE, &[], Body::empty())
        .await
        .problem(405);
    client
        .send("PUT", RULE, &[("content-type", "text/plain")], "{}")
        .await
        .problem(415);
    client.send("PUT", RULE, &[], "{\"a\":").await.problem(400);
    client
        .send("PUT", RULE, &[], vec![b' '; MEBIBYTE + 1])
        .await
        .problem(413);
    client
        .send(
            "PUT",
            "/mp2/v1/configuration",
            &[],
            vec![b' '; 2 * MEBIBYTE],
        )
        .await
        .problem(400);
    client
        .send(
            "PUT",
            "/mp2/v1/configuration",
            &[],
            vec![b' '; 16 * MEBIBYTE + 1],
        )
        .await
        .problem(413);
    client.get("/mp2/v1/flows?limit=0").await.problem(400);
    client.get("/mp2/v1/flows?colour=red").await.problem(400);
    client.script.lock().unwrap().fail = Some("full".into());
    client.put(APP, &json!({})).await.problem(507);
}

#[tokio::test]
async fn the_configuration_is_one_transaction() {
    let client = with_application().await;
    let wanted = json!({"applications": [{"appInstanceId": "other", "trafficRules": [rule()]}]});
    let rehearsed = client
        .put("/mp2/v1/configuration?dryRun=true", &wanted)
        .await;
    assert_eq!(rehearsed.status, 200);
    let kinds: Vec<_> = rehearsed.json()["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["kind"].clone())
        .collect();
    assert_eq!(kinds, ["added", "removed"]);
    assert_eq!(client.store.snapshot().revision, 1);

    let done = client.put("/mp2/v1/configuration", &wanted).await;
    assert_eq!(done.json()["changes"], rehearsed.json()["changes"]);
    let got = client.get("/mp2/v1/configuration").await;
    assert_eq!(got.header("etag"), done.header("etag"));
    assert_eq!(got.json()["applications"][0]["appInstanceId"], "other");
    client
        .put_if("/mp2/v1/configuration", "junk", &wanted)
        .await
        .problem(412);
    let twice = json!([{"appInstanceId": "a"}, {"appInstanceId": "a"}]);
    assert_eq!(
        client
            .put("/mp2/v1/configuration", &twice)
            .await
            .problem(400)
            .as_deref(),
        Some("/applications/1/appInstanceId")
    );
}

#[tokio::test]
async fn no_update_is_lost_among_concurrent_writers() {
    let client = Arc::new(with_application().await);
    let writers = (0..8).map(|_| {
        let client = Arc::clone(&client);
        tokio::spawn(async move {
            loop {
                let got = client.get(RULE).await;
                let mut wanted = got.json();
                wanted["priority"] = (wanted["priority"].as_u64().unwrap() + 1).into();
                match client
                    .put_if(RULE, &got.header("etag"), &wanted)
                    .await
                    .status
                {
                    200 => return,
                    412 => {}
                    other => panic!("{other}"),
                }
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(client.get(RULE).await.json()["priority"], 9);
}

#[tokio::test]
async fn an_application_of_another_source_is_not_touched() {
    let client = Client::new();
    let file = crate::store::tests::application("video", &["r1"]);
    client
        .store
        .deliver(
            crate::store::Source::Files,
            [("video".parse().unwrap(), file)].into(),
        )
        .await
        .unwrap();
    client.put(APP, &application()).await.problem(409);
    client.put(RULE, &rule()).await.problem(409);
    client
        .send("DELETE", APP, &[], Body::empty())
        .await
        .problem(409);
}

#[tokio::test]
async fn rules_say_whether_they_are_installed_and_why_not() {
    let client = Client::new();
    let mut rules = vec![rule(), rule(), rule(), rule()];
    for (index, rule) in rules.iter_mut().enumerate() {
        rule["trafficRuleId"] = format!("r{}", index + 1).into();
    }
    rules[1]["state"] = "INACTIVE".into();
    rules[2]["trafficFilter"] = json!([{"qCI": 1}]);
    rules[3]["dstInterface"]["x-port"] = "nowhere".into();
    client.put(APP, &json!({"trafficRules": rules})).await;
    let answer = client.get("/mp2/v1/rules?app=video").await.json();
    assert_eq!(
        answer[0]["status"],
        json!({"installed": true, "packets": 2, "bytes": 200, "lastHit": 1.0})
    );
    for (index, word) in [(1, "INACTIVE"), (2, "qCI"), (3, "nowhere")] {
        assert_eq!(answer[index]["status"]["installed"], false);
        assert!(
            answer[index]["status"]["reason"]
                .as_str()
                .unwrap()
                .contains(word)
        );
    }
    assert_eq!(client.get("/mp2/v1/rules?app=none").await.json(), json!([]));
    let status = client.get("/mp2/v1/status").await.json();
    assert_eq!(status["rules"], json!({"desired": 3, "programmed": 1}));
    assert_eq!(status["revision"], json!({"desired": 1, "programmed": 1}));
}

#[tokio::test]
async fn flows_come_in_pages() {
    let client = Client::new();
    let mut seen = Vec::new();
    let mut path = "/mp2/v1/flows?limit=2".to_owned();
    loop {
        let page = client.get(&path).await.json();
        assert_eq!(page["total"], 5);
        seen.extend(
            page["flows"]
                .as_array()
                .unwrap()
                .iter()
                .map(|flow| flow["source"].as_str().unwrap().to_owned()),
        );
        let Some(cursor) = page["nextCursor"].as_str() else {
            break;
        };
        path = format!("/mp2/v1/flows?limit=2&cursor={cursor}");
    }
    assert_eq!(
        seen,
        [
            "10.45.0.1",
            "10.45.0.2",
            "10.45.0.3",
            "10.45.0.4",
            "10.45.0.5"
        ]
    );
    assert_eq!(
        client.get("/mp2/v1/flows?ue=10.45.0.3").await.json()["total"],
        1
    );
    assert_eq!(
        client.get("/mp2/v1/flows?app=video").await.json()["total"],
        4
    );
    assert_eq!(
        client.get("/mp2/v1/flows?rule=other/r1").await.json()["total"],
        1
    );
    client.get("/mp2/v1/flows?ue=x").await.problem(400);
}

#[tokio::test]
async fn explain_refuses_what_it_cannot_build() {
    let client = Client::new();
    let ask = async |body: Value| {
        client
            .send("POST", "/mp2/v1/explain", &[], body.to_string())
            .await
    };
    let flow = "udp 10.45.0.7:5000 > 203.0.113.9:443";
    let answer = ask(json!({"in": "ran0", "flow": flow})).await;
    assert!(
        answer.json()["frame"]
            .as_str()
            .unwrap()
            .starts_with("020000000009020000000001")
    );
    assert_eq!(
        ask(json!({"in": "ran0", "hex": "01 02:03"})).await.json()["frame"],
        "010203"
    );
    for (body, pointer) in [
        (json!({"in": "none", "flow": flow}), "/in"),
        (json!({"in": "ran0", "flow": "x"}), "/flow"),
        (json!({"in": "ran0", "hex": "0"}), "/hex"),
        (json!({"in": "ran0"}), ""),
        (json!({"in": "ran0", "flows": flow}), "/flows"),
    ] {
        assert_eq!(ask(body).await.problem(400).as_deref(), Some(pointer));
    }
}

#[tokio::test]
async fn ports_and_reasons_are_counted() {
    let client = Client::new();
    assert_eq!(
        client.get("/mp2/v1/ports").await.json()[0]["counters"][0]["packets"],
        3
    );
    let reasons = client.get("/mp2/v1/reasons").await.json();
    assert_eq!(
        reasons.as_array().unwrap().len(),
        dataplane_core::Reason::ALL.len()
    );
    assert_eq!(reasons[0]["bytes"], 300);
}

#[tokio::test]
async fn metrics_have_the_right_type_and_the_top_flows_only() {
    let client = with_application().await;
    let metrics = client.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4");
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "edgesteer_rule_packets_total{app=\"video\",rule=\"r1\"} 2",
        "edgesteer_rules_desired 1",
        "edgesteer_flow_table_max_entries 10",
        "edgesteer_xdp_mode{interface=\"eth1\",mode=\"native\",port=\"ran0\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let text = String::from_utf8(client.get("/metrics/flows").await.body).unwrap();
    assert_eq!(text.matches("edgesteer_flow_bytes_total{").count(), 4);
    assert!(text.contains("edgesteer_flows_dropped_from_export_total 3"));
}

#[tokio::test]
async fn events_tell_of_changes() {
    let client = Client::new();
    let mut events = client.store.events();
    client.put(APP, &application()).await;
    let event = events.recv().await.unwrap();
    assert_eq!(
        (event.kind, event.data["revision"].clone()),
        ("rules", json!(1))
    );
    let response = client
        .router
        .clone()
        .oneshot(Request::get("/mp2/v1/events").body(Body::empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
}

#[tokio::test]
async fn every_documented_operation_is_there_and_no_other() {
    let client = Client::new();
    let document = client.get("/openapi.json").await.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let url = path
            .replace("{appInstanceId}", "none")
            .replace("{trafficRuleId}", "r")
            .replace("{dnsRuleId}", "d");
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let known = operations.get(method.to_ascii_lowercase()).is_some();
            let request = Request::builder()
                .method(method)
                .uri(&url)
                .body(Body::empty())
                .unwrap();
            let response = client.router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status() != 405, known, "{method} {path}");
            if known && response.status() != 404 {
                let documented = operations[method.to_ascii_lowercase()]["responses"]
                    .as_object()
                    .unwrap();
                assert!(
                    documented.contains_key(response.status().as_str()),
                    "{method} {path} {}",
                    response.status()
                );
            }
        }
    }
}
