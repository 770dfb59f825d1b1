//! The scenarios over veth: the program on its interfaces, frames in and out through packet sockets.

use tests::{executor::Veth, scenario};

#[test]
fn scenarios() {
    scenario::run_all(&mut Veth::new().unwrap());
}
