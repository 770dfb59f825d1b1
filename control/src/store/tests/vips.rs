//! VIPs: where their applications are, what checks find, and what a restart brings back.

use super::*;
use crate::vip::{Health, HealthOf, Resolved, State, Vip};

fn vip(change: impl FnOnce(&mut serde_json::Value)) -> Vip {
    let mut wire = json!({
        "vipId": "web", "address": "203.0.113.9", "protocol": "TCP", "port": 443, "mode": "DSR",
        "announce": true, "backends": [{"appInstanceId": "video"}, {"address": "192.0.2.11"}]
    });
    change(&mut wire);
    read(wire).unwrap()
}

fn checked() -> Vip {
    vip(|wire| wire["healthCheck"] = json!({"type": "TCP"}))
}

fn located(address: &str) -> Application {
    let mut application = application("video", &["r1"]);
    application.interface = read(json!({"ipAddresses": [address]})).unwrap();
    application
}

/// What a source says: where an application is, if it is, and a VIP.
fn content(address: Option<&str>, vip: &Vip) -> Content {
    let applications: Vec<_> = address.into_iter().map(located).collect();
    Content {
        vips: [(vip.vip_id.parse().unwrap(), vip.clone())].into(),
        ..all(&applications)
    }
}

fn found(verdicts: &[(&str, bool)]) -> HealthOf {
    let verdicts = verdicts.iter().map(|(backend, up)| {
        let id = ("web".parse().unwrap(), backend.parse().unwrap());
        let down = || Health::Down("connection refused".to_owned());
        (id, if *up { Health::Up } else { down() })
    });
    verdicts.collect()
}

fn now(store: &Store) -> Resolved {
    let snapshot = store.snapshot();
    let entry = snapshot.vips.values().next().unwrap();
    entry.resolve(snapshot.surroundings()).unwrap()
}

fn states(store: &Store) -> Vec<State> {
    now(store).backends.iter().map(|it| it.state).collect()
}

/// The rule of the VIP that the data path took last.
fn rule(script: &Lock<Script>) -> String {
    let script = script.lock().unwrap();
    let rules = script.applied.last().unwrap();
    let rule = rules.get(&"@vip/web".parse().unwrap()).unwrap();
    rule.to_string()
}

fn applied(script: &Lock<Script>) -> usize {
    script.lock().unwrap().applied.len()
}

#[tokio::test]
async fn an_application_takes_its_vips_along() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane.clone(), site()).unwrap();
    let deliver = async |address, vip: &Vip| {
        let refused = store.deliver(Source::Files, content(address, vip)).await;
        assert_eq!(refused.unwrap(), BTreeMap::new());
    };
    deliver(None, &vip(|_| ())).await;
    assert!(!rule(&script).contains("video"), "{}", rule(&script));
    assert_eq!(states(&store), [State::Down, State::Up]);
    deliver(Some("192.0.2.10"), &vip(|_| ())).await;
    assert!(rule(&script).contains("backend video weight 1 up ip 192.0.2.10"));
    deliver(Some("192.0.2.12"), &vip(|_| ())).await;
    assert!(rule(&script).contains("backend video weight 1 up ip 192.0.2.12"));
    assert_eq!(applied(&script), 3, "each in one transaction");

    let again = Store::open(directory.path(), dataplane, site()).unwrap();
    assert_eq!(again.snapshot().desired(), store.snapshot().desired());
    again.reconcile().await.unwrap();
    assert!(rule(&script).contains("192.0.2.12"));
    again.forget(&[Source::Mp2]).await.unwrap();
    again.reconcile().await.unwrap();
    assert!(script.lock().unwrap().applied.last().unwrap().is_empty());
    assert!(Disk::open(directory.path()).unwrap().2.vips.is_empty());
}

#[tokio::test]
async fn what_is_refused_is_left_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let west = vip(|wire| wire["fallback"] = json!({"action": "PEER", "peer": "west"}));
    let east = vip(|wire| wire["fallback"] = json!({"action": "PEER", "peer": "east"}));
    store
        .deliver(Source::Files, content(None, &west))
        .await
        .unwrap();
    assert!(rule(&script).ends_with("else gre 198.51.100.7"));
    let refused = store
        .deliver(Source::Files, content(None, &east))
        .await
        .unwrap();
    assert!(refused["VIP web"].contains("`east`"), "{refused:?}");
    let refused = store
        .deliver(Source::Mep, content(None, &west))
        .await
        .unwrap();
    assert!(refused["VIP web"].contains("`files`"), "{refused:?}");
    let taken = all(&[application("@vip", &["web"])]);
    let refused = store.deliver(Source::Mep, taken).await.unwrap();
    assert!(refused["@vip"].contains("/appInstanceId"), "{refused:?}");
    assert!(rule(&script).ends_with("else gre 198.51.100.7"));
    script.lock().unwrap().fail = Some("no room for VIPs".into());
    store
        .deliver(Source::Files, Content::default())
        .await
        .unwrap_err();
    assert_eq!(store.snapshot().vips.len(), 1);
    assert_eq!(store.snapshot().revision, 1);
}

