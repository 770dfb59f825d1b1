//! One VIP at three MEC hosts, behind a router that BIRD and FRR tell of it: what is lost when backends and hosts come and go.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    collections::BTreeMap,
    io::Read as _,
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tests::lab::{Anycast, LONG};

/// How long an answer may take; none takes long here.
const PATIENCE: Duration = Duration::from_millis(500);

/// Requests that may be lost when the router changes its mind: the one that is under way then, whose connection the other site
/// does not know.
const UNDER_WAY: usize = 1;

/// A request: when it was made, and who answered.
type Request = (Instant, Option<String>);

#[test]
fn backends_and_hosts_come_and_go() {
    let mut lab = Anycast::start(3).unwrap();
    until(&lab, "site1");
    let shares = who(&asked(&lab, 40));
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["site1 a", "site1 b"]);

    // A backend that drains keeps what it has, to the last octet.
    let downloads = begin(&lab, 8);
    lab.sites[0].say(["DRAINING", "UP"]).unwrap();
    wait_state(&lab, 0, "DRAINING");
    let shares = who(&asked(&lab, 20));
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["site1 b"]);
    let (whole, cut) = end(downloads);
    assert_eq!(cut, [] as [&str; 0], "{whole:?} were whole");
    lab.sites[0].say(["UP", "UP"]).unwrap();
    wait_state(&lab, 0, "UP");

    // One that dies takes its own flows with it, and no others.
    let downloads = begin(&lab, 8);
    lab.sites[0].kill(0);
    let killed = Instant::now();
    let requests = asked_for(&lab, Duration::from_secs(4));
    let last = requests.iter().rfind(|(_, answer)| answer.is_none());
    let noticed = last.map_or(Duration::ZERO, |(when, _)| when.duration_since(killed));
    println!("a killed backend costs requests for {noticed:?}");
    assert!(noticed < Duration::from_secs(3), "{noticed:?}");
    let (whole, cut) = end(downloads);
    assert!(
        whole.iter().all(|it| it == "site1 b") && !whole.is_empty(),
        "{whole:?}"
    );
    assert!(
        cut.iter().all(|it| it == "site1 a") && !cut.is_empty(),
        "{cut:?}"
    );

    // Without any, the next site serves.
    lab.sites[0].kill(1);
    let time = until(&lab, "site2");
    println!("the next site serves {time:?} after the last backend was killed");
    let requests = asked(&lab, 20);
    assert!(
        requests
            .iter()
            .all(|it| it.1.as_deref().is_some_and(|it| it.starts_with("site2")))
    );

    // And comes back, with nothing lost on the way.
    let over = AtomicBool::new(false);
    let requests = thread::scope(|scope| {
        let lab = &lab;
        lab.sites[0].serve(0).unwrap();
        lab.sites[0].serve(1).unwrap();
        let back = Instant::now();
        let asking = scope.spawn(|| {
            let mut requests = Vec::new();
            while !over.load(Ordering::Relaxed) {
                requests.extend(asked(lab, 1));
            }
            requests
        });
        until(lab, "site1");
        let time = back.elapsed();
        println!("the first site serves again {time:?} after its backends came");
        assert!(time > Duration::from_secs(2), "there is a hold-down");
        thread::sleep(Duration::from_secs(1));
        over.store(true, Ordering::Relaxed);
        asking.join().unwrap()
    });
    let lost = requests.iter().filter(|it| it.1.is_none()).count();
    println!("{lost} of {} requests lost as it came back", requests.len());
    assert!(lost <= UNDER_WAY, "{lost}");

    // A host that is gone.
    lab.cut(0, true).unwrap();
    let time = until(&lab, "site2");
    println!("the next site serves {time:?} after a host was cut off");

    // One that is shut down in good order, and the last one, which FRR speaks for.
    lab.sites[1].daemon.stop().unwrap();
    let stopped = Instant::now();
    let requests = asked_for(&lab, Duration::from_secs(3));
    let lost = requests.iter().filter(|it| it.1.is_none()).count();
    println!(
        "{lost} of {} requests lost as a host was shut down",
        requests.len()
    );
    assert!(lost <= UNDER_WAY, "{lost}");
    assert_eq!(
        lab.preferred(),
        Some(3),
        "{:?} after the stop",
        stopped.elapsed()
    );
    assert!(who(&requests).keys().any(|it| it.starts_with("site3")));
}

