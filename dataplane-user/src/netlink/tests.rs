//! Real veths in namespaces of their own. They need root.

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd},
    process::Command,
    time::{Duration, Instant},
};

use super::*;

#[test]
fn both_ends_of_a_veth_are_listed() {
    let lab = Lab::new();
    let near = lab.near.run(|| link("near")).unwrap();
    let far = lab.far.run(|| link("far")).unwrap();
    assert_eq!(near.kind.as_deref(), Some("veth"));
    assert_eq!(near.mac, Some([2, 0, 0, 0, 0, 1]));
    assert_eq!((near.mtu, near.up, near.carrier), (1400, true, true));
    assert_eq!((near.rx_queues, near.tx_queues), (2, 3));
    assert_eq!((near.peer, far.peer), (Some(far.index), Some(near.index)));
    assert!(near.ethernet && near.xdp.is_none());
    let id = lab.near.run(|| lab.far.id().unwrap()).unwrap();
    assert!(id.is_some());
    assert_eq!(near.peer_namespace, id);
    let lo = lab.near.run(|| link("lo")).unwrap();
    assert!(!lo.ethernet && lo.mac.is_none() && lo.kind.is_none());
}

#[test]
fn an_address_is_set_renewed_removed_and_goes_by_itself() {
    let lab = Lab::new();
    let index = lab.near.run(|| link("lo").index).unwrap();
    let second = Duration::from_secs(1);
    for address in ["198.51.100.1", "2001:db8::51"] {
        let address: IpAddr = address.parse().unwrap();
        let find = || {
            let all = lab.near.run(addresses).unwrap().unwrap();
            all.into_iter().find(|it| it.address == address)
        };
        let set = |lifetime, present| {
            let work = || set_address(index, address, 77, lifetime, present);
            lab.near.run(work).unwrap()
        };
        assert_eq!(find(), None);
        set(None, Present::Refused).unwrap();
        let prefix = if address.is_ipv4() { 32 } else { 128 };
        let expected = Address {
            ifindex: index,
            address,
            prefix,
            protocol: 77,
            lifetime: None,
        };
        assert_eq!(find(), Some(expected));
        let shown = run(&lab.near, "ip address show dev lo");
        assert!(
            shown.contains("deprecated") && !shown.contains("tentative"),
            "{shown}"
        );
        assert!(set(None, Present::Refused).is_err());
        set(Some(100 * second), Present::Renewed).unwrap();
        let found = find().unwrap();
        assert_eq!(found.protocol, 77);
        assert!((99 * second..=100 * second).contains(&found.lifetime.unwrap()));

        let remove = || lab.near.run(|| remove_address(index, address)).unwrap();
        remove().unwrap();
        assert_eq!(find(), None);
        remove().unwrap();
        set(Some(2 * second), Present::Renewed).unwrap();
        assert!(find().is_some());
        eventually(|| find().is_none());
    }
    let listed = lab.near.run(addresses).unwrap().unwrap();
    let near = listed
        .iter()
        .find(|it| it.address == IpAddr::from([192, 0, 2, 1]));
    assert_eq!(
        near.map(|it| (it.prefix, it.protocol, it.lifetime)),
        Some((24, 0, None))
    );
    let gone = || set_address(4711, [192, 0, 2, 9].into(), 77, None, Present::Refused);
    let result = lab.near.run(gone).unwrap();
    assert!(
        matches!(result, Err(Error::NoSuchLink { .. })),
        "{result:?}"
    );
}

#[test]
fn a_managed_neighbor_resolves_without_traffic_and_again_after_carrier_loss() {
    for (address, restore) in [
        ("192.0.2.2", "true"),
        // An IPv6 address goes with the link.
        ("2001:db8::2", "ip addr add 2001:db8::2/64 dev far nodad"),
    ] {
        let lab = Lab::new();
        let address = address.parse().unwrap();
        let index = lab.near.run(|| link("near").index).unwrap();
        let manage = || lab.near.run(|| manage_neighbor(index, address)).unwrap();
        let resolved = || {
            let entry = lab
                .near
                .run(|| neighbor(index, address))
                .unwrap()
                .unwrap()?;
            entry.managed.then(|| entry.resolved())?
        };
        manage().unwrap();
        eventually(|| resolved() == Some([2, 0, 0, 0, 0, 2]));
        manage().unwrap();
        assert!(
            resolved().is_some(),
            "asking again must not lose what is known"
        );

        lab.far("ip link set far down");
        eventually(|| resolved().is_none());
        lab.far("ip link set far up");
        lab.far(restore);
        lab.settle();
        manage().unwrap();
        eventually(|| resolved() == Some([2, 0, 0, 0, 0, 2]));

        let listed = lab.near.run(neighbors).unwrap().unwrap();
        assert!(
            listed
                .iter()
                .any(|entry| entry.address == address && entry.managed)
        );
        let forget = || lab.near.run(|| forget_neighbor(index, address)).unwrap();
        forget().unwrap();
        assert_eq!(
            lab.near.run(|| neighbor(index, address)).unwrap().unwrap(),
            None
        );
        forget().unwrap();
    }
}

