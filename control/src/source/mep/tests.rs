//! A platform answers in every ugly way; what counts is what the store then holds.

mod answers;
mod rules;
mod standin;
mod tls;

use std::sync::Mutex;

use prometheus::Registry;
use serde_json::{Value, json};

use self::standin::StandIn;
use super::{super::Metrics, *};
use crate::{mec::TrafficRule, store::Source};

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
    delivered: Arc<Mutex<(usize, Content)>>,
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
        let delivered: Arc<Mutex<(usize, Content)>> = Arc::default();
        let shared = Arc::clone(&delivered);
        let deliver = move |content: &Content| {
            let mut delivered = shared.lock().unwrap();
            *delivered = (delivered.0 + 1, content.clone());
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
            before.collect::<BTreeMap<_, _>>().into(),
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
        delivered
            .1
            .applications
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    fn application(&self, name: &str) -> Vec<TrafficRule> {
        let delivered = self.delivered.lock().unwrap();
        delivered.1.applications[&name.parse().unwrap()]
            .traffic_rules
            .clone()
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
