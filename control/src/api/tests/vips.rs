use super::{node::promtool, *};
use crate::vip::{Health, HealthOf};

const ALL: &str = "/mp2/v1/configuration";

async fn with_vip() -> Client {
    let client = Client::new();
    let mut app = application();
    app["interface"]["ipAddresses"] = json!(["192.0.2.10"]);
    client.put(APP, &app).await;
    let answer = client.put(VIP, &vip()).await;
    assert_eq!(answer.status, 201, "{}", answer.json());
    client
}

fn found(backend: &str, health: Health) -> HealthOf {
    let id = ("web".parse().unwrap(), backend.parse().unwrap());
    [(id, health)].into()
}

#[tokio::test]
async fn a_vip_comes_and_goes() {
    let client = Client::new();
    client.get(VIP).await.problem(404);
    assert_eq!(client.get("/mp2/v1/vips").await.json(), json!([]));
    let created = client.put(VIP, &vip()).await;
    assert_eq!(
        (created.status, created.header("location").as_str()),
        (201, VIP)
    );
    let change = &created.json()["changes"][0];
    assert_eq!(
        (&change["kind"], &change["vip"]),
        (&json!("added"), &json!("web"))
    );
    assert!(
        change["text"]
            .as_str()
            .unwrap()
            .starts_with("vip web 203.0.113.9 TCP port 443")
    );
    let rules = || {
        client
            .script
            .lock()
            .unwrap()
            .applied
            .last()
            .unwrap()
            .clone()
    };
    let rule = rules().iter().next().unwrap().to_string();
    assert_eq!(
        rule,
        "@vip/web prio 128 flow to 203.0.113.9 proto tcp dport 443 balance \
         backend 192.0.2.11 weight 1 down ip 192.0.2.11 nat else gre 198.51.100.7"
    );

    let got = client.get(VIP).await;
    assert_eq!(got.header("etag"), created.header("etag"));
    assert_eq!(
        (&got.json()["vipId"], &got.json()["source"]),
        (&json!("web"), &json!("mp2"))
    );
    let again = client.put_if(VIP, &got.header("etag"), &got.json()).await;
    assert_eq!(
        (again.status, again.json()["revision"].as_u64()),
        (200, Some(1)),
        "what was read can be written back"
    );
    let listed = client.get("/mp2/v1/vips").await;
    assert_eq!(listed.json(), json!([got.json()]));
    let tag = listed.header("etag");
    let cached = client
        .send(
            "GET",
            "/mp2/v1/vips",
            &[("if-none-match", &tag)],
            Body::empty(),
        )
        .await;
    assert_eq!(cached.status, 304);

    let gone = client.send("DELETE", VIP, &[], Body::empty()).await;
    assert_eq!(gone.json()["changes"][0]["kind"], "removed");
    assert!(rules().is_empty());
    client
        .send("DELETE", VIP, &[], Body::empty())
        .await
        .problem(404);
}

