//! Real sockets and processes, each test in a network namespace of its own. They need root.

mod lab;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use tokio::time::{Instant, sleep};

use self::lab::{Lab, Server, checks, eventually, key, processor_time, tcp};
use super::*;

const INTERVAL: Duration = Duration::from_millis(100);

#[test]
fn a_backend_rises_and_falls_with_its_listener() {
    Lab::new().run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let checker = Checker::start();
        let mut state = checker.state();
        checker.follow(checks([("a", tcp("127.0.0.1", port))]), BTreeMap::new());
        state.changed().await.unwrap();
        assert_eq!(state.borrow_and_update()[&key("a")].up, None);
        state.changed().await.unwrap();
        {
            let state = state.borrow_and_update();
            let health = &state[&key("a")];
            assert_eq!(
                (health.up, health.counts.of(Outcome::Passed)),
                (Some(true), 2)
            );
            assert!(health.latency.unwrap() < Duration::from_secs(1));
            assert!(health.reason.is_none());
        }
        drop(listener);
        state.changed().await.unwrap();
        {
            let state = state.borrow_and_update();
            let health = &state[&key("a")];
            assert_eq!(
                (health.up, health.counts.of(Outcome::Refused)),
                (Some(false), 3)
            );
            let reason = health.reason.as_deref().unwrap();
            assert!(reason.contains("refused"), "{reason}");
            assert!(health.since.elapsed().unwrap() < Duration::from_secs(5));
        }
        let _listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        state.changed().await.unwrap();
        assert_eq!(state.borrow()[&key("a")].up, Some(true));
    });
}

#[test]
fn silence_and_no_way_have_names_and_no_check_piles_up() {
    let lab = Lab::new();
    lab.silent();
    lab.run(|| async {
        let slow = Check {
            timeout: 5 * INTERVAL,
            fall: 2,
            ..tcp("192.0.2.9", 80)
        };
        let checker = Checker::start();
        let all = [
            ("silent", slow.clone()),
            ("nowhere", tcp("203.0.113.9", 80)),
        ];
        checker.follow(checks(all), BTreeMap::new());
        let state = checker.state();
        eventually(&state, |state| {
            state.values().all(|it| it.up == Some(false))
        })
        .await;
        let state = state.borrow();
        let silent = &state[&key("silent")];
        assert_eq!(silent.reason.as_deref(), Some("no answer in 500ms"));
        assert_eq!(silent.counts.of(Outcome::TimedOut), 2);
        let skipped = silent.counts.of(Outcome::Skipped);
        assert!((6..=10).contains(&skipped), "{skipped}");
        let nowhere = &state[&key("nowhere")];
        assert!(nowhere.counts.of(Outcome::Unreachable) >= 3);
        assert_eq!(nowhere.counts.of(Outcome::Skipped), 0);
        let reason = nowhere.reason.as_deref().unwrap();
        assert!(reason.contains("unreachable"), "{reason}");
    });
}

