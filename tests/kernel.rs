//! The scenarios in the kernel: the loaded program, run on one frame at a time.

use tests::{executor::Kernel, scenario};

#[test]
fn scenarios() {
    scenario::run_all(&mut Kernel::new().unwrap());
}
