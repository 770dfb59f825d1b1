//! Everything that was measured.

use anyhow::Result;
use serde::Serialize;

use crate::{Machine, Row};

/// All results of a machine.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The machine.
    pub machine: Machine,
    /// What was measured on it.
    pub results: Vec<Row>,
}

impl Report {
    /// Of this machine.
    pub fn new(results: Vec<Row>) -> Result<Self> {
        Ok(Self {
            machine: Machine::this()?,
            results,
        })
    }

    /// For programs.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)?)
    }
}
