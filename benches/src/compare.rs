//! Other ways to find the first rule that matches, to compare with the one in use.

mod binary;
mod tuples;
mod vectors;

use dataplane_core::{classify::Query, table::Filter};

pub use binary::Binary;
pub use tuples::Tuples;
pub use vectors::Vectors;

/// Looking at one filter after the other.
#[derive(Debug)]
pub struct Linear(pub Vec<Filter>);

/// A way to find the first of many filters that matches.
pub trait Find {
    /// Its name.
    const NAME: &'static str;

    /// Prepares for these filters, which are in order of precedence. `None`: it would take too much memory.
    fn build(filters: &[Filter]) -> Option<Self>
    where
        Self: Sized;

    /// The place of the first that matches.
    fn find(&self, query: &Query) -> Option<u32>;

    /// Octets that it takes.
    fn size(&self) -> usize;
}

impl Find for Linear {
    const NAME: &'static str = "linear";

    fn build(filters: &[Filter]) -> Option<Self> {
        (filters.len() <= 100_000).then(|| Self(filters.to_vec()))
    }

    fn find(&self, query: &Query) -> Option<u32> {
        let place = self.0.iter().position(|filter| query.meets(filter))?;
        Some(place as u32)
    }

    fn size(&self) -> usize {
        size_of_val(&*self.0)
    }
}

/// First and last value of a field that a filter matches.
type Range = [[u64; 2]; 2];

/// Addresses, ports and protocol.
const FIELDS: usize = 5;

fn ranges(filter: &Filter) -> [Range; FIELDS] {
    let narrow = |range: [u32; 2]| range.map(|value| [0, u64::from(value)]);
    [
        filter.destination,
        filter.source,
        narrow(filter.destination_port),
        narrow(filter.source_port),
        narrow(filter.protocol.map(u32::from)),
    ]
}

fn values(query: &Query) -> [[u64; 2]; FIELDS] {
    [
        query.destination,
        query.source,
        [0, query.destination_port.into()],
        [0, query.source_port.into()],
        [0, query.protocol.into()],
    ]
}

fn after([high, low]: [u64; 2]) -> [u64; 2] {
    match low.checked_add(1) {
        Some(low) => [high, low],
        None => [high.saturating_add(1), 0],
    }
}
