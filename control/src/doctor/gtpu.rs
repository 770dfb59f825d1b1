//! What stands in the way of UEs behind tunnels.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr},
};

use dataplane_user::netlink::Link;

use super::{Finding, Plan, Port};

/// What a tunnel adds on N3, with a PDU Session Container (3GPP TS 29.281, 5.1; TS 38.415, 5.5.2): over IPv4, and over
/// IPv6. On S1-U it is 8 less.
const OVERHEAD: [u32; 2] = [44, 64];

pub(super) fn findings(plan: &Plan, links: &[Link]) -> Vec<Finding> {
    if !plan.ports.iter().any(|port| port.gtpu) {
        return Vec::new();
    }
    let mut findings = vec![endpoints(plan)];
    findings.extend(plan.ports.iter().filter_map(unconfigured));
    let stations = plan.ports.iter().filter(|port| port.gtpu && port.access);
    for station in stations {
        let apps = plan.ports.iter().filter(|port| port.app);
        findings.extend(apps.filter_map(|app| mtu(plan, station, app, links)));
    }
    findings
}

/// What this host sends does not come in by its ports.
fn endpoints(plan: &Plan) -> Finding {
    const CHECK: &str = "gtpu-endpoints";
    let own = addresses();
    for (name, ranges) in [("ran", &plan.gtpu.ran), ("core", &plan.gtpu.core)] {
        let among = |address: &&IpAddr| ranges.iter().any(|range| range.contains(**address));
        if let Some(address) = own.iter().find(among) {
            return Finding::warning(
                CHECK,
                "host",
                format_args!(
                    "{address} is this host's own and in [gtpu] {name}: what comes from there is not seen at a port, so no \
                     session is learned whole"
                ),
                format!("leave {address} out of [gtpu] {name}, or say the sessions over Mp2"),
            );
        }
    }
    Finding::ok(CHECK, "host", "none of them is this host")
}

/// Tunnels of which an end was forgotten are none.
fn unconfigured(port: &Port) -> Option<Finding> {
    const CHECK: &str = "gtpu-unconfigured";
    let [before, now] = port.unconfigured;
    if now == 0 {
        return None;
    }
    if now == before {
        let what = format!(
            "{now} G-PDUs between endpoints that are not configured so far, and no more now"
        );
        return Some(Finding::ok(CHECK, port.at(), what));
    }
    Some(Finding::warning(
        CHECK,
        port.at(),
        format_args!(
            "G-PDUs come between endpoints that are not configured, {now} so far: nothing of the UEs in them is steered"
        ),
        format!(
            "say the stations in [gtpu] ran and the core's endpoints in [gtpu] core; who they are: tcpdump -c 10 -lni {} udp \
             port 2152",
            port.interface
        ),
    ))
}

/// Answers of applications grow on their way to the UE.
fn mtu(plan: &Plan, station: &Port, app: &Port, links: &[Link]) -> Option<Finding> {
    const CHECK: &str = "gtpu-mtu";
    let link = |port: &Port| links.iter().find(|link| link.name == port.interface);
    let (room, sent) = (link(station)?.mtu, link(app)?.mtu);
    let overhead = OVERHEAD[usize::from(plan.gtpu.ran.iter().any(|range| !range.is_ipv4()))];
    let fits = room.saturating_sub(overhead);
    if sent <= fits {
        let what = format!("{sent} and {overhead} of a tunnel fit into {room}");
        return Some(Finding::ok(CHECK, app.at(), what));
    }
    Some(Finding::warning(
        CHECK,
        app.at(),
        format_args!(
            "answers of up to {sent} bytes and {overhead} of a tunnel do not fit through {} with {room}; applications are \
             told so each time, and it works only where they listen",
            station.name
        ),
        format!("ip link set dev {} mtu {fits}", app.interface),
    ))
}

/// The addresses of this host.
fn addresses() -> Vec<IpAddr> {
    let read = |name: &str| {
        let path = format!("/proc/thread-self/net/{name}");
        fs::read_to_string(path).unwrap_or_default()
    };
    let mut found = local(&read("fib_trie"));
    let table = read("if_inet6");
    let numbers = table
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let numbers = numbers.filter_map(|number| u128::from_str_radix(number, 16).ok());
    found.extend(numbers.map(|number| IpAddr::V6(Ipv6Addr::from_bits(number))));
    found
}

/// IPv4 addresses are there as the routes to them.
fn local(trie: &str) -> Vec<IpAddr> {
    let mut found = Vec::new();
    let mut last: Option<IpAddr> = None;
    for line in trie.lines() {
        if let Some((_, address)) = line.split_once("|-- ") {
            last = address.trim().parse().ok();
        } else if line.contains("/32 host LOCAL") {
            found.extend(last.take());
        }
    }
    found
}
