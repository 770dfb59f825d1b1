//! UEs behind tunnels: what is known of them, and saying it.

use std::net::IpAddr;

use super::{Dataplane, grace};
use crate::{Binding, Error, Session, SessionFilter};

impl Dataplane {
    /// The UEs behind tunnels.
    pub fn sessions(&self) -> Vec<Session> {
        self.sessions.snapshot(&self.clock)
    }

    /// Some of the UEs behind tunnels: `limit` at most of those that `filter` asks for, from the place `from` on,
    /// which is 0 at first. Answers where there may be more. It takes no more time than what is looked through.
    pub fn find_sessions(
        &self,
        filter: &SessionFilter,
        from: u32,
        limit: usize,
    ) -> (Vec<Session>, Option<u32>) {
        self.sessions.page(filter, from, limit, &self.clock)
    }

    /// Says what the tunnels of UEs are, while packets flow: answers are sent by them from now on, whatever
    /// packets taught. An error means that nothing has changed.
    pub fn provision(&mut self, bindings: &[Binding]) -> Result<(), Error> {
        self.sessions.provision(bindings, grace)
    }

    /// Forgets what was said of UEs, and sends nothing more by their tunnels; packets may teach them anew.
    /// Answers how many there were.
    pub fn withdraw(&mut self, ues: &[(u16, IpAddr)]) -> usize {
        self.sessions.withdraw(ues, grace)
    }

    /// Makes `wanted` all that is provisioned, as after a restart. Where that was said already, what packets
    /// have told since still holds: tunnels that have ended stay so.
    pub fn reprovision(&mut self, wanted: &[Binding]) -> Result<(), Error> {
        self.sessions.reprovision(wanted, grace)
    }

    /// Sessions whose tunnels have ended, or whose UE has moved, since the last call.
    pub fn lost_sessions(&mut self) -> Vec<Session> {
        self.sessions.lost(&self.clock)
    }
}
