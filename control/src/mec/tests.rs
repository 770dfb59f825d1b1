use serde_json::json;

use super::*;

fn base() -> Value {
    json!({
        "trafficRuleId": "r1", "filterType": "FLOW", "priority": 1, "state": "ACTIVE",
        "trafficFilter": [{"srcAddress": ["10.45.0.0/16"], "dstPort": ["80", "8000-8999"], "protocol": ["tcp"]}],
        "action": "FORWARD_DECAPSULATED",
        "dstInterface": {"interfaceType": "IP", "dstIpAddress": "192.0.2.10", "x-nat": true, "x-port": "app0"}
    })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut rule = base();
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    let parent = rule.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    parent.insert(member.to_owned(), value);
    rule
}

fn converted(value: Value) -> Result<Outcome, Refusal> {
    let interface = Interface {
        port: Some("app9".into()),
        ..Interface::default()
    };
    rule(&read(value)?, &"video".parse().unwrap(), &interface)
}

fn text(value: Value) -> String {
    match converted(value).unwrap() {
        Outcome::Enforceable(rule) => rule.to_string(),
        Outcome::NotEnforceable(why) => panic!("{why}"),
    }
}

#[test]
fn a_rule_becomes_a_line() {
    assert_eq!(
        text(base()),
        "video/r1 prio 1 flow from 10.45.0.0/16 proto tcp dport 80,8000-8999 forward ip 192.0.2.10 nat via app0"
    );
}

#[test]
fn every_spelling_means_the_same() {
    for (old, new) in [
        ("FORWARD_AS_IS", "FORWARD_ENCAPSULATED"),
        ("DUPLICATE_AS_IS", "DUPLICATE_ENCAPSULATED"),
        ("DUPLICATED_DECAPSULATED", "DUPLICATE_DECAPSULATED"),
    ] {
        let rule: TrafficRule = read(with("/action", json!(old))).unwrap();
        assert_eq!(serde_json::to_value(&rule).unwrap()["action"], new);
    }
    let mac = with(
        "/dstInterface",
        json!([{"interfaceType": "MAC", "dstMACAddress": "02-00-00-00-00-01"}]),
    );
    assert!(text(mac).ends_with("forward mac 02:00:00:00:00:01 via app9"));
    assert!(
        text(with(
            "/trafficFilter",
            json!([{"protocol": ["any"], "srcAddress": null}])
        ))
        .contains(" flow any ")
    );
    assert!(text(with("/serName", json!("unknown members are ignored"))).starts_with("video/r1"));
    assert!(text(with("/action", json!("DROP"))).ends_with(" drop"));
    assert!(text(with("/action", json!("PASSTHROUGH"))).ends_with(" passthrough"));
}

#[test]
fn the_shape_of_the_destination_is_kept() {
    for shape in [
        json!({"interfaceType": "IP", "dstIpAddress": "::2"}),
        json!([{"interfaceType": "IP", "dstIpAddress": "::2"}]),
    ] {
        let rule: TrafficRule = read(with("/dstInterface", shape.clone())).unwrap();
        assert_eq!(rule.destinations().len(), 1);
        assert_eq!(serde_json::to_value(&rule).unwrap()["dstInterface"], shape);
    }
}

#[test]
fn numbers_and_single_values_become_lists_of_strings() {
    let filter = json!([{
        "srcAddress": "10.45.0.0/16", "srcPort": 5000, "dstPort": [80, "443", "8000-8999"], "protocol": [6, 17]
    }]);
    let sent = with("/trafficFilter", filter);
    assert!(
        text(sent.clone())
            .contains(" from 10.45.0.0/16 proto tcp,udp sport 5000 dport 80,443,8000-8999 ")
    );
    let rule: TrafficRule = read(sent).unwrap();
    let echo = json!([{
        "srcAddress": ["10.45.0.0/16"], "srcPort": ["5000"], "dstPort": ["80", "443", "8000-8999"],
        "protocol": ["6", "17"]
    }]);
    assert_eq!(json!(rule)["trafficFilter"], echo);
}

#[test]
fn a_wrapper_is_taken_off() {
    assert_eq!(
        unwrap(json!({"TrafficRule": base()}), "TrafficRule"),
        base()
    );
    assert_eq!(unwrap(base(), "TrafficRule"), base());
}

