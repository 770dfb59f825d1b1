//! Which interfaces the programs are on, whatever happens to interfaces and to the configuration.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{mem::offset_of, path::PathBuf, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{SchedClassifier, TcAttachType, Xdp, XdpMode},
};
use dataplane_core::{Reason, table::Port};
use dataplane_user::{
    Dataplane, Error, Gtpu, Limits, Mode, OBJECT, Options, PortConfig, PortStatus, Role, Timeouts,
    netlink::{self, Link},
};
use tests::{executor::Interfaces, lab::Bench, packet::Packet};

const DUPLICATE: &str = "a/1 prio 1 packet proto udp duplicate mac 02:00:00:00:0a:01 via app";

#[test]
fn a_port_that_moves_is_steered_where_it_is_now() {
    let host = Host::new(&["one", "two"]);
    drop(host.open(&[port("ue", "one")]));
    let one = host.link("one").index;
    assert_eq!(host.slot(one), 1);

    let dataplane = host.open(&[port("ue", "two")]);
    assert_eq!(up(&dataplane.ports()), [("ue", host.link("two").index)]);
    assert_eq!(host.link("one").xdp, None);
    assert_eq!(host.slot(one), 0, "the old interface is no port any more");
    host.is_counted(&dataplane, "two", "ue");
}

#[test]
fn ports_that_change_places_are_both_steered() {
    let host = Host::new(&["one", "two"]);
    drop(host.open(&[port("a", "one"), port("b", "two")]));
    let dataplane = host.open(&[port("a", "two"), port("b", "one")]);
    let (one, two) = (host.link("one").index, host.link("two").index);
    assert_eq!(up(&dataplane.ports()), [("a", two), ("b", one)]);
    host.is_counted(&dataplane, "one", "b");
    host.is_counted(&dataplane, "two", "a");
}

#[test]
fn an_interface_is_free_for_another_port_once_its_own_is_no_more() {
    let host = Host::new(&["one", "two"]);
    drop(host.open(&[port("a", "one"), port("b", "two")]));
    let dataplane = host.open(&[port("c", "two")]);
    assert_eq!(up(&dataplane.ports()), [("c", host.link("two").index)]);
    assert_eq!(host.link("one").xdp, None);
    assert_eq!(host.slot(host.link("one").index), 0);
    let present = host.ports_present();
    assert_eq!(present, [2], "slots of ports that are there");
    host.is_counted(&dataplane, "two", "c");
}

#[test]
fn interfaces_that_exchange_names_while_steered_are_followed() {
    let host = Host::new(&["one", "two"]);
    let mut dataplane = host.open(&[port("a", "one"), port("b", "two")]);
    let (one, two) = (host.link("one").index, host.link("two").index);
    let exchange = "link set one down\nlink set two down\nlink set one name three\n\
                    link set two name one\nlink set three name two\nlink set one up\nlink set two up";
    host.bench.host.ip(exchange).unwrap();
    host.bench.host.enter(|| dataplane.refresh()).unwrap();
    assert_eq!(up(&dataplane.ports()), [("a", two), ("b", one)]);
}

#[test]
fn another_program_on_the_port_is_refused_by_name() {
    let host = Host::new(&["one", "two"]);
    drop(host.open(&[port("ue", "one")]));
    let foreign = Foreign::on(&host, "two");
    let dataplane = host.open(&[port("ue", "two")]);
    let [status] = &dataplane.ports()[..] else {
        panic!("one port");
    };
    let reason = status.reason.as_deref().unwrap_or_default();
    assert_eq!(status.mode, Mode::Down, "{reason}");
    assert!(
        reason.contains("two") && reason.contains("Another XDP program is attached"),
        "{reason}"
    );
    let id = host.link("two").xdp.unwrap().program;
    assert_eq!(id, foreign.id(), "the other program is left alone");
    drop(dataplane);

    // On a host where nothing is steered yet, that is an error.
    Dataplane::detach(&host.pins).unwrap();
    let refused = host.try_open(&[port("ue", "two")]).unwrap_err().to_string();
    assert!(
        refused.contains("port ue") && refused.contains("Another XDP program is attached"),
        "{refused}"
    );
    drop(foreign);
    host.is_counted(&host.open(&[port("ue", "two")]), "two", "ue");
}

#[test]
fn copies_are_made_where_the_port_is_now() {
    let host = Host::new(&["one", "two", "app0"]);
    let ports = |interface| [port("ue", interface), app("app", "app0")];
    let mut dataplane = host.open(&ports("one"));
    host.copy(&mut dataplane);
    assert_eq!(host.copiers("one"), 1);
    // The interface is made anew, and has another index.
    host.bench.host.ip("link del one").unwrap();
    host.bench.host.enter(|| dataplane.refresh()).unwrap();
    host.connect("one");
    host.bench.host.enter(|| dataplane.refresh()).unwrap();
    assert_eq!(host.copiers("one"), 1, "made anew");
    // Another interface takes its name.
    let exchange = "link set one down\nlink set two down\nlink set one name three\n\
                    link set two name one\nlink set one up\nlink set three up";
    host.bench.host.ip(exchange).unwrap();
    host.bench.host.enter(|| dataplane.refresh()).unwrap();
    assert_eq!(host.copiers("one"), 1, "another of the same name");
    assert_eq!(host.copiers("three"), 0, "no port any more");
    drop(dataplane);
    // The port moves while nobody looks.
    let mut dataplane = host.open(&ports("three"));
    host.copy(&mut dataplane);
    assert_eq!(host.copiers("three"), 1, "where the port is now");
    assert_eq!(host.copiers("one"), 0, "where the port was");
}

