//! The scenarios on the host: the core, a packet in memory and tables in memory.

use tests::{executor::Host, scenario};

#[test]
fn scenarios() {
    scenario::run_all(&mut Host::new());
}
