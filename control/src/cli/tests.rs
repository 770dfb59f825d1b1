use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn tables_are_aligned_and_say_both_directions() {
    let flows = json!([{
        "protocol": "udp", "source": "2001:db8::7", "sourcePort": 5000, "destination": "203.0.113.9", "destinationPort": 443,
        "rule": "video/r1", "ingress": "ran0", "target": "app0",
        "upstream": {"packets": 10, "bytes": 2048}, "downstream": {"packets": 2000, "bytes": 5_000_000}
    }]);
    let table = table::render(Kind::Flows, &flows, false);
    assert_eq!(
        table,
        "PROTO  SOURCE              DESTINATION      RULE      PORTS        UP PKTS  UP BYTES  DOWN PKTS  DOWN BYTES\n\
         udp    [2001:db8::7]:5000  203.0.113.9:443  video/r1  ran0 > app0  10       2.0 KiB   2000       4.8 MiB\n"
    );
    assert_eq!(table::render(Kind::Rules, &json!([]), true), "none");
}

#[test]
fn a_difference_shows_both_sides_and_what_is_left_out() {
    let outline = json!({
        "revision": 7,
        "changes": [
            {"kind": "added", "rule": "a/r", "text": "a/r prio 1 flow any drop"},
            {"kind": "changed", "rule": "a/s", "text": "a/s prio 2 flow any drop", "before": "a/s prio 1 flow any drop"},
        ],
        "notInstalled": {"a/r": "there is no port `x`"},
    });
    assert_eq!(
        table::changes(&outline),
        "+ a/r prio 1 flow any drop\n~ a/s prio 2 flow any drop\n  was a/s prio 1 flow any drop\n"
    );
    assert_eq!(
        table::outcome(&outline),
        "in force, revision 7, but NOT all rules:\n! a/r is left out: there is no port `x`"
    );
    assert_eq!(
        table::outcome(&json!({"revision": 8})),
        "in force, revision 8"
    );
}

#[test]
fn vips_show_what_is_and_why() {
    let vip = json!({
        "vipId": "web", "address": "203.0.113.9", "protocol": "TCP", "port": 443, "mode": "DSR", "source": "mp2",
        "backends": [{"appInstanceId": "video", "weight": 1}, {"address": "192.0.2.11", "weight": 3}],
        "status": {
            "installed": true, "healthy": true, "announced": false, "packets": 9, "bytes": 2048,
            "backends": [
                {"id": "video", "state": "UP", "health": "UP", "packets": 5, "bytes": 1024},
                {"id": "192.0.2.11", "state": "DOWN", "health": "DOWN", "reason": "checks fail: no answer",
                 "packets": 0, "bytes": 0}
            ],
            "fallback": {"packets": 4, "bytes": 1024}
        }
    });
    let all = "VIP  ADDRESS      PROTO  PORT  MODE  UP   HEALTHY  ANNOUNCED  INSTALLED  PACKETS  BYTES    SOURCE\n\
               web  203.0.113.9  TCP    443   DSR   1/2  yes      no         yes        9        2.0 KiB  mp2\n";
    let backends = "VIP  BACKEND             WEIGHT  STATE  HEALTH  PACKETS  BYTES    WHY\n\
                    web  video               1       UP     UP      5        1.0 KiB  -\n\
                    web  192.0.2.11          3       DOWN   DOWN    0        0 B      checks fail: no answer\n\
                    web  (none takes flows)  -       -      -       4        1.0 KiB  -\n";
    assert_eq!(table::render(Kind::Vips, &json!([vip]), false), all);
    let both = format!("{all}\n{backends}");
    assert_eq!(table::render(Kind::Vips, &json!([vip]), true), both);
    assert_eq!(table::render(Kind::Vips, &vip, false), both);
    assert_eq!(table::render(Kind::Vips, &json!([]), true), "none");
}

#[test]
fn every_problem_of_a_vip_is_located() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text.replace('\'', "\"")).unwrap();
        path
    };
    let vip = "{'vipId': 'web', 'address': '203.0.113.9', 'protocol': 'TCP', 'port': 443, 'mode': 'DSR',\
                'backends': [{'appInstanceId': 'video'}], 'fallback': {'action': 'PEER', 'peer': 'west'}}";
    let said = |vips: &[&str]| format!("{{'vips': [{}]}}", vips.join(", "));
    let peer = "[[port]]\nname = 'ran0'\ninterface = 'ran0'\nrole = 'access'\n\
                [[peer]]\nname = 'west'\naddress = '198.51.100.7'\nencapsulation = 'gre'\n";
    let config = |text: &str| Config::parse(text).unwrap();
    let good = file("good.json", &said(&[vip]));
    assert_eq!(check::wanted(&good).unwrap().vips.unwrap().len(), 1);
    let error = check::rules(&good, Some(&config(&peer.replace("west", "east"))));
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("VIP `web`: /fallback/peer"), "{error}");

    let alone = file(
        "alone.json",
        &said(&[&vip.replace(", 'fallback': {'action': 'PEER', 'peer': 'west'}", "")]),
    );
    let what = check::rules(&alone, Some(&config(peer))).unwrap();
    assert_eq!(what, "0 applications, 0 traffic rules, 1 VIP");
    std::fs::remove_file(&alone).unwrap();

    let later = vip.replace("web", "dns");
    file(
        "wrong.json",
        &said(&[
            vip,
            &later.replace("443", "0"),
            &later.replace("DSR", "DNAT").replace("443", "53"),
        ]),
    );
    file("unread.json", &said(&[&vip.replace("TCP", "ICMP")]));
    let error = check::wanted(directory.path()).unwrap_err().to_string();
    for words in [
        "unread.json: /vips/0/protocol",
        "wrong.json: VIP `dns`: /port",
        "wrong.json: /vipId: `web` is in",
        "wrong.json: /vipId: `dns` is in",
    ] {
        assert!(error.contains(words), "{words} in {error}");
    }
}

