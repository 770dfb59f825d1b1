//! Anycast VIPs, from what is said of them to what becomes of packets while backends come and go.

use std::{
    net::TcpListener,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    host::{Daemon, Host, PATIENCE},
    write,
};

const FLOW: &str = "tcp 10.45.0.7:5000 > 203.0.113.9:443";

pub(super) const PEER: &str =
    "[[peer]]\nname = 'west'\naddress = '198.18.1.7'\nencapsulation = 'gre'\n";

/// A VIP that the host itself would serve, if it did.
pub(super) fn vip() -> Value {
    json!({"vips": [{
        "vipId": "web", "address": "203.0.113.9", "protocol": "TCP", "port": 443, "mode": "DSR",
        "backends": [{"appInstanceId": "video", "x-port": "app0"}],
        "healthCheck": {"type": "TCP", "intervalSeconds": 1, "timeoutSeconds": 1, "rise": 1, "fall": 1}
    }]})
}

fn start() -> (Host, Daemon) {
    let host = Host::new();
    host.configure(&(host.files() + PEER));
    // By which the host reaches itself.
    host.shell("ip link set lo up");
    write(&host, "rules.d/vips.json", &vip());
    let daemon = host.start().ready(&host);
    (host, daemon)
}

fn status(host: &Host) -> Value {
    host.json(&["get", "vips", "web"])["status"].clone()
}

#[track_caller]
pub(super) fn until(host: &Host, member: &str, expected: &Value) {
    let end = Instant::now() + PATIENCE;
    while status(host).pointer(member) != Some(expected) {
        assert!(Instant::now() < end, "{}\n{}", status(host), host.log());
        sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_backend_takes_flows_while_it_passes_checks() {
    let (host, daemon) = start();
    let took = || {
        let answer = host.json(&["explain", "--in", "access0", "--flow", FLOW]);
        answer["targetPort"].clone()
    };
    assert_eq!(status(&host)["installed"], true);
    let reason = "/backends/0/reason";
    until(&host, reason, &json!("there is no application `video`"));
    assert_eq!(took(), "core0", "it goes its original path");

    // The host has this address, so it is what is checked.
    let app = json!({"appInstanceId": "video", "interface": {"macAddress": "02:00:00:00:0a:02", "ipAddresses": ["198.18.1.1"]}});
    let pushed = write(&host, "video.json", &json!({"applications": [app]}));
    host.said(&["apply", "-f", &pushed]);
    until(&host, "/backends/0/health", &json!("DOWN"));
    let server = host.inside(|| TcpListener::bind("198.18.1.1:443")).unwrap();
    until(&host, "/healthy", &json!(true));
    assert_eq!(took(), "app0");
    let metrics = host.metrics();
    let up = "edgesteer_vip_backend_up{backend=\"video\",vip=\"web\"} 1";
    assert!(metrics.contains(up), "{metrics}");
    let value = |of: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(of));
        line.unwrap_or_else(|| panic!("{of} in {metrics}"))
            .parse()
            .unwrap()
    };
    let made = |result: &str| {
        value(&format!(
            "edgesteer_vip_backend_checks_total{{backend=\"video\",result=\"{result}\",vip=\"web\"}} "
        ))
    };
    assert!(made("refused") >= 1.0 && made("passed") >= 1.0 && made("timed_out") == 0.0);
    let took_so_long =
        value("edgesteer_vip_backend_check_duration_seconds{backend=\"video\",vip=\"web\"} ");
    assert!(took_so_long > 0.0 && took_so_long < 1.0, "{took_so_long}");
    let table = host.said(&["get", "vips"]);
    assert!(table.contains("203.0.113.9"), "{table}");

    assert!(daemon.stop());
    let daemon = host.start().ready(&host);
    assert_eq!(took(), "app0", "it was taking flows before");
    drop(server);
    until(&host, "/backends/0/state", &json!("DOWN"));
    assert_eq!(took(), "core0");
    let said = host.refused(&["delete", "vip", "web"]);
    assert!(said.contains("source `files`"), "{said}");
    assert!(daemon.stop());
}

#[test]
fn a_backend_that_was_down_takes_nothing_after_a_restart_until_it_passes() {
    let host = Host::new();
    host.configure(&host.files());
    host.shell("ip link set lo up && ip address add 198.18.1.3/32 dev app0");
    let mut wanted = vip();
    wanted["vips"][0]["healthCheck"]["fall"] = 3.into();
    let at = |address: &str| json!({"address": address, "x-port": "app0"});
    wanted["vips"][0]["backends"] = json!([at("198.18.1.1"), at("198.18.1.3")]);
    write(&host, "rules.d/vips.json", &wanted);
    let daemon = host.start().ready(&host);
    let serve = |address: &str| host.inside(|| TcpListener::bind((address, 443)).unwrap());
    let [_one, other] = ["198.18.1.1", "198.18.1.3"].map(serve);
    let states = || {
        let status = status(&host);
        [0, 1].map(|place| status["backends"][place]["state"].clone())
    };
    until(&host, "/backends/0/state", &json!("UP"));
    until(&host, "/backends/1/state", &json!("UP"));
    drop(other);
    until(&host, "/backends/1/state", &json!("DOWN"));

    assert!(daemon.stop());
    let daemon = host.start().ready(&host);
    assert_eq!(states(), [json!("UP"), json!("DOWN")], "{}", status(&host));
    for port in 5000..5032 {
        let flow = format!("tcp 10.45.0.7:{port} > 203.0.113.9:443");
        let answer = host.json(&["explain", "--in", "access0", "--flow", &flow]);
        assert_eq!(answer["backend"], "198.18.1.1", "{flow}");
    }
    let _other = serve("198.18.1.3");
    until(&host, "/backends/1/state", &json!("UP"));

    // A data path that is new knows of none.
    assert!(daemon.stop());
    host.said(&["detach", "--yes"]);
    let daemon = host.start().ready(&host);
    assert_eq!(states(), ["DOWN", "DOWN"].map(|it| json!(it)));
    until(&host, "/backends/0/state", &json!("UP"));
    assert!(daemon.stop());
}

