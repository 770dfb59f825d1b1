//! From the wire to the domain: `TrafficRule` to [`Rule`].

use std::{
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::Arc,
};

use dataplane_user::rule::{
    Action as Act, AppInstanceId, Destination, Endpoint, EndpointAddress, Filter,
    FilterType as Kind, Place, Rule, RuleId, Tunnel, protocol_number,
};

use super::{
    Action, DestinationInterface, FilterType, Interface, List, Refusal, TrafficFilter, TrafficRule,
    destination::InterfaceType, tunnel,
};

/// A valid rule, for the data path or only for the record.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The data path can do what the rule says.
    Enforceable(Arc<Rule>),
    /// It cannot, and must not do half of it: the reason, in words.
    NotEnforceable(String),
}

/// Names above the transport that platforms write as `protocol`. Valid, but nothing that a header shows.
const LAYER_7: [&str; 14] = [
    "HTTP", "HTTPS", "HTTP2", "HTTP3", "QUIC", "TLS", "DTLS", "DNS", "FTP", "MQTT", "COAP", "SIP",
    "RTP", "RTSP",
];

/// The domain's form of an application's rule. Pointers in refusals start at the rule.
pub(crate) fn rule(
    wire: &TrafficRule,
    app: &AppInstanceId,
    interface: &Interface,
) -> Result<Outcome, Refusal> {
    let id = RuleId {
        app: app.clone(),
        rule: parse("/trafficRuleId", &wire.traffic_rule_id)?,
    };
    let mut obstacles = Vec::new();
    let filters = wire.traffic_filter.iter().enumerate();
    let filters = filters.map(|(index, wire)| {
        filter(wire, &mut obstacles).map_err(|r| r.below(&format!("/trafficFilter/{index}")))
    });
    let filters = filters.collect::<Result<Vec<_>, _>>()?;
    let action = action(wire, interface)?;
    let filter_type = match wire.filter_type {
        FilterType::Flow => Kind::Flow,
        FilterType::Packet => Kind::Packet,
    };
    if filters.is_empty() {
        return Err(Refusal::new(
            "/trafficFilter",
            "a rule needs at least one filter; `{}` matches everything",
        ));
    }
    if !obstacles.is_empty() {
        obstacles.sort_unstable();
        obstacles.dedup();
        return Ok(Outcome::NotEnforceable(obstacles.join("; ")));
    }
    let rule = Rule {
        id,
        priority: wire.priority,
        filter_type,
        filters,
        action,
    };
    rule.check().map_err(|contradiction| {
        let endpoint = |index| {
            let interfaces = wire.dst_interface.as_ref();
            interfaces.map_or_else(String::new, |it| it.pointer(index))
        };
        let pointer = match contradiction.place {
            Place::Filters => "/trafficFilter".to_owned(),
            Place::Filter(index) => format!("/trafficFilter/{index}"),
            Place::Dscp(index) => format!("/trafficFilter/{index}/dSCP"),
            Place::Qci(index) => format!("/trafficFilter/{index}/qCI"),
            Place::Endpoint(index) => endpoint(index),
            Place::Nat(index) => endpoint(index) + "/x-nat",
            Place::Tunnel(index, part) => endpoint(index) + tunnel::pointer(part),
            // Traffic rules do not balance.
            Place::Balance | Place::Backend(_) | Place::Fallback => String::new(),
        };
        Refusal::new(pointer, contradiction.why)
    })?;
    Ok(Outcome::Enforceable(Arc::new(rule)))
}

fn filter(wire: &TrafficFilter, obstacles: &mut Vec<&'static str>) -> Result<Filter, Refusal> {
    let given = |list: &List| list.as_ref().is_some_and(|list| !list.is_empty());
    for (present, obstacle) in [
        (
            given(&wire.token) || given(&wire.tag),
            "a token or tag has to be translated to addresses of UEs first",
        ),
        (given(&wire.uri), "a URI is not in the headers of a packet"),
        (
            given(&wire.packet_label),
            "a packet label is not in the headers of a packet",
        ),
    ] {
        obstacles.extend(present.then_some(obstacle));
    }
    Ok(Filter {
        src: list("/srcAddress", &wire.src_address)?,
        dst: list("/dstAddress", &wire.dst_address)?,
        src_port: list("/srcPort", &wire.src_port)?,
        dst_port: list("/dstPort", &wire.dst_port)?,
        protocol: protocols(&wire.protocol, obstacles)?,
        dscp: wire.dscp,
        traffic_class: wire.tc,
        zone: wire.zone,
        tunnel_src: list("/srcTunnelAddress", &wire.src_tunnel_address)?,
        tunnel_dst: list("/tgtTunnelAddress", &wire.tgt_tunnel_address)?,
        tunnel_src_port: list("/srcTunnelPort", &wire.src_tunnel_port)?,
        tunnel_dst_port: list("/dstTunnelPort", &wire.dst_tunnel_port)?,
        qci: wire.qci,
    })
}

fn protocols(wire: &List, obstacles: &mut Vec<&'static str>) -> Result<Vec<u8>, Refusal> {
    let mut numbers = Vec::new();
    let mut any = false;
    for (index, text) in wire.iter().flatten().enumerate() {
        let name = text.trim().to_ascii_uppercase();
        match protocol_number(&name) {
            Some(number) => numbers.push(number),
            None if name == "ANY" => any = true,
            None if LAYER_7.contains(&name.as_str()) => {
                obstacles.push("a protocol above the transport is not in the headers of a packet; use its ports");
            }
            None => {
                let detail = format!(
                    "`{text}` is not a protocol: use TCP, UDP, ICMP, ICMPV6, SCTP, GRE, ESP, ANY or a number"
                );
                return Err(Refusal::new(format!("/protocol/{index}"), detail));
            }
        }
    }
    Ok(if any { Vec::new() } else { numbers })
}

