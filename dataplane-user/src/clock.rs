//! The kernel's jiffies, in which the data path keeps time, and how they relate to the time of day.

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::Error;

/// Values of CONFIG_HZ that kernels are built with.
const RATES: [f64; 6] = [100.0, 250.0, 300.0, 500.0, 1000.0, 1024.0];

/// A clock that is set now and then, and runs on by itself in between.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    hz: f64,
    /// The first reading: the longer ago it is, the better is known how fast jiffies run.
    first: (u64, Instant),
    last: (u64, Instant),
    wall: SystemTime,
}

impl Clock {
    /// Finds out about how fast `jiffies` run.
    pub(crate) fn new(jiffies: &mut dyn FnMut() -> Result<u64, Error>) -> Result<Self, Error> {
        let first = (jiffies()?, Instant::now());
        let mut clock = Self {
            hz: 250.0,
            first,
            last: first,
            wall: SystemTime::now(),
        };
        thread::sleep(Duration::from_millis(60));
        let now = jiffies()?;
        if now == first.0 {
            return Err(Error::Options(
                "the kernel's jiffies stand still".to_owned(),
            ));
        }
        clock.set(now);
        Ok(clock)
    }

    /// Sets the clock.
    pub(crate) fn set(&mut self, jiffies: u64) {
        self.last = (jiffies, Instant::now());
        self.wall = SystemTime::now();
        let elapsed = self.last.1 - self.first.1;
        let measured = jiffies.saturating_sub(self.first.0) as f64 / elapsed.as_secs_f64();
        let apart = |hz: &f64| (hz - measured).abs();
        let nearest = RATES
            .into_iter()
            .min_by(|a, b| apart(a).total_cmp(&apart(b)));
        // After a while a rate that is none of these shows.
        self.hz = nearest
            .filter(|hz| elapsed < Duration::from_secs(1) || apart(hz) < hz / 50.0)
            .unwrap_or(measured);
    }

    /// Jiffies in a second.
    pub(crate) const fn hz(&self) -> f64 {
        self.hz
    }

    /// Now.
    pub(crate) fn jiffies(&self) -> u64 {
        self.last.0 + (self.last.1.elapsed().as_secs_f64() * self.hz) as u64
    }

    /// How long so many jiffies are.
    pub(crate) fn duration(&self, jiffies: u64) -> Duration {
        Duration::from_secs_f64(jiffies as f64 / self.hz)
    }

    /// The time of day at a jiffy.
    pub(crate) fn time(&self, jiffies: u64) -> SystemTime {
        let last = self.last.0;
        if jiffies >= last {
            self.wall + self.duration(jiffies - last)
        } else {
            let ago = self.duration(last - jiffies);
            self.wall.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
        }
    }
}