#[test]
fn vips_are_pushed_and_removed() {
    let (host, daemon) = start();
    let mut wanted = vip();
    wanted["vips"][0]["vipId"] = "dns".into();
    wanted["vips"][0]["port"] = 53.into();
    let file = write(&host, "pushed.json", &wanted);
    let said = host.said(&["apply", "-f", &file]);
    assert!(said.contains("+ vip dns 203.0.113.9 TCP port 53"), "{said}");
    assert!(said.contains("in force"), "{said}");
    let one = host.said(&["get", "vip", "dns"]);
    assert!(
        one.contains("BACKEND") && one.contains("no application `video`"),
        "{one}"
    );
    let configuration = host.path("edgesteer.toml");
    let configuration = configuration.to_str().unwrap();
    let checked = host.said(&["check", configuration, &file]);
    assert!(checked.contains("1 VIP"), "{checked}");
    wanted["vips"][0]["fallback"] = json!({"action": "PEER", "peer": "east"});
    let file = write(&host, "wrong.json", &wanted);
    for command in [
        &["check", configuration, &file][..],
        &["apply", "-f", &file],
    ] {
        let said = host.refused(command);
        assert!(
            said.contains("/fallback/peer") && said.contains("east"),
            "{said}"
        );
    }
    let file = write(&host, "nowhere.json", &unchecked());
    let said = host.refused(&["check", configuration, &file]);
    assert!(
        said.contains("VIP `dns`: /backends/1/x-port: there is no port `nowhere`"),
        "{said}"
    );
    let said = host.said(&["delete", "vip", "dns"]);
    assert!(said.contains("VIP `dns` is removed"), "{said}");
    assert!(daemon.stop());
}

/// A VIP of which UDP to port 53 goes to the application, without any checks.
pub(super) fn unchecked() -> Value {
    json!({"vips": [{
        "vipId": "dns", "address": "203.0.113.9", "protocol": "UDP", "port": 53, "mode": "DSR",
        "backends": [
            {"address": "198.18.1.2", "x-port": "app0"},
            {"address": "198.18.1.3", "x-port": "nowhere"}
        ]
    }]})
}

#[test]
fn packets_are_counted_by_backend() {
    let host = Host::new();
    host.shell(
        "ip address add 10.45.0.7/16 dev far-access0 && ip route add 203.0.113.0/24 dev far-access0 &&
         ip neighbor add 203.0.113.9 lladdr 02:00:00:00:00:01 nud permanent dev far-access0",
    );
    let daemon = host.start().ready(&host);
    let send = |packets: usize| {
        for _ in 0..packets {
            host.shell("bash -c 'echo > /dev/udp/203.0.113.9/53'");
        }
    };
    let apply = |state: &str| {
        let mut wanted = unchecked();
        wanted["vips"][0]["backends"][0]["state"] = state.into();
        host.said(&["apply", "-f", &write(&host, "dns.json", &wanted)]);
    };
    apply("UP");
    send(3);
    let of = |flow: &Value| flow["backend"].clone();
    let flows = host.json(&["get", "flows", "@vip/dns"]);
    let flows = flows.as_array().unwrap();
    assert_eq!(flows.iter().map(of).collect::<Vec<_>>(), ["198.18.1.2"; 3]);
    let wide = host.said(&["get", "flows", "-o", "wide"]);
    assert!(
        wide.contains("BACKEND") && wide.contains("198.18.1.2"),
        "{wide}"
    );
    let explain = [
        "explain",
        "--in",
        "access0",
        "--flow",
        "udp 10.45.0.8:5000 > 203.0.113.9:53",
    ];
    assert_eq!(of(&host.json(&explain)), "198.18.1.2");
    let said = host.said(&explain);
    assert!(said.contains("\n  backend  198.18.1.2\n"), "{said}");
    apply("DRAINING");
    assert_eq!(of(&host.json(&explain)), Value::Null);
    send(2);
    // An octet behind the headers of UDP and IPv4.
    let seen = host.json(&["get", "vips", "dns"])["status"].clone();
    assert_eq!(
        (&seen["packets"], &seen["bytes"]),
        (&json!(5), &json!(5 * 29))
    );
    let [backend, nowhere] = [&seen["backends"][0], &seen["backends"][1]];
    assert_eq!(
        (&nowhere["state"], &seen["installed"]),
        (&json!("DOWN"), &json!(true))
    );
    let why = "there is no port \"nowhere\"; there are access0, core0, app0";
    assert_eq!(nowhere["reason"], why);
    assert_eq!(
        (&backend["packets"], &backend["bytes"]),
        (&json!(3), &json!(3 * 29))
    );
    assert_eq!(seen["fallback"]["packets"], 2, "{seen}");
    assert!(backend["lastHit"].as_f64() <= seen["fallback"]["lastHit"].as_f64());
    let metrics = host.metrics();
    for line in [
        "edgesteer_vip_backend_packets_total{backend=\"198.18.1.2\",vip=\"dns\"} 3\n",
        "edgesteer_vip_backend_bytes_total{backend=\"198.18.1.2\",vip=\"dns\"} 87\n",
        "edgesteer_vip_backend_packets_total{backend=\"\",vip=\"dns\"} 2\n",
        "edgesteer_vip_flows_rechosen_total 0\n",
        "edgesteer_vip_announced{vip=\"dns\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(daemon.stop());
}