#[test]
fn a_neighbor_that_does_not_answer_stays_unresolved() {
    let lab = Lab::new();
    let address: IpAddr = "192.0.2.77".parse().unwrap();
    lab.near
        .run(|| {
            let index = link("near").index;
            manage_neighbor(index, address).unwrap();
            let entry = neighbor(index, address).unwrap().unwrap();
            assert_eq!(entry.resolved(), None);
            assert!(entry.managed);
        })
        .unwrap();
}

#[test]
fn a_permanent_neighbor_is_left_alone() {
    let lab = Lab::new();
    lab.near("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev near nud permanent");
    lab.near
        .run(|| {
            let index = link("near").index;
            let address = "192.0.2.9".parse().unwrap();
            manage_neighbor(index, address).unwrap();
            let entry = neighbor(index, address).unwrap().unwrap();
            assert_eq!(entry.resolved(), Some([2, 0, 0, 0, 0, 9]));
        })
        .unwrap();
}

#[test]
fn an_interface_that_is_gone_says_so() {
    let lab = Lab::new();
    let result = lab
        .near
        .run(|| manage_neighbor(4711, "192.0.2.2".parse().unwrap()))
        .unwrap();
    assert!(
        matches!(result, Err(Error::NoSuchLink { .. })),
        "{result:?}"
    );
    let forget = || forget_neighbor(4711, "192.0.2.2".parse().unwrap());
    lab.near.run(forget).unwrap().unwrap();
}

#[test]
fn routes_are_looked_up() {
    let lab = Lab::new();
    lab.near("ip route add 198.51.100.0/24 via 192.0.2.2");
    lab.near("ip route add 203.0.113.0/24 via inet6 2001:db8::2 dev near");
    lab.near("ip route add 2001:db8:1::/48 via 2001:db8::2");
    lab.near("ip route add blackhole 198.51.100.7");
    lab.near("ip route add unreachable 198.51.100.8");
    lab.near("ip route add prohibit 198.51.100.9");
    lab.near("ip route add blackhole 2001:db8:1::7");
    lab.near("ip route add prohibit 2001:db8:1::9");
    let find = |address: &str| {
        let address = address.parse().unwrap();
        lab.near.run(|| route(address)).unwrap().unwrap()
    };
    let index = lab.near.run(|| link("near").index).unwrap();
    let expect = |gateway: Option<&str>, source: &str| {
        Some(Route {
            ifindex: index,
            gateway: gateway.map(|address| address.parse().unwrap()),
            preferred_source: Some(source.parse().unwrap()),
            local: false,
        })
    };
    assert_eq!(find("192.0.2.2"), expect(None, "192.0.2.1"));
    assert_eq!(find("198.51.100.1"), expect(Some("192.0.2.2"), "192.0.2.1"));
    assert_eq!(
        find("203.0.113.1"),
        expect(Some("2001:db8::2"), "192.0.2.1")
    );
    assert_eq!(find("2001:db8::2"), expect(None, "2001:db8::1"));
    assert_eq!(
        find("2001:db8:1::1"),
        expect(Some("2001:db8::2"), "2001:db8::1")
    );
    for lost in ["198.51.100.7", "198.51.100.8", "198.51.100.9", "8.8.8.8"] {
        assert_eq!(find(lost), None, "{lost}");
    }
    for lost in ["2001:db8:1::7", "2001:db8:1::9", "2001:db9::1"] {
        assert_eq!(find(lost), None, "{lost}");
    }
    assert!(find("192.0.2.1").unwrap().local);
    assert!(find("2001:db8::1").unwrap().local);
}

