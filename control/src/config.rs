//! The configuration file: TOML, strict.

mod suggestion;
mod vip;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use dataplane_user::rule::AddressRange;
use serde::{Deserialize, Deserializer, de::Error as _};

use self::suggestion::suggestion;
use crate::{store::Source, worker};

pub(crate) use self::vip::{Bgp, OnExit, Vip};

/// Where the daemon listens unless told otherwise, and where the command line looks for it.
pub(crate) const SOCKET: &str = "/run/edgesteer/api.sock";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    #[serde(default)]
    pub(crate) node: Node,
    #[serde(default, rename = "port")]
    pub(crate) ports: Vec<Port>,
    #[serde(default)]
    pub(crate) gtpu: Gtpu,
    #[serde(default)]
    pub(crate) api: Api,
    #[serde(default)]
    pub(crate) source: Sources,
    #[serde(default)]
    pub(crate) vip: Vip,
    /// Hosts that VIPs may fall back to.
    #[serde(default, rename = "peer")]
    peers: Vec<vip::Peer>,
    #[serde(default)]
    pub(crate) metrics: Metrics,
    #[serde(default)]
    pub(crate) limits: Limits,
    #[serde(default)]
    pub(crate) timeouts: Timeouts,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Node {
    pub(crate) id: String,
    /// What has to survive a restart.
    pub(crate) state_directory: PathBuf,
    /// Where programs and maps stay while no daemon runs; in a BPF file system.
    pub(crate) pin_directory: PathBuf,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            id: "edgesteer".into(),
            state_directory: "/var/lib/edgesteer".into(),
            pin_directory: "/sys/fs/bpf/edgesteer".into(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) interface: String,
    pub(crate) role: Role,
    /// The other end of the wire; a port without one is routed by the host.
    pub(crate) pair: Option<String>,
    #[serde(default)]
    pub(crate) encapsulation: Encapsulation,
    #[serde(default)]
    pub(crate) zone: u16,
    /// Accept the slow mode where the driver has no XDP.
    #[serde(default)]
    pub(crate) allow_generic: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Access,
    Core,
    App,
    Peer,
}

/// What UE traffic is in, on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Encapsulation {
    /// Nothing: N6, SGi.
    #[default]
    None,
    /// GTP-U: N3, S1-U.
    Gtpu,
}

/// Addresses of the endpoints of GTP-U: only what goes from one side to the other is looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Gtpu {
    /// eNBs and gNBs.
    #[serde(deserialize_with = "ranges")]
    pub(crate) ran: Vec<AddressRange>,
    /// SGWs and UPFs.
    #[serde(deserialize_with = "ranges")]
    pub(crate) core: Vec<AddressRange>,
    /// Whether TCP connections of UEs behind tunnels get no larger MSS, in octets, than fits.
    pub(crate) mss_clamp: bool,
}

