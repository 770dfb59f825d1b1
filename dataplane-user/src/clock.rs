//! The kernel's jiffies, in which the data path keeps time, and how they relate to the time of day.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::Error;

/// Values of CONFIG_HZ that kernels are built with.
const RATES: [u64; 5] = [100, 250, 300, 500, 1000];

/// A clock that was read once and runs on by itself.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    hz: u64,
    jiffies: u64,
    at: Instant,
    wall: SystemTime,
}

impl Clock {
    /// Finds out how fast `jiffies` run: long enough to tell one rate from the next.
    pub(crate) fn new(jiffies: &mut dyn FnMut() -> Result<u64, Error>) -> Result<Self, Error> {
        let (first, began) = (jiffies()?, Instant::now());
        thread::sleep(Duration::from_millis(60));
        let (last, elapsed) = (jiffies()?, began.elapsed());
        let measured = (last - first) as f64 / elapsed.as_secs_f64();
        let apart = |hz: &u64| (*hz as f64 - measured).abs() as u64;
        Ok(Self {
            hz: RATES.into_iter().min_by_key(apart).unwrap_or(250),
            jiffies: last,
            at: Instant::now(),
            wall: SystemTime::now(),
        })
    }

    /// Now.
    pub(crate) fn jiffies(&self) -> u64 {
        let elapsed = self.at.elapsed();
        self.jiffies + (elapsed.as_millis() as u64) * self.hz / 1000
    }

    /// How long so many jiffies are.
    pub(crate) fn duration(&self, jiffies: u64) -> Duration {
        Duration::from_millis(jiffies.saturating_mul(1000) / self.hz)
    }

    /// The time of day at a jiffy.
    pub(crate) fn time(&self, jiffies: u64) -> SystemTime {
        if jiffies >= self.jiffies {
            self.wall + self.duration(jiffies - self.jiffies)
        } else {
            self.wall
                .checked_sub(self.duration(self.jiffies - jiffies))
                .unwrap_or(SystemTime::UNIX_EPOCH)
        }
    }
}
