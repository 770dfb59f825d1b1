//! What happens, for whoever listens. Telling never waits: what a slow listener has no room for is lost to it, and counted.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use prometheus::IntCounter;
use serde_json::Value;
use tokio::sync::mpsc::{self, error::TrySendError};

/// How many events wait for one listener at most.
const WAITING: usize = 256;

/// Something that happened, for `/events`.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) kind: &'static str,
    /// JSON, on one line.
    pub(crate) data: String,
}

#[derive(Debug)]
pub(crate) struct Events {
    listeners: Mutex<Vec<Listener>>,
    /// Events that a listener was too slow for, of all listeners.
    pub(crate) lost: IntCounter,
}

#[derive(Debug)]
struct Listener {
    queue: mpsc::Sender<Arc<Event>>,
    lost: Arc<AtomicU64>,
}

/// A listener's side.
#[derive(Debug)]
pub(crate) struct Subscription {
    queue: mpsc::Receiver<Arc<Event>>,
    lost: Arc<AtomicU64>,
}

/// What a listener hears.
#[derive(Debug)]
pub(crate) enum Heard {
    Event(Arc<Event>),
    /// So many events did not fit: read again what they would have told of.
    Lost(u64),
}

impl Events {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            listeners: Mutex::default(),
            lost: IntCounter::new(
                "edgesteer_events_lost_total",
                "Events that clients of /mp2/v1/events were too slow for",
            )?,
        })
    }

    /// From now on.
    pub(crate) fn listen(&self) -> Subscription {
        let (sender, queue) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let listener = Listener {
            queue: sender,
            lost: Arc::clone(&lost),
        };
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(listener);
        Subscription { queue, lost }
    }

    pub(crate) fn publish(&self, kind: &'static str, data: &Value) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if listeners.is_empty() {
            return;
        }
        let event = Arc::new(Event {
            kind,
            data: data.to_string(),
        });
        listeners.retain(
            |listener| match listener.queue.try_send(Arc::clone(&event)) {
                Ok(()) => true,
                Err(TrySendError::Full(_)) => {
                    listener.lost.fetch_add(1, Ordering::Release);
                    self.lost.inc();
                    true
                }
                Err(TrySendError::Closed(_)) => false,
            },
        );
    }
}

impl Subscription {
    /// The next event, or how many were lost once those before them are heard. None when the daemon ends.
    pub(crate) async fn next(&mut self) -> Option<Heard> {
        // Read before the queue: what is in the queue later on may be newer than these.
        let lost = self.lost.load(Ordering::Acquire);
        match self.queue.try_recv() {
            Ok(event) => Some(Heard::Event(event)),
            Err(_) if lost > 0 => {
                self.lost.fetch_sub(lost, Ordering::Relaxed);
                Some(Heard::Lost(lost))
            }
            Err(_) => self.queue.recv().await.map(Heard::Event),
        }
    }
}
