//! Which addresses are to be announced, as time goes by.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::Wanted;

/// All addresses.
pub(super) struct Holds {
    hold_down: Duration,
    addresses: BTreeMap<IpAddr, (Hold, u64)>,
}

/// How an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    Announced,
    /// Healthy again; announced from then on.
    Held {
        until: Instant,
    },
    /// Not healthy; it may have been announced before.
    Down {
        withdrawn: bool,
    },
}

impl Holds {
    pub(super) const fn new(hold_down: Duration) -> Self {
        Self {
            hold_down,
            addresses: BTreeMap::new(),
        }
    }

    /// These are announced already.
    pub(super) fn adopt(&mut self, addresses: Vec<IpAddr>) {
        let announced = |address| (address, (Hold::Announced, 0));
        self.addresses.extend(addresses.into_iter().map(announced));
    }

    /// Takes in which are healthy; others are forgotten.
    pub(super) fn follow(&mut self, healthy: &BTreeMap<IpAddr, bool>, now: Instant) {
        self.addresses
            .retain(|address, _| healthy.contains_key(address));
        for (address, healthy) in healthy {
            let fresh = (Hold::Down { withdrawn: false }, 0);
            let (hold, flaps) = self.addresses.entry(*address).or_insert(fresh);
            *hold = match (*hold, healthy) {
                (Hold::Announced, false) => {
                    *flaps += 1;
                    Hold::Down { withdrawn: true }
                }
                (Hold::Held { .. }, false) => Hold::Down { withdrawn: true },
                (Hold::Down { withdrawn: false }, true) => Hold::Announced,
                (Hold::Down { withdrawn: true }, true) => Hold::Held {
                    until: now + self.hold_down,
                },
                (hold, _) => hold,
            };
        }
        self.elapse(now);
    }

    /// Ends the hold-downs whose time has come.
    pub(super) fn elapse(&mut self, now: Instant) {
        for (hold, _) in self.addresses.values_mut() {
            if matches!(hold, Hold::Held { until } if *until <= now) {
                *hold = Hold::Announced;
            }
        }
    }

    /// When the next hold-down ends.
    pub(super) fn next(&self) -> Option<Instant> {
        let ends = self.addresses.values().filter_map(|(hold, _)| match hold {
            Hold::Held { until } => Some(*until),
            Hold::Announced | Hold::Down { .. } => None,
        });
        ends.min()
    }

    pub(super) fn wanted(&self) -> Wanted {
        let all = self.addresses.iter();
        all.map(|(address, (hold, _))| (*address, *hold == Hold::Announced))
            .collect()
    }

    /// Each with how often it was withdrawn.
    pub(super) fn all(&self) -> impl Iterator<Item = (IpAddr, Hold, u64)> {
        let all = self.addresses.iter();
        all.map(|(address, (hold, flaps))| (*address, *hold, *flaps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const ONE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 1));

    struct Story {
        holds: Holds,
        start: Instant,
    }

    impl Story {
        fn new(hold_down: Duration) -> Self {
            Self {
                holds: Holds::new(hold_down),
                start: Instant::now(),
            }
        }

        /// What is known at this second, and whether the address is announced then.
        fn at(&mut self, second: u32, healthy: bool) -> bool {
            let now = self.start + SECOND * second;
            self.holds.elapse(now);
            self.holds.follow(&BTreeMap::from([(ONE, healthy)]), now);
            self.holds.wanted()[&ONE]
        }

        fn elapse(&mut self, second: u32) -> bool {
            self.holds.elapse(self.start + SECOND * second);
            self.holds.wanted()[&ONE]
        }

        fn flaps(&self) -> u64 {
            self.holds.all().map(|(_, _, flaps)| flaps).sum()
        }
    }

    #[test]
    fn the_first_time_nobody_waits() {
        let mut story = Story::new(10 * SECOND);
        assert!(!story.at(0, false));
        assert_eq!(story.holds.next(), None);
        assert!(story.at(1, true));
        assert_eq!(story.flaps(), 0);
    }

    #[test]
    fn it_is_withdrawn_at_once_and_announced_after_a_whole_hold_down() {
        let mut story = Story::new(10 * SECOND);
        assert!(story.at(0, true));
        assert!(!story.at(5, false));
        assert_eq!(story.flaps(), 1);
        assert!(!story.at(7, true));
        assert_eq!(story.holds.next(), Some(story.start + 17 * SECOND));
        assert!(!story.at(16, true), "the same again does not begin anew");
        assert!(!story.at(16, false), "a break does");
        assert!(!story.at(20, true));
        assert!(!story.elapse(29));
        assert!(story.elapse(30));
        assert_eq!((story.holds.next(), story.flaps()), (None, 1));
        assert!(!story.at(31, false));
        assert_eq!(story.flaps(), 2);
    }

    #[test]
    fn without_hold_down_it_is_announced_at_once() {
        let mut story = Story::new(Duration::ZERO);
        assert!(story.at(0, true));
        assert!(!story.at(1, false));
        assert!(story.at(1, true));
    }

    #[test]
    fn what_was_announced_before_is_no_first_time() {
        let mut story = Story::new(10 * SECOND);
        story.holds.adopt(vec![ONE]);
        assert!(story.elapse(100));
        assert!(story.at(100, true));
        assert!(!story.at(101, false));
        assert!(!story.at(102, true));
    }

    #[test]
    fn others_are_forgotten() {
        let mut story = Story::new(10 * SECOND);
        assert!(story.at(0, true));
        story.holds.follow(&BTreeMap::new(), story.start);
        assert!(story.holds.wanted().is_empty());
        assert!(story.at(1, true), "it is new");
    }
}
