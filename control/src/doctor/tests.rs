//! Each trap is made in namespaces of its own, found, and gone once its cure was applied as printed. They need root.

mod lab;

use std::fs;

use lab::{Foreign, Lab};

use super::*;

#[test]
fn a_well_made_port_has_nothing_to_complain_about() {
    let lab = Lab::prepared();
    let report = lab.examine();
    assert_eq!(report.level, Level::Ok, "\n{report}");
    assert!(!report.failed());
    let checks: Vec<_> = report
        .findings
        .iter()
        .map(|finding| finding.check)
        .collect();
    for check in ["kernel", "btf", "capabilities", "veth-napi", "veth-queues"] {
        assert!(
            checks.contains(&check),
            "{check} was not looked at: {checks:?}"
        );
    }
}

#[test]
fn a_far_end_without_napi() {
    let lab = Lab::new();
    lab.cured("veth-napi", Level::Error);
    let lab = Lab::new();
    let foreign = Foreign::load("pass");
    lab.far(&format!(
        "ip link set dev far xdpdrv pinned {}",
        foreign.path()
    ));
    assert_eq!(
        lab.finding("veth-napi").level,
        Level::Ok,
        "XDP there is as good"
    );
}

#[test]
fn checksums_left_to_hardware() {
    Lab::new().cured("veth-checksum", Level::Error);
}

#[test]
fn tags_beside_the_frame() {
    let lab = Lab::prepared();
    lab.far("ip link add bridge type bridge");
    lab.far("ip link set dev far master bridge");
    lab.cured("veth-vlan", Level::Error);
}

#[test]
fn more_transmit_queues_than_receive_queues() {
    let lab = Lab::prepared();
    lab.near("ethtool -L near rx 1");
    lab.far("ethtool -L far tx 4");
    assert!(
        lab.finding("veth-queues")
            .cure
            .unwrap()
            .contains("near rx 4")
    );
    lab.cured("veth-queues", Level::Error);

    let lab = Lab::with_queues("numrxqueues 1", "numtxqueues 4");
    lab.far("ethtool -L far tx 4");
    assert!(
        lab.finding("veth-queues")
            .cure
            .unwrap()
            .contains("far tx 1")
    );
    lab.cured("veth-queues", Level::Error);
}

#[test]
fn different_mtus() {
    let lab = Lab::prepared();
    lab.near("ip link set dev near mtu 2000");
    lab.cured("veth-mtu", Level::Warning);
    lab.far("ip link set dev far mtu 3000");
    lab.cured("veth-mtu", Level::Warning);

    let mut lab = Lab::prepared();
    lab.near("ip link add core type veth peer name network");
    lab.near("ip link set dev near mtu 2000");
    lab.plan.ports[0].pair = Some("core".to_owned());
    lab.plan.ports.push(Port {
        name: "core".to_owned(),
        interface: "core".to_owned(),
        pair: Some("access".to_owned()),
        ..Port::default()
    });
    lab.cured("pair-mtu", Level::Warning);
}

#[test]
fn vips_that_nobody_hears_of_or_several_answer_for() {
    let mut lab = Lab::prepared();
    lab.plan.vip_interface = Some("lo".to_owned());
    assert_eq!(lab.finding("vip-interface").check, "none");
    assert_eq!(lab.finding("vip-arp").check, "none", "nothing is announced");
    lab.near("sysctl -qw net/ipv4/conf/all/arp_ignore=0 net/ipv4/conf/near/arp_ignore=0");
    lab.announce("203.0.113.9".parse().unwrap());
    lab.cured("vip-arp", Level::Warning);
    lab.plan.vip_interface = Some("anycast0".to_owned());
    let finding = lab.finding("vip-interface");
    assert_eq!(finding.level, Level::Error);
    assert!(finding.what.contains("anycast0"), "{}", finding.what);
}

