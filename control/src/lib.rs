//! The edgesteer daemon and its command line: what a MEC platform says becomes rules, and what the data path does becomes
//! answers and metrics.

pub mod announce;
mod api;
mod cli;
mod config;
mod configuration;
mod dataplane;
mod doctor;
mod frame;
pub mod health;
mod mec;
mod metrics;
mod notify;
mod problem;
mod random;
mod run;
mod session;
mod source;
mod store;
mod vip;
mod worker;

use std::process::ExitCode;

/// The whole program; the result is its exit code.
pub fn main() -> ExitCode {
    cli::main()
}
