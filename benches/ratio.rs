//! What steering a packet of a known flow may cost, in terms of a look-up in a hash map of the kernel's.
//! A ratio of times taken in turns holds on any machine, however slow or busy it is.

use benches::{Driver, PATHS};

/// In percent of the hash map.
const LIMIT: u64 = 250;

#[test]
fn a_known_flow_costs_no_more_than_some_look_ups() {
    let mut driver = Driver::new(false).unwrap();
    let path = PATHS.iter().find(|path| path.id == "steer-v4-hit").unwrap();
    driver.prepare(path, 1 << 10).unwrap();
    let costs = driver.measure(100).unwrap();
    assert!(costs.net() * 100 <= costs.net_lookup() * LIMIT, "{costs:?}");
}
