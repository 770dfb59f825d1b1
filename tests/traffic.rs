//! What goes on in tunnels while edgesteer counts, restarts, changes its rules and forgets: real TCP, UDP and
//! ICMP of UEs, between Osmocom's ends of GTP-U.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    collections::HashSet,
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use dataplane_core::Reason;
use dataplane_user::{Flow, Timeouts};
use tests::lab::{
    Daemon, Iperf, Lab, Mobile, Mode, Namespace, Steering, Ue, exchange, http_get, iperf, ping,
    wait,
};

const RULES: [&str; 2] = [
    "a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 nat via app0",
    "a/2 prio 1 flow to 2001:db8:203::9 forward ip 2001:db8:a1::2 nat via app0",
];
/// Datagrams that are sent, and the time between two.
const DATAGRAMS: u32 = 3_000;
const GAP: Duration = Duration::from_millis(1);
/// The ports of servers of iperf3.
const IPERF: [u16; 2] = [5201, 5202];

#[test]
fn packets_are_counted_once_in_each_direction() {
    let (mobile, mut steering) = Mobile::start(|host| Steering::open(host, Mode::Wire)).unwrap();
    let _network = Iperf::serve(&mobile.network, IPERF[0]).unwrap();
    for ue in [&mobile.ues[0], &mobile.ues[2]] {
        load(ue);
    }
    assert_eq!(steering.dataplane.flows(), []);
    steering.apply(&mobile.host, &RULES).unwrap();
    let _application = Iperf::serve(&mobile.apps[0], IPERF[0]).unwrap();
    for ue in [&mobile.ues[0], &mobile.ues[2]] {
        quieten(ue);
        let (sent, reported) = (Sent::by(&mobile, ue), reports(&steering));
        load(ue);
        wait("counts of the UE and of its flows are the same", || {
            let sent = Sent::by(&mobile, ue).since(&sent);
            let mut counted = Sent::counted(&steering.dataplane.flows(), ue.address);
            let (packets, octets) = reports(&steering);
            let more =
                |sent: u64, counted, most| (1..=most).contains(&sent.saturating_sub(counted));
            if more(sent.up.0, counted.up.0, packets - reported.0)
                && more(sent.up.1, counted.up.1, octets - reported.1)
            {
                counted.up = sent.up;
            }
            ensure!(sent == counted, "sent {sent:?}, counted {counted:?}");
            ensure!(counted.up.0 > 1000 && counted.down > 1000, "{counted:?}");
            Ok(())
        })
        .unwrap();
    }
    let [v4, _, v6] = mobile.ues.each_ref().map(|ue| ue.address);
    assert!(known(&steering).is_superset(&HashSet::from([v4, v6])));
}

/// An echo, and a lot of TCP in both directions.
fn load(ue: &Ue) {
    const OCTETS: u64 = 8 << 20;
    let service = service(ue);
    ping(&ue.namespace, service).unwrap();
    let octets = OCTETS.to_string();
    for direction in [&[][..], &["--reverse"]] {
        let args = [&["--bytes", &octets], direction].concat();
        let arrived = iperf(&ue.namespace, service, IPERF[0], &args).unwrap();
        // The server stops counting when the client has sent everything.
        assert!(arrived > OCTETS / 2, "{arrived} octets, {direction:?}");
    }
}

/// Packets of no flow that come from IPv6 UEs on their own, what they want to receive of multicast; and their
/// octets, tunnels included.
fn reports(steering: &Steering) -> (u64, u64) {
    let counters = steering.dataplane.port_counters().into_iter();
    counters
        .filter(|it| it.port == "access0" && it.reason == Reason::NeighborDiscovery)
        .fold((0, 0), |(packets, octets), it| {
            (packets + it.packets, octets + it.bytes)
        })
}

/// Packets and octets that a UE sends, and packets that are sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    up: (u64, u64),
    down: u64,
}

