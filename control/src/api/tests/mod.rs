mod node;
mod resources;
mod schema;
mod sessions;
mod vips;

use std::{
    sync::Mutex,
    time::{Duration, UNIX_EPOCH},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::*;
use crate::store::tests::{Script, scripted, site};

struct Client {
    router: Router,
    store: Arc<Store>,
    script: Arc<Mutex<Script>>,
    directory: tempfile::TempDir,
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

/// What is known of a backend.
fn checked() -> health::State {
    let key = health::Key {
        vip: "web".to_owned(),
        backend: "video".to_owned(),
    };
    let mut health = health::Health::new(None, UNIX_EPOCH);
    health.latency = Some(Duration::from_millis(20));
    [(key, health)].into()
}

impl Client {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (dataplane, script) = scripted();
        let store = Store::open(directory.path(), dataplane, site()).unwrap();
        let ranges = |range: &str| vec![range.parse().unwrap()];
        let context = Context {
            gtpu: Arc::new(Gtpu {
                ran: ranges("192.0.2.0/24"),
                core: ranges("198.51.100.1"),
                mss_clamp: false,
            }),
            checks: watch::Sender::new(checked()).subscribe(),
            ..Context::new("test", Arc::clone(&store), &FlowMetrics { top: 2 })
        };
        Self {
            router: router(context),
            store,
            script,
            directory,
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

const SESSION: &str = "/mp2/v1/sessions/0/10.45.0.7";

fn session() -> Value {
    json!({
        "ranAddress": "192.0.2.1", "coreAddress": "198.51.100.1",
        "bearers": [{"uplinkTeid": 4660, "downlinkTeid": 22136, "qci": 9}],
        "qosFlows": [{"qfi": 9, "5qi": 8}]
    })
}

const VIP: &str = "/mp2/v1/vips/web";

fn vip() -> Value {
    json!({
        "address": "203.0.113.9", "protocol": "TCP", "port": 443, "mode": "DNAT", "announce": true,
        "backends": [{"appInstanceId": "video", "port": 8443}, {"address": "192.0.2.11", "state": "DRAINING"}],
        "healthCheck": {"type": "HTTP", "path": "/up"}, "fallback": {"action": "PEER", "peer": "west"}
    })
}

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
