//! What makes a quick run fail: ratios that are worse than they were, by more than machines and days differ.

use crate::{Row, row::round};

/// Flows of the rows that are looked at, where a path has several.
const FLOWS: u32 = 1 << 10;

/// How often the net cost of the reference with a cache, at the most: of that for tunnels, where there is one.
const COSTS: &[(&str, f64)] = &[
    ("steer-v4-hit", 4.5),
    ("steer-v4-mac-hit", 4.5),
    ("steer-v6-hit", 4.5),
    ("reply-hit", 4.5),
    ("nat-hit", 5.0),
    ("nat-reply-hit", 5.0),
    ("vip-dsr-hit", 4.5),
    ("vip-dnat-hit", 5.0),
    ("vip-dnat-reply-hit", 5.0),
    ("vip-tunnel-hit", 4.5),
    ("pass", 5.5),
    ("drop", 13.0),
    ("fragments", 13.0),
    ("not-ours", 5.0),
    ("no-rules", 3.0),
    ("gtpu-ul-hit", 4.0),
    ("gtpu-dl-hit", 4.5),
    ("hit-10k", 6.5),
    ("miss-10", 16.0),
    ("miss-10k", 22.0),
];

/// Packets beside those of a bare redirect, at the least.
const RATES: &[(&str, f64)] = &[
    ("veth-steer", 0.65),
    ("veth-gtpu-ul", 0.5),
    ("veth-gtpu-dl", 0.5),
];

/// The median of latency in terms of that of a bare redirect, at the most. Higher percentiles are those of the
/// machine, if it is busy.
const DELAYS: &[(&str, f64)] = &[
    ("latency-steer", 1.7),
    ("latency-gtpu-ul", 2.4),
    ("latency-gtpu-dl", 2.4),
];

/// How many packets edgesteer passes for one of others, at the least.
const PEERS: &[(&str, f64)] = &[("veth-kernel", 3.0), ("veth-nft", 3.5)];

/// The ids of rows beyond their limits, and what is wrong with each.
pub fn broken(rows: &[Row]) -> Vec<(String, String)> {
    rows.iter()
        .filter_map(|row| Some((row.id().to_owned(), wrong(row, rows)?)))
        .collect()
}

fn wrong(row: &Row, rows: &[Row]) -> Option<String> {
    let limit = |limits: &[(&str, f64)]| {
        let found = limits.iter().find(|(id, _)| *id == row.id());
        found.map(|(_, limit)| *limit)
    };
    let above = |what: &str, ratio: f64, limit: f64| {
        (ratio > limit).then(|| format!("{}: {ratio} times {what}, {limit} at the most", row.id()))
    };
    let below = |what: &str, ratio: f64, limit: f64| {
        (ratio < limit).then(|| format!("{}: {ratio} times {what}, {limit} at the least", row.id()))
    };
    match row {
        Row::Cost {
            flows, rules: None, ..
        } if *flows != FLOWS => None,
        Row::Cost { ratio, .. } => above("its reference", (*ratio)?, limit(COSTS)?),
        Row::Delay { p50_ns, .. } => {
            let bare = rows.iter().find_map(bare_delay)?;
            above(
                "a bare redirect's",
                round(f64::from(*p50_ns) / bare),
                limit(DELAYS)?,
            )
        }
        Row::Rate { mpps, ratio, .. } => {
            let own = limit(RATES).and_then(|limit| below("a bare redirect's", *ratio, limit));
            own.or_else(|| {
                let steered = rows.iter().find_map(steered)?;
                below("in edgesteer", round(steered / mpps), limit(PEERS)?)
            })
        }
        Row::Refused { refused, .. } => Some(format!("{}: {refused}", row.id())),
        Row::Time { .. } => None,
    }
}

/// Millions of packets that edgesteer passes in a second.
fn steered(row: &Row) -> Option<f64> {
    let Row::Rate { id, mpps, .. } = row else {
        return None;
    };
    (id == "veth-steer").then_some(*mpps)
}

/// Nanoseconds that packets take through a bare redirect.
fn bare_delay(row: &Row) -> Option<f64> {
    let Row::Delay { id, p50_ns, .. } = row else {
        return None;
    };
    (id == "latency-redirect").then(|| f64::from(*p50_ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(id: &str, mpps: f64, ratio: f64) -> Row {
        Row::Rate {
            id: id.to_owned(),
            mpps,
            ratio,
        }
    }

    fn cost(id: &str, flows: u32, ratio: f64) -> Row {
        Row::Cost {
            id: id.to_owned(),
            flows,
            rules: None,
            ns: 0,
            empty_ns: 0,
            net_ns: 0,
            ratio: Some(ratio),
        }
    }

    #[test]
    fn what_is_within_its_limits_is_not_broken() {
        let rows = [
            cost("steer-v4-hit", FLOWS, 3.6),
            cost("steer-v4-hit", 1 << 16, 30.0),
            cost("ref-hash", FLOWS, 30.0),
            rate("veth-redirect", 5.0, 1.0),
            rate("veth-steer", 4.0, 0.8),
            rate("veth-kernel", 1.0, 0.2),
        ];
        assert_eq!(broken(&rows), []);
    }

    #[test]
    fn what_is_beyond_them_is_named() {
        let rows = [
            cost("steer-v4-hit", FLOWS, 7.0),
            rate("veth-steer", 2.5, 0.5),
            rate("veth-kernel", 1.0, 0.2),
        ];
        let broken = broken(&rows);
        let ids: Vec<&str> = broken.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["steer-v4-hit", "veth-steer", "veth-kernel"]);
        assert!(broken[2].1.contains("2.5 times"), "{broken:?}");
    }
}
