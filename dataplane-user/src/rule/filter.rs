use std::fmt::{self, Display, Formatter};

use super::{AddressRange, PortRange};

/// What a rule is matched against (MEC 011, 7.1.2.2 `filterType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FilterType {
    /// Upstream packets are matched; downstream packets of the flow are handled in the same context.
    Flow,
    /// Each packet is matched on its own, whatever its direction.
    Packet,
}

impl Display for FilterType {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flow => "flow",
            Self::Packet => "packet",
        })
    }
}

/// Conditions on a packet, all of which have to hold. In a list one value has to; what is empty or absent holds always.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    /// Source addresses.
    pub src: Vec<AddressRange>,
    /// Destination addresses.
    pub dst: Vec<AddressRange>,
    /// Source ports; only a packet that has ports can match.
    pub src_port: Vec<PortRange>,
    /// Destination ports; only a packet that has ports can match.
    pub dst_port: Vec<PortRange>,
    /// IP protocol numbers.
    pub protocol: Vec<u8>,
    /// Differentiated services code point, 0 to 63. IPv4 only: beside `traffic_class` IPv6 matches by that.
    pub dscp: Option<u8>,
    /// IPv6 traffic class. IPv6 only: beside `dscp` IPv4 matches by that.
    pub traffic_class: Option<u8>,
    /// The zone of the port that the packet entered by.
    pub zone: Option<u16>,
    /// Source addresses of the tunnel's outer header. Only a packet in a tunnel can match; so for all that follow.
    pub tunnel_src: Vec<AddressRange>,
    /// Destination addresses of the tunnel's outer header.
    pub tunnel_dst: Vec<AddressRange>,
    /// UDP source ports of the tunnel's outer header.
    pub tunnel_src_port: Vec<PortRange>,
    /// UDP destination ports of the tunnel's outer header.
    pub tunnel_dst_port: Vec<PortRange>,
    /// QCI of the bearer or 5QI of the QoS flow, 1 to 255. Only a packet whose session says it can match.
    pub qci: Option<u8>,
}

impl Filter {
    /// Whether only packets in tunnels can match.
    pub const fn wants_tunnel(&self) -> bool {
        !self.tunnel_src.is_empty()
            || !self.tunnel_dst.is_empty()
            || !self.tunnel_src_port.is_empty()
            || !self.tunnel_dst_port.is_empty()
            || self.qci.is_some()
    }
}

/// Protocols that MEC 011 rules may call by name.
const PROTOCOLS: [(&str, u8); 7] = [
    ("icmp", 1),
    ("tcp", 6),
    ("udp", 17),
    ("gre", 47),
    ("esp", 50),
    ("icmpv6", 58),
    ("sctp", 132),
];

/// The IP protocol number for a name in any case or a decimal number.
pub fn protocol_number(text: &str) -> Option<u8> {
    let named = PROTOCOLS
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text));
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    named
        .map(|(_, number)| *number)
        .or_else(|| digits.then(|| text.parse().ok()).flatten())
}

/// The name of an IP protocol, or its number when it has none here.
pub fn protocol_name(number: u8) -> String {
    let named = PROTOCOLS.iter().find(|(_, known)| *known == number);
    named.map_or_else(|| number.to_string(), |(name, _)| (*name).to_owned())
}
