//! Active health checks of backends: from this host to the backend itself, never through the VIP.
//!
//! One task holds the timetable (`schedule`), starts a check (`probe`, `ping`) when it is due and counts what it finds
//! (`verdict`). A check that cannot be made for a reason of this host's own, such as no file descriptors left, says
//! nothing about the backend: it is counted, told, and changes no verdict.
//!
//! ICMP needs `CAP_NET_RAW`.

mod ping;
mod probe;
mod round;
mod schedule;
mod verdict;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use self::verdict::{Counts, Health, Outcome};

/// Whose health it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The VIP.
    pub vip: String,
    /// The backend, by the name that its VIP has for it.
    pub backend: String,
}

/// What is asked of the backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// To accept a TCP connection.
    Tcp,
    /// To answer a GET with a status of 2xx or 3xx. Its body does not matter.
    Http {
        /// Path and query.
        path: String,
    },
    /// To answer an ICMP or ICMPv6 echo request.
    Icmp,
}

/// How a backend is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: Kind,
    /// The address of the backend.
    pub address: IpAddr,
    /// Its port; nothing to [`Kind::Icmp`].
    pub port: u16,
    /// The time between checks, give or take a tenth; [`SHORTEST`] at least.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// This many checks in a row have to pass for it to be up.
    pub rise: u32,
    /// This many checks in a row have to fail for it to be down.
    pub fall: u32,
}

/// No backend is checked more often.
pub const SHORTEST: Duration = Duration::from_millis(100);

/// What is known of all backends that are checked. What is not there is not known.
pub type State = BTreeMap<Key, Health>;

/// The running checks. They end with this value.
#[derive(Debug)]
pub struct Checker {
    wishes: mpsc::UnboundedSender<round::Wish>,
    state: watch::Receiver<State>,
    _task: JoinSet<()>,
}

impl Checker {
    /// Checks nothing yet. It must be called in a tokio runtime; sockets are made on its threads, so in their network namespace.
    pub fn start() -> Self {
        let (wishes, receiver) = mpsc::unbounded_channel();
        let (sender, state) = watch::channel(State::new());
        let mut task = JoinSet::new();
        task.spawn(round::run(receiver, sender));
        Self {
            wishes,
            state,
            _task: task,
        }
    }

    /// Makes these the running checks. Those that are as before go on undisturbed. Others start anew and know nothing
    /// until `rise` or `fall` says so, unless `assumed` tells what to take the backend for until then.
    pub fn follow(&self, checks: BTreeMap<Key, Check>, assumed: BTreeMap<Key, bool>) {
        // The task ends with this value or with the runtime.
        let _ = self.wishes.send(round::Wish { checks, assumed });
    }

    /// The health of all, now and whenever a backend came, went, rose or fell. Latency and counts are always those of the
    /// last check, but no reason to be woken. Checks wait while the state is borrowed.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

#[cfg(test)]
mod tests;
