//! What becomes of packets.

use std::fmt;

use dataplane_core::Reason;
use dataplane_user::rule::RuleId;

use super::Frame;

/// What should become of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule that is counted.
    pub rule: Option<RuleId>,
    /// The reason that is counted.
    pub reason: Reason,
    /// Where the packet goes.
    pub fate: Fate,
}

/// Where a packet goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nowhere.
    Discarded,
    /// Its original path, unchanged.
    Original,
    /// Its original path, unchanged, and a copy to an application.
    Copied,
    /// Out of a port, looking like this.
    Sent(&'static str, Frame),
    /// To the kernel, which routes it, looking like this.
    Routed(Frame),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.rule {
            Some(rule) => write!(f, "rule {}/{}: ", rule.app, rule.rule)?,
            None => f.write_str("no rule: ")?,
        }
        f.write_str(self.reason.name())?;
        match &self.fate {
            Fate::Discarded => f.write_str(", discarded"),
            Fate::Original => f.write_str(", on its original path"),
            Fate::Copied => f.write_str(", copied"),
            Fate::Sent(port, frame) => write!(f, ", to {port}: {frame}"),
            Fate::Routed(frame) => write!(f, ", to the kernel: {frame}"),
        }
    }
}

pub(super) fn copy_reply() -> Outcome {
    Outcome {
        rule: None,
        reason: Reason::CopyReply,
        fate: Fate::Discarded,
    }
}

pub(super) fn original(reason: Reason) -> Outcome {
    Outcome {
        rule: None,
        reason,
        fate: Fate::Original,
    }
}