#[test]
fn tunnels_that_end_here_or_do_not_fit() {
    let mut lab = Lab::prepared();
    assert_eq!(lab.finding("gtpu-endpoints").check, "none");
    lab.near("ip link add app0 mtu 1500 type veth peer name application");
    let access = &mut lab.plan.ports[0];
    (access.gtpu, access.access) = (true, true);
    lab.plan.ports.push(Port {
        name: "app0".to_owned(),
        interface: "app0".to_owned(),
        app: true,
        ..Port::default()
    });
    let ranges = |range: &str| vec![range.parse().unwrap()];
    lab.plan.gtpu.ran = ranges("192.0.2.0/24");
    lab.plan.gtpu.core = ranges("198.51.100.1");
    lab.cured("gtpu-mtu", Level::Warning);
    assert!(lab.finding("gtpu-mtu").what.starts_with("1456 and 44 "));
    lab.plan.gtpu.ran = ranges("2001:db8:2::/64");
    lab.cured("gtpu-mtu", Level::Warning);
    assert!(lab.finding("gtpu-mtu").what.starts_with("1436 and 64 "));

    assert_eq!(lab.finding("gtpu-endpoints").level, Level::Ok);
    for (address, side) in [("198.51.100.1/32", "core"), ("2001:db8:2::9/64", "ran")] {
        lab.near(&format!("ip address add {address} dev near nodad"));
        let finding = lab.finding("gtpu-endpoints");
        assert_eq!(finding.level, Level::Warning, "{address}");
        assert!(finding.cure.unwrap().contains(side), "{address}");
        lab.near(&format!("ip address del {address} dev near"));
    }
}

#[test]
fn tunnels_whose_ends_were_forgotten() {
    let mut lab = Lab::prepared();
    assert_eq!(lab.finding("gtpu-unconfigured").check, "none");
    let port = &mut lab.plan.ports[0];
    (port.gtpu, port.unconfigured) = (true, [3, 5]);
    let finding = lab.finding("gtpu-unconfigured");
    assert_eq!(finding.level, Level::Warning);
    assert!(finding.what.contains("5 so far"), "{}", finding.what);
    let cure = finding.cure.unwrap();
    assert!(
        cure.contains("[gtpu] ran") && cure.contains("-lni near "),
        "{cure}"
    );
    lab.plan.ports[0].unconfigured = [5, 5];
    assert_eq!(lab.finding("gtpu-unconfigured").level, Level::Ok);
}

#[test]
fn an_interface_that_is_missing_or_off() {
    let mut lab = Lab::prepared();
    lab.near("ip link set dev near down");
    lab.cured("interface", Level::Error);
    lab.plan.ports[0].interface = "nowhere".to_owned();
    let finding = lab.finding("interface");
    assert_eq!(finding.level, Level::Error);
    assert_eq!(finding.at, "access (nowhere)");
    assert!(lab.examine().failed());
}

#[test]
fn interfaces_that_cannot_run_xdp_themselves() {
    let mut lab = Lab::prepared();
    lab.near("ip link add bridge type bridge");
    lab.near("ip link set dev bridge up");
    lab.plan.ports[0].interface = "bridge".to_owned();
    assert_eq!(lab.finding("native-mode").level, Level::Error);
    lab.plan.ports[0].allow_generic = true;
    assert_eq!(lab.finding("native-mode").level, Level::Warning);
    lab.cured("generic-gro", Level::Warning);

    lab.near("ip tuntap add dev tap0 mode tap");
    lab.near("ip tuntap add dev tun0 mode tun");
    for (interface, level) in [
        ("tap0", Level::Ok),
        ("tun0", Level::Error),
        ("lo", Level::Error),
    ] {
        lab.plan.ports[0].interface = interface.to_owned();
        assert_eq!(lab.finding("native-mode").level, level, "{interface}");
    }
}

#[test]
fn a_program_of_somebody_else() {
    let lab = Lab::prepared();
    let foreign = Foreign::load("other");
    lab.near(&format!(
        "ip link set dev near xdpdrv pinned {}",
        foreign.path()
    ));
    let finding = lab.finding("xdp-program");
    assert_eq!(finding.level, Level::Error);
    assert!(finding.what.contains("name other"), "{}", finding.what);
    let tag = foreign.tag();
    assert!(
        finding.what.contains(&tag),
        "{} without {tag}",
        finding.what
    );
    let cure = finding.cure.unwrap();
    let start = cure.find("ip link").unwrap();
    let end = cure.find(" (if").unwrap();
    lab.near(&cure[start..end]);
    assert_eq!(lab.finding("xdp-program").level, Level::Ok);
}

