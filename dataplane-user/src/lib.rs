//! The user-space side of the edgesteer data path: rules in, tables out, counters back.
//!
//! [`Dataplane::open`] loads the program and attaches it, or takes over what an earlier process left.
//! [`Dataplane::apply`] puts a [`rule::RuleSet`] in force: [`compile()`] each rule that is new, change the tree
//! of filters, and show packets the new one at once. Counters and flows are read from memory that is
//! shared with the program.

mod classifier;
mod clock;
mod compile;
mod copies;
mod dataplane;
mod ended;
mod error;
mod fixed;
mod flows;
mod host;
mod install;
mod links;
mod memory;
pub mod netlink;
mod openings;
mod options;
mod ports;
mod program;
mod records;
pub mod rule;
mod sessions;
mod shared;
mod tunnels;
mod zones;

pub use compile::{Compiled, FILTERS_PER_RULE, compile};
pub use dataplane::{
    Applied, BackendCounter, Change, Dataplane, Explanation, FlowCache, NextHop, PortCounter,
    Pressure, RuleCounter, SentCounter, Status,
};
pub use error::Error;
pub use flows::{Count, Expired, Flow, FlowFilter};
pub use host::{HostTables, rehearse};
pub use options::{Gtpu, Limits, Options, PortConfig, Role, Timeouts};
pub use ports::{PortStatus, refuse_endpoint};
pub use program::{Mode, OBJECT};
pub use sessions::{
    Bearer, Binding, QosFlow, Session, SessionCount, SessionFilter, SessionStatus, Tunnels,
};
