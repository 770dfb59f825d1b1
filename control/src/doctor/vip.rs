//! What keeps VIPs from being announced, or has several hosts answer for them.

use std::{fs, net::IpAddr};

use dataplane_user::netlink::{Link, addresses};

use super::{Finding, Plan};
use crate::announce::OURS;

pub(super) fn findings(plan: &Plan, links: &[Link]) -> Vec<Finding> {
    let missing = plan
        .vip_interface
        .as_ref()
        .and_then(|name| interface(name, links));
    let ports = plan
        .ports
        .iter()
        .filter(|port| announces_beside(&port.interface, links));
    let answers = ports.filter_map(|port| answers(&port.at(), &port.interface));
    missing.into_iter().chain(answers).collect()
}

fn interface(name: &str, links: &[Link]) -> Option<Finding> {
    if links.iter().any(|link| link.name == name) {
        return None;
    }
    Some(Finding::error(
        "vip-interface",
        "host",
        format_args!("there is no interface {name}, so VIPs are not announced"),
        format!(
            "ip link add {name} type dummy && ip link set {name} up, or correct [vip] interface"
        ),
    ))
}

/// Whether the daemon has set an IPv4 address on another interface than this. IPv6 does not answer for others' addresses.
fn announces_beside(interface: &str, links: &[Link]) -> bool {
    let link = links.iter().find(|link| link.name == interface);
    let ours = |index: u32| {
        let all = addresses().unwrap_or_default();
        let mut v4 = all
            .into_iter()
            .filter(|it| matches!(it.address, IpAddr::V4(_)));
        v4.any(|it| it.protocol == OURS && it.ifindex != index)
    };
    link.is_some_and(|link| ours(link.index))
}

/// Linux answers ARP for any address of the host on any interface, unless it is told not to.
fn answers(at: &str, interface: &str) -> Option<Finding> {
    const CHECK: &str = "vip-arp";
    let value = |of: &str| -> Option<u8> {
        let path = format!("/proc/sys/net/ipv4/conf/{of}/arp_ignore");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    if value("all")?.max(value(interface)?) != 0 {
        return Some(Finding::ok(CHECK, at, "does not answer ARP for VIPs"));
    }
    Some(Finding::warning(
        CHECK,
        at,
        "answers ARP for announced VIPs: where several hosts that have them share a link, they take them from one another",
        format!(
            "sysctl -w net/ipv4/conf/{interface}/arp_ignore=1 net/ipv4/conf/{interface}/arp_announce=2"
        ),
    ))
}
