use std::sync::Arc;

use dataplane_user::rule::RuleId;
use serde_json::{Value, json};

use super::*;
use crate::{
    mec::{Refusal, read},
    store::{Applications, Entry, Source, VipEntry},
};

fn wire() -> Value {
    json!({
        "vipId": "web", "address": "203.0.113.9", "protocol": "TCP", "port": 443, "mode": "DSR",
        "backends": [{"appInstanceId": "video"}, {"address": "192.0.2.11", "weight": 3, "state": "DRAINING", "x-port": "app1"}]
    })
}

fn entry(wire: &Value) -> Result<VipEntry, Refusal> {
    VipEntry::new(Source::Mp2, read(wire.clone())?).map(|(_, entry)| entry)
}

fn applications(interface: &Value) -> Applications {
    let application = json!({"appInstanceId": "video", "interface": interface});
    let (id, entry) = Entry::new(Source::Mp2, read(application).unwrap()).unwrap();
    [(id, Arc::new(entry))].into()
}

fn resolved(wire: &Value, applications: &Applications, health: &[(&str, Health)]) -> Resolved {
    let health = health.iter().map(|(backend, health)| {
        let id = ("web".parse().unwrap(), backend.parse().unwrap());
        (id, health.clone())
    });
    let peer = crate::config::Config::parse(
        "[[port]]\nname = 'a'\ninterface = 'a'\nrole = 'access'\n\
                [[port]]\nname = 'app0'\ninterface = 'b'\nrole = 'app'\n\
                [[port]]\nname = 'app1'\ninterface = 'c'\nrole = 'core'\n\
         [[peer]]\nname = 'west'\naddress = '198.51.100.7'\nencapsulation = 'gre'\nkey = 5\n",
    );
    let around = Surroundings {
        applications,
        health: &health.collect(),
        site: &peer.unwrap().site(),
    };
    let resolved = entry(wire).unwrap().resolve(around).unwrap();
    let again: dataplane_user::rule::Rule = resolved.rule.to_string().parse().unwrap();
    assert_eq!(again, resolved.rule, "it is a rule as any other");
    resolved
}

fn line(resolved: &Resolved) -> String {
    let text = resolved.rule.to_string();
    let (_, balance) = text.split_once(" balance").unwrap();
    balance.trim().to_owned()
}

#[test]
fn a_vip_is_a_rule() {
    let found = applications(&json!({"port": "app0", "ipAddresses": ["192.0.2.10"]}));
    let now = resolved(&wire(), &found, &[]);
    assert_eq!(
        now.rule.to_string(),
        "@vip/web prio 128 flow to 203.0.113.9 proto tcp dport 443 balance \
         backend 192.0.2.11 weight 3 draining ip 192.0.2.11 via app1 \
         backend video weight 1 up ip 192.0.2.10 via app0"
    );
    assert!(now.healthy && now.trouble.is_none());
    let mut all = wire();
    all["protocol"] = "ANY".into();
    all["x-zone"] = 7.into();
    all["priority"] = 3.into();
    all["affinity"] = "UE".into();
    all["fallback"] = json!({"action": "PEER", "peer": "west"});
    all["backends"] = json!([]);
    let now = resolved(&all, &found, &[]);
    assert_eq!(
        now.rule.to_string(),
        "@vip/web prio 3 flow to 203.0.113.9 dport 443 zone 7 balance ue 3600 else gre 198.51.100.7 key 5"
    );
    assert!(!now.healthy);
    all["affinityTimeoutSeconds"] = 60.into();
    all["fallback"]["peer"] = "east".into();
    let now = resolved(&all, &found, &[]);
    assert_eq!(line(&now), "ue 60");
    assert!(now.trouble.unwrap().contains("`east`"));
}

