//! The store in front of a queue that a test answers. Used by the tests of the API as well.

mod disk;
mod vips;

use std::{
    net::IpAddr,
    sync::Mutex as Lock,
    time::{Duration, UNIX_EPOCH},
};

use dataplane_core::Reason;
use serde_json::json;

use super::*;
use crate::{
    config::Config,
    dataplane::{
        Applied, Count, Expired, Explanation, Flow, FlowCache, FlowPage, FlowQuery, Hits, NextHop,
        Observation, Port, PortCounter, Pressure, Request, RuleCounter, Session, SessionCount,
        SessionPage, SessionState, Status, Tunnels,
    },
    frame::Tunnel,
    mec::{Application, Outcome, read},
    session::{Session as Said, SessionId},
};

/// What the answering task saw, and how it should answer.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) applied: Vec<RuleSet>,
    /// What was said of sessions, and each time how many were said and withdrawn.
    pub(crate) sessions: BTreeMap<SessionId, Arc<Said>>,
    pub(crate) provisioned: Vec<(usize, usize)>,
    /// Why nothing can be said.
    pub(crate) full: Option<String>,
    pub(crate) fail: Option<String>,
}

/// A handle whose requests are answered as `Script` says.
pub(crate) fn scripted() -> (Dataplane, Arc<Lock<Script>>) {
    let (dataplane, mut requests) = Dataplane::new();
    let script = Arc::new(Lock::new(Script::default()));
    let shared = Arc::clone(&script);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            answer(request, &shared);
        }
    });
    (dataplane, script)
}

fn answer(request: Request, script: &Lock<Script>) {
    let mut script = script.lock().unwrap();
    match request {
        Request::Apply(rules, answer) => {
            let unknown = rules
                .iter()
                .filter(|rule| rule.to_string().contains("via nowhere"));
            let not_installed = unknown
                .map(|rule| (rule.id.clone(), "there is no port `nowhere`".to_owned()))
                .collect();
            let result = script.fail.clone().map_or_else(
                || {
                    Ok(Applied {
                        not_installed,
                        ..Applied::default()
                    })
                },
                Err,
            );
            if result.is_ok() {
                script.applied.push(*rules);
            }
            answer.send(result).unwrap();
        }
        Request::Serving(mut backends, answer) => {
            let applied = script.applied.last().cloned().unwrap_or_default();
            backends.retain(|(rule, backend)| {
                let text = applied.get(rule).map(ToString::to_string);
                let up = format!("backend {backend} weight 1 up");
                text.is_some_and(|text| text.contains(&up))
            });
            answer.send(backends).unwrap();
        }
        Request::Observe(answer) => answer.send(observation()).unwrap(),
        Request::Flows(query, answer) => answer.send(flows(&query)).unwrap(),
        Request::Explain {
            port,
            frame,
            answer,
        } => {
            let reason = Reason::ALL[0];
            let (reason, meaning) = (reason.name(), reason.doc());
            let target_port = Some(port);
            let explanation = Explanation {
                reason,
                meaning,
                rule: None,
                backend: None,
                flow: None,
                action: "pass".into(),
                target_port,
                tunnel_in: Tunnel::of(&frame),
                tunnel_out: None,
                frame,
            };
            answer.send(Ok(explanation)).unwrap();
        }
        Request::Sessions(query, answer) => {
            let learned = session(IpAddr::from([10, 45, 0, 99]), SessionState::Pending, false);
            let said = script
                .sessions
                .keys()
                .map(|id| session(id.ue_address, SessionState::Active, true));
            let all = said.chain([learned]).filter(|session| {
                query.ue.is_none_or(|ue| ue == session.ue_address)
                    && query.state.is_none_or(|state| state == session.state)
            });
            let mut sessions: Vec<_> = all.skip(query.from as usize).collect();
            let next = (sessions.len() > query.limit).then(|| query.from + query.limit as u32);
            sessions.truncate(query.limit);
            answer.send(SessionPage { sessions, next }).unwrap();
        }
        Request::Provision(said, withdrawn, answer) => {
            if let Some(why) = &script.full {
                return answer.send(Err(why.clone())).unwrap();
            }
            script.provisioned.push((said.len(), withdrawn.len()));
            script
                .sessions
                .extend(said.into_iter().map(|it| (it.id(), it)));
            for id in withdrawn {
                script.sessions.remove(&id).unwrap();
            }
            answer.send(Ok(())).unwrap();
        }
        Request::Reprovision(sessions, answer) => {
            let all = sessions.iter().map(|it| (it.id(), Arc::clone(it)));
            script.sessions = all.collect();
            answer.send(Ok(())).unwrap();
        }
        Request::Refresh(answer) => answer.send(Ok(Vec::new())).unwrap(),
        Request::Expire(answer) => answer.send(Expired::default()).unwrap(),
    }
}