#[test]
fn http_is_judged_by_its_status_line_only() {
    let lab = Lab::new();
    let server = Server::start(&lab);
    lab.run(|| async move {
        use Outcome::{Passed, TimedOut, Unchecked, WrongAnswer};
        let cases = [
            ("/200", Passed, ""),
            ("/302", Passed, ""),
            ("/slow-body", Passed, ""),
            ("/endless-body", Passed, ""),
            ("/404?x=y", WrongAnswer, "HTTP status 404 Not Found"),
            ("/500", WrongAnswer, "HTTP status 500"),
            ("/slow-head", TimedOut, "no answer in 500ms"),
            ("/nothing", WrongAnswer, "no HTTP answer"),
            ("/garbage", WrongAnswer, "no HTTP answer"),
            ("/endless-head", WrongAnswer, "no HTTP answer"),
            ("no path", Unchecked, "`no path` cannot be asked for"),
        ];
        let all = cases.map(|(path, outcome, _)| {
            let kind = Kind::Http {
                path: path.to_owned(),
            };
            // Only where it has to run out it is short.
            let patience = if outcome == TimedOut { 5 } else { 100 };
            let check = Check {
                kind,
                timeout: patience * INTERVAL,
                ..tcp("127.0.0.1", server.port)
            };
            (path, check)
        });
        let checker = Checker::start();
        checker.follow(checks(all), BTreeMap::new());
        for (path, outcome, reason) in cases {
            eventually(&checker.state(), |state| {
                state[&key(path)].counts.of(outcome) >= 3
            })
            .await;
            let state = checker.state();
            let health = &state.borrow()[&key(path)];
            let all = Outcome::ALL.iter().filter(|it| **it != Outcome::Skipped);
            let sum: u64 = all.map(|it| health.counts.of(*it)).sum();
            assert_eq!(health.counts.of(outcome), sum, "{path}: {health:?}");
            let said = health.reason.as_deref().unwrap_or_default();
            assert!(
                said.starts_with(reason) || said.contains(reason),
                "{path}: {said}"
            );
            let up = match outcome {
                Passed => Some(true),
                Unchecked => None,
                Outcome::Skipped
                | Outcome::Refused
                | Outcome::Unreachable
                | TimedOut
                | WrongAnswer => Some(false),
            };
            assert_eq!(health.up, up, "{path}");
        }
        let asked = server.last_request();
        for part in [
            "GET /".to_owned(),
            format!("\r\nhost: 127.0.0.1:{}\r\n", server.port),
            "\r\nconnection: close\r\n".to_owned(),
            "\r\nuser-agent: edgesteer/".to_owned(),
        ] {
            assert!(asked.contains(&part), "{asked}");
        }
    });
}

#[test]
fn echoes_are_told_apart() {
    let lab = Lab::new();
    lab.silent();
    lab.run(|| async {
        let icmp = |address| Check {
            kind: Kind::Icmp,
            timeout: 3 * INTERVAL,
            ..tcp(address, 0)
        };
        let all = [
            "127.0.0.1",
            "127.0.0.2",
            "::1",
            "192.0.2.9",
            "2001:db8::9",
            "203.0.113.9",
        ];
        let checker = Checker::start();
        checker.follow(checks(all.map(|it| (it, icmp(it)))), BTreeMap::new());
        let state = checker.state();
        eventually(&state, |state| state.values().all(|it| it.up.is_some())).await;
        for (address, outcome) in all.into_iter().zip([
            Outcome::Passed,
            Outcome::Passed,
            Outcome::Passed,
            Outcome::TimedOut,
            Outcome::TimedOut,
            Outcome::Unreachable,
        ]) {
            let state = state.borrow();
            let health = &state[&key(address)];
            assert_eq!(health.up, Some(outcome == Outcome::Passed), "{address}");
            assert!(health.counts.of(outcome) >= 2, "{address}: {health:?}");
        }
        std::fs::write("/proc/sys/net/ipv4/icmp_echo_ignore_all", "1").unwrap();
        eventually(&state, |state| state[&key("127.0.0.1")].up == Some(false)).await;
        assert_eq!(state.borrow()[&key("::1")].up, Some(true));
    });
}

#[test]
fn what_this_host_may_not_do_is_not_held_against_the_backend() {
    let lab = Lab::new();
    lab.run(|| async {
        lab::become_nobody();
        let checker = Checker::start();
        let icmp = Check {
            kind: Kind::Icmp,
            ..tcp("127.0.0.1", 0)
        };
        checker.follow(checks([("a", icmp)]), BTreeMap::from([(key("a"), true)]));
        let state = checker.state();
        let unchecked = |state: &State| {
            state
                .values()
                .any(|it| it.counts.of(Outcome::Unchecked) > 5)
        };
        eventually(&state, unchecked).await;
        let state = state.borrow();
        let health = &state[&key("a")];
        assert_eq!(health.up, Some(true));
        let reason = health.reason.as_deref().unwrap();
        assert!(reason.contains("CAP_NET_RAW"), "{reason}");
    });
}

