//! What `cargo xtask vm` runs on another kernel: its verifier takes the program, the program
//! attaches to veth, and every scenario ends there as it does everywhere.
#![expect(
    clippy::print_stdout,
    reason = "progress on the console of a machine without any other"
)]

use anyhow::{Context as _, Result};
use tests::{
    executor::{Kernel, Veth},
    scenario,
};

fn main() -> Result<()> {
    println!("loading the program, and running it on one frame at a time");
    scenario::run_all(scenario::plain(), &mut Kernel::new().context("loading")?);
    println!("the same with the program for UEs behind tunnels");
    let mut kernel = Kernel::mobile().context("loading")?;
    scenario::run_all(scenario::mobile(), &mut kernel);
    drop(kernel);
    println!("attaching it to veth, and sending real frames");
    scenario::run_all(scenario::plain(), &mut Veth::new().context("attaching")?);
    scenario::run_all(
        scenario::mobile(),
        &mut Veth::mobile().context("attaching")?,
    );
    println!("every scenario ended as it should");
    Ok(())
}
