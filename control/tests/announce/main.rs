//! VIPs announced to a router by real BGP speakers, in network namespaces. They need root.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

mod lab;

use std::{
    collections::BTreeMap,
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use control::announce::{Driver, LIFETIME, OnExit, State};

use self::lab::{Lab, VIPS, all, lo, said};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_router_knows_the_vip_while_it_is_healthy() {
    let lab = Lab::bird();
    let announcer = lab.announcer(lo(), 2 * SECOND, OnExit::Withdraw);
    announcer.follow(all(false));
    for vip in VIPS {
        said(&announcer, vip, |it| it.state == State::Withdrawn);
        assert!(!lab.routed(vip));
    }
    announcer.follow(all(true));
    println!("announced in {:?}", lab.wait(true));
    let heard = lab.heard();
    announcer.follow(all(false));
    println!("withdrawn in {:?}", lab.wait(false));

    announcer.follow(all(true));
    let start = Instant::now();
    let held = said(&announcer, VIPS[0], |it| it.state != State::Withdrawn);
    let State::HeldDown { until } = held.state else {
        panic!("{held:?}");
    };
    assert!(until.duration_since(SystemTime::now()).unwrap() <= 2 * SECOND);
    lab.wait(true);
    assert!(start.elapsed() >= 2 * SECOND, "{:?}", start.elapsed());
    let now = said(&announcer, VIPS[0], |it| it.state == State::Announced);
    assert_eq!((now.flaps, now.error), (1, None));

    // It is renewed several times meanwhile, of which the router hears nothing.
    let two_flaps = heard + 4;
    assert_eq!(lab.heard(), two_flaps);
    sleep(LIFETIME + SECOND);
    assert_eq!(lab.heard(), two_flaps);
    announcer.stop();
    lab.wait(false);
}

#[test]
fn when_the_daemon_is_killed_its_addresses_go_by_themselves() {
    let lab = Lab::bird();
    let process = lab.announcing_process(lo(), OnExit::Withdraw);
    lab.wait(true);
    process.kill();
    let time = lab.wait(false);
    println!("gone {time:?} after the kill");
    assert!(time < LIFETIME + 3 * SECOND);

    let process = lab.announcing_process(lo(), OnExit::Withdraw);
    lab.wait(true);
    let heard = lab.heard();
    process.kill();
    // One that comes in time takes them over, and the router hears nothing of it.
    sleep(SECOND);
    let announcer = lab.announcer(lo(), SECOND, OnExit::Withdraw);
    assert_eq!(announcer.state().borrow().len(), VIPS.len());
    sleep(LIFETIME);
    announcer.follow(all(true));
    said(&announcer, VIPS[0], |it| it.state == State::Announced);
    assert_eq!(lab.heard(), heard);
    announcer.stop();
    lab.wait(false);
}

#[test]
fn what_is_to_stay_stays() {
    let lab = Lab::bird();
    let process = lab.announcing_process(lo(), OnExit::Keep);
    lab.wait(true);
    process.kill();
    sleep(LIFETIME + 2 * SECOND);
    lab.wait(true);
    let announcer = lab.announcer(lo(), SECOND, OnExit::Keep);
    announcer.follow(all(true));
    announcer.stop();
    lab.wait(true);
    let announcer = lab.announcer(lo(), SECOND, OnExit::Keep);
    announcer.follow(BTreeMap::new());
    lab.wait(false);
    announcer.stop();
}

#[test]
fn only_our_own_addresses_are_touched() {
    let lab = Lab::new();
    lab.host(
        "ip address add 198.51.100.1/32 dev lo && ip address add 2001:db8::51/64 dev host nodad",
    );
    let before = lab.host("ip address");
    let announcer = lab.announcer(lo(), SECOND, OnExit::Withdraw);
    announcer.follow(all(true));
    for (vip, words) in VIPS.into_iter().zip(["on lo already", "on host already"]) {
        let error = said(&announcer, vip, |it| it.error.is_some())
            .error
            .unwrap();
        assert!(
            error.contains(words) && error.contains("ip address del"),
            "{error}"
        );
    }
    announcer.follow(all(false));
    said(&announcer, VIPS[0], |it| {
        it.state == State::Withdrawn && it.error.is_none()
    });
    announcer.stop();
    assert_eq!(lab.host("ip address"), before);

    // Once nobody else has it, it is announced.
    let announcer = lab.announcer(lo(), SECOND, OnExit::Withdraw);
    announcer.follow(all(true));
    said(&announcer, VIPS[0], |it| it.error.is_some());
    lab.host("ip address del 198.51.100.1/32 dev lo");
    said(&announcer, VIPS[0], |it| it.error.is_none());
    let shown = lab.host("ip address show dev lo");
    assert!(shown.contains("198.51.100.1/32"), "{shown}");
    announcer.stop();
}

#[test]
fn an_interface_may_come_late_and_change() {
    let lab = Lab::new();
    let on = |name: &str| Driver::Interface {
        name: name.to_owned(),
    };
    let announcer = lab.announcer(on("vips"), SECOND, OnExit::Withdraw);
    announcer.follow(all(true));
    let error = said(&announcer, VIPS[1], |it| it.error.is_some()).error;
    assert!(error.unwrap().contains("no interface vips"));
    lab.host("ip link add vips type veth peer name other");
    let down =
        |error: &Option<String>| error.as_ref().is_some_and(|it| it.contains("vips is down"));
    said(&announcer, VIPS[1], |it| down(&it.error));
    lab.host("ip link set vips up && ip link set other up");
    said(&announcer, VIPS[1], |it| it.error.is_none());
    let shown = lab.host("ip address show dev vips");
    assert!(VIPS.iter().all(|vip| shown.contains(vip)), "{shown}");
    drop(announcer);

    let announcer = lab.announcer(lo(), SECOND, OnExit::Withdraw);
    lab.eventually("addresses on lo", || {
        let (old, new) = (
            lab.host("ip address show dev vips"),
            lab.host("ip address show dev lo"),
        );
        VIPS.iter()
            .all(|vip| !old.contains(vip) && new.contains(vip))
    });
    announcer.stop();
    let shown = lab.host("ip address");
    assert!(VIPS.iter().all(|vip| !shown.contains(vip)), "{shown}");
}

#[test]
fn exabgp_says_it_to_the_router() {
    let (lab, driver) = Lab::exabgp();
    let announcer = lab.announcer(driver, Duration::ZERO, OnExit::Withdraw);
    announcer.follow(all(true));
    println!("announced in {:?}", lab.wait(true));
    let heard = lab.heard();
    sleep(6 * SECOND);
    assert_eq!(lab.heard(), heard, "saying it again is no news");
    announcer.follow(all(false));
    println!("withdrawn in {:?}", lab.wait(false));
    assert_eq!(lab.heard(), heard + 2);
    announcer.follow(all(true));
    lab.wait(true);
    announcer.stop();
    lab.wait(false);
}

#[test]
fn exabgp_forgets_a_daemon_that_is_killed() {
    let (lab, driver) = Lab::exabgp();
    let process = lab.announcing_process(driver.clone(), OnExit::Withdraw);
    lab.wait(true);
    process.kill();
    println!("gone in {:?}", lab.wait(false));
    let _process = lab.announcing_process(driver, OnExit::Withdraw);
    lab.wait(true);
}

#[test]
fn exabgp_that_is_not_there_is_an_error_until_it_is() {
    let lab = Lab::new();
    let pipe = lab.path("pipe");
    lab.host(&format!("mkfifo {pipe} && echo > {pipe}.file"));
    let exabgp = |pipe: String| Driver::Exabgp { pipe: pipe.into() };
    for (path, words) in [
        (pipe.clone(), "nobody reads"),
        (format!("{pipe}.file"), "no named pipe"),
    ] {
        let announcer = lab.announcer(exabgp(path), SECOND, OnExit::Withdraw);
        announcer.follow(all(true));
        let error = said(&announcer, VIPS[0], |it| it.error.is_some())
            .error
            .unwrap();
        assert!(error.contains(words), "{error}");
    }
    let announcer = lab.announcer(exabgp(pipe.clone()), SECOND, OnExit::Withdraw);
    announcer.follow(all(true));
    // A reader that comes late is told, and so is the next one; also that there is nothing to announce any more.
    for verb in ["announce", "announce", "withdraw", "withdraw"] {
        if verb == "withdraw" {
            announcer.follow(BTreeMap::new());
        }
        let lines = lab.host(&format!("head -n 2 {pipe}"));
        for (vip, length) in VIPS.into_iter().zip([32, 128]) {
            let line = format!("{verb} route {vip}/{length} next-hop self\n");
            assert!(lines.contains(&line), "{lines}");
        }
    }
}

#[test]
fn gobgp_says_it_to_the_router() {
    let (lab, api) = Lab::gobgp();
    let announcer = lab.announcer(Driver::Gobgp { api }, Duration::ZERO, OnExit::Withdraw);
    announcer.follow(all(true));
    println!("announced in {:?}", lab.wait(true));
    let heard = lab.heard();
    sleep(6 * SECOND);
    assert_eq!(lab.heard(), heard, "saying it again is no news");
    announcer.follow(all(false));
    println!("withdrawn in {:?}", lab.wait(false));

    // The router says this one, so that it is in the table; which makes it no announcement of ours.
    let learned = "203.0.113.7".parse().unwrap();
    lab.eventually("a route from the router", || {
        lab.host("gobgp global rib").contains("203.0.113.7/32")
    });
    announcer.follow(BTreeMap::from([(learned, true)]));
    let paths = || {
        lab.host("gobgp global rib 203.0.113.7/32")
            .matches("203.0.113.7/32")
            .count()
    };
    lab.eventually("a second path", || paths() == 2);
    announcer.stop();
    assert_eq!(paths(), 1);
}

#[test]
fn gobgp_that_does_not_run_is_an_error() {
    let lab = Lab::new();
    let api = "127.0.0.1:50051".parse().unwrap();
    let announcer = lab.announcer(Driver::Gobgp { api }, SECOND, OnExit::Withdraw);
    announcer.follow(all(true));
    let error = said(&announcer, VIPS[0], |it| it.error.is_some())
        .error
        .unwrap();
    assert!(error.starts_with("gobgp: "), "{error}");
}
