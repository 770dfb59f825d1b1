//! Anycast VIPs as a platform says them: the body of the Mp2 resource `/vips/{vipId}`.
//!
//! A VIP is one rule of the data path, `@vip/{vipId}`, whose backends are where applications are now, as far as they are
//! healthy. So it is made anew with each change of those.

mod announcing;
mod check;
mod checks;
mod echo;
mod resolve;
mod text;

use std::net::IpAddr;

use dataplane_user::rule::TrafficRuleId;
use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::mec::TunnelType;

pub(crate) use announcing::{announce, announcer};
pub(crate) use checks::check;
pub(crate) use echo::share as share_echoes;
pub(crate) use resolve::{Health, HealthId, HealthOf, Resolved, Seen, Site, Surroundings};

/// The application that rules of VIPs are of; no other has this name.
pub(crate) const APPLICATION: &str = "@vip";

/// The name of a VIP is that of its rule.
pub(crate) type VipId = TrafficRuleId;

/// An address that is the same on every host, and who serves it here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Vip {
    #[serde(default)]
    pub(crate) vip_id: String,
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    /// Any without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// The zone of the port that packets enter by; any without.
    #[serde(rename = "x-zone", default, skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<u16>,
    pub(crate) mode: Mode,
    #[serde(default = "Vip::priority")]
    pub(crate) priority: u8,
    #[serde(default)]
    pub(crate) affinity: Affinity,
    /// With affinity UE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) affinity_timeout_seconds: Option<u32>,
    /// With mode TUNNEL; GRE without a key if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel: Option<Tunnel>,
    pub(crate) backends: Vec<Backend>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) health_check: Option<HealthCheck>,
    /// So many backends take flows while it is healthy.
    #[serde(default = "Vip::min_healthy")]
    pub(crate) min_healthy: usize,
    /// Whether the address is announced while it is healthy.
    #[serde(default)]
    pub(crate) announce: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<Fallback>,
    /// Shown, and so sent back by those who edit what is shown. It changes nothing.
    #[serde(default, skip_serializing)]
    pub(crate) source: IgnoredAny,
    /// As `source`.
    #[serde(default, skip_serializing)]
    pub(crate) status: IgnoredAny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Any,
}

/// How packets get to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Mode {
    /// As they are: the backend has the address of the VIP on its loopback.
    Dsr,
    /// To the backend's own address, which is the VIP's again in answers.
    Dnat,
    /// In a tunnel, as they are.
    Tunnel,
}

/// What keeps the backend that was chosen for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Affinity {
    #[default]
    Flow,
    Ue,
}

/// The tunnels of mode TUNNEL, as MEC 011 (7.1.5.4) has them; their far ends are the backends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Tunnel {
    pub(crate) tunnel_type: TunnelType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_src_address: Option<String>,
    #[serde(default)]
    pub(crate) tunnel_specific_data: TunnelData,
}

/// What tells tunnels between the same ends apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct TunnelData {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gre_key: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vni: Option<u32>,
    /// Of backends in the network of a VXLAN; that of the application if it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mac_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) teid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) qfi: Option<u8>,
}

/// Who serves flows: an application, which may come and go, or an address.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Backend {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) app_instance_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    /// With mode DNAT: its own port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// Its share of new flows, in proportion to the others'.
    #[serde(default = "Backend::weight")]
    pub(crate) weight: u16,
    #[serde(default)]
    pub(crate) state: State,
    /// The name of the port that it is behind.
    #[serde(rename = "x-port", default, skip_serializing_if = "Option::is_none")]
    pub(crate) behind: Option<String>,
}

/// What is wanted of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    /// It takes flows.
    #[default]
    Up,
    /// It keeps those that it has.
    Draining,
    /// It has none.
    Down,
}

/// How the host finds out whether a backend serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct HealthCheck {
    #[serde(rename = "type")]
    pub(crate) kind: CheckType,
    /// That of the backend or of the VIP if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    /// With type HTTP; `/` if it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    #[serde(default = "HealthCheck::interval")]
    pub(crate) interval_seconds: u32,
    #[serde(default = "HealthCheck::timeout")]
    pub(crate) timeout_seconds: u32,
    /// Successes in a row until it is up.
    #[serde(default = "HealthCheck::rise")]
    pub(crate) rise: u32,
    /// Failures in a row until it is down.
    #[serde(default = "HealthCheck::fall")]
    pub(crate) fall: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum CheckType {
    Tcp,
    Http,
    Icmp,
}

/// What becomes of new flows while no backend takes any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Fallback {
    pub(crate) action: FallbackAction,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum FallbackAction {
    /// They go their original path.
    Pass,
    /// They go to a peer of the configuration.
    Peer,
}

impl Vip {
    const fn priority() -> u8 {
        128
    }

    const fn min_healthy() -> usize {
        1
    }

    /// Seconds that a UE keeps its backend.
    fn timeout(&self) -> u32 {
        self.affinity_timeout_seconds.unwrap_or(3600)
    }
}

impl Backend {
    const fn weight() -> u16 {
        1
    }

    /// What it is known by.
    pub(crate) fn name(&self) -> String {
        let address = || self.address.map(|it| it.to_string());
        let name = self.app_instance_id.clone().or_else(address);
        name.unwrap_or_default()
    }

    /// The member that says who it is.
    const fn member(&self) -> &'static str {
        if self.app_instance_id.is_some() {
            "appInstanceId"
        } else {
            "address"
        }
    }
}

impl HealthCheck {
    const fn interval() -> u32 {
        5
    }

    const fn timeout() -> u32 {
        2
    }

    const fn rise() -> u32 {
        2
    }

    const fn fall() -> u32 {
        3
    }
}

#[cfg(test)]
mod tests;
