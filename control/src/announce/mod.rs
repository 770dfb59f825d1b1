//! Which addresses this host announces, and to whom it says so.
//!
//! An address is announced while it is healthy and withdrawn at once when it is not. It is announced again only when it has been
//! healthy for the hold-down without a break (`hold`, which is pure), so that what flaps does not make all routers flap with it.
//! Telling is done by a driver, on a thread of its own: whatever else the daemon is busy with, it is not late.

mod exabgp;
mod gobgp;
mod hold;
mod interface;

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::watch;

use self::hold::{Hold, Holds};
pub(crate) use self::interface::OURS;

/// What is not renewed for so long goes by itself where [`OnExit::Withdraw`] can have it so.
pub const LIFETIME: Duration = Duration::from_secs(15);
/// How often everything is said again: it may have been removed by others, or the speaker started anew.
const REFRESH: Duration = Duration::from_secs(5);

/// Who announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// A routing daemon such as BIRD or FRR that redistributes the addresses of an interface: they are set on it.
    Interface {
        /// One that exists; `lo`, or a dummy.
        name: String,
    },
    /// ExaBGP, by a named pipe from which it, or a process of its configuration, reads commands. ExaBGP has to have a
    /// session of the address's IP version, for the next hop is its own end.
    Exabgp {
        /// The pipe.
        pipe: PathBuf,
    },
    /// GoBGP, by its command line `gobgp`, which has to be found.
    Gobgp {
        /// Where `gobgpd` serves its API; usually 127.0.0.1:50051.
        api: SocketAddr,
    },
}

/// What becomes of announcements when the daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnExit {
    /// [`Announcer::stop`] withdraws them. If the daemon is killed, addresses on an interface go after [`LIFETIME`], ExaBGP's
    /// process may withdraw them (see `exabgp`), and GoBGP keeps what it was told until the next start.
    Withdraw,
    /// They stay.
    Keep,
}

/// Whether an address is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is.
    Announced,
    /// It is healthy again, and will be announced if it is so all the time until then.
    HeldDown {
        /// When that is.
        until: SystemTime,
    },
    /// It is not healthy.
    Withdrawn,
}

/// What there is to say about an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// What is meant to be.
    pub state: State,
    /// How often it was withdrawn because it was not healthy.
    pub flaps: u64,
    /// Why it is not what is meant to be, and that is tried again.
    pub error: Option<String>,
}

/// What is said of each address.
pub type Announcements = BTreeMap<IpAddr, Announcement>;

/// Announces addresses. Dropping it is as if the daemon had been killed; [`Announcer::stop`] is the orderly end.
#[derive(Debug)]
pub struct Announcer {
    orders: mpsc::Sender<Order>,
    state: watch::Receiver<Announcements>,
    thread: JoinHandle<()>,
}

impl Announcer {
    /// Goes on with what an earlier run announced, and waits to be told more. Its thread is in the network namespace of this one.
    pub fn new(driver: Driver, hold_down: Duration, on_exit: OnExit) -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel();
        let (sender, state) = watch::channel(Announcements::new());
        let mut speaker: Box<dyn Speaker> = match driver {
            Driver::Interface { name } => {
                let lifetime = (on_exit == OnExit::Withdraw).then_some(LIFETIME);
                Box::new(interface::Interface::new(name, lifetime))
            }
            Driver::Exabgp { pipe } => Box::new(exabgp::Exabgp::new(pipe)),
            Driver::Gobgp { api } => Box::new(gobgp::Gobgp::new(api)),
        };
        let mut holds = Holds::new(hold_down);
        holds.adopt(speaker.adopt().map_err(io::Error::other)?);
        let work = Work {
            holds,
            speaker,
            on_exit,
            said: None,
            errors: BTreeMap::new(),
            state: sender,
        };
        work.publish();
        let thread = thread::Builder::new().name("announce".to_owned());
        Ok(Self {
            orders,
            state,
            thread: thread.spawn(move || work.run(&receiver))?,
        })
    }

    /// Announces these addresses as far as they are healthy, and no others. Until this is called first, what was announced
    /// before stays.
    pub fn follow(&self, healthy: BTreeMap<IpAddr, bool>) {
        // The thread ends with this value.
        let _ = self.orders.send(Order::Follow(healthy));
    }

    /// What is announced, now and whenever it changes.
    pub fn state(&self) -> watch::Receiver<Announcements> {
        self.state.clone()
    }

    /// Withdraws everything, if that is what is wanted on exit, and returns when it is done. It blocks.
    pub fn stop(self) {
        let _ = self.orders.send(Order::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that announces had ended; see the log above");
        }
    }
}