#[test]
fn the_monitor_sees_each_kind_of_change_once() {
    let lab = Lab::new();
    let monitor = lab.near.run(Monitor::open).unwrap().unwrap();
    let wait = || monitor.wait(Duration::from_secs(2)).unwrap();
    while monitor.wait(Duration::from_millis(300)).unwrap().any() {}

    lab.near("ip link add extra type veth peer name other");
    assert!(wait().links);
    lab.near("ip link set extra mtu 1300");
    assert!(wait().links);
    lab.near("ip link del extra");
    assert!(wait().links);
    lab.near("ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev near");
    assert_eq!(
        wait(),
        Changes {
            neighbors: true,
            ..Changes::default()
        }
    );
    lab.near("ip route add 198.51.100.0/24 via 192.0.2.2");
    assert_eq!(
        wait(),
        Changes {
            routes: true,
            ..Changes::default()
        }
    );
    lab.near("ip route add 2001:db8:1::/48 via 2001:db8::2");
    assert_eq!(
        wait(),
        Changes {
            routes: true,
            ..Changes::default()
        }
    );
    let before = Instant::now();
    assert!(!monitor.wait(Duration::from_millis(50)).unwrap().any());
    assert!(before.elapsed() >= Duration::from_millis(50));
}

#[test]
fn lost_events_ask_for_a_resync() {
    let lab = Lab::new();
    let monitor = lab.near.run(Monitor::open).unwrap().unwrap();
    monitor.shrink();
    lab.near("ip link set near mtu 1300");
    lab.near("ip link set near mtu 1310");
    lab.near("ip link set near mtu 1320");
    assert!(monitor.wait(Duration::from_secs(1)).unwrap().resync);
    while monitor.wait(Duration::from_millis(300)).unwrap().any() {}
    lab.near("ip link set near mtu 1400");
    let changes = monitor.wait(Duration::from_secs(1)).unwrap();
    assert!(changes.links && !changes.resync, "it works on after a loss");
}

#[test]
fn a_namespace_of_a_process_is_found() {
    let lab = Lab::new();
    let mut child = lab
        .far
        .run(|| Command::new("sleep").arg("60").spawn())
        .unwrap()
        .unwrap();
    let id = lab.near.run(|| lab.far.id().unwrap()).unwrap();
    let found = lab.near.run(|| {
        Namespace::all()
            .iter()
            .any(|namespace| namespace.id().is_ok_and(|found| found == id))
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(found.unwrap());
}

fn link(name: &str) -> Link {
    let links = links().unwrap();
    links.into_iter().find(|link| link.name == name).unwrap()
}

#[track_caller]
fn eventually(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "did not happen in time");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Two namespaces, `near` and `far`, joined by a veth of those names.
struct Lab {
    near: Namespace,
    far: Namespace,
}

impl Lab {
    fn new() -> Self {
        let lab = Self {
            near: Namespace::create().expect("making network namespaces needs root"),
            far: Namespace::create().unwrap(),
        };
        let far = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            lab.far.as_fd().as_raw_fd()
        );
        lab.near(
            "ip link add near address 02:00:00:00:00:01 mtu 1400 numrxqueues 2 numtxqueues 3 \
             type veth peer name far address 02:00:00:00:00:02",
        );
        lab.near(&format!("ip link set far netns {far}"));
        lab.near("ip link set lo up");
        lab.near("ip addr add 192.0.2.1/24 dev near");
        lab.near("ip addr add 2001:db8::1/64 dev near nodad");
        lab.near("ip link set near up");
        lab.far("ip addr add 192.0.2.2/24 dev far");
        lab.far("ip addr add 2001:db8::2/64 dev far nodad");
        lab.far("ip link set far up");
        lab.settle();
        lab
    }

    /// Waits until the kernel has handled the new carrier: only then it stops forgetting neighbors.
    fn settle(&self) {
        eventually(|| run(&self.near, "ip link show near").contains("state UP"));
    }

    fn near(&self, command: &str) {
        run(&self.near, command);
    }

    fn far(&self, command: &str) {
        run(&self.far, command);
    }
}

fn run(namespace: &Namespace, command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = namespace
        .run(|| Command::new(words.next().unwrap()).args(words).output())
        .unwrap()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
