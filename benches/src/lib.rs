//! Benchmarks of edgesteer: what steering a packet costs in the kernel, beside what it costs to do
//! nothing, and beside the least that steering can cost.

pub mod changes;
mod chart;
pub mod check;
pub mod compare;
mod costs;
mod driver;
mod figures;
mod host;
mod lane;
mod machine;
mod packets;
mod path;
mod peers;
mod program;
mod report;
mod row;
mod rules;
mod shaped;
pub mod table;
pub mod text;
pub mod veth;
pub mod work;

pub use costs::{Costs, Target};
pub use driver::{Driver, NEW_FLOWS};
pub use host::{Host, LIMITS, limits};
pub use machine::Machine;
pub use path::{MOBILE_PATHS, PATHS, Path};
pub use report::Report;
pub use row::Row;
pub use rules::{MISSES, Miss, rules};