/// Says to the world what is announced.
trait Speaker: Send {
    /// What an earlier run announced, as far as that can be known.
    fn adopt(&mut self) -> Result<Vec<IpAddr>, String>;

    /// Makes the world know exactly this, however often it is called, and returns what was wrong with which. Addresses that
    /// earlier calls had and this one has not are withdrawn.
    fn say(&mut self, wanted: &Wanted) -> Errors;
}

/// Which addresses are to be announced, and which not to be.
type Wanted = BTreeMap<IpAddr, bool>;
/// What was wrong, in words.
type Errors = BTreeMap<IpAddr, String>;

enum Order {
    Follow(BTreeMap<IpAddr, bool>),
    Stop,
}

/// What the thread has.
struct Work {
    holds: Holds,
    speaker: Box<dyn Speaker>,
    on_exit: OnExit,
    /// What was said last, and when.
    said: Option<(Wanted, Instant)>,
    errors: Errors,
    state: watch::Sender<Announcements>,
}

impl Work {
    fn run(mut self, orders: &mpsc::Receiver<Order>) {
        loop {
            match orders.recv_timeout(self.pause()) {
                Ok(Order::Follow(healthy)) => self.holds.follow(&healthy, Instant::now()),
                Ok(Order::Stop) if self.on_exit == OnExit::Withdraw => {
                    self.holds.follow(&BTreeMap::new(), Instant::now());
                    return self.say();
                }
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.holds.elapse(Instant::now());
            self.say();
        }
    }

    /// How long there is nothing to do.
    fn pause(&self) -> Duration {
        let refresh = self.said.as_ref().map(|(_, when)| *when + REFRESH);
        let next = refresh.into_iter().chain(self.holds.next()).min();
        next.map_or(Duration::ZERO, |next| {
            next.saturating_duration_since(Instant::now())
        })
    }

    /// Says what has changed, or everything when it is time to.
    fn say(&mut self) {
        let wanted = self.holds.wanted();
        let known = self
            .said
            .as_ref()
            .is_some_and(|(said, when)| *said == wanted && when.elapsed() < REFRESH);
        if !known {
            let errors = self.speaker.say(&wanted);
            for (address, error) in &errors {
                if self.errors.get(address) != Some(error) {
                    tracing::warn!(%address, error, "cannot announce or withdraw");
                }
            }
            self.errors = errors;
            self.said = Some((wanted, Instant::now()));
        }
        self.publish();
    }

    fn publish(&self) {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let all = self.holds.all().map(|(address, hold, flaps)| {
            let state = match hold {
                Hold::Announced => State::Announced,
                Hold::Down { .. } => State::Withdrawn,
                Hold::Held { until } => State::HeldDown {
                    until: clock + until.saturating_duration_since(now),
                },
            };
            let error = self.errors.get(&address).cloned();
            (
                address,
                Announcement {
                    state,
                    flaps,
                    error,
                },
            )
        });
        let all = all.collect::<Announcements>();
        self.state.send_if_modified(|state| {
            let news = !alike(state, &all);
            if news {
                *state = all;
            }
            news
        });
    }
}

/// Whether nobody has to be told: the end of a hold-down does not move, though clocks may say so.
fn alike(one: &Announcements, other: &Announcements) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|((address, old), (also, new))| {
            let states = match (old.state, new.state) {
                (State::HeldDown { .. }, State::HeldDown { .. }) => old.flaps == new.flaps,
                (old, new) => old == new,
            };
            address == also && states && old.error == new.error
        })
}
