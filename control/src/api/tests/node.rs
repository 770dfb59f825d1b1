use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::UnixStream,
    sync::watch,
};

use super::*;
use crate::config::Config;

#[tokio::test]
async fn rules_say_whether_they_are_installed_and_why_not() {
    let client = Client::new();
    let mut rules = vec![rule(), rule(), rule(), rule()];
    for (index, rule) in rules.iter_mut().enumerate() {
        rule["trafficRuleId"] = format!("r{}", index + 1).into();
    }
    rules[1]["state"] = "INACTIVE".into();
    rules[2]["trafficFilter"] = json!([{"tag": ["ue-1"]}]);
    rules[3]["dstInterface"]["x-port"] = "nowhere".into();
    client.put(APP, &json!({"trafficRules": rules})).await;
    let answer = client.get("/mp2/v1/rules?app=video").await.json();
    assert_eq!(
        answer[0]["status"],
        json!({"installed": true, "packets": 2, "bytes": 200, "lastHit": 1.0})
    );
    for (index, word) in [(1, "INACTIVE"), (2, "tag"), (3, "nowhere")] {
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
    assert_eq!(
        status["revision"],
        json!({"desired": 1, "programmed": 1, "failure": null})
    );
}

#[tokio::test]
async fn flows_come_in_pages() {
    let client = Client::new();
    let mut seen = Vec::new();
    let mut path = "/mp2/v1/flows?limit=2".to_owned();
    loop {
        let page = client.get(&path).await.json();
        assert!(page["flows"].as_array().unwrap().len() <= 2);
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
    for (query, count) in [
        ("ue=10.45.0.3", 1),
        ("ue=10.45.0.9", 0),
        ("app=video", 4),
        ("rule=@vip/web", 1),
        ("vip=web", 1),
        ("vip=r1", 0),
        ("vip=web&ue=10.45.0.1", 1),
    ] {
        let page = client.get(&format!("/mp2/v1/flows?{query}")).await.json();
        assert_eq!(page["flows"].as_array().unwrap().len(), count, "{query}");
        assert_eq!(page["nextCursor"], Value::Null, "{query}");
    }
    for (query, words) in [
        ("ue=x", "the query is wrong: ue: invalid IP address"),
        ("limt=3", "unknown field `limt`"),
        ("limit=0", "1 to 10000"),
        ("vip=web&rule=r1", "without app and rule"),
        ("vip=web&app=@vip", "without app and rule"),
        ("cursor=zz", "nextCursor"),
        ("cursor=-1", "nextCursor"),
    ] {
        let answer = client.get(&format!("/mp2/v1/flows?{query}")).await;
        answer.problem(400);
        let detail = answer.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(words), "{detail}");
    }
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
    promtool(&text);
    for line in [
        "edgesteer_rule_packets_total{app=\"video\",rule=\"r1\"} 2",
        "edgesteer_flows_ended_total{app=\"video\",rule=\"r1\"} 7",
        "edgesteer_flows_ended_total{app=\"\",rule=\"\"} 8",
        "edgesteer_flows_ended_lost_total 9",
        "edgesteer_rules_desired 1",
        "edgesteer_flow_table_max_entries 10",
        "edgesteer_flow_table_evictions_total 6",
        "edgesteer_flow_cache_lookups_total 40",
        "edgesteer_flow_cache_misses_total 2",
        "edgesteer_session_table_entries 1",
        "edgesteer_sessions{origin=\"learned\",state=\"pending\"} 1",
        "edgesteer_gtpu_messages_total{port=\"ran0\",type=\"end_marker\"} 4",
        "edgesteer_xdp_mode{interface=\"eth1\",mode=\"native\",port=\"ran0\"} 1",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    let text = String::from_utf8(client.get("/metrics/flows").await.body).unwrap();
    promtool(&text);
    assert_eq!(text.matches("edgesteer_flow_bytes_total{").count(), 4);
    assert!(text.contains("edgesteer_flows_dropped_from_export_total 3"));
}

/// Has Prometheus' own tool look at metrics.
pub(super) fn promtool(metrics: &str) {
    let mut tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo xtask setup installs promtool");
    let mut input = tool.stdin.take().unwrap();
    input.write_all(metrics.as_bytes()).unwrap();
    drop(input);
    let output = tool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

/// A client of `/mp2/v1/events` on a real connection, which buffers what it buffers.
struct Reader(BufReader<UnixStream>);

impl Reader {
    async fn connect(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let request = b"GET /mp2/v1/events HTTP/1.1\r\nHost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut reader = Self(BufReader::new(stream));
        // The head of the answer: from here on nothing is missed.
        while !reader.line().await.trim().is_empty() {}
        reader
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).await.unwrap();
        line
    }

    /// The kind and the data of the next event.
    async fn event(&mut self) -> (String, Value) {
        let kind = loop {
            if let Some(kind) = self.line().await.strip_prefix("event: ") {
                break kind.trim().to_owned();
            }
        };
        let line = self.line().await;
        let data = line.strip_prefix("data: ").unwrap();
        (kind, serde_json::from_str(data).unwrap())
    }
}

async fn served(client: &Client, socket: PathBuf) -> watch::Sender<bool> {
    let (stop, stopped) = watch::channel(false);
    let text = format!(
        "[[port]]\nname = 'ran0'\ninterface = 'eth1'\nrole = 'access'\n[api]\nsocket = {socket:?}"
    );
    let config = Config::parse(&text).unwrap();
    let context = Context::new("test", Arc::clone(&client.store), &FlowMetrics { top: 2 });
    serve(&config, context, stopped).await.unwrap().detach_all();
    stop
}

#[tokio::test]
async fn events_tell_of_changes() {
    let client = Client::new();
    let socket = client.directory.path().join("api.sock");
    let _server = served(&client, socket.clone()).await;
    let mut reader = Reader::connect(&socket).await;
    client.put(APP, &application()).await;
    let (kind, data) = reader.event().await;
    assert_eq!((kind.as_str(), &data["revision"]), ("rules", &json!(1)));
}

#[tokio::test]
async fn who_reads_slowly_loses_events_and_they_are_counted() {
    let client = Client::new();
    let socket = client.directory.path().join("api.sock");
    let _server = served(&client, socket.clone()).await;
    let mut slow = Reader::connect(&socket).await;
    let mut fast = Reader::connect(&socket).await;
    // Nothing says how much the connection holds, so publish until it is full.
    let events = &client.store.events;
    let filling = "x".repeat(4096);
    let mut published = 0u64;
    while events.lost.get() < 10 {
        assert!(published < 10_000, "a slow reader is not noticed");
        events.publish("test", &json!({"number": published, "filling": filling}));
        let (_, data) = fast.event().await;
        assert_eq!(data["number"], published, "who reads misses nothing");
        published += 1;
    }
    let text = String::from_utf8(client.get("/metrics").await.body).unwrap();
    assert!(
        text.contains("\nedgesteer_events_lost_total 10\n"),
        "{text}"
    );
    for number in 0..published - 10 {
        assert_eq!(slow.event().await.1["number"], number);
    }
    assert_eq!(
        slow.event().await,
        ("lost".to_owned(), json!({"events": 10}))
    );
}