#[test]
fn backends_are_where_their_application_is() {
    let both = json!({"macAddress": "02:00:00:00:0a:01", "ipAddresses": ["203.0.113.9", "2001:db8::10", "192.0.2.10"]});
    for (mode, extra, interface, expected) in [
        ("DSR", json!({}), &both, "mac 02:00:00:00:0a:01"),
        (
            "DSR",
            json!({}),
            &json!({"ipAddresses": ["2001:db8::10"]}),
            "ip 2001:db8::10",
        ),
        ("DNAT", json!({}), &both, "ip 192.0.2.10 nat"),
        (
            "DNAT",
            json!({"port": 8080}),
            &both,
            "ip 192.0.2.10 nat 8080",
        ),
        ("TUNNEL", json!({}), &both, "gre 192.0.2.10"),
        (
            "TUNNEL",
            json!({"tunnel": {"tunnelType": "VXLAN", "tunnelSrcAddress": "192.0.2.1", "tunnelSpecificData": {"vni": 9}}}),
            &both,
            "vxlan 192.0.2.10 from 192.0.2.1 vni 9 mac 02:00:00:00:0a:01",
        ),
        (
            "TUNNEL",
            json!({"tunnel": {"tunnelType": "GTP_U", "tunnelSpecificData": {"teid": 9, "qfi": 2}}}),
            &both,
            "gtpu 192.0.2.10 teid 9 qfi 2",
        ),
    ] {
        let mut vip = wire();
        vip["mode"] = mode.into();
        vip["backends"] = json!([{"appInstanceId": "video"}]);
        if let Some(port) = extra.get("port") {
            vip["backends"][0]["port"] = port.clone();
        }
        if let Some(tunnel) = extra.get("tunnel") {
            vip["tunnel"] = tunnel.clone();
        }
        let now = resolved(&vip, &applications(interface), &[]);
        assert_eq!(
            line(&now),
            format!("backend video weight 1 up {expected}"),
            "{mode}"
        );
    }
}

#[test]
fn a_backend_that_is_nowhere_is_down_and_says_why() {
    let nowhere = Applications::new();
    let mac = applications(&json!({"macAddress": "02:00:00:00:0a:01"}));
    let multicast = applications(&json!({"macAddress": "01:00:00:00:0a:01"}));
    let v6 = applications(&json!({"ipAddresses": ["2001:db8::10"]}));
    let check = json!({"type": "TCP"});
    for (mode, found, check, words) in [
        ("DSR", &nowhere, None, "there is no application `video`"),
        ("DSR", &applications(&json!({})), None, "no IPv4 address"),
        ("DSR", &multicast, None, "unicast"),
        ("DSR", &mac, Some(&check), "no IPv4 address to check"),
        ("DNAT", &v6, None, "no IPv4 address"),
        ("TUNNEL", &mac, None, "no IPv4 address"),
    ] {
        let mut vip = wire();
        vip["mode"] = mode.into();
        if let Some(check) = check {
            vip["healthCheck"] = check.clone();
        }
        let now = resolved(&vip, found, &[]);
        assert_eq!(now.backends[0].state, State::Down);
        let why = now.backends[0].reason.as_ref().unwrap();
        assert!(why.contains(words), "{why}");
        assert!(!line(&now).contains("video"), "nothing can be sent to it");
        assert!(!now.healthy);
    }
}

