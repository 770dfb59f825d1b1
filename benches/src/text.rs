//! Rows for people.

use crate::{MISSES, MOBILE_PATHS, PATHS, Row};

/// What stands over the lines of [`line()`].
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
        Row::Rate { id, mpps, ratio } => format!("{id:<18} {mpps:>7.2} Mpps {ratio:>6.2}"),
        Row::Delay {
            id,
            p50_ns,
            p99_ns,
            p999_ns,
            ratio,
        } => format!(
            "{id:<18} {p50_ns:>7} {p99_ns:>7} {p999_ns:>7} ns in 50, 99, 99.9 of 100 {ratio:>6.2}"
        ),
        Row::Time {
            id,
            median_us,
            p99_us,
            ..
        } => format!("{id:<18} {median_us:>10.1} us, {p99_us:.1} in 99 of 100"),
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

/// A round number as it is in names: 10, 1k, 1m.
pub(crate) fn short(number: u32) -> String {
    match number {
        1_000_000.. => format!("{}m", number / 1_000_000),
        1_000.. => format!("{}k", number / 1_000),
        _ => number.to_string(),
    }
}
