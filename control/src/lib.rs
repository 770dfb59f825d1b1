//! The edgesteer daemon and its command line: what a MEC platform says becomes rules, and what the data path does becomes
//! answers and metrics.

mod api;
mod config;
mod dataplane;
mod doctor;
mod frame;
mod mec;
mod metrics;
mod problem;
mod source;
mod store;
