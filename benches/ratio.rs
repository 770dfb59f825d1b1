//! What steering a packet of a known flow may cost, in terms of a look-up in a hash map of the kernel's.
//! A ratio of times taken in turns holds on any machine, however slow or busy it is.

use benches::{Driver, PATHS, Target};

/// Times the hash map.
const LIMIT: f64 = 2.5;

#[test]
fn a_known_flow_costs_no_more_than_some_look_ups() {
    let mut driver = Driver::new(false, 1, 1 << 10).unwrap();
    let path = PATHS.iter().find(|path| path.id == "steer-v4-hit").unwrap();
    driver.prepare(path, 1 << 10).unwrap();
    let costs = driver.measure(100).unwrap();
    let ratio = costs.ratio(Target::Steer, Target::Lookup).unwrap();
    assert!(ratio <= LIMIT, "{costs:?}");
}