#[test]
fn refusals_point_at_the_member() {
    for (pointer, value, expected) in [
        ("/priority", json!(555), "/priority"),
        ("/priority", json!("1"), "/priority"),
        ("/priority", json!(-1), "/priority"),
        ("/filterType", json!("2FLOW22"), "/filterType"),
        ("/action", json!("UNKNOWN_VALUE"), "/action"),
        ("/state", json!("UNKNOWN_VALUE"), "/state"),
        ("/trafficFilter", json!([]), "/trafficFilter"),
        ("/trafficFilter", json!({}), "/trafficFilter"),
        ("/trafficFilter", json!([[]]), "/trafficFilter/0"),
        (
            "/trafficFilter/0/srcAddress",
            json!(["10.0.0.1", "x"]),
            "/trafficFilter/0/srcAddress/1",
        ),
        (
            "/trafficFilter/0/srcAddress",
            json!([7]),
            "/trafficFilter/0/srcAddress/0",
        ),
        (
            "/trafficFilter/0/dstAddress",
            json!(["::1"]),
            "/trafficFilter/0",
        ),
        (
            "/trafficFilter/0/dstPort",
            json!(["70000"]),
            "/trafficFilter/0/dstPort/0",
        ),
        (
            "/trafficFilter/0/dstPort",
            json!(["80", 80.5]),
            "/trafficFilter/0/dstPort/1",
        ),
        (
            "/trafficFilter/0/dstPort",
            json!([-1]),
            "/trafficFilter/0/dstPort/0",
        ),
        (
            "/trafficFilter/0/dstPort",
            json!({"from": 80}),
            "/trafficFilter/0/dstPort",
        ),
        (
            "/trafficFilter/0/dstPort",
            json!([true]),
            "/trafficFilter/0/dstPort/0",
        ),
        (
            "/trafficFilter/0/protocol",
            json!(["free text"]),
            "/trafficFilter/0/protocol/0",
        ),
        ("/trafficFilter/0/dSCP", json!(64), "/trafficFilter/0/dSCP"),
        ("/trafficFilter/0/qCI", json!(0), "/trafficFilter/0/qCI"),
        ("/trafficFilter/0/qCI", json!(256), "/trafficFilter/0/qCI"),
        ("/trafficFilter/0/qCI", json!("5"), "/trafficFilter/0/qCI"),
        (
            "/trafficFilter/0/srcTunnelAddress",
            json!(["192.0.2.1", "gnb"]),
            "/trafficFilter/0/srcTunnelAddress/1",
        ),
        (
            "/trafficFilter/0/tgtTunnelAddress",
            json!(["198.51.100.1-198.51.100.0"]),
            "/trafficFilter/0/tgtTunnelAddress/0",
        ),
        (
            "/trafficFilter/0/srcTunnelPort",
            json!(["65536"]),
            "/trafficFilter/0/srcTunnelPort/0",
        ),
        (
            "/trafficFilter/0/dstTunnelPort",
            json!("gtpu"),
            "/trafficFilter/0/dstTunnelPort/0",
        ),
        (
            "/trafficFilter",
            json!([{"srcTunnelAddress": ["192.0.2.1"], "tgtTunnelAddress": ["2001:db8::1"]}]),
            "/trafficFilter/0",
        ),
        ("/trafficRuleId", json!(""), "/trafficRuleId"),
        ("/dstInterface", json!(null), "/dstInterface"),
        ("/dstInterface", json!([]), "/dstInterface"),
        (
            "/dstInterface/interfaceType",
            json!("WIRE"),
            "/dstInterface/interfaceType",
        ),
        (
            "/dstInterface/dstIpAddress",
            json!("300.1.1.1"),
            "/dstInterface/dstIpAddress",
        ),
        (
            "/dstInterface/dstIpAddress",
            json!("224.0.0.1"),
            "/dstInterface",
        ),
        (
            "/dstInterface",
            json!([{"interfaceType": "MAC"}]),
            "/dstInterface/0/dstMacAddress",
        ),
        (
            "/dstInterface",
            json!([{"interfaceType": "MAC", "dstMacAddress": "z"}]),
            "/dstInterface/0/dstMacAddress",
        ),
        (
            "/dstInterface",
            json!({"interfaceType": "TUNNEL"}),
            "/dstInterface/tunnelInfo",
        ),
        // It has `x-nat`.
        (
            "/action",
            json!("DUPLICATE_DECAPSULATED"),
            "/dstInterface/x-nat",
        ),
        (
            "/trafficFilter/0/srcAddress",
            json!(["2001:db8::/64"]),
            "/dstInterface/x-nat",
        ),
        ("/filterType", json!("PACKET"), "/dstInterface/x-nat"),
    ] {
        assert_eq!(
            converted(with(pointer, value.clone())).unwrap_err().pointer,
            expected,
            "{pointer} = {value}"
        );
    }
    for member in ["filterType", "priority", "trafficFilter", "action", "state"] {
        let mut rule = base();
        rule.as_object_mut().unwrap().remove(member);
        assert!(
            converted(rule).unwrap_err().detail.contains(member),
            "{member}"
        );
    }
}

/// A destination of type TUNNEL.
fn tunnel(kind: &str, data: Value) -> Value {
    json!({
        "interfaceType": "TUNNEL",
        "dstMacAddress": "02-00-00-00-00-01",
        "tunnelInfo": {
            "tunnelType": kind,
            "tunnelDstAddress": "192.0.2.10",
            "tunnelSrcAddress": "192.0.2.1",
            "tunnelSpecificData": data
        }
    })
}

