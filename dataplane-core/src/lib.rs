//! The edgesteer data path as a safe library.
//!
//! [`steer::packet`] takes a packet through it: [`parse`] its headers, [`flow::find`] its flow, or
//! [`classify`] it and remember the flow, do what the rule says ([`rewrite`]), and end in a
//! [`Verdict`] with exactly one [`Reason`]. The kernel's XDP program is one caller; tests and
//! benchmarks on the host are others. [`packet::Packet`] and [`table::Tables`] are what they differ in.

#![no_std]
#![forbid(unsafe_code)]

mod balance;
pub mod checksum;
pub mod classify;
mod encapsulate;
mod fast;
pub mod flow;
mod icmp;
pub mod maglev;
mod mobile;
mod mss;
pub mod packet;
pub mod parse;
mod remember;
pub mod rewrite;
pub mod session;
pub mod steer;
pub mod table;
mod target;
pub mod tunnel;
mod verdict;
pub mod wire;
mod word;

pub use verdict::{Action, Reason, Verdict};
pub use word::Word;