#[tokio::test]
async fn health_is_in_force_without_a_revision() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let wanted = content(Some("192.0.2.10"), &checked());
    store.deliver(Source::Files, wanted).await.unwrap();
    assert_eq!(states(&store), [State::Down; 2], "nobody has looked yet");
    let written = std::fs::read(directory.path().join("state.log")).unwrap();
    let mut events = store.events.listen();

    store.health(found(&[("video", true)])).await.unwrap();
    assert!(rule(&script).contains("backend video weight 1 up"));
    let (before, after) = {
        let applied = &script.lock().unwrap().applied;
        (applied[0].clone(), applied[1].clone())
    };
    let other = "video/r1".parse().unwrap();
    assert!(Arc::ptr_eq(
        before.get(&other).unwrap(),
        after.get(&other).unwrap()
    ));
    assert!(now(&store).healthy);
    assert_eq!(
        store.snapshot().to_announce(),
        [(IpAddr::from([203, 0, 113, 9]), true)].into()
    );
    for (member, value) in [("state", json!("UP")), ("healthy", json!(true))] {
        let Some(Heard::Event(event)) = events.next().await else {
            panic!("an event is missing");
        };
        let data: serde_json::Value = serde_json::from_str(&event.data).unwrap();
        assert_eq!((event.kind, &data["vip"]), ("vips", &json!("web")));
        assert_eq!(data[member], value);
    }

    store
        .health(found(&[("video", true), ("192.0.2.11", false)]))
        .await
        .unwrap();
    store
        .health(found(&[("video", true), ("nobody", true)]))
        .await
        .unwrap();
    assert_eq!(applied(&script), 2, "nothing has changed for the data path");
    assert_eq!(
        now(&store).backends[1].reason.as_deref(),
        Some("checks fail: connection refused")
    );
    assert_eq!(store.snapshot().revision, 1);
    assert_eq!(
        std::fs::read(directory.path().join("state.log")).unwrap(),
        written
    );

    store
        .announced([(IpAddr::from([203, 0, 113, 9]), Ok(()))].into())
        .await;
    store
        .deliver(Source::Mep, all(&[application("other", &["r1"])]))
        .await
        .unwrap();
    assert_eq!(
        states(&store),
        [State::Up, State::Down],
        "a change of others changes nothing"
    );
    assert_eq!(store.snapshot().announced.len(), 1);
}

#[tokio::test]
async fn who_takes_flows_answers_echo_requests_to_an_address() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let mut wanted = content(Some("192.0.2.10"), &checked());
    let other = vip(|wire| {
        wire["vipId"] = "dns".into();
        wire["backends"] = json!([{"address": "192.0.2.12"}]);
        (wire["protocol"], wire["port"]) = ("UDP".into(), 53.into());
        wire["healthCheck"] = json!({"type": "TCP", "port": 53});
    });
    wanted.vips.insert("dns".parse().unwrap(), other);
    store.deliver(Source::Files, wanted).await.unwrap();
    let silent = || {
        let script = script.lock().unwrap();
        let rules = script.applied.last().unwrap();
        ["@vip/dns", "@vip/web"].map(|id| {
            let rule = rules.get(&id.parse().unwrap()).unwrap();
            rule.to_string().contains("silent")
        })
    };
    assert_eq!(silent(), [false, false], "nobody has looked yet");
    let of_dns = |up: bool| {
        let id = ("dns".parse().unwrap(), "192.0.2.12".parse().unwrap());
        let down = || Health::Down("connection refused".to_owned());
        [(id, if up { Health::Up } else { down() })].into()
    };
    store.health(of_dns(true)).await.unwrap();
    assert_eq!(silent(), [false, true]);
    store.health(found(&[("video", true)])).await.unwrap();
    assert_eq!(silent(), [false, false]);
    store.health(of_dns(false)).await.unwrap();
    assert_eq!(silent(), [true, false]);
    store.health(found(&[("video", false)])).await.unwrap();
    assert_eq!(silent(), [false, false], "as it was in the beginning");
}

#[tokio::test]
async fn health_that_the_data_path_does_not_take_is_offered_again() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let wanted = content(Some("192.0.2.10"), &checked());
    store.deliver(Source::Files, wanted).await.unwrap();
    script.lock().unwrap().fail = Some("the wall".into());
    store.health(found(&[("video", true)])).await.unwrap_err();
    let failed = store.snapshot();
    assert_eq!(failed.failure.as_deref(), Some("the wall"));
    assert!(!failed.in_force() && failed.programmed == failed.revision);
    store.reconcile().await.unwrap_err();
    assert!(!store.snapshot().in_force());
    script.lock().unwrap().fail = None;
    store.health(found(&[("192.0.2.11", true)])).await.unwrap();
    assert!(store.snapshot().in_force());
    let rule = rule(&script);
    assert!(
        rule.contains("192.0.2.11 weight 1 up") && rule.contains("video weight 1 up"),
        "{rule}"
    );
}