fn ranges<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<AddressRange>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let read = texts
        .iter()
        .map(|text| text.parse().map_err(D::Error::custom));
    read.collect()
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Api {
    pub(crate) socket: PathBuf,
    pub(crate) listen: Option<SocketAddr>,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            listen: None,
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sources {
    pub(crate) files: Option<Files>,
    pub(crate) mep: Option<Mep>,
}

impl Sources {
    /// Those that say which applications there are: a platform may always push.
    pub(crate) fn asked(&self) -> Vec<Source> {
        let files = self.files.is_some().then_some(Source::Files);
        let mep = self.mep.is_some().then_some(Source::Mep);
        [Some(Source::Mp2), files, mep]
            .into_iter()
            .flatten()
            .collect()
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    pub(crate) directory: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mep {
    /// Root of the platform's Mp1, like `http://mep.example/mec_app_support/v2`.
    pub(crate) url: String,
    /// The application instances to ask for.
    #[serde(default)]
    pub(crate) applications: Vec<MepApplication>,
    /// Seconds between two polls.
    #[serde(default = "Mep::interval")]
    pub(crate) interval: u64,
    /// Seconds that an answer may take.
    #[serde(default = "Mep::timeout")]
    pub(crate) timeout: u64,
    /// Certificates in PEM form to trust instead of the public ones.
    pub(crate) authority: Option<PathBuf>,
}

impl Mep {
    const fn interval() -> u64 {
        5
    }

    const fn timeout() -> u64 {
        5
    }
}

/// An id, or an id with the interface that the application has here.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum MepApplication {
    Id(String),
    Located {
        id: String,
        interface: crate::mec::Interface,
    },
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Metrics {
    pub(crate) listen: Option<SocketAddr>,
    pub(crate) flows: FlowMetrics,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FlowMetrics {
    /// How many flows `/metrics/flows` shows at most.
    pub(crate) top: usize,
}

impl Default for FlowMetrics {
    fn default() -> Self {
        Self { top: 100 }
    }
}

/// Sizes of tables; the data path's own defaults where absent.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) flows: Option<u32>,
    pub(crate) filters: Option<u32>,
    pub(crate) rules: Option<u32>,
    pub(crate) fragments: Option<u32>,
    pub(crate) sessions: Option<u32>,
    pub(crate) vips: Option<u32>,
}

/// After how many idle seconds a flow is forgotten; the data path's own defaults where absent.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Timeouts {
    pub(crate) tcp_established: Option<u64>,
    pub(crate) tcp_transitory: Option<u64>,
    pub(crate) tcp_closing: Option<u64>,
    pub(crate) udp: Option<u64>,
    pub(crate) icmp: Option<u64>,
    pub(crate) other: Option<u64>,
    pub(crate) session: Option<u64>,
}

impl Config {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{} is not a valid configuration", path.display()))
    }

    pub(crate) fn parse(text: &str) -> Result<Self> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let hint = suggestion(error.message())
                .map(|name| format!("did you mean `{name}`?"))
                .unwrap_or_default();
            anyhow::anyhow!("{}", format!("{error}{hint}").trim_end())
        })?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        let mut problems = Vec::new();
        self.check_ports(&mut problems);
        self.check_gtpu(&mut problems);
        self.check_services(&mut problems);
        self.check_vips(&mut problems);
        // What is wrong with ports would be said twice.
        if problems.is_empty() {
            let refused = worker::options(self).check().err();
            problems.extend(refused.map(|error| worker::sentence(&error)));
        }
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    }

    /// Whether GTP-U is looked into on `port`. What an application sends may be in a tunnel, or go into one.
    pub(crate) fn sees_gtpu(&self, port: &Port) -> bool {
        let some = |port: &Port| port.encapsulation == Encapsulation::Gtpu;
        some(port) || port.role == Role::App && self.ports.iter().any(some)
    }

    fn check_gtpu(&self, problems: &mut Vec<String>) {
        let sees = self
            .ports
            .iter()
            .find(|port| port.encapsulation == Encapsulation::Gtpu);
        match sees {
            Some(port) if self.gtpu.ran.is_empty() || self.gtpu.core.is_empty() => {
                problems.push(format!(
                    "port `{}` has encapsulation = \"gtpu\", which needs [gtpu] ran and core: the addresses of \
                     the base stations and of the SGWs or UPFs",
                    port.name
                ));
            }
            None if self.gtpu != Gtpu::default() => problems
                .push("[gtpu] is for nothing: no [[port]] has encapsulation = \"gtpu\"".to_owned()),
            _ => {}
        }
    }

    fn check_ports(&self, problems: &mut Vec<String>) {
        if self.ports.is_empty() {
            problems.push("there is no [[port]]: name at least one interface to steer".to_owned());
        }
        let mut interfaces = BTreeMap::new();
        let mut names = BTreeMap::new();
        for port in &self.ports {
            port.check(problems);
            if names.insert(&port.name, port).is_some() {
                problems.push(format!(
                    "two ports are called `{}`; names are unique",
                    port.name
                ));
            }
            if let Some(other) = interfaces.insert(&port.interface, &port.name) {
                problems.push(format!(
                    "ports `{other}` and `{}` are the same interface `{}`",
                    port.name, port.interface
                ));
            }
        }
        for port in &self.ports {
            let Some(pair) = &port.pair else { continue };
            let name = &port.name;
            match names.get(pair) {
                _ if pair == name => {
                    problems.push(format!("port `{pair}` is paired with itself"));
                }
                None => problems.push(format!(
                    "port `{name}` is paired with `{pair}`, which is not a port"
                )),
                Some(other) if other.pair.as_ref() == Some(name) => {}
                Some(_) => problems.push(format!(
                    "port `{name}` is paired with `{pair}`, so `{pair}` needs pair = \"{name}\""
                )),
            }
        }
    }

    fn check_services(&self, problems: &mut Vec<String>) {
        for (section, address) in [("api", self.api.listen), ("metrics", self.metrics.listen)] {
            if let Some(address) = address.filter(|address| !address.ip().is_loopback()) {
                problems.push(format!(
                    "[{section}] listen = \"{address}\" is not a loopback address: this release has no TLS; \
                     use 127.0.0.1 or [::1], and a proxy with TLS in front of it"
                ));
            }
        }
        let Some(mep) = &self.source.mep else { return };
        if !(mep.url.starts_with("http://") || mep.url.starts_with("https://")) {
            problems.push(format!(
                "[source.mep] url = \"{}\" does not start with http:// or https://",
                mep.url
            ));
        }
        if mep.interval == 0 || mep.timeout == 0 {
            problems.push("[source.mep] interval and timeout are at least one second".to_owned());
        }
    }
}

impl Port {
    fn check(&self, problems: &mut Vec<String>) {
        if !is_name(&self.name) {
            problems.push(format!(
                "`{}` cannot be the name of a port: use 1 to 32 letters, digits, `_`, `.` and `-`",
                self.name
            ));
        }
        if !is_interface(&self.interface) {
            problems.push(format!(
                "`{}` (port `{}`) cannot be an interface: Linux names have 1 to 15 characters without spaces, `/` and `:`",
                self.interface, self.name
            ));
        }
    }
}

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=32).contains(&text.len()) && text.chars().all(plain)
}

fn is_interface(text: &str) -> bool {
    let plain = |c: char| !c.is_whitespace() && c != '/' && c != ':';
    (1..=15).contains(&text.len()) && text.chars().all(plain)
}

#[cfg(test)]
mod tests;
