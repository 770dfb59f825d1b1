//! What a row of checks says of a backend.

use std::time::{Duration, SystemTime};

use super::Check;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The answer was the right one.
    Passed,
    /// The backend refused or reset the connection.
    Refused,
    /// There was no answer in time.
    TimedOut,
    /// The host has no way to the backend.
    Unreachable,
    /// The answer was another one: an HTTP status of 4xx, no HTTP at all.
    WrongAnswer,
    /// This host could not make the check; that says nothing of the backend.
    Unchecked,
    /// The check before still ran.
    Skipped,
}

impl Outcome {
    /// All of them, as [`Counts`] has them.
    pub const ALL: [Self; 7] = [
        Self::Passed,
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::WrongAnswer,
        Self::Unchecked,
        Self::Skipped,
    ];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unreachable => "unreachable",
            Self::WrongAnswer => "wrong_answer",
            Self::Unchecked => "unchecked",
            Self::Skipped => "skipped",
        }
    }

    /// Whether the backend passed; none if that says nothing of it.
    const fn says(self) -> Option<bool> {
        match self {
            Self::Passed => Some(true),
            Self::Refused | Self::TimedOut | Self::Unreachable | Self::WrongAnswer => Some(false),
            Self::Unchecked | Self::Skipped => None,
        }
    }
}

/// The checks since they started, by how they ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts([u64; Outcome::ALL.len()]);

impl Counts {
    /// How many ended so.
    pub const fn of(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }
}

/// What a check found.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) outcome: Outcome,
    /// In words, unless it passed.
    pub(super) reason: Option<String>,
    /// How long the answer took.
    pub(super) latency: Option<Duration>,
}

/// What is known of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether it is up; none while nothing is known.
    pub up: Option<bool>,
    /// Since when it is so.
    pub since: SystemTime,
    /// What was wrong when a check last did not pass, in words.
    pub reason: Option<String>,
    /// How long the last answer took.
    pub latency: Option<Duration>,
    /// The checks since they started.
    pub counts: Counts,
    /// So many checks in a row...
    streak: u32,
    /// ...said this.
    passing: bool,
}

impl Health {
    /// Before the first check.
    pub(crate) fn new(assumed: Option<bool>, now: SystemTime) -> Self {
        Self {
            up: assumed,
            since: now,
            reason: None,
            latency: None,
            counts: Counts::default(),
            streak: 0,
            passing: false,
        }
    }

    /// Takes a finding in; whether the backend is up or down other than before.
    pub(super) fn note(&mut self, check: &Check, finding: Finding, now: SystemTime) -> bool {
        self.counts.0[finding.outcome as usize] += 1;
        if finding.reason.is_some() {
            self.reason = finding.reason;
        }
        let Some(passed) = finding.outcome.says() else {
            return false;
        };
        self.latency = finding.latency.or(self.latency);
        self.streak = match passed == self.passing {
            true => self.streak.saturating_add(1),
            false => 1,
        };
        self.passing = passed;
        let needed = if passed { check.rise } else { check.fall };
        let turned = self.up != Some(passed) && self.streak >= needed;
        if turned {
            self.up = Some(passed);
            self.since = now;
        }
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Kind;

    /// What a row of checks makes of a backend: `+` passed, `-` failed, `?` could not be made, `s` skipped.
    fn after(assumed: Option<bool>, row: &str) -> (Option<bool>, usize) {
        let check = Check {
            kind: Kind::Tcp,
            address: "192.0.2.1".parse().unwrap(),
            port: 1,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        };
        let mut health = Health::new(assumed, SystemTime::UNIX_EPOCH);
        let mut turns = 0;
        for (second, what) in row.chars().enumerate() {
            let outcome = match what {
                '+' => Outcome::Passed,
                '-' => Outcome::TimedOut,
                '?' => Outcome::Unchecked,
                _ => Outcome::Skipped,
            };
            let finding = Finding {
                outcome,
                reason: (outcome != Outcome::Passed).then(|| format!("{second}")),
                latency: None,
            };
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second as u64);
            if health.note(&check, finding, now) {
                assert_eq!(health.since, now);
                turns += 1;
            }
        }
        let all = Outcome::ALL.iter().map(|it| health.counts.of(*it));
        assert_eq!(all.sum::<u64>(), row.len() as u64);
        let last = row.rfind(|what| what != '+').map(|at| at.to_string());
        assert_eq!(health.reason, last);
        (health.up, turns)
    }

    #[test]
    fn it_rises_and_falls_by_rows() {
        let (up, down) = (Some(true), Some(false));
        for (row, result) in [
            ("", (None, 0)),
            ("+", (None, 0)),
            ("++", (up, 1)),
            ("--", (None, 0)),
            ("---", (down, 1)),
            ("+-+-+--+--", (None, 0)),
            ("++--+--", (up, 1)),
            ("++---", (down, 2)),
            ("++---+-++", (up, 3)),
        ] {
            assert_eq!(after(None, row), result, "{row}");
        }
    }

    #[test]
    fn what_was_assumed_holds_until_a_row_says_otherwise() {
        let (up, down) = (Some(true), Some(false));
        for (assumed, row, result) in [
            (up, "", (up, 0)),
            (up, "--", (up, 0)),
            (up, "---", (down, 1)),
            (up, "++", (up, 0)),
            (down, "+", (down, 0)),
            (down, "++", (up, 1)),
        ] {
            assert_eq!(after(assumed, row), result, "{row}");
        }
    }

    #[test]
    fn what_could_not_be_checked_says_nothing() {
        assert_eq!(after(Some(true), "-?-s??sss?"), (Some(true), 0));
        assert_eq!(after(Some(true), "-?-s-"), (Some(false), 1));
        assert_eq!(after(None, "????"), (None, 0));
    }

    #[test]
    fn every_outcome_has_its_count() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index, "{}", outcome.name());
        }
    }
}