#[test]
fn only_what_changed_starts_anew() {
    Lab::new().run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let check = tcp("127.0.0.1", port);
        let checker = Checker::start();
        let state = checker.state();
        checker.follow(
            checks(["a", "b", "c"].map(|it| (it, check.clone()))),
            BTreeMap::new(),
        );
        eventually(&state, |state| {
            state.len() == 3 && state.values().all(|it| it.up == Some(true))
        })
        .await;
        let before = state.borrow()[&key("a")].clone();

        let other = Check {
            rise: 1000,
            ..check.clone()
        };
        let assumed = ["a", "b", "d"].map(|it| (key(it), false)).into();
        checker.follow(
            checks([("a", check), ("b", other.clone()), ("d", other)]),
            assumed,
        );
        eventually(&state, |state| state.contains_key(&key("d"))).await;
        {
            let state = state.borrow();
            assert_eq!(
                state.keys().collect::<Vec<_>>(),
                [&key("a"), &key("b"), &key("d")]
            );
            let now = &state[&key("a")];
            assert_eq!(
                (now.up, now.since),
                (Some(true), before.since),
                "it goes on"
            );
            assert!(now.counts.of(Outcome::Passed) >= before.counts.of(Outcome::Passed));
            assert_eq!(state[&key("b")].up, Some(false), "it is what was assumed");
        }
        eventually(&state, |state| {
            state[&key("d")].counts.of(Outcome::Passed) > 2
        })
        .await;
        assert_eq!(
            state.borrow()[&key("d")].up,
            Some(false),
            "until a row says otherwise"
        );

        drop(checker);
        listener.set_nonblocking(true).unwrap();
        sleep(2 * INTERVAL).await;
        while listener.accept().is_ok() {}
        sleep(3 * INTERVAL).await;
        assert!(listener.accept().is_err(), "checks end with the checker");
    });
}

#[test]
fn a_server_that_greets_sees_an_orderly_end() {
    Lab::new().run(|| async {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            for _ in 0..5 {
                let (mut stream, _) = listener.accept().unwrap();
                thread::sleep(Duration::from_millis(20));
                stream.write_all(b"220 welcome\r\n").unwrap();
                // A reset would be an error.
                assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
            }
        });
        let checker = Checker::start();
        checker.follow(checks([("a", tcp("127.0.0.1", port))]), BTreeMap::new());
        tokio::task::spawn_blocking(|| server.join().unwrap())
            .await
            .unwrap();
        assert_eq!(checker.state().borrow()[&key("a")].up, Some(true));
    });
}

#[test]
fn not_everything_waits_at_once() {
    let lab = Lab::new();
    lab.silent();
    lab.run(|| async {
        let many = (0..1000).map(|it| {
            (
                it.to_string(),
                Check {
                    timeout: 20 * INTERVAL,
                    ..tcp("192.0.2.9", 80)
                },
            )
        });
        let checker = Checker::start();
        checker.follow(checks(many), BTreeMap::new());
        sleep(5 * INTERVAL).await;
        assert_eq!(lab::connecting(), 512);
        // Those that waited have their turn.
        let all = |state: &State| state.values().all(|it| it.counts.of(Outcome::TimedOut) > 0);
        eventually(&checker.state(), all).await;
    });
}

#[test]
fn a_thousand_backends_cost_little() {
    Lab::new().run(|| async {
        let listener = TcpListener::bind("0.0.0.0:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        static ACCEPTED: AtomicUsize = AtomicUsize::new(0);
        thread::spawn(move || {
            while listener.accept().is_ok() {
                ACCEPTED.fetch_add(1, Ordering::Relaxed);
            }
        });
        let backends = (0..1000_u32).map(|it| {
            let address = format!("127.1.{}.{}", it / 250, it % 250 + 1);
            let check = Check {
                interval: Duration::from_secs(1),
                ..tcp(&address, port)
            };
            (address, check)
        });
        let checker = Checker::start();
        let start = Instant::now();
        checker.follow(checks(backends), BTreeMap::new());
        sleep(Duration::from_secs(2)).await;
        let (before, then) = (processor_time(), ACCEPTED.load(Ordering::Relaxed));
        sleep(Duration::from_secs(5)).await;
        let (used, made) = (
            processor_time() - before,
            ACCEPTED.load(Ordering::Relaxed) - then,
        );
        println!("{used:?} of a processor for {made} checks in 5 s");
        assert!((4000..5500).contains(&made), "{made}");
        assert!(used < Duration::from_millis(1500), "{used:?}");
        let state = checker.state();
        let state = state.borrow();
        assert!(
            state.values().all(|it| it.up == Some(true)),
            "{:?}",
            start.elapsed()
        );
    });
}
