//! Random rule sets and packets: what the oracle says against what the data path does.
//!
//! `EDGESTEER_ORACLE_CASES` is the number of (rule set, packet) pairs, `PROPTEST_RNG_SEED` repeats a
//! run. A failure is made as small as it can be, and its seed is kept in `regressions/`.

use std::{cell::RefCell, collections::BTreeMap, env};

use dataplane_core::Reason;
use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError, TestRunner};
use tests::{
    executor::{Host, Kernel},
    oracle,
    scenario::Executor,
};

/// Pairs on the host and in the kernel, unless the environment says another number for all together.
const PAIRS: [usize; 2] = [80_000, 25_000];
/// Rules of a case, and packets.
const SIZE: (usize, usize) = (10, 256);
/// What packets have to meet in so many pairs, or the oracle looks away from what it is there for.
const MET: [Reason; 13] = [
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
];

#[test]
fn host_agrees() {
    agree(Host::new(), PAIRS[0]);
}

#[test]
fn kernel_agrees() {
    agree(Kernel::new().unwrap(), PAIRS[1]);
}

fn agree(executor: impl Executor, share: usize) {
    let wanted = env::var("EDGESTEER_ORACLE_CASES").map_or(share, |number| {
        let number: usize = number.parse().expect("EDGESTEER_ORACLE_CASES is a number");
        (number * share).div_ceil(PAIRS[0] + PAIRS[1])
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
    while pairs() < wanted {
        let result = runner.run(&oracle::cases(SIZE.0, SIZE.1), |case| {
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
    if wanted >= share {
        let met = met.into_inner();
        for reason in MET {
            assert!(
                met.contains_key(&Some(reason)),
                "{reason:?} is not among {met:?}"
            );
        }
        assert!(
            10 * met.get(&None).unwrap_or(&0) < wanted,
            "much is left open: {met:?}"
        );
    }
}
