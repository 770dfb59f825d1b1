//! How many packets pass through a pair of veths, beside what else could steer them.

use anyhow::{Context as _, Result};

use crate::{
    MOBILE_PATHS, Path, Row,
    lane::Lane,
    peers::{self, RULES},
    row::round,
    rules,
};

/// The lane that others are compared with.
const REDIRECT: &str = "veth-redirect";

/// Everything that a frame can go through, edgesteer with as many rules as the others.
fn lanes() -> Result<Vec<Lane>> {
    let mut lanes = peers::all()?;
    let mut steer = Lane::edgesteer("veth-steer", false, &rules(RULES.rules), "app0")?;
    steer.load("access0", |flow| RULES.packet(flow))?;
    lanes.insert(1, steer);
    for (id, path, exit) in [
        ("veth-gtpu-ul", "gtpu-ul-hit", "app0"),
        ("veth-gtpu-dl", "gtpu-dl-hit", "access0"),
    ] {
        let known = |known: &&Path| known.id == path;
        let path = MOBILE_PATHS.iter().find(known).context(path)?;
        lanes.insert(2, Lane::path(id, path, true, exit)?);
    }
    Ok(lanes)
}

/// Rates of everything that a frame can go through, and delays of what is XDP, the best of so many rounds, in turns; of delays,
/// which are soon measured, of twice as many.
pub fn measure(rounds: u32) -> Result<Vec<Row>> {
    let mut lanes = lanes()?;
    let rates = rates(&mut lanes, rounds)?;
    // What could not take the load would tell nothing of delays.
    lanes.retain(|lane| lane.id == REDIRECT || lane.is_edgesteer());
    Ok([rates, delays(&mut lanes, rounds * 2)?].concat())
}

fn rates(lanes: &mut [Lane], rounds: u32) -> Result<Vec<Row>> {
    /// Seconds that a round of a lane takes.
    const ROUND: f64 = 0.01;
    let mut best = Vec::new();
    for lane in &mut *lanes {
        best.push(lane.rate(1 << 12)?);
    }
    for _ in 0..rounds {
        for (lane, best) in lanes.iter_mut().zip(&mut best) {
            *best = best.max(lane.rate((*best * 1e6 * ROUND) as u32)?);
        }
    }
    let redirect = best[bare(lanes)?];
    let rows = lanes.iter().zip(best).map(|(lane, mpps)| Row::Rate {
        id: lane.id.to_owned(),
        mpps: round(mpps),
        ratio: round(mpps / redirect),
    });
    Ok(rows.collect())
}

/// Packets come one by one, at random, half as many as bare redirect could take.
fn delays(lanes: &mut [Lane], rounds: u32) -> Result<Vec<Row>> {
    const PACKETS: u32 = 20_000;
    /// Few, so that some rows pass without an interrupt or a pause of the whole machine.
    const ROW: usize = 2_000;
    let bare = bare(lanes)?;
    let (arrived, time) = lanes[bare].send(PACKETS, 1)?;
    let intervals = intervals(2.0 * time / f64::from(arrived));
    let mut best = vec![[u32::MAX; 3]; lanes.len()];
    for _ in 0..rounds {
        for (lane, best) in lanes.iter_mut().zip(&mut best) {
            for row in lane.delays(&intervals, PACKETS)?.chunks_mut(ROW) {
                row.sort_unstable();
                for (best, thousandths) in best.iter_mut().zip([500, 990, 999]) {
                    *best = row[row.len() * thousandths / 1000].min(*best);
                }
            }
        }
    }
    let [_, redirect, _] = best[bare];
    let rows = lanes
        .iter()
        .zip(best)
        .map(|(lane, [p50, p99, p999])| Row::Delay {
            id: lane.id.replace("veth", "latency"),
            p50_ns: p50,
            p99_ns: p99,
            p999_ns: p999,
            ratio: round(f64::from(p99) / f64::from(redirect)),
        });
    Ok(rows.collect())
}

/// The time between packets that come at random, in nanoseconds.
fn intervals(mean: f64) -> Vec<u32> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..4096)
        .map(|_| (-(1.0 - uniform()).ln() * mean) as u32)
        .collect()
}

fn bare(lanes: &[Lane]) -> Result<usize> {
    let found = lanes.iter().position(|lane| lane.id == REDIRECT);
    found.context(REDIRECT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_as_long_as_they_should_be_on_average() {
        let intervals = intervals(1000.0);
        let sum: u64 = intervals.iter().copied().map(u64::from).sum();
        let mean = sum / intervals.len() as u64;
        assert!((950..1050).contains(&mean), "{mean}");
        let longer = intervals.iter().filter(|it| **it > 1000).count();
        assert!((1350..1650).contains(&longer), "{longer} of 4096");
    }
}
