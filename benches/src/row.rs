//! What a report consists of.

use serde::Serialize;

use crate::{Costs, Target};

/// A result. Times are the least of many, and `ratio` is what carries over to other machines.
#[derive(Clone, Debug, Serialize)]
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

    /// What it is of.
    pub fn id(&self) -> &str {
        match self {
            Self::Cost { id, .. }
            | Self::Rate { id, .. }
            | Self::Delay { id, .. }
            | Self::Refused { id, .. } => id,
        }
    }
}

/// To hundredths.
pub(crate) fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
