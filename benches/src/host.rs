//! A host that edgesteer runs on.

use anyhow::Result;
use dataplane_user::{Dataplane, Limits};
use tests::executor::Rig;

/// Room for 65,536 flows, or a fragmented datagram each, and for 10,000 rules.
pub const LIMITS: Limits = Limits {
    flows: 1 << 17,
    filters: 1 << 17,
    rules: 1 << 15,
    fragments: 1 << 18,
    sessions: 1 << 14,
    vips: 1,
};

/// A host in namespaces, with edgesteer attached to its ports and room for many rules and flows.
#[derive(Debug)]
pub struct Host(pub(crate) Rig);

impl Host {
    /// Makes one. On a `mobile` one, UEs may be behind tunnels.
    pub fn new(limits: Limits, mobile: bool) -> Result<Self> {
        let rig = if mobile {
            Rig::mobile_with(limits)
        } else {
            Rig::with_limits(limits)
        };
        Ok(Self(rig?))
    }

    /// Calls `action` with the data plane, inside of the host.
    pub fn with<T: Send>(&mut self, action: impl FnOnce(&mut Dataplane) -> T + Send) -> T {
        let Rig {
            bench, dataplane, ..
        } = &mut self.0;
        bench.host.enter(|| action(dataplane))
    }
}

/// Room for so many rules and flows.
pub fn limits(rules: u32, flows: u32) -> Limits {
    Limits {
        flows: LIMITS.flows.max(flows * 2),
        filters: LIMITS.filters.max(rules * 4),
        rules: LIMITS.rules.max(rules + rules / 8),
        fragments: LIMITS.fragments.max(flows * 4),
        sessions: LIMITS.sessions.max(flows / 8),
        vips: 1,
    }
}