#[test]
fn a_host_that_does_not_forward() {
    let lab = Lab::prepared();
    lab.near("sysctl -qw net/ipv4/ip_forward=0");
    lab.cured("ip-forward", Level::Error);
    lab.near("sysctl -qw net/ipv6/conf/all/forwarding=0");
    lab.near("ip addr add 2001:db8::1/64 dev near nodad");
    lab.cured("ipv6-forward", Level::Error);
    lab.near("sysctl -qw net/ipv4/conf/near/rp_filter=1");
    lab.cured("reverse-path", Level::Warning);

    let mut wire = Lab::prepared();
    wire.near("sysctl -qw net/ipv4/ip_forward=0");
    wire.plan.ports[0].routed = false;
    assert_eq!(wire.examine().level, Level::Ok, "a wire needs no routes");
}

#[test]
fn pins_outside_of_a_bpf_file_system() {
    let mut lab = Lab::prepared();
    let directory = format!("/tmp/edgesteer-doctor-{}", std::process::id());
    lab.plan.pin_directory = PathBuf::from(&directory);
    lab.cured("bpf-file-system", Level::Error);
    lab.near(&format!("umount {directory}"));
    fs::remove_dir(directory).unwrap();
}

#[test]
fn the_program_for_tunnels_is_ours_too() {
    let lab = Lab::prepared();
    let program = Foreign::load("steer_mobile");
    let path = program.path();
    lab.near(&format!("ip link set dev near xdpdrv pinned {path}"));
    assert_eq!(lab.finding("xdp-program").what, "ours, native");
}

#[test]
fn pins_that_nobody_uses() {
    let mut lab = Lab::prepared();
    let directory = format!("/sys/fs/bpf/edgesteer-doctor-pins-{}", std::process::id());
    fs::create_dir_all(format!("{directory}/v1")).unwrap();
    lab.plan.pin_directory = PathBuf::from(&directory);
    assert_eq!(lab.finding("pins").check, "none");
    let program = Foreign::load("steer");
    fs::rename(program.path(), format!("{directory}/v1/steer")).unwrap();
    let finding = lab.finding("pins");
    assert_eq!(finding.level, Level::Warning);
    assert!(finding.what.contains("holds 1 pins"), "{}", finding.what);
    lab.near(&format!(
        "ip link set dev near xdpdrv pinned {directory}/v1/steer"
    ));
    assert_eq!(lab.finding("pins").level, Level::Ok);
    assert_eq!(lab.finding("xdp-program").what, "ours, native");
    fs::remove_file(format!("{directory}/v1/steer")).unwrap();
    fs::remove_dir(format!("{directory}/v1")).unwrap();
    fs::remove_dir(directory).unwrap();
}

#[test]
fn a_far_end_out_of_reach_is_said() {
    let mut lab = Lab::prepared();
    lab.hide();
    let finding = lab.finding("veth-far-end");
    assert_eq!(finding.level, Level::Warning);
    assert!(finding.cure.unwrap().contains("gro on"));
}

#[test]
fn the_report_is_a_table_and_json() {
    let report = Report::new(vec![
        Finding::ok("kernel", "host", "Linux 6.1"),
        Finding::error("veth-napi", "n3 (eth1)", "none", "do it".to_owned()),
    ]);
    let expected = "\
ok       kernel     host       Linux 6.1
error    veth-napi  n3 (eth1)  none
                               cure: do it
";
    assert_eq!(report.to_string(), expected);
    let json = serde_json::to_value(&report).unwrap();
    let expected = serde_json::json!({"level": "error", "findings": [
        {"level": "ok", "check": "kernel", "at": "host", "what": "Linux 6.1"},
        {"level": "error", "check": "veth-napi", "at": "n3 (eth1)", "what": "none", "cure": "do it"},
    ]});
    assert_eq!(json, expected);
}
