//! As many sessions as the data path is made for, and what learning them costs.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    fs,
    net::Ipv4Addr,
    slice, thread,
    time::{Duration, Instant},
};

use dataplane_core::Reason;
use dataplane_user::{Bearer, Binding, Dataplane, Error, Limits, SessionFilter, SessionStatus};
use tests::{
    executor::{Host, Kernel, Rig},
    packet::{GTPU_PORT, Gtpu, Packet, Tunnel, open},
    scenario::Executor as _,
};

const RULE: &str = "a/1 prio 1 flow to 203.0.113.9 proto udp forward ip 198.18.1.2 via app0";
const RAN: &str = "192.0.2.1";
const CORE: &str = "198.51.100.1";
const MILLION: u32 = 1_000_000;

fn ue(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + number)
}

fn binding(number: u32) -> Binding {
    let bearer = Bearer {
        uplink: number,
        downlink: number,
        qci: None,
    };
    Binding {
        zone: 0,
        ue: ue(number).into(),
        ran: RAN.parse().unwrap(),
        core: CORE.parse().unwrap(),
        bearers: vec![bearer],
        qos_flows: Vec::new(),
    }
}

/// A packet of a UE's, in its tunnel to the core.
fn uplink(number: u32) -> Packet {
    let inner = Packet::udp(&format!("{}:5000", ue(number)), "203.0.113.9:443");
    over(number, &inner, [RAN, CORE])
}

/// A packet to a UE, in its tunnel.
fn downlink(number: u32) -> Packet {
    let inner = Packet::udp("203.0.113.9:443", &format!("{}:5000", ue(number)));
    over(number, &inner, [CORE, RAN])
}

fn over(teid: u32, inner: &Packet, ends: [&str; 2]) -> Packet {
    let [source, destination] = ends.map(|address| format!("{address}:{GTPU_PORT}"));
    Gtpu::pdu(teid, inner.network_bytes()).over(&source, &destination)
}

#[test]
fn a_million_sessions_are_held() {
    let limits = Limits {
        sessions: MILLION,
        ..Limits::default()
    };
    let mut kernel = Kernel::on(Rig::mobile_with(limits).unwrap()).unwrap();
    let rules = [RULE.parse().unwrap()].into_iter().collect();
    kernel.rig.change(&rules).unwrap();
    let dataplane = &mut kernel.rig.dataplane;
    let all: Vec<_> = (1..MILLION).map(binding).collect();
    let begun = Instant::now();
    for some in all.chunks(10_000) {
        dataplane.provision(some).unwrap();
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(60), "said in {took:?}");

    // What is said of the limit.
    let (records, keys) = (memory_of(MILLION), memory_of(4 * MILLION));
    println!("{} bytes a session", (records + keys) / u64::from(MILLION));
    assert!(records < 230 * u64::from(MILLION), "{records}");
    assert!(keys < 480 * u64::from(MILLION), "{keys}");

    let begun = Instant::now();
    let status = dataplane.status();
    let active = status
        .sessions
        .iter()
        .find(|count| count.provisioned && count.status == SessionStatus::Active);
    assert_eq!(active.unwrap().sessions, u64::from(MILLION - 1));
    let filter = SessionFilter::default();
    let (page, next) = dataplane.find_sessions(&filter, 500_000, 1_000);
    assert_eq!((page.len(), next), (1_000, Some(501_000)));
    let one = SessionFilter {
        zone: Some(0),
        ue: Some(ue(765_432).into()),
        ..filter
    };
    let (found, _) = dataplane.find_sessions(&one, 0, 1);
    assert_eq!(found[0].bearers[0].downlink, Some(765_432));
    let read = begun.elapsed();
    assert!(read < Duration::from_secs(2), "read in {read:?}");
    println!("{MILLION} sessions: said in {took:?}, read in {read:?}");

    for number in [1, 500_000, MILLION - 1] {
        let seen = kernel.arrive("access0", &uplink(number).bytes()).unwrap();
        assert_eq!(seen.reasons, [Reason::Steered], "{number}");
    }
    // One more is learned, and then there is no room.
    let seen = kernel.arrive("access0", &uplink(MILLION).bytes()).unwrap();
    assert_eq!(seen.reasons, [Reason::NoDownlinkTunnel]);
    let seen = kernel.arrive("access0", &uplink(MILLION + 1).bytes());
    assert_eq!(seen.unwrap().reasons, [Reason::SessionTableFull]);
    let dataplane = &mut kernel.rig.dataplane;
    let error = dataplane.provision(&[binding(7), binding(MILLION + 1)]);
    assert!(matches!(error, Err(Error::TooMany { .. })), "{error:?}");
    let left = dataplane.withdraw(&[(0, ue(8).into()), (0, ue(MILLION).into())]);
    assert_eq!(left, 1, "what was learned is not withdrawn");
    let error = dataplane.provision(&[binding(MILLION + 2), binding(MILLION + 3)]);
    assert!(matches!(error, Err(Error::TooMany { .. })), "{error:?}");
    dataplane.provision(&[binding(MILLION + 1)]).unwrap();
}

