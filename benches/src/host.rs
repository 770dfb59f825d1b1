//! A host that edgesteer runs on.

use anyhow::Result;
use dataplane_user::{Dataplane, Limits};
use tests::executor::Rig;

const LIMITS: Limits = Limits {
    flows: 1 << 17,
    filters: 1 << 17,
    rules: 1 << 15,
    fragments: 1 << 12,
    sessions: 1 << 14,
};

/// A host in namespaces, with edgesteer attached to its ports and room for many rules and flows.
#[derive(Debug)]
pub struct Host(pub(crate) Rig);

impl Host {
    /// Makes one.
    pub fn new() -> Result<Self> {
        Ok(Self(Rig::with_limits(LIMITS)?))
    }

    /// The same, where UEs may be behind tunnels.
    pub fn mobile() -> Result<Self> {
        Ok(Self(Rig::mobile_with(LIMITS)?))
    }

    /// Calls `action` with the data plane, inside of the host.
    pub fn with<T: Send>(&mut self, action: impl FnOnce(&mut Dataplane) -> T + Send) -> T {
        let Rig {
            bench, dataplane, ..
        } = &mut self.0;
        bench.host.enter(|| action(dataplane))
    }
}