#[tokio::test]
async fn the_status_says_what_is_and_why() {
    let client = with_vip().await;
    let status = async || client.get(VIP).await.json()["status"].clone();
    let unknown = status().await;
    let wait = "no check has passed yet";
    assert_eq!(
        unknown,
        json!({
            "installed": true, "healthy": false, "announced": false,
            "packets": 16, "bytes": 1600, "lastHit": 1.0,
            "backends": [
                {"id": "video", "state": "DOWN", "health": "UNKNOWN", "reason": wait,
                 "packets": 11, "bytes": 1100, "lastHit": 1.0},
                {"id": "192.0.2.11", "state": "DOWN", "health": "UNKNOWN", "reason": wait, "packets": 0, "bytes": 0}
            ],
            "fallback": {"packets": 5, "bytes": 500, "lastHit": 1.0}
        })
    );
    let tag = client.get(VIP).await.header("etag");
    client
        .store
        .health(found("video", Health::Up))
        .await
        .unwrap();
    let down = Health::Down("no answer".to_owned());
    client
        .store
        .health(found("192.0.2.11", down))
        .await
        .unwrap();
    client
        .store
        .announced([(std::net::IpAddr::from([203, 0, 113, 9]), Ok(()))].into())
        .await;
    let known = status().await;
    assert_eq!(
        (&known["healthy"], &known["announced"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(
        known["backends"][0],
        json!({"id": "video", "state": "UP", "health": "UP", "packets": 11, "bytes": 1100, "lastHit": 1.0})
    );
    assert_eq!(known["backends"][1]["reason"], "checks fail: no answer");
    assert_eq!(
        client.get(VIP).await.header("etag"),
        tag,
        "nothing else was said"
    );

    client.send("DELETE", APP, &[], Body::empty()).await;
    let lost = status().await;
    assert_eq!(
        lost["backends"][0]["reason"],
        "there is no application `video`"
    );
    assert_eq!(lost["healthy"], false);

    client.script.lock().unwrap().fail = Some("the wall".into());
    client
        .store
        .health(found("192.0.2.11", Health::Up))
        .await
        .unwrap_err();
    let failed = status().await;
    assert_eq!(failed["installed"], false);
    assert!(failed["reason"].as_str().unwrap().contains("the wall"));
    let node = client.get("/mp2/v1/status").await.json();
    assert_eq!(node["vips"], 1);
    assert_eq!(node["rules"], json!({"desired": 1, "programmed": 0}));
    assert_eq!(node["revision"]["failure"], "the wall");
}

#[tokio::test]
async fn a_backend_behind_no_port_does_not_take_its_vip_along() {
    let client = with_vip().await;
    let mut wanted = vip();
    wanted["healthCheck"] = Value::Null;
    wanted["backends"][1]["state"] = "UP".into();
    wanted["backends"][1]["x-port"] = "nowhere".into();
    let answer = client.put(VIP, &wanted).await.json();
    assert_eq!(answer["notInstalled"], json!({}), "{answer}");
    let status = client.get(VIP).await.json()["status"].clone();
    assert_eq!(
        (&status["installed"], &status["healthy"]),
        (&json!(true), &json!(true))
    );
    let backends = status["backends"].as_array().unwrap();
    assert_eq!(
        (&backends[0]["state"], &backends[1]["state"]),
        (&json!("UP"), &json!("DOWN"))
    );
    assert_eq!(
        backends[1]["reason"],
        "there is no port \"nowhere\"; there are a, app0, app1"
    );
    client.script.lock().unwrap().fail = Some("VIPs do not fit".into());
    client.put(VIP, &vip()).await.problem(507);
}

#[tokio::test]
async fn refusals_point_at_the_member() {
    let client = with_vip().await;
    for (member, value, pointer) in [
        ("address", json!("web.example"), "/address"),
        ("mode", json!("NAT"), "/mode"),
        (
            "backends",
            json!([{"appInstanceId": "a", "port": "x"}]),
            "/backends/0/port",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "rise": 0}),
            "/healthCheck/rise",
        ),
        (
            "fallback",
            json!({"action": "PEER", "peer": "east"}),
            "/fallback/peer",
        ),
        ("weight", json!(1), "/weight"),
    ] {
        let mut wanted = vip();
        wanted[member] = value.clone();
        let answer = client.put(VIP, &wanted).await;
        assert_eq!(answer.problem(400).as_deref(), Some(pointer), "{value}");
        wanted["vipId"] = "web".into();
        let answer = client.put(ALL, &json!({"vips": [wanted]})).await;
        assert_eq!(
            answer.problem(400),
            Some(format!("/vips/0{pointer}")),
            "{value}"
        );
    }
    let mut named = vip();
    named["vipId"] = "a".into();
    let answer = client.put(ALL, &json!({"vips": [named, named]})).await;
    assert_eq!(answer.problem(400).as_deref(), Some("/vips/1/vipId"));
    let bad = format!("/mp2/v1/vips/{}", "x".repeat(256));
    assert_eq!(
        client.put(&bad, &vip()).await.problem(400).as_deref(),
        Some("/vipId")
    );
    let taken = client
        .put("/mp2/v1/applications/@vip", &application())
        .await;
    assert_eq!(taken.problem(400).as_deref(), Some("/appInstanceId"));
    client
        .put_if(VIP, "\"x\"", &json!("none"))
        .await
        .problem(412);
    client
        .put_if("/mp2/v1/vips/new", "*", &vip())
        .await
        .problem(412);
    let conflict = [("if-match", "\"x\"")];
    client
        .send("DELETE", VIP, &conflict, Body::empty())
        .await
        .problem(412);
    assert_eq!(client.store.snapshot().revision, 2);
}

#[tokio::test]
async fn vips_are_part_of_the_configuration() {
    let client = with_vip().await;
    let all = client.get(ALL).await.json();
    assert_eq!(all["vips"].as_array().unwrap().len(), 1);
    assert!(all["vips"][0].get("status").is_none());
    let same = client.put(ALL, &all).await.json();
    assert_eq!(
        (&same["changes"], &same["revision"]),
        (&json!([]), &json!(2))
    );
    let rehearsed = client
        .put(&format!("{ALL}?dryRun=true"), &json!({"vips": []}))
        .await;
    assert_eq!(rehearsed.json()["changes"][0]["vip"], "web");
    let mut changed = all.clone();
    changed["vips"][0]["backends"][0]["weight"] = 7.into();
    let change = client.put(ALL, &changed).await.json()["changes"][0].clone();
    assert_eq!(change["kind"], "changed");
    assert!(change["text"].as_str().unwrap().contains("weight 7"));
    assert!(change["before"].as_str().unwrap().contains("weight 1"));
    client.put(ALL, &json!({"applications": []})).await;
    assert_eq!(
        client.store.snapshot().vips.len(),
        1,
        "what is not named stays"
    );
    client.put(ALL, &json!({"vips": []})).await;
    assert!(client.store.snapshot().vips.is_empty());
}

#[tokio::test]
async fn a_vip_of_another_source_is_not_touched() {
    let client = Client::new();
    let mut wanted = vip();
    wanted["vipId"] = "web".into();
    let content = crate::store::Content {
        vips: [(
            "web".parse().unwrap(),
            crate::mec::read(wanted.clone()).unwrap(),
        )]
        .into(),
        ..Default::default()
    };
    let source = crate::store::Source::Files;
    client.store.deliver(source, content).await.unwrap();
    client.put(VIP, &vip()).await.problem(409);
    client
        .put(ALL, &json!({"vips": [wanted]}))
        .await
        .problem(409);
    client
        .send("DELETE", VIP, &[], Body::empty())
        .await
        .problem(409);
    assert_eq!(client.get(VIP).await.json()["source"], "files");
    assert_eq!(client.get(ALL).await.json()["vips"], json!([]));
}

#[tokio::test]
async fn metrics_tell_of_backends() {
    let client = with_vip().await;
    client
        .store
        .health(found("video", Health::Up))
        .await
        .unwrap();
    let text = String::from_utf8(client.get("/metrics").await.body).unwrap();
    promtool(&text);
    for line in [
        "edgesteer_vip_healthy{vip=\"web\"} 1",
        "edgesteer_vip_backend_up{backend=\"video\",vip=\"web\"} 1",
        "edgesteer_vip_backend_up{backend=\"192.0.2.11\",vip=\"web\"} 0",
        "edgesteer_vip_backends{state=\"up\",vip=\"web\"} 1",
        "edgesteer_vip_announced{vip=\"web\"} 0",
        "edgesteer_vip_backend_packets_total{backend=\"video\",vip=\"web\"} 11",
        "edgesteer_vip_backend_bytes_total{backend=\"\",vip=\"web\"} 500",
        "edgesteer_vip_flows_rechosen_total 3",
        "edgesteer_vip_backends{state=\"draining\",vip=\"web\"} 0",
        "edgesteer_vip_backends{state=\"down\",vip=\"web\"} 1",
        "edgesteer_vip_backend_checks_total{backend=\"video\",result=\"timed_out\",vip=\"web\"} 0",
        "edgesteer_vip_backend_check_duration_seconds{backend=\"video\",vip=\"web\"} 0.02",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}