impl Sent {
    /// What went through the UE's interface, and what its base station had no room for, of which each has
    /// one socket. Only one UE is at work.
    fn by(mobile: &Mobile, ue: &Ue) -> Self {
        let interface = numbers(&ue.namespace, "net/dev", "ue0:", 0);
        let lost = numbers(&mobile.ran, "net/snmp", "Udp:", 1)[4];
        Self {
            up: (interface[9], interface[8]),
            down: interface[1] + lost,
        }
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            up: (self.up.0 - before.up.0, self.up.1 - before.up.1),
            down: self.down - before.down,
        }
    }

    fn counted(flows: &[Flow], ue: IpAddr) -> Self {
        let flows = || flows.iter().filter(|flow| flow.source == ue);
        let packets = flows().map(|flow| flow.upstream.packets).sum();
        let octets = flows().map(|flow| flow.upstream.bytes).sum();
        Self {
            up: (packets, octets),
            down: flows().map(|flow| flow.downstream.packets).sum(),
        }
    }
}

/// The numbers of the line of a file in /proc, the `nth` that begins like this.
fn numbers(namespace: &Namespace, file: &str, begin: &str, nth: usize) -> Vec<u64> {
    let text = namespace.enter(|| fs::read_to_string(format!("/proc/thread-self/{file}")));
    let text = text.unwrap();
    let mut lines = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix(begin));
    let line = lines.nth(nth).unwrap();
    let numbers = line
        .split_whitespace()
        .map(|number| number.parse().unwrap());
    numbers.collect()
}

/// Lets the UE send nothing but what it is told to.
fn quieten(ue: &Ue) {
    if ue.address.is_ipv4() {
        let namespace = &ue.namespace;
        namespace
            .sysctl("net/ipv6/conf/ue0/disable_ipv6", "1")
            .unwrap();
    }
}

#[test]
fn a_daemon_that_was_killed_is_not_missed() {
    const RULES: &str = r#"{
      "appInstanceId": "video",
      "trafficRules": [{
        "trafficRuleId": "all",
        "filterType": "FLOW",
        "priority": 10,
        "trafficFilter": [{ "dstAddress": ["203.0.113.9"] }],
        "action": "FORWARD_DECAPSULATED",
        "dstInterface": [{ "interfaceType": "IP", "dstIpAddress": "198.18.1.2", "x-nat": true }],
        "state": "ACTIVE"
      }]
    }"#;
    let (mobile, mut daemon) = Mobile::start(|host| {
        let mut daemon = Daemon::new(host, RULES, true)?;
        daemon.start(host)?;
        Ok(daemon)
    })
    .unwrap();
    let _servers = mobile.serve().unwrap();
    let _iperf = IPERF.map(|port| Iperf::serve(&mobile.apps[0], port).unwrap());
    let ue = &mobile.ues[0];
    wait("steering", || served_by(ue, "app-a")).unwrap();

    let socket = socket(ue);
    let own = socket.local_addr().unwrap().port();
    let answers = thread::scope(|scope| {
        let stream = |port: u16, direction: &'static str| {
            let args = ["--time", "4", "--bitrate", "4M", direction];
            scope.spawn(move || iperf(&ue.namespace, Lab::SERVICE, port, &args))
        };
        let streams = [
            stream(IPERF[0], "--get-server-output"),
            stream(IPERF[1], "--reverse"),
        ];
        let datagrams = scope.spawn(|| exchange(&socket, DATAGRAMS, GAP));
        thread::sleep(Duration::from_secs(1));
        daemon.kill().unwrap();
        thread::sleep(Duration::from_millis(500));
        served_by(ue, "app-a").expect("new flows are steered without a daemon");
        daemon.start(&mobile.host).unwrap();
        for stream in streams {
            let octets = stream.join().unwrap().expect("no connection is lost");
            assert!(octets > 1_000_000, "{octets} octets");
        }
        datagrams.join().unwrap()
    });
    let by_application = |it: &&Option<String>| it.as_deref() == Some("app-a");
    let answered = answers.iter().filter(by_application).count();
    assert_eq!(answered, DATAGRAMS as usize, "answered by the application");
    let flow = daemon.flow(&mobile.host, own).unwrap();
    for direction in ["upstream", "downstream"] {
        let packets = flow[direction]["packets"].as_u64();
        assert_eq!(packets, Some(DATAGRAMS.into()), "{direction}: {flow}");
    }
}

