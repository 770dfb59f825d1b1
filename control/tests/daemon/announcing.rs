//! VIPs that routers are to know of.

use std::{
    fs,
    net::TcpListener,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    application,
    host::{Host, PATIENCE},
    vips::{PEER, unchecked, until, vip},
    write,
};

/// Routers are told by whoever redistributes the addresses of `lo`.
#[test]
fn a_vip_is_announced_while_it_is_healthy() {
    let host = Host::new();
    host.configure(&(host.files() + PEER + "[vip]\nhold_down = 1\n"));
    host.shell("ip link set lo up");
    let mut wanted = vip();
    wanted["vips"][0]["announce"] = true.into();
    wanted["vips"][0]["backends"] = json!([{"address": "198.18.1.1", "x-port": "app0"}]);
    write(&host, "rules.d/vips.json", &wanted);
    let daemon = host.start().ready(&host);
    let until_announced = |announced: bool| {
        until(&host, "/announced", &json!(announced));
        let there = if announced { "" } else { "!" };
        host.shell(&format!(
            "{there} ip -br address show dev lo | grep -q 203.0.113.9/32"
        ));
    };
    until_announced(false);
    let serve = || host.inside(|| TcpListener::bind("198.18.1.1:443")).unwrap();
    let server = serve();
    until_announced(true);
    drop(server);
    until_announced(false);
    let server = serve();
    until_announced(true);
    assert!(daemon.stop());
    host.shell("! ip -br address show dev lo | grep -q 203.0.113.9/32");
    drop(server);
}

fn announced(host: &Host) -> bool {
    host.json(&["get", "vips", "dns"])["status"]["announced"] == true
}

#[test]
fn nothing_is_announced_before_the_data_path_has_it() {
    let host = Host::new();
    let limited = |limits: &str| {
        host.configure(&format!("{}[vip]\nhold_down = 1\n{limits}", host.files()));
    };
    host.shell("ip link set lo up");
    limited("");
    let mut wanted = unchecked();
    wanted["vips"][0]["announce"] = true.into();
    write(&host, "rules.d/vips.json", &wanted);
    let daemon = host.start().ready(&host);
    let video = application("video", "203.0.113.10");
    host.said(&["apply", "-f", &write(&host, "video.json", &video)]);
    let wait = || {
        let end = Instant::now() + PATIENCE;
        while !announced(&host) {
            assert!(Instant::now() < end, "{}", host.log());
            sleep(Duration::from_millis(50));
        }
    };
    wait();
    assert!(daemon.stop());
    host.said(&["detach", "--yes"]);
    limited("[limits]\nrules = 3\n");
    let daemon = host.start();
    let status = daemon.notice("STATUS=", PATIENCE).unwrap();
    assert!(status.contains("NOT in force"), "{status}");
    sleep(Duration::from_secs(3));
    assert!(!announced(&host), "{}", host.log());
    host.said(&["delete", "application", "video"]);
    wait();
    assert!(daemon.stop());
}

#[test]
fn an_interface_that_is_missing_is_said() {
    let host = Host::new();
    host.configure(&(host.files() + "[vip]\ninterface = 'dummy9'\nhold_down = 1\n"));
    let mut wanted = unchecked();
    wanted["vips"][0]["announce"] = true.into();
    write(&host, "rules.d/vips.json", &wanted);
    let daemon = host.start().ready(&host);
    let reason = || host.json(&["get", "vips", "dns"])["status"]["reason"].to_string();
    let end = Instant::now() + PATIENCE;
    while !reason().contains("no interface dummy9: make it") {
        assert!(Instant::now() < end, "{} {}", reason(), host.log());
        sleep(Duration::from_millis(50));
    }
    assert!(!announced(&host));
    assert!(host.log().contains("dummy9"));
    host.shell("ip link add dummy9 type veth peer name far9 && ip link set dummy9 up");
    while !announced(&host) {
        assert!(Instant::now() < end, "{} {}", reason(), host.log());
        sleep(Duration::from_millis(50));
    }
    assert_eq!(reason(), "null");
    assert!(daemon.stop());
}

/// Each command to GoBGP is a process of its own, and there are many addresses.
#[test]
fn an_end_in_good_order_withdraws_all_that_gobgp_was_told() {
    const VIPS: usize = 250;
    let host = Host::new();
    let bgp = "bgp = { gobgp = '127.0.0.1:50051' }";
    host.configure(&(host.files() + "[limits]\nvips = 256\n[vip]\nhold_down = 0\n" + bgp));
    host.shell("ip link set lo up");
    let configuration = host.path("gobgp.toml");
    fs::write(
        &configuration,
        "[global.config]\nas = 65001\nrouter-id = '10.0.0.1'\n",
    )
    .unwrap();
    let mut command = Command::new("gobgpd");
    command.arg("-f").arg(configuration);
    command.args(["--api-hosts", "127.0.0.1:50051"]);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut gobgp = host.inside(|| command.spawn()).unwrap();
    let vips = (1..=VIPS).map(|number| {
        let mut vip = unchecked()["vips"][0].clone();
        vip["vipId"] = number.to_string().into();
        vip["address"] = format!("203.0.113.{number}").into();
        vip["announce"] = true.into();
        vip
    });
    write(
        &host,
        "rules.d/vips.json",
        &json!({"vips": vips.collect::<Vec<_>>()}),
    );
    let daemon = host.start().ready(&host);
    let told = || {
        let mut command = Command::new("gobgp");
        let output = host
            .inside(|| command.args(["global", "rib"]).output())
            .unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .matches("203.0.113.")
            .count()
    };
    let end = Instant::now() + PATIENCE;
    while told() < VIPS {
        assert!(Instant::now() < end, "{} {}", told(), host.log());
        sleep(Duration::from_millis(100));
    }
    assert!(daemon.stop());
    let left = told();
    gobgp.kill().unwrap();
    gobgp.wait().unwrap();
    assert_eq!(left, 0, "{}", host.log());
}
