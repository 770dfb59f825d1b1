//! Random rule sets and packets: what the oracle says against what the data path does.
//!
//! `EDGESTEER_ORACLE_CASES` is the number of (rule set, packet) pairs, `PROPTEST_RNG_SEED` repeats a
//! run. A failure is made as small as it can be, and its seed is kept in `regressions/`.

use std::{cell::RefCell, collections::BTreeMap, env};

use dataplane_core::Reason;
use proptest::{
    strategy::Strategy,
    test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner},
};
use tests::{
    executor::{Host, Kernel},
    oracle::{self, Case},
    scenario::Executor,
};

/// Pairs on the host and in the kernel, unless the environment says another number for all together.
const PAIRS: [usize; 2] = [80_000, 25_000];
/// The same of packets of UEs behind tunnels.
const MOBILE_PAIRS: [usize; 2] = [40_000, 8_000];
/// Rules of a case, and packets.
const SIZE: (usize, usize) = (10, 256);
/// The same of UEs behind tunnels.
const MOBILE_SIZE: (usize, usize) = (4, 40);
/// What packets have to meet in so many pairs, or the oracle looks away from what it is there for.
const MET: [Reason; 16] = [
    Reason::Steered,
    Reason::Replied,
    Reason::Continued,
    Reason::Passthrough,
    Reason::Duplicated,
    Reason::RuleDrop,
    Reason::NoRule,
    Reason::WrongSide,
    Reason::OwnOutput,
    Reason::NextHopUnresolved,
    Reason::TtlExpired,
    Reason::FragmentUnknown,
    Reason::CopyReply,
    Reason::NoBackend,
    Reason::VipPeer,
    Reason::VipEcho,
];
/// The same of packets of UEs behind tunnels.
const MET_MOBILE: [Reason; 19] = [
    Reason::Steered,
    Reason::Replied,
    Reason::Continued,
    Reason::Passthrough,
    Reason::Duplicated,
    Reason::RuleDrop,
    Reason::NoRule,
    Reason::NoDownlinkTunnel,
    Reason::DownlinkPending,
    Reason::SessionConflict,
    Reason::TunnelUnsupported,
    Reason::AppInitiated,
    Reason::GtpuEndMarker,
    Reason::GtpuErrorIndication,
    Reason::GtpuEcho,
    Reason::NoBackend,
    Reason::VipPeer,
    Reason::VipLoop,
    Reason::VipEcho,
];

#[test]
fn host_agrees() {
    agree(Host::new(), &oracle::cases(SIZE.0, SIZE.1), PAIRS[0], &MET);
}

#[test]
fn host_agrees_on_tunnels() {
    let cases = oracle::mobile_cases(MOBILE_SIZE.0, MOBILE_SIZE.1);
    agree(Host::new(), &cases, MOBILE_PAIRS[0], &MET_MOBILE);
}

#[test]
fn kernel_agrees() {
    let cases = oracle::cases(SIZE.0, SIZE.1);
    agree(Kernel::new().unwrap(), &cases, PAIRS[1], &MET);
}

#[test]
fn kernel_agrees_on_tunnels() {
    let cases = oracle::mobile_cases(MOBILE_SIZE.0, MOBILE_SIZE.1);
    let kernel = Kernel::mobile().unwrap();
    agree(kernel, &cases, MOBILE_PAIRS[1], &MET_MOBILE);
}

fn agree(
    executor: impl Executor,
    cases: &impl Strategy<Value = Case>,
    share: usize,
    wanted_reasons: &[Reason],
) {
    let wanted = env::var("EDGESTEER_ORACLE_CASES").map_or(share, |number| {
        let number: usize = number.parse().expect("EDGESTEER_ORACLE_CASES is a number");
        (number * share).div_ceil(PAIRS.iter().chain(&MOBILE_PAIRS).sum())
    });
    let mut runner = TestRunner::new(Config {
        cases: 32,
        max_shrink_iters: 5_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/regressions/oracle.txt"
        )))),
        ..Config::default()
    });
    let executor = RefCell::new(executor);
    let met = RefCell::new(BTreeMap::<Option<Reason>, usize>::new());
    let pairs = || met.borrow().values().sum::<usize>();
    let lacks = |reason: &&Reason| !met.borrow().contains_key(&Some(**reason));
    // Some reasons are rare: cases go on until all were met, within reason.
    let wanted_reasons = if wanted >= share { wanted_reasons } else { &[] };
    while pairs() < wanted || pairs() < 4 * share && wanted_reasons.iter().any(|it| lacks(&it)) {
        let result = runner.run(cases, |case| {
            let outcome = oracle::run(&case, &mut *executor.borrow_mut());
            let reasons = outcome.map_err(|error| TestCaseError::fail(format!("{error:#}")))?;
            for reason in reasons {
                *met.borrow_mut().entry(reason).or_default() += 1;
            }
            Ok(())
        });
        result.unwrap_or_else(|error| panic!("{error}"));
        // A runner is done after its cases: the next one goes on with other random numbers.
        runner = TestRunner::new_with_rng(runner.config().clone(), runner.new_rng());
    }
    let missing: Vec<_> = wanted_reasons.iter().filter(lacks).collect();
    let met = met.borrow();
    assert!(missing.is_empty(), "{missing:?} are not among {met:?}");
    if wanted >= share {
        let open = met.get(&None).unwrap_or(&0);
        assert!(10 * open < pairs(), "much is left open: {met:?}");
    }
}
