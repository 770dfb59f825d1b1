use std::fmt::{self, Formatter};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::Value;

/// 7.1.5.3. MEC 010-2 spells the addresses differently.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DestinationInterface {
    pub(crate) interface_type: InterfaceType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_info: Option<TunnelInfo>,
    #[serde(
        default,
        alias = "srcMACAddress",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) src_mac_address: Option<String>,
    #[serde(
        default,
        alias = "dstMACAddress",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) dst_mac_address: Option<String>,
    #[serde(
        default,
        alias = "dstIPAddress",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) dst_ip_address: Option<String>,
    /// Ours: rewrite the destination address of packets, restore it in replies.
    #[serde(rename = "x-nat", default, skip_serializing_if = "Option::is_none")]
    pub(crate) nat: Option<bool>,
    /// Ours: the name of the port that the destination is behind.
    #[serde(rename = "x-port", default, skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum InterfaceType {
    Tunnel,
    Mac,
    Ip,
}

/// 7.1.5.4, with the member that MEC 010-2 adds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TunnelInfo {
    pub(crate) tunnel_type: TunnelType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_dst_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_src_address: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tunnel_specific_data: Option<Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TunnelType {
    #[serde(rename = "GTP_U", alias = "GTP-U")]
    GtpU,
    #[serde(rename = "GRE")]
    Gre,
    /// Ours.
    #[serde(rename = "VXLAN")]
    Vxlan,
}

/// One interface or a list of them, depending on the edition; written back as it was read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DstInterface {
    One(Box<DestinationInterface>),
    List(Vec<DestinationInterface>),
}

impl DstInterface {
    pub(crate) fn as_slice(&self) -> &[DestinationInterface] {
        match self {
            Self::One(interface) => std::slice::from_ref(interface),
            Self::List(interfaces) => interfaces,
        }
    }

    /// The JSON pointer of the interface of that index, below the rule.
    pub(crate) fn pointer(&self, index: usize) -> String {
        match self {
            Self::One(_) => "/dstInterface".to_owned(),
            Self::List(_) => format!("/dstInterface/{index}"),
        }
    }
}

impl Serialize for DstInterface {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(interface) => interface.serialize(serializer),
            Self::List(interfaces) => interfaces.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DstInterface {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shapes)
    }
}

/// Not an untagged enum: that would lose where an error is.
struct Shapes;

impl<'de> Visitor<'de> for Shapes {
    type Value = DstInterface;

    fn expecting(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an interface or a list of interfaces")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DstInterface, A::Error> {
        DestinationInterface::deserialize(MapAccessDeserializer::new(map))
            .map(|one| DstInterface::One(Box::new(one)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<DstInterface, A::Error> {
        let mut interfaces = Vec::new();
        while let Some(interface) = seq.next_element()? {
            interfaces.push(interface);
        }
        Ok(DstInterface::List(interfaces))
    }
}