fn session(ue_address: IpAddr, state: SessionState, provisioned: bool) -> Session {
    Session {
        zone: 0,
        ue_address,
        ran_address: [192, 0, 2, 1].into(),
        core_address: [198, 51, 100, 1].into(),
        bearers: vec![Tunnels {
            uplink_teid: Some(1),
            downlink_teid: None,
            qci: None,
        }],
        qos_flows: Vec::new(),
        provisioned,
        state,
        qfi: Some(9),
        last_seen: Some(UNIX_EPOCH),
    }
}

fn observation() -> Observation {
    let port = Port {
        name: "ran0".into(),
        interface: "eth1".into(),
        role: "access".into(),
        mode: "native".into(),
        mac: Some("02:00:00:00:00:09".into()),
        ..Port::default()
    };
    let counter = PortCounter {
        port: "ran0".into(),
        reason: Reason::ALL[0],
        packets: 3,
        bytes: 300,
    };
    let marker = PortCounter {
        reason: Reason::GtpuEndMarker,
        packets: 4,
        ..counter.clone()
    };
    let hit = UNIX_EPOCH + Duration::from_secs(1);
    let hits = |packets| Hits {
        packets,
        bytes: packets * 100,
        last_hit: Some(hit),
    };
    let rule = |packets| RuleCounter {
        hits: hits(packets),
        flows_ended: 7,
    };
    let rules = [("video/r1", 2), ("@vip/web", 16)];
    let rules = rules.map(|(id, packets)| (id.parse().unwrap(), rule(packets)));
    let backends = [(Some("video"), 11), (None, 5)].map(|(backend, packets)| {
        let backend = backend.map(|it| it.parse().unwrap());
        (("@vip/web".parse().unwrap(), backend), hits(packets))
    });
    Observation {
        status: Status {
            pressure: [("flows", 5), ("sessions", 1)]
                .map(|(name, used)| Pressure {
                    name: name.into(),
                    used,
                    max: 10,
                })
                .to_vec(),
            sessions: vec![SessionCount {
                state: SessionState::Pending,
                provisioned: false,
                sessions: 1,
            }],
            flow_cache: FlowCache {
                lookups: 40,
                misses: 2,
            },
            flows_rechosen: 3,
            ..Status::default()
        },
        ports: vec![port],
        port_counters: vec![counter, marker],
        rule_counters: rules.into(),
        backend_counters: backends.into(),
        flows_ended: 8,
        flows_ended_lost: 9,
        flows_evicted: 6,
        next_hops: vec![NextHop {
            address: IpAddr::from([192, 0, 2, 10]),
            port: Some("app0".into()),
            resolved_port: None,
            resolved_mac: None,
        }],
    }
}

/// Five flows, of which no call looks at more than three.
fn flows(query: &FlowQuery) -> FlowPage {
    let end = (query.from + 3).min(5);
    let mut flows = Vec::new();
    for place in query.from..end {
        let flow = flow(place as u8 + 1);
        let rule = flow.rule.as_ref().unwrap();
        if query.ue.is_none_or(|ue| ue == flow.source)
            && query
                .app
                .as_ref()
                .is_none_or(|app| app == rule.app.as_ref())
            && query
                .rule
                .as_ref()
                .is_none_or(|id| *id == rule.to_string() || id == rule.rule.as_ref())
        {
            if flows.len() == query.limit {
                let next = Some(place);
                return FlowPage { flows, next };
            }
            flows.push(flow);
        }
    }
    let next = (end < 5).then_some(end);
    FlowPage { flows, next }
}

fn flow(number: u8) -> Flow {
    let count = |packets| Count {
        packets,
        bytes: packets * 100,
        wire_bytes: packets * 114,
    };
    Flow {
        source: IpAddr::from([10, 45, 0, number]),
        source_port: 5000,
        destination: IpAddr::from([203, 0, 113, 9]),
        destination_port: 443,
        protocol: 17,
        zone: 0,
        rule: Some(
            if number == 1 { "@vip/web" } else { "video/r1" }
                .parse()
                .unwrap(),
        ),
        backend: (number == 1).then(|| "video".parse().unwrap()),
        ingress: "ran0".into(),
        target: Some("app0".into()),
        upstream: count(u64::from(number)),
        downstream: count(1),
        first_seen: UNIX_EPOCH,
        last_seen: UNIX_EPOCH,
        tcp_flags: [0, 0],
    }
}

