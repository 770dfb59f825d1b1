//! What was decided about the packets of a flow.

/// A decision that holds for one epoch: an action, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The rule set it was taken under.
    pub epoch: u32,
    /// The action.
    pub action: Option<u32>,
    /// Whether it depends on more than the key, so that each packet needs a look of its own.
    pub sensitive: bool,
}

impl Decision {
    /// Whether the decision in `word` was taken in `epoch`, and for all packets.
    #[must_use]
    pub const fn holds(word: u64, epoch: u32) -> bool {
        word >> 31 == (epoch as u64) << 1
    }
}

impl From<u64> for Decision {
    fn from(word: u64) -> Self {
        let action = word as u32 & 0x7fff_ffff;
        Self {
            epoch: (word >> 32) as u32,
            action: if action == 0 { None } else { Some(action - 1) },
            sensitive: word & 0x8000_0000 != 0,
        }
    }
}

impl From<Decision> for u64 {
    fn from(decision: Decision) -> Self {
        let action = match decision.action {
            Some(action) => action + 1,
            None => 0,
        };
        Self::from(decision.epoch) << 32 | Self::from(decision.sensitive) << 31 | Self::from(action)
    }
}
