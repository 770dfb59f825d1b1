//! The user-space side of the edgesteer data path: rules in, tables out, counters back.

pub mod netlink;
pub mod rule;
