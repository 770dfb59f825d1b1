//! What people steer with today, on hosts like the one that edgesteer gets: packets to the services of
//! [`rules`](crate::rules()) go out by `app0`.

use std::{io::Write as _, process::Stdio};

use anyhow::{Context as _, Result, ensure};
use aya::{
    maps::{Array, DevMap},
    programs::{SchedClassifier, TcAttachType, XdpMode},
};
use tests::lab::{Bench, Namespace};

use crate::{
    lane::{Lane, interface},
    rules::{MISSES, Miss, address},
};

/// A thousand rules.
pub(crate) const RULES: &Miss = &MISSES[2];
/// What rules say of packets beside their destination.
const REST: &str = "ip saddr 10.45.0.0/16 udp dport 443";

/// Each of them.
pub(crate) fn all() -> Result<Vec<Lane>> {
    Ok(vec![
        redirect()?,
        lane("veth-kernel", |host| host.ip(ROUTE))?,
        lane("veth-nft", |host| {
            host.ip(MARKED)?;
            nft(
                host,
                &verdict_map("prerouting priority raw", "meta mark set 1"),
            )
        })?,
        lane("veth-nft-linear", |host| {
            host.ip(MARKED)?;
            nft(host, &linear())
        })?,
        lane("veth-nft-fwd", |host| {
            let hook = "ingress device access0 priority 0";
            let script = verdict_map(hook, "fwd ip to 198.18.1.2 device app0");
            nft(host, &script.replace("table ip", "table netdev"))
        })?,
        lane("veth-tc", |host| tc(host, 1))?,
        lane("veth-tc-linear", |host| tc(host, RULES.rules))?,
        tc_bpf()?,
    ])
}

/// The least that XDP can do.
fn redirect() -> Result<Lane> {
    let mut lane = lane("veth-redirect", |_| Ok(()))?;
    let (host, programs) = lane.host();
    let device = interface(host, "app0")?;
    let mut devices: DevMap<_> = programs.map("DEVICES")?;
    host.enter(|| devices.set(0, device, None, 0))?;
    let redirect = programs.xdp("redirect")?;
    host.enter(|| redirect.attach("access0", XdpMode::Driver))?;
    Ok(lane)
}

/// The least that BPF in traffic control can do.
fn tc_bpf() -> Result<Lane> {
    let mut lane = lane("veth-tc-bpf", |host| {
        feed(host, "tc -batch -", "qdisc add dev access0 clsact\n")
    })?;
    let (host, programs) = lane.host();
    let device = interface(host, "app0")?;
    let mut devices: Array<_, u32> = programs.map("DEVICE")?;
    devices.set(0, device, 0)?;
    let forward: &mut SchedClassifier = programs.program("forward")?;
    forward.load()?;
    host.enter(|| forward.attach("access0", TcAttachType::Ingress))?;
    Ok(lane)
}

/// A host that forwards, prepared further by `prepare`, and the packets for it.
fn lane(id: &'static str, prepare: impl FnOnce(&Namespace) -> Result<()>) -> Result<Lane> {
    let bench = Bench::new(&["access0", "app0"])?;
    let host = &bench.host;
    host.ip("link set access0 address 02:00:00:00:00:02\n\
         addr add 192.0.2.2/24 dev access0\n\
         addr add 198.18.1.1/24 dev app0\n\
         neigh replace 198.18.1.2 lladdr 02:00:00:00:0a:01 dev app0 nud permanent\n\
         route add 10.45.0.0/16 via 192.0.2.1")?;
    host.sysctl("net/ipv4/ip_forward", "1")?;
    // What is sent in by XDP is polled for, as it is on network cards.
    host.prepare_far_end("access0")?;
    prepare(host).context(id)?;
    let mut lane = Lane::other(id, bench)?;
    lane.load("access0", |flow| RULES.packet(flow))?;
    Ok(lane)
}

/// All services are at the application.
const ROUTE: &str = "route add 10.200.0.0/13 via 198.18.1.2";
/// Packets with a mark go to the application.
const MARKED: &str = "rule add fwmark 1 table 100\n\
     route add default via 198.18.1.2 table 100";

fn verdict_map(hook: &str, act: &str) -> String {
    let elements: Vec<String> = (0..RULES.rules)
        .map(|number| format!("{} : goto app", address(number)))
        .collect();
    format!(
        "table ip steer {{\n\
         chain app {{ {act}\n}}\n\
         map services {{ type ipv4_addr : verdict\nelements = {{ {} }}\n}}\n\
         chain first {{ type filter hook {hook}\n{REST} ip daddr vmap @services\n}}\n\
         }}\n",
        elements.join(", ")
    )
}

fn linear() -> String {
    let rules: String = (0..RULES.rules)
        .map(|number| {
            format!(
                "ip daddr {} {REST} meta mark set 1 accept\n",
                address(number)
            )
        })
        .collect();
    format!(
        "table ip steer {{ chain first {{ type filter hook prerouting priority raw\n{rules}}}\n}}\n"
    )
}

/// So many filters of traffic control; one is for all services.
fn tc(host: &Namespace, count: u32) -> Result<()> {
    let mut batch = "qdisc add dev access0 clsact\n".to_owned();
    for number in 0..count {
        let length = if count == 1 { 13 } else { 32 };
        batch += &format!(
            "filter add dev access0 ingress protocol ip prio 1 u32 match ip src 10.45.0.0/16 match ip dst {}/{length} \
             match ip protocol 17 0xff match ip dport 443 0xffff action mirred egress redirect dev app0\n",
            address(number)
        );
    }
    feed(host, "tc -batch -", &batch)
}

fn nft(host: &Namespace, script: &str) -> Result<()> {
    feed(host, "nft -f -", script)
}

/// Runs a command that reads `input`.
fn feed(host: &Namespace, line: &str, input: &str) -> Result<()> {
    let mut words = line.split(' ');
    let program = words.next().unwrap_or_default();
    let mut child = host
        .command(program)
        .args(words)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}: run `cargo xtask setup`"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{line}`: {said}");
    Ok(())
}
