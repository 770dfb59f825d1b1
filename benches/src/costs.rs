//! What is run, and the time that it takes.

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A program that does nothing, or moves the front of the packet only.
    Empty,
    /// A program that sends the packet on, and no more than that.
    Redirect,
    /// A program that steers by a hash map of the kernel's, and no more than that.
    Lookup,
    /// A program that steers by a cache in an array, and takes out of a tunnel or puts into one, and no more than that.
    Cache,
    /// edgesteer.
    Steer,
}

impl Target {
    /// All of them, in the order of [`Costs`].
    pub const ALL: [Self; 5] = [
        Self::Empty,
        Self::Redirect,
        Self::Lookup,
        Self::Cache,
        Self::Steer,
    ];
}

/// The least nanoseconds for a packet that were seen of each [`Target`], the driver's own included.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs([Option<u64>; 5]);

impl Costs {
    /// Takes a time down, if it is the least so far.
    pub(crate) fn note(&mut self, target: Target, time: u64) {
        let least = &mut self.0[target as usize];
        *least = Some(least.map_or(time, |least| least.min(time)));
    }

    /// The mean of several parts, all of the same targets.
    pub(crate) fn mean(parts: &[Self]) -> Self {
        Self(std::array::from_fn(|target| {
            let sum: Option<u64> = parts.iter().map(|part| part.0[target]).sum();
            Some(sum? / parts.len() as u64)
        }))
    }

    /// All that a packet took, if it was measured.
    pub fn all(&self, target: Target) -> Option<u64> {
        self.0[target as usize]
    }

    /// What it took beyond doing nothing.
    pub fn net(&self, target: Target) -> Option<u64> {
        Some(self.all(target)?.saturating_sub(self.all(Target::Empty)?))
    }

    /// Net cost in terms of that of another.
    pub fn ratio(&self, target: Target, to: Target) -> Option<f64> {
        Some(self.net(target)? as f64 / self.net(to)?.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_counts_and_nothing_is_free_to_be_negative() {
        let mut costs = Costs::default();
        for (target, time) in [
            (Target::Empty, 30),
            (Target::Empty, 26),
            (Target::Empty, 27),
            (Target::Cache, 25),
            (Target::Lookup, 46),
            (Target::Steer, 66),
        ] {
            costs.note(target, time);
        }
        assert_eq!(costs.net(Target::Steer), Some(40));
        assert_eq!(costs.net(Target::Cache), Some(0));
        assert_eq!(costs.net(Target::Redirect), None);
        assert_eq!(costs.ratio(Target::Steer, Target::Lookup), Some(2.0));
        let mut other = Costs::default();
        other.note(Target::Empty, 28);
        let mean = Costs::mean(&[costs, other]);
        assert_eq!(mean.all(Target::Empty), Some(27));
        assert_eq!(mean.all(Target::Steer), None);
    }
}
