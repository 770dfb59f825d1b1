//! What a report consists of.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Costs, Target};

/// A result. Times are the least of many, and `ratio` is what carries over to other machines.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Row {
    /// What a packet costs.
    Cost {
        /// Its path.
        id: String,
        /// Flows that take turns.
        flows: u32,
        /// Rules in force, where they are many.
        #[serde(skip_serializing_if = "Option::is_none")]
        rules: Option<u32>,
        /// Nanoseconds, the driver's own included.
        ns: u64,
        /// The same of a program that does nothing.
        empty_ns: u64,
        /// The difference.
        net_ns: u64,
        /// The difference in terms of that of the reference with a cache in an array.
        #[serde(skip_serializing_if = "Option::is_none")]
        ratio: Option<f64>,
    },
    /// How many packets pass.
    Rate {
        /// What they pass through.
        id: String,
        /// Millions of packets in a second.
        mpps: f64,
        /// In terms of bare XDP redirect.
        ratio: f64,
    },
    /// How long packets are on their way, at half the load that bare XDP redirect could take.
    Delay {
        /// What they pass through.
        id: String,
        /// Half of them take no longer.
        p50_ns: u32,
        /// 99 of 100 take no longer.
        p99_ns: u32,
        /// 999 of 1,000 take no longer.
        p999_ns: u32,
        /// The second in terms of bare XDP redirect.
        ratio: f64,
    },
    /// How long something takes that is not done for packets.
    Time {
        /// What is done.
        id: String,
        /// Rules that there are.
        #[serde(skip_serializing_if = "Option::is_none")]
        rules: Option<u32>,
        /// Microseconds, in the middle of all times.
        median_us: f64,
        /// 99 of 100 take no longer.
        p99_us: f64,
    },
    /// What could not be measured.
    Refused {
        /// What it would have been.
        id: String,
        /// What edgesteer said.
        refused: String,
    },
}

impl Row {
    /// The row of a target's cost, if it was measured.
    pub(crate) fn cost(id: &str, flows: u32, costs: &Costs, target: Target) -> Option<Self> {
        Some(Self::Cost {
            id: id.to_owned(),
            flows,
            rules: None,
            ns: costs.all(target)?,
            empty_ns: costs.all(Target::Empty)?,
            net_ns: costs.net(target)?,
            ratio: costs.ratio(target, Target::Cache).map(round),
        })
    }

    /// The row of times that something took.
    pub(crate) fn times(id: &str, rules: Option<u32>, mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |hundredth: usize| {
            let time = times.get(times.len() * hundredth / 100);
            round(time.map_or(0.0, |time| time.as_secs_f64() * 1e6))
        };
        Self::Time {
            id: id.to_owned(),
            rules,
            median_us: at(50),
            p99_us: at(99),
        }
    }

    /// The section of the report that it belongs to.
    pub(crate) fn section(&self) -> &'static str {
        match self {
            Self::Cost { rules: None, .. } => "flows",
            Self::Cost { rules: Some(_), .. } => "rules",
            Self::Refused { id, .. } if id.contains("miss") => "rules",
            Self::Rate { .. } => "veth",
            Self::Delay { .. } => "latency",
            Self::Time { .. } | Self::Refused { .. } => "apply",
        }
    }

    /// A line of the section's table.
    pub(crate) fn cells(&self) -> Vec<String> {
        let text = |value: &dyn ToString| value.to_string();
        match self {
            Self::Cost {
                id,
                flows,
                ns,
                empty_ns,
                net_ns,
                ratio,
                ..
            } => {
                let ratio = ratio.map_or_else(String::new, |ratio| ratio.to_string());
                [id as &dyn ToString, flows, ns, empty_ns, net_ns, &ratio]
                    .map(text)
                    .to_vec()
            }
            Self::Rate { id, mpps, ratio } => [id as &dyn ToString, mpps, ratio].map(text).to_vec(),
            Self::Delay {
                id,
                p50_ns,
                p99_ns,
                p999_ns,
                ratio,
            } => [id as &dyn ToString, p50_ns, p99_ns, p999_ns, ratio]
                .map(text)
                .to_vec(),
            Self::Time {
                id,
                median_us,
                p99_us,
                ..
            } => [id as &dyn ToString, median_us, p99_us].map(text).to_vec(),
            Self::Refused { id, refused } => vec![id.clone(), format!("refused: {refused}")],
        }
    }

    /// What it is of.
    pub fn id(&self) -> &str {
        match self {
            Self::Cost { id, .. }
            | Self::Rate { id, .. }
            | Self::Delay { id, .. }
            | Self::Time { id, .. }
            | Self::Refused { id, .. } => id,
        }
    }
}

/// To hundredths.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
