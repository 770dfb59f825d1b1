//! The program on its interfaces: the scenarios with frames through packet sockets, and what people
//! do, with real sockets on real kernels.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    net::SocketAddr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use dataplane_user::{Dataplane, Limits, Options, PortConfig, Role, Timeouts, rule::RuleSet};
use tests::{
    executor::Veth,
    lab::{Lab, Mode, http_get, udp_ask},
    scenario,
};

/// How long an answer or a neighbor may take.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn scenarios() {
    scenario::run_all(&mut Veth::new().unwrap());
}

#[test]
fn sockets_over_a_wire() {
    sockets(Mode::Wire);
}

#[test]
fn sockets_over_a_routed_host() {
    sockets(Mode::Routed);
}

/// TCP goes to the first application, by address translation; UDP to the second, by its MAC address.
const RULES: [&str; 4] = [
    "a/1 prio 1 flow to 203.0.113.9 proto tcp dport 80 forward ip 198.18.1.2 nat via app0",
    "a/2 prio 1 flow to 203.0.113.9 proto udp forward mac 02:00:00:00:0a:02 via app1",
    "a/3 prio 1 flow to 2001:db8:203::9 proto tcp forward ip 2001:db8:a1::2 nat via app0",
    "a/4 prio 1 flow to 2001:db8:203::9 proto udp forward mac 02:00:00:00:0a:02 via app1",
];

fn sockets(mode: Mode) {
    let lab = Lab::new(mode).unwrap();
    let _servers = lab.serve().unwrap();
    let mut steered = Steered::open(&lab, mode);
    let all = ["network", "network"];
    ask(&lab, all);
    steered.apply(&lab, &RULES);
    ask(&lab, ["app-a", "app-b"]);
    // The connections of before are over; new ones come under the rules that are left.
    steered.apply(&lab, &RULES[1..2]);
    let v4 = SocketAddr::new(Lab::SERVICE, Lab::PORT);
    assert_eq!(http_get(&lab.ue, v4, "/").unwrap(), "network: GET /");
    steered.apply(&lab, &[]);
    ask(&lab, all);
}

/// Asks the service over TCP and UDP, by IPv4 and IPv6: `who` answers each of the transports.
fn ask(lab: &Lab, who: [&str; 2]) {
    for address in [Lab::SERVICE, Lab::SERVICE6] {
        let service = SocketAddr::new(address, Lab::PORT);
        let [tcp, udp] = who;
        let page = http_get(&lab.ue, service, "/page").unwrap();
        assert_eq!(page, format!("{tcp}: GET /page"), "{address}");
        let answer = udp_ask(&lab.ue, service, "question", PATIENCE).unwrap();
        assert_eq!(answer, Some(format!("{udp}: question")), "{address}");
    }
}

/// The data plane on the host of the lab; it goes with the value.
struct Steered {
    dataplane: Dataplane,
    pins: PathBuf,
}

impl Steered {
    fn open(lab: &Lab, mode: Mode) -> Self {
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}", lab.host.name()));
        let port = |name: &str, role, pair: Option<&str>| PortConfig {
            name: name.to_owned(),
            interface: name.to_owned(),
            role,
            pair: pair.filter(|_| mode == Mode::Wire).map(str::to_owned),
            zone: 0,
            allow_generic: false,
        };
        let options = Options {
            pin_directory: pins.clone(),
            ports: vec![
                port("access0", Role::Access, Some("core0")),
                port("core0", Role::Core, Some("access0")),
                port("app0", Role::App, None),
                port("app1", Role::App, None),
            ],
            limits: Limits::default(),
            timeouts: Timeouts::default(),
        };
        let dataplane = lab.host.enter(|| Dataplane::open(options)).unwrap();
        Self { dataplane, pins }
    }

    /// Puts rules in force, and waits until the kernel knows their neighbors.
    fn apply(&mut self, lab: &Lab, rules: &[&str]) {
        let rules: RuleSet = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let dataplane = &mut self.dataplane;
        let applied = lab.host.enter(|| dataplane.apply(&rules)).unwrap();
        assert!(applied.not_installed.is_empty(), "{applied:?}");
        let deadline = Instant::now() + PATIENCE;
        while dataplane
            .next_hops()
            .iter()
            .any(|hop| hop.resolved.is_none())
        {
            assert!(Instant::now() < deadline, "{:?}", dataplane.next_hops());
            thread::sleep(Duration::from_millis(20));
            lab.host.enter(|| dataplane.refresh()).unwrap();
        }
    }
}

impl Drop for Steered {
    fn drop(&mut self) {
        // The namespaces go as well, and the next run looks for what is left.
        let _ = Dataplane::detach(&self.pins);
    }
}
