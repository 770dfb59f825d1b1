//! When which check is due: one heap, so one timer for all.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use tokio::time::Instant;

use crate::random;

/// Checks by the time they are due. Those that ended are passed over by whoever takes them.
#[derive(Default)]
pub(super) struct Schedule(BinaryHeap<Reverse<(Instant, u64)>>);

impl Schedule {
    /// The first time of a check is anywhere within its interval, so that those that start together are not made together.
    pub(super) fn add(&mut self, check: u64, interval: Duration, now: Instant) {
        let first = now + interval.mul_f64(random::fraction());
        self.0.push(Reverse((first, check)));
    }

    /// When the next one is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((due, _))| *due)
    }

    /// A check that is due, and since when.
    pub(super) fn take(&mut self, now: Instant) -> Option<(u64, Instant)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse((due, check))| (check, due))
    }

    /// The next time of a check that was due then. Times that have passed meanwhile, as while the host slept, are left out.
    pub(super) fn again(&mut self, check: u64, due: Instant, interval: Duration, now: Instant) {
        // Those that happen to coincide drift apart.
        let next = due + interval.mul_f64(1.1 - 0.2 * random::fraction());
        self.0.push(Reverse((next.max(now), check)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn first_checks_spread_over_the_interval() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        (0..10_000).for_each(|check| schedule.add(check, SECOND, start));
        for tenth in 1..=10 {
            let now = start + SECOND / 10 * tenth;
            let due = std::iter::from_fn(|| schedule.take(now)).count();
            assert!((800..1200).contains(&due), "{due} in the tenth {tenth}");
        }
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_check_comes_every_interval_give_or_take_a_tenth() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        schedule.add(1, SECOND, start);
        let mut before = None;
        let mut gaps = Vec::new();
        for _ in 0..1000 {
            let now = schedule.next().unwrap();
            assert_eq!(schedule.take(now - Duration::from_nanos(1)), None);
            assert_eq!(schedule.take(now), Some((1, now)));
            // However late it is done, the next is not later for that.
            schedule.again(1, now, SECOND, now + SECOND / 2);
            gaps.extend(before.replace(now).map(|before| now - before));
        }
        assert!(
            gaps.iter()
                .all(|gap| (SECOND.mul_f64(0.9)..=SECOND.mul_f64(1.1)).contains(gap))
        );
        let sum: Duration = gaps.iter().sum();
        assert!((980..1020).contains(&sum.as_secs()), "{sum:?}");
        gaps.dedup();
        assert!(gaps.len() > 990, "no two alike");
    }

    #[test]
    fn time_that_was_slept_through_is_left_out() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        schedule.add(1, SECOND, start);
        let (_, due) = schedule.take(start + SECOND).unwrap();
        let later = start + 1000 * SECOND;
        schedule.again(1, due, SECOND, later);
        assert_eq!(schedule.take(later), Some((1, later)));
        schedule.again(1, later, SECOND, later);
        assert_eq!(schedule.take(later), None);
    }
}
