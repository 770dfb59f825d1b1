//! Conditions that no type can express: what could be written but can match nothing or be sent nowhere.

use std::net::IpAddr;

use super::{
    Action, AddressRange, Affinity, Balance, Destination, Encapsulation, EndpointAddress, Filter,
    FilterType, Rule, Target,
};

/// A part of a rule that makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Contradiction {
    /// The part.
    pub place: Place,
    /// Why, in words for the author of the rule.
    pub why: &'static str,
}

/// A part of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The list of filters.
    Filters,
    /// The filter of this index.
    Filter(usize),
    /// The code point of the filter of this index.
    Dscp(usize),
    /// The QCI of the filter of this index.
    Qci(usize),
    /// The endpoint of this index.
    Endpoint(usize),
    /// A part of the tunnel to the endpoint of this index.
    Tunnel(usize, Part),
    /// The address translation to the endpoint of this index.
    Nat(usize),
    /// How flows are balanced.
    Balance,
    /// The backend of this index.
    Backend(usize),
    /// Where flows go without a backend.
    Fallback,
}

/// A part of a tunnel's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The address of the other end.
    Destination,
    /// The address of this end.
    Source,
    /// The TEID.
    Teid,
    /// The QFI.
    Qfi,
    /// The VNI.
    Vni,
    /// The MAC address.
    Mac,
}

/// The largest QoS flow identifier.
const QFI_MAX: u8 = 63;
/// The largest VXLAN network identifier.
const VNI_MAX: u32 = (1 << 24) - 1;
/// Protocols whose ports can be translated.
const TCP: u8 = 6;
const UDP: u8 = 17;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Rule {
    /// Finds the first thing that cannot be meant.
    pub fn check(&self) -> Result<(), Contradiction> {
        if self.filters.is_empty() {
            return Err(Contradiction {
                place: Place::Filters,
                why: "a rule needs at least one filter",
            });
        }
        let families = self.filters.iter().enumerate().map(|(index, filter)| {
            if filter.dscp.is_some_and(|dscp| dscp > 63) {
                return Err(Contradiction {
                    place: Place::Dscp(index),
                    why: "a DSCP is a number from 0 to 63",
                });
            }
            if filter.qci == Some(0) {
                return Err(Contradiction {
                    place: Place::Qci(index),
                    why: "a QCI is a number from 1 to 255",
                });
            }
            family(filter).map_err(|why| Contradiction {
                place: Place::Filter(index),
                why,
            })
        });
        let families = families.collect::<Result<Vec<_>, _>>()?;
        if let Action::Balance(balance) = &self.action {
            self.check_balance(balance)?;
        }
        if let Some(index) = self.translates_ports_of_others() {
            return Err(Contradiction {
                place: Place::Nat(index),
                why: "a port is translated in TCP and UDP only: each filter has to name these protocols alone",
            });
        }
        self.action.check(self.filter_type, &families)
    }

    /// The endpoint for which ports would have to be translated that are not there, or under a checksum of the whole.
    fn translates_ports_of_others(&self) -> Option<usize> {
        let has_ports = |filter: &Filter| {
            !filter.protocol.is_empty() && filter.protocol.iter().all(|it| [TCP, UDP].contains(it))
        };
        let mut endpoints = self.action.endpoints();
        endpoints.position(|it| it.translates_port() && !self.filters.iter().all(has_ports))
    }

    fn check_balance(&self, balance: &Balance) -> Result<(), Contradiction> {
        let refuse = |place, why| Err(Contradiction { place, why });
        if self.filter_type == FilterType::Packet {
            let why =
                "balancing needs filterType FLOW: without flows, packets would not stay together";
            return refuse(Place::Balance, why);
        }
        if let Some(index) = self.filters.iter().position(|filter| filter.dst.is_empty()) {
            let why = "balancing is for named destination addresses";
            return refuse(Place::Filter(index), why);
        }
        if let Affinity::Ue { timeout } = balance.affinity
            && !(1..=Balance::TIMEOUT).contains(&timeout)
        {
            let why = "the time-out of an affinity is from 1 to 86400 seconds";
            return refuse(Place::Balance, why);
        }
        if balance.backends.len() > Balance::BACKENDS {
            return refuse(Place::Balance, "a VIP has at most 1024 backends");
        }
        let mut pairs = balance.backends.windows(2);
        if let Some(index) = pairs.position(|pair| pair[0].id >= pair[1].id) {
            let why = "each backend is named once, in the order of the names";
            return refuse(Place::Backend(index + 1), why);
        }
        if let Some(fallback) = &balance.fallback
            && matches!(fallback.address, EndpointAddress::Ip { nat: true, .. })
        {
            let why = "a peer gets packets as they are, without address translation";
            return refuse(Place::Fallback, why);
        }
        Ok(())
    }
}

