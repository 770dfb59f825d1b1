//! MEC 011 as it is on the wire: strict where the standard is, tolerant to what platforms really send.
//!
//! Members that are not known are ignored, older spellings are read and written back in the current one, and
//! `dstInterface` keeps the shape (object or array) that it came in.

mod convert;
mod destination;
mod list;
mod tunnel;

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};
use serde_json::Value;

pub(crate) use convert::{Outcome, endpoint, host, rule};
pub(crate) use destination::{
    DestinationInterface, DstInterface, InterfaceType, TunnelInfo, TunnelType,
};
pub(crate) use list::List;
pub(crate) use tunnel::pointer as tunnel_pointer;

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{detail}", if pointer.is_empty() { String::new() } else { format!("{pointer}: ") })]
pub(crate) struct Refusal {
    /// JSON pointer (RFC 6901) of the member.
    pub(crate) pointer: String,
    /// What is wrong with it and what to write instead.
    pub(crate) detail: String,
}

impl Refusal {
    pub(crate) fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            detail: detail.into(),
        }
    }

    /// The same refusal in a document that holds this one at `prefix`.
    pub(crate) fn below(self, prefix: &str) -> Self {
        Self {
            pointer: format!("{prefix}{}", self.pointer),
            ..self
        }
    }
}

/// Reads an object or a list.
pub(crate) fn read_any<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    use serde_path_to_error::Segment;
    shape(&value)?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let pointer = error.path().iter().map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", escape(key)),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        });
        let mut detail = error.inner().to_string();
        for (name, range) in [
            ("u8", "0 to 255"),
            ("u16", "0 to 65535"),
            ("u32", "0 to 4294967295"),
        ] {
            let expected = format!("expected {name}");
            if let Some(rest) = detail.strip_suffix(&expected) {
                detail = format!("{rest}expected a whole number from {range}");
                break;
            }
        }
        Refusal::new(pointer.collect::<String>(), detail)
    })
}

const MISPLACED: &str = "a list is where an object should be";

/// Refuses lists in the place of objects, which serde would take as the values of the members in their order: an empty
/// list as a filter would match everything.
fn shape(value: &Value) -> Result<(), Refusal> {
    let below = |member: &str, value: &Value| {
        shape(value).map_err(|refusal| refusal.below(&format!("/{}", escape(member))))
    };
    match value {
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            if item.is_array() {
                return Err(Refusal::new(format!("/{index}"), MISPLACED));
            }
            below(&index.to_string(), item)
        }),
        Value::Object(members) => {
            members
                .iter()
                .try_for_each(|(member, value)| match member.as_str() {
                    "interface" | "tunnelInfo" | "tunnel" | "healthCheck" | "fallback"
                        if value.is_array() =>
                    {
                        Err(Refusal::new(format!("/{member}"), MISPLACED))
                    }
                    "tunnelSpecificData" => Ok(()),
                    _ => below(member, value),
                })
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

/// Reads an object and says where it is not as it should be.
pub(crate) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Refusal> {
    if value.is_object() {
        read_any(value)
    } else {
        Err(Refusal::new("", "the document is not a JSON object"))
    }
}

/// A member name as a part of a JSON pointer.
pub(crate) fn escape(member: &str) -> String {
    member.replace('~', "~0").replace('/', "~1")
}

/// The document inside a wrapper with one member of that name, as generated clients send it.
pub(crate) fn unwrap(value: Value, member: &str) -> Value {
    let wrapped = value
        .as_object()
        .filter(|map| map.len() == 1)
        .and_then(|map| map.get(member));
    wrapped
        .filter(|inner| inner.is_object())
        .cloned()
        .unwrap_or(value)
}

/// 7.1.2.2
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrafficRule {
    #[serde(default)]
    pub(crate) traffic_rule_id: String,
    pub(crate) filter_type: FilterType,
    pub(crate) priority: u8,
    pub(crate) traffic_filter: Vec<TrafficFilter>,
    pub(crate) action: Action,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) dst_interface: Option<DstInterface>,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum FilterType {
    Flow,
    Packet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    Active,
    Inactive,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(crate) enum Action {
    Drop,
    ForwardDecapsulated,
    #[serde(alias = "FORWARD_AS_IS")]
    ForwardEncapsulated,
    Passthrough,
    #[serde(alias = "DUPLICATED_DECAPSULATED")]
    DuplicateDecapsulated,
    #[serde(
        alias = "DUPLICATE_AS_IS",
        alias = "DUPLICATED_ENCAPSULATED",
        alias = "DUPLICATED_AS_IS"
    )]
    DuplicateEncapsulated,
}

/// 7.1.5.2
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TrafficFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src_address: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dst_address: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src_port: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dst_port: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) protocol: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tag: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src_tunnel_address: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tgt_tunnel_address: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) src_tunnel_port: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dst_tunnel_port: List,
    #[serde(rename = "qCI", skip_serializing_if = "Option::is_none")]
    pub(crate) qci: Option<u8>,
    #[serde(rename = "dSCP", skip_serializing_if = "Option::is_none")]
    pub(crate) dscp: Option<u8>,
    #[serde(rename = "tC", skip_serializing_if = "Option::is_none")]
    pub(crate) tc: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uri: List,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) packet_label: List,
    /// Ours: the zone of the port that the packet entered by.
    #[serde(rename = "x-zone", skip_serializing_if = "Option::is_none")]
    pub(crate) zone: Option<u16>,
}

/// 7.1.2.3
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DnsRule {
    #[serde(default)]
    pub(crate) dns_rule_id: String,
    pub(crate) domain_name: String,
    pub(crate) ip_address_type: IpAddressType,
    pub(crate) ip_address: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<u32>,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum IpAddressType {
    #[serde(rename = "IP_V4", alias = "IPv4")]
    V4,
    #[serde(rename = "IP_V6", alias = "IPv6")]
    V6,
}

impl DnsRule {
    /// Checks what the types do not.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let label = |l: &str| {
            (1..=63).contains(&l.len())
                && l.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = self
            .domain_name
            .strip_suffix('.')
            .unwrap_or(&self.domain_name);
        let name = name.strip_prefix("*.").unwrap_or(name);
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(Refusal::new(
                "/domainName",
                format!("`{}` is not a domain name", self.domain_name),
            ));
        }
        let fits = match self.ip_address_type {
            IpAddressType::V4 => self.ip_address.parse::<std::net::Ipv4Addr>().is_ok(),
            IpAddressType::V6 => self.ip_address.parse::<std::net::Ipv6Addr>().is_ok(),
        };
        let why = || {
            format!(
                "`{}` is not an address of the version that ipAddressType says",
                self.ip_address
            )
        };
        fits.then_some(())
            .ok_or_else(|| Refusal::new("/ipAddress", why()))
    }
}

/// The interface of an application on this host, and where its destinations are unless a rule says otherwise. Ours.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Interface {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mac_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ip_addresses: List,
}

/// An application and everything it wants steered: the body of the Mp2 resource. Ours.
/// Unlike MEC's own, its members are all known: one that is misspelt would take the rules away.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Application {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) app_instance_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) app_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partner: Option<String>,
    pub(crate) interface: Interface,
    pub(crate) traffic_rules: Vec<TrafficRule>,
    pub(crate) dns_rules: Vec<DnsRule>,
    /// Where it comes from: shown, and so sent back by those who edit what is shown. It changes nothing.
    #[serde(skip_serializing)]
    pub(crate) source: IgnoredAny,
}

#[cfg(test)]
mod tests;
