use super::*;

#[tokio::test]
async fn what_is_said_of_a_session_comes_and_goes() {
    let client = Client::new();
    client.get(SESSION).await.problem(404);
    let created = client.put(SESSION, &session()).await;
    assert_eq!(
        (created.status, created.header("location").as_str()),
        (201, SESSION)
    );
    let change = &created.json()["changes"][0];
    assert_eq!(
        (&change["kind"], &change["session"], &change["text"]),
        (
            &json!("added"),
            &json!("0/10.45.0.7"),
            &json!(
                "session 0/10.45.0.7 ran 192.0.2.1 core 198.51.100.1 teids 4660 22136 qci 9 qfi 9 5qi 8"
            )
        )
    );
    assert_eq!(client.script.lock().unwrap().provisioned, [(1, 0)]);

    let got = client.get(SESSION).await;
    let mut expected = session();
    expected["zone"] = 0.into();
    expected["ueAddress"] = "10.45.0.7".into();
    expected["provisioned"] = true.into();
    assert_eq!(got.json(), expected);
    assert_eq!(got.header("etag"), created.header("etag"));

    let again = client
        .put_if(SESSION, &got.header("etag"), &got.json())
        .await;
    assert_eq!(
        (again.status, again.json()["revision"].as_u64()),
        (200, Some(1))
    );
    assert_eq!(
        client.script.lock().unwrap().provisioned,
        [(1, 0), (1, 0)],
        "what is said again is in force again"
    );

    let gone = client.send("DELETE", SESSION, &[], Body::empty()).await;
    assert_eq!(gone.status, 200);
    assert_eq!(gone.json()["changes"][0]["kind"], "removed");
    assert!(client.script.lock().unwrap().sessions.is_empty());
    client
        .send("DELETE", SESSION, &[], Body::empty())
        .await
        .problem(404);
}

#[tokio::test]
async fn a_rule_for_a_qci_that_nobody_has_says_so() {
    let client = Client::new();
    let mut application = application();
    let filter = |qci: u8| json!({"dstAddress": ["203.0.113.9"], "qCI": qci});
    application["trafficRules"][0]["trafficFilter"] = json!([filter(8)]);
    let answer = client.put(APP, &application).await.json();
    let waits = json!({"video/r1": "no session says QCI or 5QI 8"});
    assert_eq!(answer["notInstalled"], waits);
    let status = async || client.get("/mp2/v1/rules").await.json()[0]["status"].clone();
    let programmed =
        async || client.get("/mp2/v1/status").await.json()["rules"]["programmed"].clone();
    let refused = async |words: &str| {
        let status = status().await;
        assert_eq!(status["installed"], false);
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains(words), "{reason}");
    };
    refused("no session says QCI or 5QI 8").await;
    assert_eq!(programmed().await, 0);

    // QCI 9 of a bearer, and 5QI 8 of a QoS flow.
    client.put(SESSION, &session()).await;
    assert_eq!(status().await["installed"], true);
    assert_eq!(programmed().await, 1);
    for (filters, installed) in [
        (json!([filter(9)]), true),
        (json!([filter(7)]), false),
        (json!([filter(7), filter(8)]), true),
        (json!([{"qCI": 7}, {"dstAddress": ["203.0.113.9"]}]), true),
        (json!([{"qCI": 8, "x-zone": 0}]), true),
        (json!([{"qCI": 8, "x-zone": 2}]), false),
    ] {
        application["trafficRules"][0]["trafficFilter"] = filters;
        let answer = client.put(APP, &application).await.json();
        let left_out = answer["notInstalled"].get("video/r1");
        assert_eq!(left_out.is_none(), installed, "{answer}");
        assert_eq!(status().await["installed"], installed, "{application}");
    }
    refused("no session of zone 2 says QCI or 5QI 8").await;
    application["trafficRules"][0]["trafficFilter"] = json!([filter(8)]);
    client.put(APP, &application).await;
    let mut other = session();
    other["qosFlows"] = json!([]);
    client.put(SESSION, &other).await;
    refused("QCI or 5QI 8").await;
    client.put(SESSION, &session()).await;
    assert_eq!(status().await["installed"], true);
    client.send("DELETE", SESSION, &[], Body::empty()).await;
    refused("QCI or 5QI 8").await;
}

