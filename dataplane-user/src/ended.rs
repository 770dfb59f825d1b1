//! Flows that ended, handed to whoever asked for them.

use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use crate::Flow;

/// Where they are handed to.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    sender: Option<SyncSender<Flow>>,
    lost: u64,
}

impl Ended {
    /// From now on they wait for the receiver, at most `room` of them.
    pub(crate) fn listen(&mut self, room: usize) -> Receiver<Flow> {
        let (sender, receiver) = mpsc::sync_channel(room);
        self.sender = Some(sender);
        receiver
    }

    /// Whether somebody listens.
    pub(crate) const fn is_heard(&self) -> bool {
        self.sender.is_some()
    }

    pub(crate) fn tell(&mut self, flow: Flow) {
        let Some(sender) = &self.sender else {
            return;
        };
        match sender.try_send(flow) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.lost += 1,
            Err(TrySendError::Disconnected(_)) => self.sender = None,
        }
    }

    /// How many found no room.
    pub(crate) const fn lost(&self) -> u64 {
        self.lost
    }
}
