//! The scenarios on the host: the core, a packet in memory and tables in memory.

use tests::{executor::Host, scenario};

#[test]
fn scenarios() {
    scenario::run_all(scenario::plain(), &mut Host::new());
}

#[test]
fn scenarios_behind_tunnels() {
    scenario::run_all(scenario::mobile(), &mut Host::new());
}
