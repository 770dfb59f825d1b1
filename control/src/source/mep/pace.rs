//! When to ask again: regularly while all is well, ever more rarely while it is not, and never all nodes at once.

use std::time::Duration;

use crate::random;

/// The longest pause while the platform is in trouble.
const LONGEST: Duration = Duration::from_secs(300);
/// Doubling more often than that leads beyond the longest pause in any case.
const DOUBLINGS: u32 = 16;

pub(super) struct Pace {
    interval: Duration,
    failed: u32,
}

impl Pace {
    pub(super) const fn new(interval: Duration) -> Self {
        Self {
            interval,
            failed: 0,
        }
    }

    /// The pause after a round. A platform may ask for a longer one.
    pub(super) fn next(&mut self, healthy: bool, retry_after: Option<Duration>) -> Duration {
        if healthy {
            self.failed = 0;
            // Nodes that were started together drift apart.
            return self.interval.mul_f64(1.1 - 0.2 * random::fraction());
        }
        self.failed = (self.failed + 1).min(DOUBLINGS);
        let longest = LONGEST.max(self.interval);
        let pause = self.interval.saturating_mul(1 << self.failed).min(longest);
        let pause = pause.mul_f64(1.0 - 0.5 * random::fraction());
        pause.max(retry_after.unwrap_or_default()).min(longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_recover() {
        let second = Duration::from_secs(1);
        let mut pace = Pace::new(second);
        let within = |pause: Duration, low: f64, high: f64| {
            assert!((low..=high).contains(&pause.as_secs_f64()), "{pause:?}");
        };
        within(pace.next(true, None), 0.9, 1.1);
        within(pace.next(false, None), 1.0, 2.0);
        within(pace.next(false, None), 2.0, 4.0);
        within(pace.next(false, None), 4.0, 8.0);
        within(pace.next(false, Some(100 * second)), 100.0, 100.0);
        for _ in 0..100 {
            within(pace.next(false, Some(10_000 * second)), 150.0, 300.0);
        }
        within(pace.next(true, None), 0.9, 1.1);
        let mut slow = Pace::new(1000 * second);
        within(slow.next(false, None), 500.0, 1000.0);
    }

    #[test]
    fn pauses_differ() {
        let mut pace = Pace::new(Duration::from_secs(1));
        assert_ne!(pace.next(true, None), pace.next(true, None));
    }
}