#[test]
fn health_is_known_before_flows_come() {
    let found = applications(&json!({"ipAddresses": ["192.0.2.10"]}));
    let mut vip = wire();
    vip["healthCheck"] = json!({"type": "HTTP", "path": "/up"});
    vip["minHealthy"] = 2.into();
    vip["backends"] = json!([
        {"appInstanceId": "video"}, {"address": "192.0.2.11"}, {"address": "192.0.2.12", "state": "DRAINING"},
        {"address": "192.0.2.13", "state": "DOWN"}, {"address": "192.0.2.14", "weight": 0}
    ]);
    let states = |now: &Resolved| now.backends.iter().map(|it| it.state).collect::<Vec<_>>();
    let now = resolved(&vip, &found, &[]);
    assert_eq!(states(&now), [State::Down; 5]);
    assert_eq!(
        now.backends[0].reason.as_deref(),
        Some("no check has passed yet")
    );
    assert_eq!(now.backends[3].reason, None, "it is what is wanted");
    let check = now.backends[1].check.as_ref().unwrap();
    assert_eq!(
        (check.address, check.port),
        (IpAddr::from([192, 0, 2, 11]), 443)
    );

    let up = |name| (name, Health::Up);
    let all = [
        "video",
        "192.0.2.11",
        "192.0.2.12",
        "192.0.2.13",
        "192.0.2.14",
    ]
    .map(up);
    let now = resolved(&vip, &found, &all);
    assert_eq!(
        states(&now),
        [
            State::Up,
            State::Up,
            State::Draining,
            State::Down,
            State::Up
        ]
    );
    assert!(now.healthy);
    let mut one = all.to_vec();
    one[1].1 = Health::Down("connection refused".into());
    let now = resolved(&vip, &found, &one);
    assert_eq!(
        now.backends[1].reason.as_deref(),
        Some("checks fail: connection refused")
    );
    assert!(!now.healthy, "one with weight 0 takes none");
    assert!(line(&now).contains("backend 192.0.2.11 weight 1 down"));
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let cases = [
        ("vipId", json!(""), "/vipId"),
        ("address", json!("web.example"), "/address"),
        ("address", json!("224.0.0.1"), "/address"),
        ("address", json!("::ffff:192.0.2.1"), "/address"),
        ("protocol", json!("ICMP"), "/protocol"),
        ("port", json!(0), "/port"),
        ("x-zone", json!(65536), "/x-zone"),
        ("mode", json!("NAT"), "/mode"),
        ("priority", json!(256), "/priority"),
        (
            "affinityTimeoutSeconds",
            json!(5),
            "/affinityTimeoutSeconds",
        ),
        ("minHealthy", json!(0), "/minHealthy"),
        ("announced", json!(true), "/announced"),
        ("tunnel", json!({"tunnelType": "GRE"}), "/tunnel"),
        ("tunnel", json!(["GRE"]), "/tunnel"),
        ("backends", json!([{}]), "/backends/0"),
        (
            "backends",
            json!([{"appInstanceId": "a", "address": "192.0.2.1"}]),
            "/backends/0",
        ),
        (
            "backends",
            json!([{"appInstanceId": ""}]),
            "/backends/0/appInstanceId",
        ),
        (
            "backends",
            json!([{"address": "127.0.0.1"}]),
            "/backends/0/address",
        ),
        (
            "backends",
            json!([{"address": "203.0.113.9"}]),
            "/backends/0/address",
        ),
        (
            "backends",
            json!([{"address": "192.0.2.1"}, {"address": "192.0.2.1"}]),
            "/backends/1/address",
        ),
        (
            "backends",
            json!([{"appInstanceId": "a", "port": 80}]),
            "/backends/0/port",
        ),
        (
            "backends",
            json!([{"appInstanceId": "a", "weight": 65536}]),
            "/backends/0/weight",
        ),
        (
            "backends",
            json!([{"appInstanceId": "a", "state": "up"}]),
            "/backends/0/state",
        ),
        (
            "backends",
            vec![json!({"appInstanceId": "a"}); 1025].into(),
            "/backends",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "intervalSeconds": 0}),
            "/healthCheck/intervalSeconds",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "timeoutSeconds": 6}),
            "/healthCheck/timeoutSeconds",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "rise": 0}),
            "/healthCheck/rise",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "fall": 101}),
            "/healthCheck/fall",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "path": "/"}),
            "/healthCheck/path",
        ),
        (
            "healthCheck",
            json!({"type": "HTTP", "path": "up"}),
            "/healthCheck/path",
        ),
        (
            "healthCheck",
            json!({"type": "HTTP", "path": "/ HTTP/1.1\r\n"}),
            "/healthCheck/path",
        ),
        (
            "healthCheck",
            json!({"type": "ICMP", "port": 1}),
            "/healthCheck/port",
        ),
        (
            "healthCheck",
            json!({"type": "TCP", "port": 0}),
            "/healthCheck/port",
        ),
        ("healthCheck", json!({"type": "ARP"}), "/healthCheck/type"),
        ("fallback", json!({"action": "PEER"}), "/fallback/peer"),
        (
            "fallback",
            json!({"action": "PASS", "peer": "west"}),
            "/fallback/peer",
        ),
        ("fallback", json!({"action": "DROP"}), "/fallback/action"),
    ];
    for (member, value, pointer) in cases {
        let mut vip = wire();
        vip[member] = value.clone();
        let refusal = entry(&vip).unwrap_err();
        assert_eq!(refusal.pointer, pointer, "{member} {value}: {refusal}");
    }
    let with = |members: &[(&str, Value)]| {
        let mut vip = wire();
        for (member, value) in members {
            vip[*member] = value.clone();
        }
        entry(&vip).unwrap_err().pointer
    };
    let (dnat, tunnel) = (("mode", json!("DNAT")), ("mode", json!("TUNNEL")));
    let sctp = ("protocol", json!("SCTP"));
    let port = ("backends", json!([{"appInstanceId": "a", "port": 80}]));
    assert_eq!(
        with(&[dnat.clone(), sctp.clone(), port]),
        "/backends/0/port"
    );
    let port = ("backends", json!([{"appInstanceId": "a", "port": 0}]));
    assert_eq!(with(&[dnat.clone(), port]), "/backends/0/port");
    let other = ("backends", json!([{"address": "2001:db8::1"}]));
    assert_eq!(with(&[dnat, other]), "/backends/0/address");
    let check = ("healthCheck", json!({"type": "TCP"}));
    assert_eq!(with(&[sctp, check]), "/healthCheck/port");
    let ue = ("affinity", json!("UE"));
    let long = ("affinityTimeoutSeconds", json!(86_401));
    assert_eq!(with(&[ue, long]), "/affinityTimeoutSeconds");
    for (data, pointer) in [
        (
            json!({"tunnelType": "GRE", "tunnelSpecificData": {"vni": 1}}),
            "/tunnel/tunnelSpecificData/vni",
        ),
        (
            json!({"tunnelType": "GRE", "tunnelSpecificData": {"key": 1}}),
            "/tunnel/tunnelSpecificData/key",
        ),
        (
            json!({"tunnelType": "GRE", "tunnelDstAddress": "192.0.2.1"}),
            "/tunnel/tunnelDstAddress",
        ),
        (
            json!({"tunnelType": "GRE", "tunnelSrcAddress": "here"}),
            "/tunnel/tunnelSrcAddress",
        ),
        (
            json!({"tunnelType": "GRE", "tunnelSrcAddress": "2001:db8::1"}),
            "/tunnel/tunnelSrcAddress",
        ),
        (
            json!({"tunnelType": "GTP_U"}),
            "/tunnel/tunnelSpecificData/teid",
        ),
        (
            json!({"tunnelType": "VXLAN", "tunnelSpecificData": {"vni": 16_777_216}}),
            "/tunnel/tunnelSpecificData/vni",
        ),
        (
            json!({"tunnelType": "VXLAN", "tunnelSpecificData": {"vni": 1}}),
            "/tunnel/tunnelSpecificData/macAddress",
        ),
        (
            json!({"tunnelType": "VXLAN", "tunnelSpecificData": {"vni": 1, "macAddress": "01:00:00:00:00:01"}}),
            "/tunnel/tunnelSpecificData/macAddress",
        ),
    ] {
        assert_eq!(
            with(&[tunnel.clone(), ("tunnel", data.clone())]),
            pointer,
            "{data}"
        );
    }
}