#[test]
fn rules_change_under_traffic() {
    let (mobile, mut steering) = Mobile::start(|host| Steering::open(host, Mode::Wire)).unwrap();
    let _servers = mobile.serve().unwrap();
    let _iperf = Iperf::serve(&mobile.network, IPERF[0]).unwrap();
    let ue = &mobile.ues[0];
    served_by(ue, "network").unwrap();
    let rules = ["a/1 prio 1 flow to 203.0.113.9 proto udp forward ip 198.18.1.2 nat via app0"];
    let socket = socket(ue);
    let answers = thread::scope(|scope| {
        let args = ["--time", "4", "--bitrate", "4M"];
        let stream = scope.spawn(move || iperf(&ue.namespace, Lab::SERVICE, IPERF[0], &args));
        let datagrams = scope.spawn(|| exchange(&socket, DATAGRAMS, GAP));
        for rules in [&rules[..], &[], &rules] {
            thread::sleep(Duration::from_millis(700));
            steering.apply(&mobile.host, rules).unwrap();
        }
        let octets = stream
            .join()
            .unwrap()
            .expect("what no rule is about is not disturbed");
        assert!(octets > 1_000_000, "{octets} octets");
        datagrams.join().unwrap()
    });
    let mut turns: Vec<&str> = answers.iter().flatten().map(String::as_str).collect();
    turns.dedup();
    assert_eq!(turns, ["network", "app-a", "network", "app-a"]);
    let lost = answers.iter().filter(|it| it.is_none()).count();
    // An application's answer that comes after its rule has gone.
    assert!(lost <= 3, "{lost} datagrams were not answered");
}

#[test]
fn sessions_of_idle_ues_are_forgotten() {
    let timeouts = Timeouts {
        tcp_closing: Duration::from_millis(100),
        udp: Duration::from_secs(1),
        session: Duration::from_secs(1),
        ..Timeouts::default()
    };
    let attach = |host: &Namespace| Steering::patient(host, Mode::Wire, timeouts);
    let (mobile, mut steering) = Mobile::start(attach).unwrap();
    let _servers = mobile.serve().unwrap();
    let [idle, local, remote] = &mobile.ues;
    for ue in &mobile.ues {
        served_by(ue, "network").unwrap();
    }
    steering.apply(&mobile.host, &RULES[..1]).unwrap();
    served_by(idle, "app-a").unwrap();
    let socket = socket(local);
    let end = Instant::now() + Duration::from_secs(4);
    let mut seen = HashSet::new();
    while Instant::now() < end {
        // All that it sends is local, so that the core sends nothing to it.
        let answers = exchange(&socket, 1, GAP);
        assert_eq!(answers, [Some("app-a".to_owned())]);
        ping(&remote.namespace, service(remote)).unwrap();
        mobile.host.enter(|| steering.dataplane.expire());
        seen = known(&steering);
        thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(seen, HashSet::from([local.address, remote.address]));
    // What it sends first goes to the core, and so does what follows of it.
    served_by(idle, "network").unwrap();
    assert!(known(&steering).contains(&idle.address));
    served_by(idle, "app-a").unwrap();
}

fn known(steering: &Steering) -> HashSet<IpAddr> {
    let sessions = steering.dataplane.sessions();
    sessions.iter().map(|session| session.ue).collect()
}

fn served_by(ue: &Ue, who: &str) -> Result<()> {
    let server = SocketAddr::new(service(ue), Lab::PORT);
    let page = http_get(&ue.namespace, server, "/page")?;
    ensure!(page == format!("{who}: GET /page"), "{page}");
    Ok(())
}

/// A socket for datagrams to the service.
fn socket(ue: &Ue) -> UdpSocket {
    ue.namespace.enter(|| {
        let socket = UdpSocket::bind((ue.address, 0)).unwrap();
        socket.connect((service(ue), Lab::PORT)).unwrap();
        socket
    })
}

/// The address of the service that this UE can reach.
fn service(ue: &Ue) -> IpAddr {
    match ue.address {
        IpAddr::V4(_) => Lab::SERVICE,
        IpAddr::V6(_) => Lab::SERVICE6,
    }
}
