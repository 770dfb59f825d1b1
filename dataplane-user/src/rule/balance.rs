//! Flows balanced over backends: what an anycast VIP does.

use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use super::{Endpoint, ParseError, id};

/// How new flows are spread over backends. A flow keeps its backend for as long as that lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Balance {
    /// What else keeps a backend.
    pub affinity: Affinity,
    /// The backends, in the order of their ids, each once.
    pub backends: Vec<Backend>,
    /// Where new flows go while no backend takes any: a peer, or on by their original path.
    pub fallback: Option<Endpoint>,
    /// Whether echo requests to its addresses are left to other rules.
    pub silent: bool,
}

/// What keeps the backend that was chosen for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Affinity {
    /// The flow.
    #[default]
    Flow,
    /// All flows of a UE.
    Ue {
        /// Seconds after the last new flow until the UE is chosen for anew.
        timeout: u32,
    },
}

/// Who serves flows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Backend {
    /// Its name. On it and the weights alone depends which flows it gets, the same on every host.
    pub id: BackendId,
    /// The share of new flows it gets, in proportion to the weights of the others. With 0 it gets none.
    pub weight: u16,
    /// Whether it takes flows.
    pub state: BackendState,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// Whether a backend takes flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackendState {
    /// It takes new ones.
    Up,
    /// It keeps those that it has.
    Draining,
    /// It has none: another backend is chosen for them.
    Down,
}

id::id! {
    /// The name of a backend within its VIP: 1 to 255 bytes, no control characters.
    BackendId, "a backend id"
}

impl Balance {
    /// Most backends of one VIP.
    pub const BACKENDS: usize = 1024;
    /// Longest [`Affinity::Ue`] time-out, in seconds: a day.
    pub const TIMEOUT: u32 = 86_400;

    /// Whether a backend takes new flows.
    pub fn takes_flows(&self) -> bool {
        self.backends.iter().any(Backend::takes_flows)
    }

    /// Where flows may be sent.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let backends = self.backends.iter().map(|backend| &backend.endpoint);
        backends.chain(&self.fallback)
    }
}

impl Backend {
    /// Whether new flows may come to it.
    pub fn takes_flows(&self) -> bool {
        self.state == BackendState::Up && self.weight > 0
    }
}

impl BackendState {
    const ALL: [Self; 3] = [Self::Up, Self::Draining, Self::Down];

    /// Its name in texts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

impl FromStr for BackendState {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut all = Self::ALL.into_iter();
        all.find(|state| state.name() == text).ok_or_else(|| {
            ParseError::new(
                "a backend's state",
                text,
                "write `up`, `draining` or `down`",
            )
        })
    }
}

impl Display for BackendState {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
