//! Whatever bytes arrive, and after whatever others: nothing panics, and each ends for one reason.
#![no_main]

use std::cell::RefCell;

use tests::{executor::Host, scenario::Executor as _};

thread_local!(static HOST: RefCell<Host> = {
    let rules = include_str!("../rules.txt").lines().map(|line| line.parse().expect("a rule"));
    let mut host = Host::new();
    host.prepare(&rules.collect()).expect("tables for the rules");
    RefCell::new(host)
});

libfuzzer_sys::fuzz_target!(|arrival: (u8, &[u8])| {
    let port = ["access0", "core0", "app0", "access1"][usize::from(arrival.0 % 4)];
    let seen = HOST.with_borrow_mut(|host| host.arrive(port, arrival.1));
    assert_eq!(seen.expect("a verdict").reasons.len(), 1);
});
