//! Where rules come from. Each source owns its applications and VIPs: it hands over all of them, whenever they changed.
//!
//! What a source once got right stays in force until it says otherwise: errors are reported and counted, and change nothing.

mod files;
mod mep;
mod sink;
mod status;

use std::{
    collections::BTreeMap,
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use crate::store::Content;

pub(crate) use self::{
    files::watch,
    mep::{Platform, poll},
    sink::{held, into_store},
    status::{Failure, Metrics, Reason, Status},
};

/// Puts all that a source says in force. What is refused comes back by its name, or as a whole.
pub(crate) type Deliver =
    Box<dyn FnMut(&Content) -> Result<BTreeMap<String, String>, String> + Send>;

/// A running source; it stops when this is dropped.
pub(crate) struct Worker(Sender<Wake>);

/// Why a source wakes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// There may be news.
    Look,
    /// The daemon ends.
    Stop,
}

/// The alarm clock of a source.
struct Alarm {
    receiver: Receiver<Wake>,
    /// For whoever else may ring.
    sender: Sender<Wake>,
}

impl Worker {
    fn spawn(name: &str, work: impl FnOnce(&Alarm) + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let alarm = Alarm {
            receiver,
            sender: sender.clone(),
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(&alarm))?;
        Ok(Self(sender))
    }

    /// Makes the source look now.
    pub(crate) fn look(&self) {
        // It only fails when the source has ended, and then there is nothing to see.
        let _ = self.0.send(Wake::Look);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // A request under way may take a while; nobody has to wait for it.
        let _ = self.0.send(Wake::Stop);
    }
}

impl Alarm {
    /// Sleeps; being woken and the end of the time are both a reason to look.
    fn wait(&self, time: Duration) -> Wake {
        match self.receiver.recv_timeout(time) {
            Ok(wake) => wake,
            Err(RecvTimeoutError::Timeout) => Wake::Look,
            Err(RecvTimeoutError::Disconnected) => Wake::Stop,
        }
    }
}

/// What was handed over last: the same is not handed over again.
struct Delivery {
    deliver: Deliver,
    last: Option<Content>,
    refused: BTreeMap<String, String>,
}

impl Delivery {
    fn new(deliver: Deliver) -> Self {
        Self {
            deliver,
            last: None,
            refused: BTreeMap::new(),
        }
    }

    /// Hands over what changed, and says what is not taken. A whole that was refused is offered again.
    fn hand_over(&mut self, content: &Content) -> Vec<Failure> {
        if self.last.as_ref() != Some(content) {
            match (self.deliver)(content) {
                Ok(refused) => {
                    self.refused = refused;
                    self.last = Some(content.clone());
                }
                Err(why) => return vec![Failure::new(Reason::Refused, "all applications", why)],
            }
        }
        let refused = self.refused.iter();
        refused
            .map(|(name, why)| Failure::new(Reason::Refused, name, why))
            .collect()
    }
}
