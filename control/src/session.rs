//! The tunnels of UEs as a platform says them: the body of the Mp2 resource `/sessions/{zone}/{ueAddress}`.

use std::{collections::BTreeSet, fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize, de::IgnoredAny};

use crate::{
    config::Gtpu,
    mec::{Refusal, host},
};

/// Bearers of a session at most: what the data path has room for.
const BEARERS: usize = 4;
/// QoS flows of a session at most.
const QOS_FLOWS: usize = 8;
/// The largest QFI (3GPP TS 38.415, 5.5.3.3).
const QFI: u8 = 63;

/// Which UE a session is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionId {
    pub(crate) zone: u16,
    pub(crate) ue_address: IpAddr,
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.zone, self.ue_address)
    }
}

impl FromStr for SessionId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(zone, ue)| {
            Some(Self {
                zone: zone.parse().ok()?,
                ue_address: ue.parse().ok()?,
            })
        });
        parts
            .ok_or_else(|| format!("`{text}` is not a session: write ZONE/ADDRESS, as 0/10.45.0.7"))
    }
}

/// A session that is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Session {
    #[serde(default)]
    pub(crate) zone: u16,
    pub(crate) ue_address: IpAddr,
    /// eNB or gNB.
    pub(crate) ran_address: IpAddr,
    /// SGW or UPF.
    pub(crate) core_address: IpAddr,
    pub(crate) bearers: Vec<Bearer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) qos_flows: Vec<QosFlow>,
    /// Shown, and so sent back by those who edit what is shown. It changes nothing.
    #[serde(default, skip_serializing)]
    pub(crate) provisioned: IgnoredAny,
}

/// A bearer of S1-U, or the one tunnel of N3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Bearer {
    /// Towards the core.
    pub(crate) uplink_teid: u32,
    /// Towards the UE.
    pub(crate) downlink_teid: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) qci: Option<u8>,
}

/// What a QFI of N3 means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QosFlow {
    pub(crate) qfi: u8,
    #[serde(rename = "5qi")]
    pub(crate) five_qi: u8,
}

impl Session {
    pub(crate) const fn id(&self) -> SessionId {
        SessionId {
            zone: self.zone,
            ue_address: self.ue_address,
        }
    }

    /// What it says of bearers and of QoS flows.
    pub(crate) fn qci(&self) -> impl Iterator<Item = u8> {
        let of_bearers = self.bearers.iter().filter_map(|bearer| bearer.qci);
        of_bearers.chain(self.qos_flows.iter().map(|flow| flow.five_qi))
    }

    /// Checks what the types do not.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let refuse = |pointer: &str, detail: String| Err(Refusal::new(pointer, detail));
        for (pointer, address) in [
            ("/ueAddress", self.ue_address),
            ("/ranAddress", self.ran_address),
            ("/coreAddress", self.core_address),
        ] {
            host(pointer, address)?;
        }
        if self.ran_address.is_ipv4() != self.core_address.is_ipv4() {
            let detail = "both ends of a tunnel are of the same IP version";
            return refuse("/coreAddress", detail.to_owned());
        }
        if !(1..=BEARERS).contains(&self.bearers.len()) {
            return refuse("/bearers", format!("1 to {BEARERS} bearers are needed"));
        }
        let (mut up, mut down) = (BTreeSet::new(), BTreeSet::new());
        for (index, bearer) in self.bearers.iter().enumerate() {
            let twice = |member: &str, teid: u32| {
                let pointer = format!("/bearers/{index}/{member}");
                Err(Refusal::new(pointer, format!("{teid} is there twice")))
            };
            if !up.insert(bearer.uplink_teid) {
                return twice("uplinkTeid", bearer.uplink_teid);
            }
            if !down.insert(bearer.downlink_teid) {
                return twice("downlinkTeid", bearer.downlink_teid);
            }
            if bearer.qci == Some(0) {
                let pointer = format!("/bearers/{index}/qci");
                return refuse(&pointer, "a QCI is from 1 to 255".to_owned());
            }
        }
        self.check_qos_flows()
    }

    fn check_qos_flows(&self) -> Result<(), Refusal> {
        if self.qos_flows.len() > QOS_FLOWS {
            let detail = format!("{QOS_FLOWS} QoS flows at the most");
            return Err(Refusal::new("/qosFlows", detail));
        }
        let mut seen = BTreeSet::new();
        for (index, QosFlow { qfi, five_qi }) in self.qos_flows.iter().enumerate() {
            let refuse = |member: &str, detail: String| {
                let pointer = format!("/qosFlows/{index}/{member}");
                Err(Refusal::new(pointer, detail))
            };
            if *qfi > QFI {
                return refuse("qfi", format!("a QFI is from 0 to {QFI}"));
            }
            if !seen.insert(qfi) {
                return refuse("qfi", format!("{qfi} is there twice"));
            }
            if *five_qi == 0 {
                return refuse("5qi", "a 5QI is from 1 to 255".to_owned());
            }
        }
        Ok(())
    }

    /// Checks that packets between these endpoints are looked into at all.
    pub(crate) fn check_endpoints(&self, gtpu: &Gtpu) -> Result<(), Refusal> {
        for (member, side, address, ranges) in [
            ("/ranAddress", "ran", self.ran_address, &gtpu.ran),
            ("/coreAddress", "core", self.core_address, &gtpu.core),
        ] {
            if !ranges.iter().any(|range| range.contains(address)) {
                let detail = format!(
                    "{address} is not in [gtpu] {side} of the configuration, so its tunnels are not looked into"
                );
                return Err(Refusal::new(member, detail));
            }
        }
        Ok(())
    }
}

/// On one line, as it is shown in a difference.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ran_address,
            core_address,
            ..
        } = self;
        write!(
            f,
            "session {} ran {ran_address} core {core_address}",
            self.id()
        )?;
        for bearer in &self.bearers {
            write!(f, " teids {} {}", bearer.uplink_teid, bearer.downlink_teid)?;
            if let Some(qci) = bearer.qci {
                write!(f, " qci {qci}")?;
            }
        }
        for QosFlow { qfi, five_qi } in &self.qos_flows {
            write!(f, " qfi {qfi} 5qi {five_qi}")?;
        }
        Ok(())
    }
}
