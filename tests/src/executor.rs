//! What scenarios and the oracle run on: see [`crate::scenario::Executor`].

mod host;
mod interfaces;
mod kernel;
mod memory;
mod rig;
mod veth;

pub use host::Host;
pub use interfaces::Interfaces;
pub use kernel::{Kernel, SHORTEST, Shooter, pin};
pub use rig::Rig;
pub use veth::Veth;