#[test]
fn a_restart_brings_back_what_is_said_but_no_tunnel_that_has_ended() {
    let mut kernel = Kernel::mobile().unwrap();
    let rules = [RULE.parse().unwrap()].into_iter().collect();
    kernel.rig.change(&rules).unwrap();
    let all = [binding(1), binding(2), binding(3)];
    kernel.rig.dataplane.provision(&all).unwrap();
    let marker = Gtpu::end_marker(2).over(
        &format!("{CORE}:{GTPU_PORT}"),
        &format!("{RAN}:{GTPU_PORT}"),
    );
    let seen = kernel.arrive("core0", &marker.bytes()).unwrap();
    assert_eq!(seen.reasons, [Reason::GtpuEndMarker]);
    kernel.rig.dataplane.lost_sessions();

    kernel.rig.restart().unwrap();
    let mut moved = binding(3);
    moved.ran = "192.0.2.2".parse().unwrap();
    let dataplane = &mut kernel.rig.dataplane;
    dataplane
        .reprovision(&[binding(2), moved, binding(4)])
        .unwrap();
    let status = |dataplane: &Dataplane, number| {
        let one = SessionFilter {
            zone: Some(0),
            ue: Some(ue(number).into()),
            ..SessionFilter::default()
        };
        let (found, _) = dataplane.find_sessions(&one, 0, 1);
        found.first().map(|it| (it.status, it.ran.to_string()))
    };
    let active = |ran: &str| Some((SessionStatus::Active, ran.to_owned()));
    assert_eq!(status(dataplane, 1), None);
    let ended = Some((SessionStatus::Ended, RAN.to_owned()));
    assert_eq!(status(dataplane, 2), ended);
    assert_eq!(status(dataplane, 3), active("192.0.2.2"));
    assert_eq!(status(dataplane, 4), active(RAN));
    dataplane.provision(&[binding(2)]).unwrap();
    assert_eq!(status(dataplane, 2), active(RAN));
    // Packets cannot age what is said.
    dataplane.expire();
    assert_eq!(dataplane.sessions().len(), 3);
}

#[test]
fn it_is_told_once_that_nothing_can_be_sent_to_a_ue() {
    let mut kernel = Kernel::mobile().unwrap();
    let rules = [RULE.parse().unwrap()].into_iter().collect();
    kernel.rig.change(&rules).unwrap();
    kernel
        .rig
        .dataplane
        .provision(&[binding(1), binding(2)])
        .unwrap();
    let lost = |kernel: &mut Kernel| {
        let lost = kernel.rig.dataplane.lost_sessions().into_iter();
        lost.map(|it| (it.ue, it.status)).collect::<Vec<_>>()
    };
    assert_eq!(lost(&mut kernel), []);
    let inner = Packet::udp(&format!("{}:5000", ue(2)), "203.0.113.9:443");
    let moved = over(2, &inner, ["192.0.2.2", CORE]);
    let seen = kernel.arrive("access0", &moved.bytes()).unwrap();
    assert_eq!(seen.reasons, [Reason::NoDownlinkTunnel]);
    assert_eq!(lost(&mut kernel), [(ue(2).into(), SessionStatus::Pending)]);
    assert_eq!(lost(&mut kernel), []);
}