#[test]
fn every_problem_of_a_file_is_located() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write(
        "a.json",
        r#"[{"appInstanceId": "a", "interface": {"macAddress": "x"}}, {"appInstanceId": "b"}]"#,
    );
    write(
        "b.yaml",
        "appInstanceId: b\n---\nappInstanceId: c\ntrafficRules:\n- {priority: 555}\n- {trafficRuleId: r, filterType: FLOW, \
         priority: 1, state: ACTIVE, action: DROP, trafficFilter: [{dstPort: [http]}]}\n",
    );
    let error = check::wanted(directory.path()).unwrap_err().to_string();
    for words in [
        "a.json: application `a`: /interface/macAddress",
        "(document 2): /trafficRules/0/priority: invalid value: integer `555`, expected a whole number from 0 to 255",
        "(document 2): /trafficRules/1/trafficFilter/0/dstPort/0",
        "b.yaml: /appInstanceId: `b`",
    ] {
        assert!(error.contains(words), "{words} in {error}");
    }
    write("a.json", "[]");
    write("b.yaml", "appInstanceId: b\n");
    assert_eq!(
        check::wanted(directory.path())
            .unwrap()
            .applications
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn what_the_data_path_would_not_take_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let port = |name: &str, role: &str| {
        format!("[[port]]\nname = '{name}'\ninterface = '{name}'\nrole = '{role}'\n")
    };
    let config = |limits: &str| {
        let text = port("ran0", "access") + &port("app0", "app") + limits;
        Config::parse(&text).unwrap()
    };
    let rule = |id: &str, rest: &str| {
        let rest = rest.replace('\'', "\"");
        format!(r#"{{"trafficRuleId": "{id}", "priority": 1, "state": "ACTIVE", {rest}}}"#)
    };
    let drop = "'filterType': 'FLOW', 'trafficFilter': [{}], 'action': 'DROP'";
    let forward = |kind: &str, destination: &str| {
        format!(
            "'filterType': '{kind}', 'trafficFilter': [{{}}], 'action': 'FORWARD_DECAPSULATED', 'dstInterface': [{destination}]"
        )
    };
    let mac = "{'interfaceType': 'MAC', 'dstMacAddress': '02:00:00:00:0a:01', 'x-port': 'app0'}";
    let many: Vec<String> = (0..4097).map(|port| format!("'{}'", 2 * port)).collect();
    let many = format!(
        "'filterType': 'FLOW', 'trafficFilter': [{{'srcPort': [{}]}}], 'action': 'DROP'",
        many.join(", ")
    );
    let limits = "[limits]\nrules = 2";
    for (rules, limits, words) in [
        (vec![drop.to_owned(); 2], limits, None),
        (
            vec![drop.to_owned(); 3],
            limits,
            Some("rules do not fit: 3 needed, 2 allowed"),
        ),
        (
            vec![drop.to_owned(); 3],
            "[limits]\nfilters = 2",
            Some("filters do not fit"),
        ),
        (vec![drop.to_owned(); 600], "", Some("one by one")),
        (vec![many], "", Some("a/r0 would be left out: its lists")),
        (
            vec![forward("PACKET", &format!("{mac}, {mac}"))],
            "",
            Some("needs filterType FLOW"),
        ),
        (
            vec![forward("FLOW", &mac.replace("app0", "app9"))],
            "",
            Some("there is no port \"app9\""),
        ),
        (
            vec![
                "'filterType': 'FLOW', 'trafficFilter': [{'uri': ['http://x']}], 'action': 'DROP'"
                    .to_owned(),
            ],
            "",
            Some("a/r0 would be left out: a URI"),
        ),
    ] {
        let rules = rules
            .iter()
            .enumerate()
            .map(|(n, rest)| rule(&format!("r{n}"), rest));
        let text = format!(
            r#"{{"appInstanceId": "a", "trafficRules": [{}]}}"#,
            rules.collect::<Vec<_>>().join(", ")
        );
        let path = file("rules.json", &text);
        match (check::rules(&path, Some(&config(limits))), words) {
            (Ok(_), None) => {}
            (Err(error), Some(words)) => {
                let error = error.to_string();
                assert!(error.contains(words), "{words} in {error}");
                assert!(error.contains("rules.json"), "{error}");
            }
            (result, words) => panic!("{words:?}: {result:?}"),
        }
    }
    // Without a configuration, nobody knows the ports.
    let forward = rule("r", &forward("FLOW", mac));
    let text = format!(r#"{{"appInstanceId": "a", "trafficRules": [{forward}]}}"#);
    check::rules(&file("rules.json", &text), None).unwrap();
}

#[test]
fn a_daemon_that_does_not_run_is_said_to() {
    let error = Client::new("unix:/nonexistent/api.sock")
        .unwrap()
        .get("/")
        .unwrap_err();
    assert!(format!("{error:#}").contains("does not run"), "{error:#}");
    assert!(Client::new("ftp://x").is_err());
}

#[test]
fn captures_are_read() {
    let mut file = vec![
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
    ];
    file.extend([0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0xab, 0xcd]);
    assert_eq!(pcap::frames(&file).unwrap(), [[0xab, 0xcd]]);
    file.pop();
    assert!(pcap::frames(&file).is_err());
    assert!(pcap::frames(b"no").is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_talks_to_the_daemon_over_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("run/api.sock");
    let text = format!(
        "[[port]]\nname = \"ran0\"\ninterface = \"eth1\"\nrole = \"access\"\n[api]\nsocket = {socket:?}"
    );
    let config = Config::parse(&text).unwrap();
    let (dataplane, _) = crate::store::tests::scripted();
    let store = crate::store::Store::open(directory.path(), dataplane, crate::vip::Site::default())
        .unwrap();
    let context = crate::api::Context::new("test", store, &config.metrics.flows);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut servers = crate::api::serve(&config, context.clone(), stopped.clone())
        .await
        .unwrap();
    let second = crate::api::serve(&config, context.clone(), stopped.clone())
        .await
        .unwrap_err();
    assert!(second.to_string().contains("another edgesteer"), "{second}");

    let file = directory.path().join("rules.yaml");
    let rules = "appInstanceId: a/b\ntrafficRules:\n- {trafficRuleId: r, filterType: FLOW, priority: 1, state: ACTIVE, action: DROP, trafficFilter: [{}]}";
    std::fs::write(&file, rules).unwrap();
    let server = format!("unix:{}", socket.display());
    tokio::task::spawn_blocking(move || {
        let client = Client::new(&server).unwrap();
        assert!(apply(&client, &file, true).unwrap());
        assert!(
            client
                .get("/mp2/v1/rules")
                .unwrap()
                .as_array()
                .unwrap()
                .is_empty()
        );
        assert!(apply(&client, &file, false).unwrap());
        assert!(get(&client, Kind::Rules, Some("none"), Output::Wide).is_err());
        let vip =
            json!({"address": "203.0.113.9", "protocol": "ANY", "mode": "DSR", "backends": []});
        client
            .send(Method::PUT, "/mp2/v1/vips/a%2Fb", Some(&vip))
            .unwrap();
        for (kind, id) in [
            (Kind::Vips, None),
            (Kind::Vips, Some("a/b")),
            (Kind::Rules, Some("r")),
            (Kind::Rules, Some("a%2Fb/r")),
            (Kind::Reasons, Some("no_rule")),
            (Kind::Applications, Some("a/b")),
            (Kind::Flows, None),
            (Kind::Status, None),
        ] {
            assert!(get(&client, kind, id, Output::Table).unwrap());
        }
        for (of, count) in [
            (None, 5),
            (Some("10.45.0.3"), 1),
            (Some("video"), 4),
            (Some("@vip/web"), 1),
        ] {
            let flows = get::flows(&client, of).unwrap();
            assert_eq!(flows.as_array().unwrap().len(), count, "{of:?}");
        }
        assert!(delete(&client, Removable::Vip, "a/b").unwrap());
        assert!(get(&client, Kind::Vips, Some("a/b"), Output::Json).is_err());
        let refused = client
            .send(
                Method::PUT,
                "/mp2/v1/applications/x",
                Some(&json!({"interface": 1})),
            )
            .unwrap_err();
        assert!(refused.to_string().contains("/interface"), "{refused}");
    })
    .await
    .unwrap();

    stop.send_replace(true);
    while servers.join_next().await.is_some() {}
    assert!(
        socket.exists(),
        "it is stale, and the next daemon takes it over"
    );
    // A process that another test forks may have the listener for a moment, until it becomes another program.
    let mut again = crate::api::serve(&config, context.clone(), stopped.clone()).await;
    for _ in 0..100 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        again = crate::api::serve(&config, context.clone(), stopped.clone()).await;
    }
    again.unwrap();
}