impl Action {
    fn check(
        &self,
        filter_type: FilterType,
        families: &[Option<Family>],
    ) -> Result<(), Contradiction> {
        let inline = matches!(self.destination(), Some(Destination::Inline { .. }));
        for (index, endpoint) in self.endpoints().enumerate() {
            let refuse = |place, why| Err(Contradiction { place, why });
            match endpoint.address {
                EndpointAddress::Mac(mac) if !mac.is_unicast() => {
                    let why = "the MAC address of an application is a unicast address";
                    return refuse(Place::Endpoint(index), why);
                }
                EndpointAddress::Ip { address, .. } if !is_host(address) => {
                    let why = "the IP address of an application is one that a host can have";
                    return refuse(Place::Endpoint(index), why);
                }
                EndpointAddress::Ip { nat_port, nat, .. }
                    if nat_port == Some(0) || nat_port.is_some() && !nat =>
                {
                    let why = "a port to translate to is from 1 to 65535, with an address to translate to";
                    return refuse(Place::Nat(index), why);
                }
                EndpointAddress::Ip {
                    address, nat: true, ..
                } => {
                    if let Some(why) = self.refuse_nat(address, filter_type, families) {
                        return refuse(Place::Nat(index), why);
                    }
                }
                EndpointAddress::Tunnel(_) if inline => {
                    let why = "an application in line has its interfaces on this host, not behind tunnels";
                    return refuse(Place::Endpoint(index), why);
                }
                EndpointAddress::Tunnel(target) => {
                    if let Err((part, why)) = target.check() {
                        return refuse(Place::Tunnel(index, part), why);
                    }
                }
                EndpointAddress::Mac(_) | EndpointAddress::Ip { .. } => {}
            }
        }
        Ok(())
    }

    /// Why addresses of packets cannot be translated to `address`.
    fn refuse_nat(
        &self,
        address: IpAddr,
        filter_type: FilterType,
        families: &[Option<Family>],
    ) -> Option<&'static str> {
        if matches!(self, Self::Duplicate { .. }) {
            return Some("a copy is of the packet as it is, without address translation");
        }
        if matches!(self.destination(), Some(Destination::Inline { .. })) {
            return Some(
                "an application in line sees packets as they are, without address translation",
            );
        }
        if filter_type == FilterType::Packet {
            return Some(
                "address translation needs filterType FLOW: without a flow, nothing restores the address in answers",
            );
        }
        families.contains(&Some(other(address))).then_some(
            "a filter is for the other IP version alone, whose addresses cannot be translated to this one",
        )
    }
}

impl Target {
    fn check(&self) -> Result<(), (Part, &'static str)> {
        let not_host = "the end of a tunnel has an address that a host can have";
        if !is_host(self.destination) {
            return Err((Part::Destination, not_host));
        }
        if let Some(source) = self.source {
            if !is_host(source) {
                return Err((Part::Source, not_host));
            }
            if source.is_ipv4() != self.destination.is_ipv4() {
                let why = "the ends of a tunnel have addresses of one IP version";
                return Err((Part::Source, why));
            }
        }
        match self.encapsulation {
            Encapsulation::Gtpu { teid: 0, .. } => {
                Err((Part::Teid, "a TEID is not 0 (3GPP TS 29.281, 5.1)"))
            }
            Encapsulation::Gtpu { qfi: Some(qfi), .. } if qfi > QFI_MAX => {
                Err((Part::Qfi, "a QFI is a number from 0 to 63"))
            }
            Encapsulation::Vxlan { vni, .. } if vni > VNI_MAX => {
                Err((Part::Vni, "a VNI is a number below 2^24"))
            }
            Encapsulation::Vxlan { mac, .. } if !mac.is_unicast() => {
                let why = "the MAC address of an application is a unicast address";
                Err((Part::Mac, why))
            }
            Encapsulation::Gtpu { .. }
            | Encapsulation::Gre { .. }
            | Encapsulation::Vxlan { .. } => Ok(()),
        }
    }
}

/// The only family that the filter can match, `None` for both.
fn family(filter: &Filter) -> Result<Option<Family>, &'static str> {
    if let (Some(src), Some(dst)) = (family_of(&filter.tunnel_src), family_of(&filter.tunnel_dst))
        && src != dst
    {
        return Err(
            "the source addresses of the tunnel are of one IP version and its destination addresses of the other: \
                        no packet can match",
        );
    }
    let by_class = match (filter.dscp, filter.traffic_class) {
        (Some(_), None) => Some(Family::V4),
        (None, Some(_)) => Some(Family::V6),
        (Some(_), Some(_)) | (None, None) => None,
    };
    let addresses = match (family_of(&filter.src), family_of(&filter.dst)) {
        (Some(src), Some(dst)) if src != dst => {
            return Err(
                "the source addresses are of one IP version and the destination addresses of the other: \
                        no packet can match",
            );
        }
        (src, dst) => src.or(dst),
    };
    match (by_class, addresses) {
        (Some(class), Some(addresses)) if class != addresses => Err(
            "a DSCP is matched in IPv4 and a traffic class in IPv6, but the addresses are of the other version: \
                 no packet can match",
        ),
        (class, addresses) => Ok(class.or(addresses)),
    }
}

fn family_of(ranges: &[AddressRange]) -> Option<Family> {
    let (first, rest) = ranges.split_first()?;
    let family = if first.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    rest.iter()
        .all(|range| range.is_ipv4() == first.is_ipv4())
        .then_some(family)
}

fn other(address: IpAddr) -> Family {
    if address.is_ipv4() {
        Family::V6
    } else {
        Family::V4
    }
}

fn is_host(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || address.is_loopback() || broadcast)
}
