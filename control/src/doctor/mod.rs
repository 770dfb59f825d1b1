//! What would stop steering on this host, each with its cure.
//!
//! Looks, and changes nothing. Everything is seen from the network namespace of the calling thread;
//! the far ends of veths are visited in theirs, as far as they can be reached.

mod ethtool;
mod far_end;
mod gtpu;
mod host;
mod offload;
mod pins;
mod port;
mod veth;
mod vip;

use std::{fmt, path::PathBuf};

use dataplane_user::netlink::{self, Link};
use serde::Serialize;

use crate::config::Gtpu;

/// What is to be examined.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    /// The ports that are or will be steered.
    pub(crate) ports: Vec<Port>,
    /// Whose tunnels are looked into.
    pub(crate) gtpu: Gtpu,
    /// Where addresses of VIPs are while they are announced; nowhere if a BGP speaker is told.
    pub(crate) vip_interface: Option<String>,
    /// Where the data path is pinned.
    pub(crate) pin_directory: PathBuf,
}

/// A port as configured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Port {
    /// Its name.
    pub(crate) name: String,
    /// The interface it is.
    pub(crate) interface: String,
    /// The name of the port at the other end of the wire.
    pub(crate) pair: Option<String>,
    /// Whether UEs are behind tunnels here.
    pub(crate) gtpu: bool,
    /// Whether the RAN is behind it.
    pub(crate) access: bool,
    /// Whether an application is.
    pub(crate) app: bool,
    /// Whether the host routes what is not steered: so on the way of UEs where there is no wire.
    pub(crate) routed: bool,
    /// Whether the slow generic mode is accepted.
    pub(crate) allow_generic: bool,
    /// G-PDUs between endpoints that are not configured, as a running daemon counted them: so far, and a moment later.
    pub(crate) unconfigured: [u64; 2],
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, but someone should look.
    Warning,
    /// Does not work.
    Error,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// The check, a stable name.
    pub(crate) check: &'static str,
    /// Where: `host`, or the port and its interface.
    pub(crate) at: String,
    /// What was found.
    pub(crate) what: String,
    /// The command or the setting that cures it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cure: Option<String>,
}

/// Everything that was found, in the order of the checks.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    /// That of the worst finding.
    pub(crate) level: Level,
    /// The findings.
    pub(crate) findings: Vec<Finding>,
}

impl Report {
    fn new(findings: Vec<Finding>) -> Self {
        let levels = findings.iter().map(|finding| finding.level);
        Self {
            level: levels.max().unwrap_or(Level::Ok),
            findings,
        }
    }

    /// Whether something does not work: the exit code of the command.
    pub(crate) fn failed(&self) -> bool {
        self.level == Level::Error
    }
}

/// Examines the host and the ports.
pub(crate) fn examine(plan: &Plan) -> Report {
    let mut findings = host::findings(plan);
    match netlink::links() {
        Ok(links) => {
            findings.extend(pins::findings(plan, &links));
            findings.extend(gtpu::findings(plan, &links));
            findings.extend(vip::findings(plan, &links));
            for port in &plan.ports {
                findings.extend(port::findings(port, plan, &links));
            }
        }
        Err(error) => findings.push(Finding::error("links", "host", error, None)),
    }
    Report::new(findings)
}

/// A port whose interface was found.
struct Subject<'a> {
    port: &'a Port,
    link: &'a Link,
}

impl Subject<'_> {
    /// Where a finding is, for people.
    fn at(&self) -> String {
        self.port.at()
    }
}

impl Port {
    fn at(&self) -> String {
        if self.name == self.interface {
            return self.name.clone();
        }
        format!("{} ({})", self.name, self.interface)
    }
}

impl Finding {
    fn ok(check: &'static str, at: impl Into<String>, what: impl fmt::Display) -> Self {
        Self::new(Level::Ok, check, at, what, None)
    }

    fn warning(
        check: &'static str,
        at: impl Into<String>,
        what: impl fmt::Display,
        cure: impl Into<Option<String>>,
    ) -> Self {
        Self::new(Level::Warning, check, at, what, cure.into())
    }

    fn error(
        check: &'static str,
        at: impl Into<String>,
        what: impl fmt::Display,
        cure: impl Into<Option<String>>,
    ) -> Self {
        Self::new(Level::Error, check, at, what, cure.into())
    }

    fn new(
        level: Level,
        check: &'static str,
        at: impl Into<String>,
        what: impl fmt::Display,
        cure: Option<String>,
    ) -> Self {
        Self {
            level,
            check,
            at: at.into(),
            what: what.to_string(),
            cure,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = |text: fn(&Finding) -> usize| self.findings.iter().map(text).max();
        let check = widest(|finding| finding.check.len()).unwrap_or(0);
        let at = widest(|finding| finding.at.len()).unwrap_or(0);
        for finding in &self.findings {
            writeln!(
                f,
                "{:7}  {:check$}  {:at$}  {}",
                finding.level, finding.check, finding.at, finding.what
            )?;
            if let Some(cure) = &finding.cure {
                writeln!(f, "         {:check$}  {:at$}  cure: {cure}", "", "")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
