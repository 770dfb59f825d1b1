use std::collections::BTreeMap;

use super::*;

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
        (json!({"trafficRule": []}), "/trafficRule"),
        (json!({"interface": {"ports": "app0"}}), "/interface/ports"),
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
async fn what_is_shown_can_be_sent_back() {
    let client = with_application().await;
    for path in [APP, "/mp2/v1/configuration", RULE, DNS] {
        let shown = client.get(path).await;
        let answer = client
            .put_if(path, &shown.header("etag"), &shown.json())
            .await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        assert_eq!(client.get(path).await.body, shown.body);
    }
    assert_eq!(client.store.snapshot().revision, 1, "nothing has changed");
}

#[tokio::test]
async fn what_is_left_out_is_said() {
    let client = Client::new();
    let mut wanted = application();
    wanted["trafficRules"][0]["dstInterface"]["x-port"] = "nowhere".into();
    let answer = client.put(APP, &wanted).await.json();
    assert_eq!(
        answer["notInstalled"],
        json!({"video/r1": "there is no port `nowhere`"})
    );
    assert_eq!(answer["changes"][0].get("before"), None);
    let answer = client.put(APP, &application()).await.json();
    assert_eq!(answer["notInstalled"], json!({}));
    let before = answer["changes"][0]["before"].as_str().unwrap();
    assert!(before.ends_with("via nowhere"), "{before}");
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
    client.get("/mp2/v1/applications/%ff").await.problem(400);
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
    let twice = json!({"applications": [{"appInstanceId": "a"}, {"appInstanceId": "a"}]});
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
            BTreeMap::from([("video".parse().unwrap(), file)]).into(),
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