#[test]
fn tunnels_are_read_and_written_back() {
    let ends = "192.0.2.10 from 192.0.2.1";
    for (kind, data, expected) in [
        (
            "GTP_U",
            json!({"teid": 4660, "qfi": 9}),
            format!("gtpu {ends} teid 4660 qfi 9"),
        ),
        (
            "GTP-U",
            json!({"teid": 4660, "ours": "kept"}),
            format!("gtpu {ends} teid 4660"),
        ),
        (
            "GRE",
            json!({"greKey": 4_294_967_295_u32}),
            format!("gre {ends} key 4294967295"),
        ),
        ("GRE", json!({}), format!("gre {ends}")),
        (
            "VXLAN",
            json!({"vni": 7}),
            format!("vxlan {ends} vni 7 mac 02:00:00:00:00:01"),
        ),
    ] {
        let document = with("/dstInterface", tunnel(kind, data.clone()));
        assert!(
            text(document.clone()).ends_with(&format!("forward {expected} via app9")),
            "{expected}"
        );
        let rule: TrafficRule = read(document).unwrap();
        let written = serde_json::to_value(&rule).unwrap();
        let info = &written["dstInterface"]["tunnelInfo"];
        assert_eq!(info["tunnelSpecificData"], data);
    }
}

#[test]
fn what_is_wrong_with_a_tunnel_is_pointed_at() {
    let data = "/tunnelInfo/tunnelSpecificData";
    for (kind, specific, pointer) in [
        ("GTP_U", json!({}), format!("{data}/teid")),
        ("GTP_U", json!({"teid": 0}), format!("{data}/teid")),
        ("GTP_U", json!({"teid": "x"}), format!("{data}/teid")),
        (
            "GTP_U",
            json!({"teid": 1, "qfi": 64}),
            format!("{data}/qfi"),
        ),
        (
            "GTP_U",
            json!({"teid": 1, "qfi": 300}),
            format!("{data}/qfi"),
        ),
        ("GTP_U", json!(7), data.to_owned()),
        (
            "GRE",
            json!({"greKey": 4_294_967_296_u64}),
            format!("{data}/greKey"),
        ),
        ("GRE", json!({"greKey": -1}), format!("{data}/greKey")),
        ("VXLAN", json!({}), format!("{data}/vni")),
        ("VXLAN", json!({"vni": 16_777_216}), format!("{data}/vni")),
        ("IPIP", json!({}), "/tunnelInfo/tunnelType".to_owned()),
    ] {
        let refusal = converted(with("/dstInterface", tunnel(kind, specific.clone()))).unwrap_err();
        assert_eq!(
            refusal.pointer,
            format!("/dstInterface{pointer}"),
            "{kind} {specific}"
        );
    }
    let good = tunnel("VXLAN", json!({"vni": 7}));
    for (member, value, pointer) in [
        ("/tunnelInfo", json!(null), "/tunnelInfo"),
        (
            "/tunnelInfo/tunnelDstAddress",
            json!(null),
            "/tunnelInfo/tunnelDstAddress",
        ),
        (
            "/tunnelInfo/tunnelDstAddress",
            json!("224.0.0.1"),
            "/tunnelInfo/tunnelDstAddress",
        ),
        (
            "/tunnelInfo/tunnelSrcAddress",
            json!("2001:db8::1"),
            "/tunnelInfo/tunnelSrcAddress",
        ),
        ("/dstMacAddress", json!(null), "/dstMacAddress"),
        (
            "/dstMacAddress",
            json!("ff:ff:ff:ff:ff:ff"),
            "/dstMacAddress",
        ),
        ("/x-nat", json!(true), "/x-nat"),
    ] {
        let mut interface = good.clone();
        let (parent, name) = member.rsplit_once('/').unwrap();
        let parent = interface.pointer_mut(parent).unwrap();
        parent[name] = value;
        let refusal = converted(with("/dstInterface", interface)).unwrap_err();
        assert_eq!(
            refusal.pointer,
            format!("/dstInterface{pointer}"),
            "{member}"
        );
    }
}

#[test]
fn attributes_of_tunnels() {
    let filter = json!({
        "srcTunnelAddress": ["192.0.2.0/24", "192.0.3.1-192.0.3.9"],
        "tgtTunnelAddress": "198.51.100.1",
        "srcTunnelPort": [2152],
        "dstTunnelPort": ["2152-2153"],
        "qCI": 5,
    });
    let wire = with("/trafficFilter", json!([filter]));
    let Outcome::Enforceable(rule) = converted(wire).unwrap() else {
        panic!("the data path looks into tunnels")
    };
    let filter = rule.filters[0].to_string();
    assert_eq!(
        filter,
        "tunnel-from 192.0.2.0/24,192.0.3.1-192.0.3.9 tunnel-to 198.51.100.1 tunnel-sport 2152 \
         tunnel-dport 2152-2153 qci 5"
    );
}

#[test]
fn what_cannot_be_enforced_is_kept_and_says_why() {
    for (pointer, value, word) in [
        ("/trafficFilter/0/token", json!(["t"]), "token"),
        ("/trafficFilter/0/tag", json!(["t"]), "token"),
        ("/trafficFilter/0/protocol", json!(["HTTP"]), "transport"),
        ("/trafficFilter/0/uri", json!(["/a"]), "URI"),
    ] {
        let Outcome::NotEnforceable(why) = converted(with(pointer, value)).unwrap() else {
            panic!("{pointer}")
        };
        assert!(why.contains(word), "{why}");
    }
}