#[test]
fn no_packet_sees_half_of_what_is_said() {
    const OTHER_RAN: &str = "192.0.2.2";
    let mut rig = Rig::mobile().unwrap();
    rig.change(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let here = binding(1);
    let mut there = binding(2);
    (there.ue, there.ran) = (here.ue, OTHER_RAN.parse().unwrap());
    there.bearers[0].uplink = here.bearers[0].uplink;
    rig.dataplane.provision(slice::from_ref(&here)).unwrap();
    let [access, app] = ["access0", "app0"].map(|port| rig.bench.socket(port).unwrap());
    access.send(&uplink(1).bytes()).unwrap();
    let (from, to) = ([2, 0, 0, 0, 0xa, 1], [2, 0, 0, 0, 0xe, 4]);
    let reply = Packet::udp("203.0.113.9:443", &format!("{}:5000", ue(1))).macs(from, to);
    let reply = reply.bytes();
    while app.drain(Duration::from_millis(10)).unwrap().is_empty() {}

    let begun = Instant::now();
    let is_over = || begun.elapsed() > Duration::from_secs(3);
    let mut seen = [0, 0];
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over() {
                app.send(&reply).unwrap();
            }
        });
        for binding in [&there, &here].into_iter().cycle() {
            if is_over() {
                break;
            }
            rig.dataplane.provision(slice::from_ref(binding)).unwrap();
            // Some packets come in between, on a busy machine too.
            let wait = Duration::from_millis(1);
            for frame in (0..20).map_while(|_| access.receive(wait).unwrap()) {
                let Ok(opened) = open(&frame) else { continue };
                let Tunnel::Gtpu(gtpu) = opened.tunnel else {
                    continue;
                };
                let station = opened.destination.to_string();
                let place = ["", RAN, OTHER_RAN].iter().position(|it| *it == station);
                assert_eq!(place, Some(gtpu.teid as usize), "{station} {}", gtpu.teid);
                seen[gtpu.teid as usize - 1] += 1;
            }
        }
    });
    assert!(seen.iter().all(|seen| *seen > 50), "{seen:?}");
}

/// Bytes of the largest map of this process that has so many entries, as the kernel tells.
fn memory_of(entries: u32) -> u64 {
    let number = |text: &str, name: &str| -> Option<u64> {
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    let files = fs::read_dir("/proc/self/fdinfo").unwrap();
    // Some are closed meanwhile.
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    let maps = texts.filter(|text| number(text, "max_entries:") == Some(entries.into()));
    maps.filter_map(|text| number(&text, "memlock:"))
        .max()
        .unwrap()
}

#[test]
fn learning_takes_one_update_of_a_map_for_each_binding() {
    let mut host = Host::new();
    host.prepare(&[RULE.parse().unwrap()].into_iter().collect())
        .unwrap();
    let (up, down) = (uplink(1), downlink(1));
    for (port, packet, reason, updates) in [
        // The UE is known and its tunnel to the core, and then the one to it.
        ("access0", &up, Reason::NoDownlinkTunnel, 2),
        ("access0", &up, Reason::NoDownlinkTunnel, 0),
        ("core0", &down, Reason::NoRule, 1),
        ("core0", &down, Reason::NoRule, 0),
        ("access0", &up, Reason::Steered, 0),
        ("access0", &up, Reason::Steered, 0),
        ("core0", &down, Reason::WrongSide, 0),
        // One packet may teach both.
        ("core0", &downlink(2), Reason::NoRule, 2),
        ("access0", &uplink(2), Reason::Steered, 1),
    ] {
        let before = host.session_updates();
        let seen = host.arrive(port, &packet.bytes()).unwrap();
        assert_eq!(seen.reasons, [reason]);
        assert_eq!(
            host.session_updates() - before,
            updates,
            "{port} {reason:?}"
        );
    }
}