#[tokio::test]
async fn what_takes_flows_goes_on_until_checks_fail() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, script) = scripted();
    let store = Store::open(directory.path(), dataplane.clone(), site()).unwrap();
    let deliver = async |vip: Vip| {
        let wanted = content(Some("192.0.2.10"), &vip);
        store.deliver(Source::Files, wanted).await.unwrap();
    };
    deliver(vip(|_| ())).await;
    deliver(checked()).await;
    assert_eq!(states(&store), [State::Up; 2], "a check that is new");
    let third = |wire: &mut serde_json::Value| {
        wire["healthCheck"] = json!({"type": "TCP", "fall": 9});
        let backends = wire["backends"].as_array_mut().unwrap();
        backends.push(json!({"address": "192.0.2.12"}));
    };
    deliver(vip(third)).await;
    assert_eq!(
        states(&store),
        [State::Up, State::Up, State::Down],
        "a backend that is new"
    );
    store.health(found(&[("video", false)])).await.unwrap();
    assert!(rule(&script).contains("video weight 1 down"));

    let again = Store::open(directory.path(), dataplane, site()).unwrap();
    again.presume().await.unwrap();
    again.reconcile().await.unwrap();
    let as_before = [State::Down, State::Up, State::Down];
    assert_eq!(states(&again), as_before, "a daemon that is new");
    again.health(found(&[("video", true)])).await.unwrap();
    assert_eq!(states(&again)[0], State::Up);
    let gone = Content {
        vips: content(None, &vip(third)).vips,
        ..Content::default()
    };
    again.deliver(Source::Files, gone).await.unwrap();
    let back = content(Some("192.0.2.13"), &vip(third));
    again.deliver(Source::Files, back).await.unwrap();
    assert_eq!(
        now(&again).backends[0].health,
        None,
        "another one may be there"
    );
}

#[tokio::test]
async fn an_address_is_announced_while_all_of_its_vips_are_healthy() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    let deliver = async |backends: serde_json::Value, announce: bool| {
        let dns = vip(|wire| {
            wire["vipId"] = "dns".into();
            wire["port"] = 53.into();
            wire["backends"] = backends;
            wire["announce"] = announce.into();
        });
        let mut wanted = content(None, &vip(|_| ()));
        wanted.vips.insert("dns".parse().unwrap(), dns);
        store.deliver(Source::Files, wanted).await.unwrap();
        Vec::from_iter(store.snapshot().to_announce().into_values())
    };
    assert_eq!(
        deliver(json!([{"address": "192.0.2.11"}]), true).await,
        [true]
    );
    assert_eq!(deliver(json!([]), true).await, [false]);
    let nowhere = json!([{"address": "192.0.2.11", "x-port": "nowhere"}]);
    assert_eq!(deliver(nowhere, true).await, [false], "no backend is left");
    assert_eq!(deliver(json!([]), false).await, [true]);
}

/// What an earlier version wrote has no VIPs; a later one may have accepted what this one refuses.
#[tokio::test]
async fn a_vip_that_is_refused_now_is_kept_and_not_installed() {
    let directory = tempfile::tempdir().unwrap();
    let mut bad = json!(vip(|_| ()));
    bad["port"] = 0.into();
    let file = directory.path().join("state.json");
    for (vips, kept) in [(None, 0), (Some(bad), 1)] {
        let mut state = json!({"revision": 7, "applications": []});
        if let Some(vip) = vips {
            state["vips"] = json!([{"source": "mp2", "vip": vip}]);
        }
        std::fs::write(&file, state.to_string()).unwrap();
        let (dataplane, script) = scripted();
        let store = Store::open(directory.path(), dataplane, site()).unwrap();
        store.reconcile().await.unwrap();
        assert!(script.lock().unwrap().applied.last().unwrap().is_empty());
        let vips = store.snapshot().vips.clone();
        assert_eq!(vips.len(), kept);
        for entry in vips.values() {
            let why = entry.refused().unwrap();
            assert!(why.starts_with("this version refuses it: /port"), "{why}");
        }
    }
}

#[tokio::test]
async fn vips_survive_in_state_and_log() {
    let directory = tempfile::tempdir().unwrap();
    let (dataplane, _) = scripted();
    let store = Store::open(directory.path(), dataplane, site()).unwrap();
    for port in [1, 2, 3] {
        let wanted = content(None, &vip(|wire| wire["port"] = port.into()));
        store.deliver(Source::Files, wanted).await.unwrap();
    }
    let reopened = || Disk::open(directory.path()).unwrap().2;
    assert_eq!(reopened(), store.snapshot().desired());
    // A disk that fails has the next change write everything.
    let full = std::fs::File::options().write(true).open("/dev/full");
    let log = store.disk.lock().unwrap().log.replace(full.unwrap());
    store
        .deliver(Source::Files, Content::default())
        .await
        .unwrap_err();
    assert_eq!(store.snapshot().vips.len(), 1);
    store.disk.lock().unwrap().log = log;
    let wanted = content(None, &vip(|wire| wire["port"] = 4.into()));
    store.deliver(Source::Files, wanted).await.unwrap();
    assert_eq!(reopened(), store.snapshot().desired());
    store
        .deliver(Source::Files, Content::default())
        .await
        .unwrap();
    assert!(reopened().vips.is_empty());
}