/// TCP at both ends believes in 1500 octets, until errors tell otherwise: edgesteer's to the client, and the router's, which goes to
/// the VIP, to the backend that it is meant for.
#[test]
fn the_path_mtu_is_found_through_a_vip() {
    const OCTETS: usize = 500_000;
    let lab = Anycast::start(1).unwrap();
    until(&lab, "site1");
    assert_eq!(lab.echo(OCTETS).unwrap(), OCTETS);
    // Both backends, by and by.
    let all_come_back = || {
        for _ in 0..6 {
            assert_eq!(lab.echo(OCTETS).unwrap(), OCTETS);
        }
    };
    lab.narrow_to_client(1280).unwrap();
    all_come_back();
    let told = || lab.sites[0].reason("mtu_exceeded").unwrap();
    assert_eq!(told(), 0, "it is the router that tells");
    lab.narrow_to_backends(1300).unwrap();
    tests::lab::wait("the MTU of the ports", || {
        let ports = lab.sites[0].daemon.get(&lab.sites[0].host, "ports")?;
        let narrow = ports.to_string().matches("1300").count();
        anyhow::ensure!(narrow == 2, "{ports}");
        Ok(())
    })
    .unwrap();
    all_come_back();
    assert!(told() > 0, "nobody was told an MTU");
}

/// Returns once this site serves; answers how long that took.
fn until(lab: &Anycast, site: &str) -> Duration {
    let begin = Instant::now();
    loop {
        let answer = lab.ask(PATIENCE);
        if answer.as_deref().is_some_and(|it| it.starts_with(site)) {
            return begin.elapsed();
        }
        let states: Vec<_> = lab.sites.iter().map(|it| it.status().ok()).collect();
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{answer:?}, not {site}; the router prefers {:?}; {states:?}",
            lab.preferred()
        );
    }
}

fn asked(lab: &Anycast, count: usize) -> Vec<Request> {
    let ask = |_| (Instant::now(), lab.ask(PATIENCE));
    (0..count).map(ask).collect()
}

fn asked_for(lab: &Anycast, time: Duration) -> Vec<Request> {
    let end = Instant::now() + time;
    let mut requests = Vec::new();
    while Instant::now() < end {
        requests.extend(asked(lab, 1));
    }
    requests
}

/// Answers by who gave them. All were answered, or are passed over.
fn who(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for (_, answer) in requests {
        if let Some(name) = answer {
            *shares.entry(name.clone()).or_default() += 1;
        }
    }
    shares
}

/// A download on its way: whose, and whether all of it came.
type Download = JoinHandle<(String, bool)>;

/// Begins so many downloads at the first site, of both backends.
fn begin(lab: &Anycast, count: usize) -> Vec<Download> {
    let downloads = (0..count).map(|_| lab.download().unwrap());
    let downloads: Vec<_> = downloads
        .map(|it| thread::spawn(move || read(it)))
        .collect();
    // Each is well on its way.
    thread::sleep(Duration::from_secs(1));
    downloads
}

fn read(mut stream: TcpStream) -> (String, bool) {
    let mut all = Vec::new();
    // What came until it broke counts.
    let ended = stream.read_to_end(&mut all).is_ok();
    let text = String::from_utf8_lossy(&all);
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let name = body.trim_end_matches('.');
    (name.to_owned(), ended && body.len() == name.len() + LONG)
}

/// Who served downloads that were whole, and who those that were not.
fn end(downloads: Vec<Download>) -> (Vec<String>, Vec<String>) {
    let ended = downloads.into_iter().map(|it| it.join().unwrap());
    let (whole, cut): (Vec<_>, Vec<_>) = ended.partition(|(_, whole)| *whole);
    let names = |all: Vec<(String, bool)>| all.into_iter().map(|it| it.0).collect();
    (names(whole), names(cut))
}

/// Returns when the first backend of a site is in this state.
fn wait_state(lab: &Anycast, site: usize, state: &str) {
    tests::lab::wait("the state", || {
        let status = lab.sites[site].status()?;
        anyhow::ensure!(status["backends"][0]["state"] == state, "{status}");
        Ok(())
    })
    .unwrap();
}