pub(crate) fn site() -> Site {
    let text = "[[port]]\nname = 'a'\ninterface = 'a'\nrole = 'access'\n\
                [[port]]\nname = 'app0'\ninterface = 'b'\nrole = 'app'\n\
                [[port]]\nname = 'app1'\ninterface = 'c'\nrole = 'core'\n\
                [[peer]]\nname = 'west'\naddress = '198.51.100.7'\nencapsulation = 'gre'\n";
    Config::parse(text).unwrap().site()
}

pub(crate) fn application(id: &str, rules: &[&str]) -> Application {
    let rules = rules.iter().map(|rule| {
        json!({
            "trafficRuleId": rule, "filterType": "FLOW", "priority": 1, "state": "ACTIVE", "trafficFilter": [{}],
            "action": "FORWARD_DECAPSULATED",
            "dstInterface": {"interfaceType": "IP", "dstIpAddress": "192.0.2.10", "x-port": "app0"}
        })
    });
    read(json!({"appInstanceId": id, "trafficRules": rules.collect::<Vec<_>>()})).unwrap()
}

fn all(applications: &[Application]) -> Content {
    let applications = applications.iter();
    let applications = applications.map(|a| (a.app_instance_id.parse().unwrap(), a.clone()));
    applications.collect::<BTreeMap<_, _>>().into()
}

#[tokio::test]
async fn a_change_is_applied_and_survives_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane.clone(), site()).unwrap();
    store
        .deliver(Source::Mp2, all(&[application("video", &["r1", "r2"])]))
        .await
        .unwrap();
    assert_eq!(script.lock().unwrap().applied.last().unwrap().len(), 2);

    let again = Store::open(directory.path(), dataplane, site()).unwrap();
    assert_eq!(again.snapshot().applications, store.snapshot().applications);
    assert_eq!(
        (again.snapshot().revision, again.snapshot().programmed),
        (1, 0)
    );
    again.reconcile().await.unwrap();
    assert_eq!(again.snapshot().programmed, 1);
}

#[tokio::test]
async fn a_change_that_fails_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    store
        .deliver(Source::Mp2, all(&[application("video", &["r1"])]))
        .await
        .unwrap();
    script.lock().unwrap().fail = Some("the table of filters is full".into());
    let problem = store
        .deliver(Source::Mp2, all(&[application("video", &["r2"])]))
        .await
        .unwrap_err();
    assert_eq!(problem.status, 507);
    assert!(problem.detail.contains("the table of filters is full"));
    assert_eq!(store.snapshot().revision, 1);
    assert_eq!(
        Disk::open(directory.path()).unwrap().2.applications,
        store.snapshot().applications
    );
}

#[tokio::test]
async fn a_source_that_is_not_asked_any_more_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane.clone(), site()).unwrap();
    for (source, id) in [
        (Source::Mp2, "pushed"),
        (Source::Files, "file"),
        (Source::Mep, "polled"),
    ] {
        store
            .deliver(source, all(&[application(id, &["r1"])]))
            .await
            .unwrap();
    }
    let again = Store::open(directory.path(), dataplane, site()).unwrap();
    again.forget(&[Source::Mp2, Source::Mep]).await.unwrap();
    again.reconcile().await.unwrap();
    let names = |applications: &Applications| {
        applications
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&again.snapshot().applications), ["polled", "pushed"]);
    assert_eq!(script.lock().unwrap().applied.last().unwrap().len(), 2);
    assert_eq!(
        (again.snapshot().revision, again.snapshot().programmed),
        (4, 4)
    );
    assert_eq!(
        names(&disk::reopened(directory.path())),
        ["polled", "pushed"]
    );
    again.forget(&[Source::Mp2, Source::Mep]).await.unwrap();
    assert_eq!(again.snapshot().revision, 4, "nothing is left to forget");
}

#[tokio::test]
async fn sources_do_not_touch_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    store
        .deliver(
            Source::Files,
            all(&[application("a", &["r1"]), application("b", &[])]),
        )
        .await
        .unwrap();
    let refused = store
        .deliver(
            Source::Mep,
            all(&[application("b", &["r1"]), application("c", &[])]),
        )
        .await
        .unwrap();
    assert_eq!(
        refused.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["b"]
    );
    store
        .deliver(Source::Files, Content::default())
        .await
        .unwrap();
    let left = store.snapshot();
    assert_eq!(
        left.applications
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        ["c"]
    );
}

#[tokio::test]
async fn what_is_refused_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    store
        .deliver(Source::Files, all(&[application("a", &["r1"])]))
        .await
        .unwrap();
    let before = store.snapshot();
    let refused = store
        .deliver(Source::Files, all(&[application("a", &["r1", "r1"])]))
        .await
        .unwrap();
    assert!(
        refused
            .values()
            .next()
            .unwrap()
            .contains("/trafficRules/1/trafficRuleId")
    );
    assert_eq!(store.snapshot().applications, before.applications);
}
