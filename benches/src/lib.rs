//! Benchmarks of edgesteer: what steering a packet costs in the kernel, beside what it costs to do
//! nothing, and beside the least that steering with a hash map of the kernel's can cost.

mod driver;
mod host;
mod path;

pub use driver::{Costs, Driver, Target};
pub use host::Host;
pub use path::{MISSES, MOBILE_PATHS, Miss, PATHS, Path, rules};