#[test]
fn an_inline_application_of_another_zone_is_not_installed() {
    let host = Host::new(&["one", "two", "three"]);
    let ue = PortConfig {
        zone: 2,
        ..port("ue", "one")
    };
    let mut dataplane = host.open(&[ue, app("in", "two"), app("out", "three")]);
    let rule = "a/1 prio 1 flow any forward mac 02:00:00:00:0a:01 via in and mac 02:00:00:00:0a:02 via out";
    let rules = [rule.parse().unwrap()].into_iter().collect();
    let applied = host.bench.host.enter(|| dataplane.apply(&rules)).unwrap();
    let reasons: Vec<_> = applied.not_installed.values().collect();
    assert_eq!(applied.added, 0);
    assert!(
        matches!(reasons[..], [reason] if reason.contains("zone of the UEs")),
        "{reasons:?}"
    );
}

fn port(name: &str, interface: &str) -> PortConfig {
    PortConfig {
        name: name.to_owned(),
        interface: interface.to_owned(),
        role: Role::Access,
        pair: None,
        zone: 0,
        gtpu: false,
        mss_clamp: false,
        allow_generic: false,
    }
}

fn app(name: &str, interface: &str) -> PortConfig {
    PortConfig {
        role: Role::App,
        ..port(name, interface)
    }
}

/// Ports that are steered, and by which interface.
fn up(ports: &[PortStatus]) -> Vec<(&str, u32)> {
    let up = ports.iter().filter(|port| port.mode == Mode::Native);
    up.map(|port| (port.config.name.as_str(), port.ifindex.unwrap()))
        .collect()
}

/// Interfaces, and where pins are.
struct Host {
    bench: Bench,
    pins: PathBuf,
}

impl Host {
    fn new(interfaces: &[&str]) -> Self {
        let bench = Bench::new(interfaces).unwrap();
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}", bench.host.name()));
        Self { bench, pins }
    }

    fn try_open(&self, ports: &[PortConfig]) -> Result<Dataplane, Error> {
        let options = Options {
            pin_directory: self.pins.clone(),
            ports: ports.to_vec(),
            limits: Limits {
                flows: 64,
                filters: 64,
                rules: 64,
                fragments: 64,
                sessions: 64,
                vips: 1,
            },
            timeouts: Timeouts::default(),
            gtpu: Gtpu::default(),
            peers: Vec::new(),
        };
        self.bench.host.enter(|| Dataplane::open(options))
    }

    fn open(&self, ports: &[PortConfig]) -> Dataplane {
        self.try_open(ports).unwrap()
    }

    /// Puts a rule in force that asks for copies.
    fn copy(&self, dataplane: &mut Dataplane) {
        let rules = [DUPLICATE.parse().unwrap()].into_iter().collect();
        let applied = self.bench.host.enter(|| dataplane.apply(&rules)).unwrap();
        assert!(applied.not_installed.is_empty(), "{applied:?}");
    }

    /// Makes an interface anew.
    fn connect(&self, interface: &str) {
        let far = format!("far-{interface}");
        let bench = &self.bench;
        bench.host.link(interface, (&bench.far, &far)).unwrap();
        bench.far.prepare_far_end(&far).unwrap();
    }

    fn link(&self, interface: &str) -> Link {
        let links = self.bench.host.enter(netlink::links).unwrap();
        let found = links.into_iter().find(|link| link.name == interface);
        found.unwrap()
    }

    /// The slot, plus 1, of the port that packets of an interface come by.
    fn slot(&self, ifindex: u32) -> u32 {
        let port = Interfaces::pinned(&self.pins).unwrap().port(ifindex);
        match port.flags {
            0 => 0,
            _ => u32::from(port.slot) + 1,
        }
    }

    /// Slots of the ports that packets may be sent to.
    fn ports_present(&self) -> Vec<u16> {
        let ports = Map::Array(MapData::from_pin(self.pins.join("PORTS")).unwrap());
        let ports = Array::<_, [u8; size_of::<Port>()]>::try_from(ports).unwrap();
        let ports = ports.iter().map(Result::unwrap);
        let present = ports
            .zip(0..)
            .filter(|(port, _)| port[offset_of!(Port, flags)] != 0);
        present.map(|(_, slot)| slot).collect()
    }

    /// How many programs look at what comes by an interface, in traffic control.
    fn copiers(&self, interface: &str) -> usize {
        let query = || SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
        self.bench.host.enter(query).unwrap().1.len()
    }

    /// A packet from the far end of an interface is one of the port's.
    fn is_counted(&self, dataplane: &Dataplane, interface: &str, port: &str) {
        let count = || {
            let counters = dataplane.port_counters().into_iter();
            let of_port = counters.filter(|it| it.port == port && it.reason == Reason::NoRule);
            of_port.map(|it| it.packets).sum::<u64>()
        };
        let before = count();
        let far = self.bench.socket(interface).unwrap();
        let frame = Packet::udp("10.45.0.7:5000", "203.0.113.9:443").bytes();
        far.send(&frame).unwrap();
        let counted = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            count() > before
        });
        assert!(counted, "a packet by {interface} is not counted for {port}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The namespaces go as well.
        let _ = self.bench.host.enter(|| Dataplane::detach(&self.pins));
    }
}

/// A program of somebody else's.
struct Foreign(Ebpf);

impl Foreign {
    fn on(host: &Host, interface: &str) -> Self {
        let mut ebpf = EbpfLoader::new().load(OBJECT).unwrap();
        let program: &mut Xdp = ebpf.program_mut("steer").unwrap().try_into().unwrap();
        program.load().unwrap();
        let attach = || program.attach(interface, XdpMode::Driver).map(drop);
        host.bench.host.enter(attach).unwrap();
        Self(ebpf)
    }

    fn id(&self) -> u32 {
        self.0.program("steer").unwrap().info().unwrap().id()
    }
}