#[tokio::test]
async fn what_packets_taught_is_shown_and_cannot_be_removed() {
    let client = Client::new();
    let learned = client.get("/mp2/v1/sessions/0/10.45.0.99").await;
    assert_eq!(learned.json()["provisioned"], false);
    assert!(!learned.headers.contains_key("etag"));
    let path = "/mp2/v1/sessions/0/10.45.0.99";
    client
        .send("DELETE", path, &[], Body::empty())
        .await
        .problem(404);
    client.put_if(path, "*", &session()).await.problem(412);
}

#[tokio::test]
async fn sessions_come_in_pages() {
    let client = Client::new();
    for ue in 1..=4 {
        let path = format!("/mp2/v1/sessions/0/10.45.0.{ue}");
        assert_eq!(client.put(&path, &session()).await.status, 201);
    }
    let mut seen = Vec::new();
    let mut path = "/mp2/v1/sessions?limit=2".to_owned();
    loop {
        let page = client.get(&path).await.json();
        let sessions = page["sessions"].as_array().unwrap();
        seen.extend(sessions.iter().map(|it| it["ueAddress"].clone()));
        match page["nextCursor"].as_str() {
            Some(next) => path = format!("/mp2/v1/sessions?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), 5, "{seen:?}");
    for (query, found) in [
        ("state=PENDING", 1),
        ("ue=10.45.0.2", 1),
        ("state=ENDED", 0),
    ] {
        let page = client
            .get(&format!("/mp2/v1/sessions?{query}"))
            .await
            .json();
        assert_eq!(page["sessions"].as_array().unwrap().len(), found, "{query}");
    }
    for wrong in [
        "limit=0",
        "cursor=x",
        "state=LOST",
        "ue=nobody",
        "zone=65536",
        "app=video",
    ] {
        client
            .get(&format!("/mp2/v1/sessions?{wrong}"))
            .await
            .problem(400);
    }
}

#[tokio::test]
async fn refusals_point_at_the_member() {
    let client = Client::new();
    let teids = |up, down| json!({"uplinkTeid": up, "downlinkTeid": down});
    let flow = |qfi, five_qi| json!({"qfi": qfi, "5qi": five_qi});
    let flows = |count| (0..count).map(|qfi| flow(qfi, 1)).collect::<Vec<_>>();
    for (member, value, pointer) in [
        ("ranAddress", json!("192.0.3.1"), "/ranAddress"),
        ("ranAddress", json!("gnb"), "/ranAddress"),
        ("ranAddress", json!("::ffff:192.0.2.1"), "/ranAddress"),
        ("coreAddress", json!("198.51.100.2"), "/coreAddress"),
        ("coreAddress", json!("2001:db8::1"), "/coreAddress"),
        ("bearers", json!([]), "/bearers"),
        ("bearers", json!([[1, 2]]), "/bearers/0"),
        ("bearers", json!([{"uplinkTeid": 1}]), "/bearers/0"),
        (
            "bearers",
            (0..5).map(|teid| teids(teid, teid)).collect(),
            "/bearers",
        ),
        (
            "bearers",
            json!([teids(1, 1), teids(1, 2)]),
            "/bearers/1/uplinkTeid",
        ),
        (
            "bearers",
            json!([teids(1, 1), teids(2, 1)]),
            "/bearers/1/downlinkTeid",
        ),
        (
            "bearers",
            json!([teids(4_294_967_296_u64, 1)]),
            "/bearers/0/uplinkTeid",
        ),
        (
            "bearers",
            json!([{"uplinkTeid": 1, "downlinkTeid": 1, "qci": 0}]),
            "/bearers/0/qci",
        ),
        (
            "bearers",
            json!([{"uplinkTeid": 1, "downlinkTeid": 1, "qCI": 1}]),
            "/bearers/0/qCI",
        ),
        ("qosFlows", json!([flow(64, 1)]), "/qosFlows/0/qfi"),
        ("qosFlows", json!([flow(1, 0)]), "/qosFlows/0/5qi"),
        (
            "qosFlows",
            json!([flow(1, 1), flow(1, 2)]),
            "/qosFlows/1/qfi",
        ),
        ("qosFlows", flows(9).into(), "/qosFlows"),
        ("teid", json!(1), "/teid"),
    ] {
        let mut wanted = session();
        wanted[member] = value.clone();
        let answer = client.put(SESSION, &wanted).await;
        assert_eq!(answer.problem(400).as_deref(), Some(pointer), "{value}");
        let all = json!({"sessions": [{}]});
        let mut all = all.clone();
        wanted["ueAddress"] = "10.45.0.7".into();
        all["sessions"][0] = wanted;
        let answer = client.put("/mp2/v1/configuration", &all).await;
        let below = format!("/sessions/0{pointer}");
        assert_eq!(answer.problem(400), Some(below), "{value}");
    }
    for (path, pointer) in [
        ("/mp2/v1/sessions/65536/10.45.0.7", "/zone"),
        ("/mp2/v1/sessions/0/nobody", "/ueAddress"),
        ("/mp2/v1/sessions/0/0.0.0.0", "/ueAddress"),
        ("/mp2/v1/sessions/0/::ffff:10.45.0.7", "/ueAddress"),
    ] {
        let answer = client.put(path, &session()).await;
        assert_eq!(answer.problem(400).as_deref(), Some(pointer), "{path}");
    }
    client.put(SESSION, &json!("none")).await.problem(400);
    client
        .put_if(SESSION, "\"x\"", &json!("none"))
        .await
        .problem(412);
    assert!(client.script.lock().unwrap().provisioned.is_empty());
    assert_eq!(client.store.snapshot().revision, 0);
}

#[tokio::test]
async fn a_data_path_without_room_changes_nothing() {
    let client = with_application().await;
    client.script.lock().unwrap().full = Some("sessions do not fit".into());
    client.put(SESSION, &session()).await.problem(507);
    client.get(SESSION).await.problem(404);
    let mut wanted = session();
    wanted["ueAddress"] = "10.45.0.7".into();
    let all = json!({"applications": [], "sessions": [wanted]});
    client.put("/mp2/v1/configuration", &all).await.problem(507);
    assert_eq!(
        client.script.lock().unwrap().applied.last().unwrap().len(),
        1,
        "the rules are those from before"
    );
    assert_eq!(client.store.snapshot().revision, 1);
}

#[tokio::test]
async fn sessions_are_part_of_the_configuration_and_survive_a_restart() {
    const ALL: &str = "/mp2/v1/configuration";
    let client = with_application().await;
    client.put(SESSION, &session()).await;
    client
        .put("/mp2/v1/sessions/1/2001:db8::7", &session())
        .await;
    let all = client.get(ALL).await.json();
    assert_eq!(all["sessions"].as_array().unwrap().len(), 2);

    let rehearsed = client
        .put(&format!("{ALL}?dryRun=true"), &json!({"sessions": []}))
        .await;
    assert_eq!(rehearsed.json()["changes"].as_array().unwrap().len(), 2);
    let untouched = client.put(ALL, &json!({"applications": []})).await;
    assert_eq!(untouched.json()["changes"][0]["kind"], "removed");
    assert_eq!(client.store.snapshot().sessions.len(), 2);
    let same = client.put(ALL, &json!({"sessions": all["sessions"]})).await;
    assert_eq!(same.json()["changes"], json!([]));
    let said = client.script.lock().unwrap().provisioned.len();
    assert_eq!(said, 2, "what stays is not said again");
    client.put(ALL, &json!({})).await.problem(400);

    client.send("DELETE", SESSION, &[], Body::empty()).await;
    let (dataplane, script) = scripted();
    let again = Store::open(client.directory.path(), dataplane, site()).unwrap();
    assert_eq!(again.snapshot().sessions, client.store.snapshot().sessions);
    again.reconcile().await.unwrap();
    let ids: Vec<_> = script.lock().unwrap().sessions.keys().copied().collect();
    assert_eq!(ids, ["1/2001:db8::7".parse().unwrap()]);
}