fn action(wire: &TrafficRule, interface: &Interface) -> Result<Act, Refusal> {
    let (tunnel, duplicate) = match wire.action {
        Action::Drop => return Ok(Act::Drop),
        Action::Passthrough => return Ok(Act::Passthrough),
        Action::ForwardDecapsulated => (Tunnel::Decapsulated, false),
        Action::ForwardEncapsulated => (Tunnel::Encapsulated, false),
        Action::DuplicateDecapsulated => (Tunnel::Decapsulated, true),
        Action::DuplicateEncapsulated => (Tunnel::Encapsulated, true),
    };
    let missing = || {
        Refusal::new(
            "/dstInterface",
            "this action needs a destination; DROP and PASSTHROUGH do not",
        )
    };
    let interfaces = wire.dst_interface.as_ref().ok_or_else(missing)?;
    let mut endpoints = Vec::new();
    for (index, wire) in interfaces.as_slice().iter().enumerate() {
        let endpoint = endpoint(wire, interface);
        endpoints.push(endpoint.map_err(|refusal| refusal.below(&interfaces.pointer(index)))?);
    }
    let mut endpoints = endpoints.into_iter();
    let destination = match (endpoints.next(), endpoints.next(), endpoints.next()) {
        (None, ..) => return Err(missing()),
        (Some(one), None, _) => Destination::One(one),
        (Some(ue), Some(core), None) => Destination::Inline { ue, core },
        _ => {
            return Err(Refusal::new(
                interfaces.pointer(2),
                "a rule has at most two destinations: the UE side and the core side",
            ));
        }
    };
    Ok(if duplicate {
        Act::Duplicate {
            destination,
            tunnel,
        }
    } else {
        Act::Forward {
            destination,
            tunnel,
        }
    })
}

/// Where a destination is; what it does not say, the application's interface does. Pointers in refusals start at it.
pub(crate) fn endpoint(wire: &DestinationInterface, app: &Interface) -> Result<Endpoint, Refusal> {
    let address = match wire.interface_type {
        InterfaceType::Tunnel => EndpointAddress::Tunnel(tunnel::target(wire, app)?),
        InterfaceType::Mac if wire.nat == Some(true) => {
            return Err(Refusal::new(
                "/x-nat",
                "addresses are translated for destinations of type IP only",
            ));
        }
        InterfaceType::Mac => {
            let mac = wire.dst_mac_address.as_ref().or(app.mac_address.as_ref());
            let missing = || {
                Refusal::new(
                    "/dstMacAddress",
                    "a destination of type MAC needs it, or the application's interface.macAddress",
                )
            };
            EndpointAddress::Mac(parse("/dstMacAddress", mac.ok_or_else(missing)?)?)
        }
        InterfaceType::Ip => {
            let ip = wire
                .dst_ip_address
                .as_ref()
                .or_else(|| app.ip_addresses.as_ref()?.first());
            let missing = || {
                Refusal::new(
                    "/dstIpAddress",
                    "a destination of type IP needs it, or the application's interface.ipAddresses",
                )
            };
            EndpointAddress::Ip {
                address: address("/dstIpAddress", ip.ok_or_else(missing)?)?,
                nat: wire.nat == Some(true),
                nat_port: None,
            }
        }
    };
    Ok(Endpoint {
        address,
        port: wire.port.clone().or_else(|| app.port.clone()),
    })
}

fn list<T: FromStr<Err: Display>>(pointer: &str, wire: &List) -> Result<Vec<T>, Refusal> {
    let items = wire.iter().flatten().enumerate();
    items
        .map(|(index, text)| parse(&format!("{pointer}/{index}"), text))
        .collect()
}

pub(super) fn parse<T: FromStr<Err: Display>>(pointer: &str, text: &str) -> Result<T, Refusal> {
    text.trim()
        .parse()
        .map_err(|error: T::Err| Refusal::new(pointer, error.to_string()))
}

/// As [`parse`]: the error of the standard library does not say what it is about.
pub(super) fn address(pointer: &str, text: &str) -> Result<IpAddr, Refusal> {
    let address = text.trim().parse();
    address.map_err(|_| Refusal::new(pointer, format!("`{text}` is not an IP address")))
}

/// Refuses an address that no host has, or that is written as one of the other IP version.
pub(crate) fn host(pointer: &str, address: IpAddr) -> Result<(), Refusal> {
    let broadcast = address == IpAddr::V4(Ipv4Addr::BROADCAST);
    let plain = address.to_canonical();
    let why =
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast
        {
            format!("{address} is the address of nobody")
        } else if plain != address {
            format!("{address} is {plain}: write it like that")
        } else {
            return Ok(());
        };
    Err(Refusal::new(pointer, why))
}

impl Interface {
    /// Checks what the types do not.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if let Some(mac) = &self.mac_address {
            parse::<dataplane_user::rule::Mac>("/macAddress", mac)?;
        }
        let addresses = self.ip_addresses.iter().flatten().enumerate();
        addresses
            .map(|(index, text)| address(&format!("/ipAddresses/{index}"), text))
            .try_for_each(|address| address.map(drop))
    }
}

impl TrafficRule {
    /// The destinations, none when there is no such member.
    #[cfg(test)]
    pub(crate) fn destinations(&self) -> &[DestinationInterface] {
        self.dst_interface
            .as_ref()
            .map_or(&[], super::DstInterface::as_slice)
    }
}