#[test]
fn what_is_shown_can_be_sent_back() {
    let mut full = wire();
    full["priority"] = 128.into();
    full["affinity"] = "FLOW".into();
    full["minHealthy"] = 1.into();
    full["announce"] = true.into();
    full["healthCheck"] =
        json!({"type": "TCP", "intervalSeconds": 5, "timeoutSeconds": 2, "rise": 2, "fall": 3});
    full["backends"][0]["weight"] = 1.into();
    full["backends"][0]["state"] = "UP".into();
    full["fallback"] = json!({"action": "PEER", "peer": "west"});
    let vip: Vip = read(full.clone()).unwrap();
    assert_eq!(json!(vip), full);
    assert_eq!(
        vip.to_string(),
        "vip web 203.0.113.9 TCP port 443 prio 128 DSR backend video weight 1 UP \
         backend 192.0.2.11 weight 3 DRAINING via app1 check TCP every 5 timeout 2 rise 2 fall 3 \
         minHealthy 1 announce else peer west"
    );
    full["source"] = "mp2".into();
    full["status"] = json!({"healthy": true});
    assert_eq!(read::<Vip>(full).unwrap(), vip);
    let id: RuleId = "@vip/web".parse().unwrap();
    assert_eq!(id.app.as_ref(), APPLICATION);
}
