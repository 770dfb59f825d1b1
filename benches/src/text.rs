//! Rows for people.

use crate::{MISSES, MOBILE_PATHS, PATHS, Row};

/// What stands over the lines of [`line`].
pub const HEADING: &str = "\
nanoseconds for a packet; net is without what doing nothing takes, ratio is to the reference with a cache

path                 flows    all  empty    net  ratio  aimed at";

/// A row of the table of costs.
pub fn line(row: &Row) -> String {
    match row {
        Row::Cost {
            id,
            flows,
            ns,
            empty_ns,
            net_ns,
            ratio,
            ..
        } => format!(
            "{id:<18} {flows:>7} {ns:>6} {empty_ns:>6} {net_ns:>6} {:>6} {:>9}",
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}")),
            target(id).map_or_else(String::new, |target| target.to_string())
        ),
        Row::Refused { id, refused } => format!("{id:<18} refused: {refused}"),
    }
}

/// Net nanoseconds aimed at.
fn target(id: &str) -> Option<u64> {
    let paths = PATHS.iter().chain(MOBILE_PATHS);
    let paths = paths.map(|path| (path.id, path.target));
    let mut all = paths.chain(MISSES.iter().map(|miss| (miss.id, miss.target)));
    all.find_map(|(known, target)| (known == id).then_some(target))
}
