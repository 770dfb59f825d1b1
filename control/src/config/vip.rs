//! How VIPs are announced, and the hosts that flows may be left to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use dataplane_user::rule::{
    Action, Affinity, Balance, Contradiction, Encapsulation, Endpoint, EndpointAddress, Filter,
    FilterType, Part, Place, Rule, Target,
};
use serde::Deserialize;

use super::{Config, is_interface, is_name};
use crate::{vip::Site, worker};

/// Seconds that a VIP is kept back at the most.
const HOLD_DOWN: u64 = 86_400;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Vip {
    /// Where the addresses are while they are announced.
    pub(crate) interface: String,
    /// Seconds that a VIP has to be healthy before it is announced again.
    pub(crate) hold_down: u64,
    /// What becomes of addresses when the daemon ends.
    pub(crate) on_exit: OnExit,
    /// A BGP speaker to tell of addresses, which are then on no interface.
    pub(crate) bgp: Option<Bgp>,
}

impl Default for Vip {
    fn default() -> Self {
        Self {
            interface: "lo".into(),
            hold_down: 10,
            on_exit: OnExit::default(),
            bgp: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnExit {
    #[default]
    Withdraw,
    Keep,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Bgp {
    /// The pipe that its process reads commands from.
    Exabgp(PathBuf),
    /// Its gRPC interface.
    Gobgp(SocketAddr),
}

/// Another host of ours, at the end of a tunnel.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) address: IpAddr,
    pub(crate) encapsulation: PeerEncapsulation,
    /// Of GRE.
    pub(crate) key: Option<u32>,
    /// Of VXLAN.
    pub(crate) vni: Option<u32>,
    /// Of the peer in the network of the VXLAN.
    pub(crate) mac: Option<String>,
    /// The address of this host that the tunnel begins at.
    pub(crate) source: Option<IpAddr>,
    /// The name of the port that it is behind.
    pub(crate) port: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PeerEncapsulation {
    Gre,
    Vxlan,
}

impl Config {
    /// Where flows of VIPs can go.
    pub(crate) fn site(&self) -> Site {
        let peers = self.peers.iter();
        let peers = peers.filter_map(|peer| Some((peer.name.clone(), peer.endpoint().ok()?)));
        Site {
            peers: peers.collect(),
            ports: worker::ports(self),
        }
    }

    pub(super) fn check_vips(&self, problems: &mut Vec<String>) {
        if !is_interface(&self.vip.interface) {
            problems.push(format!(
                "[vip] interface = \"{}\" cannot be an interface: Linux names have 1 to 15 characters without spaces, `/` and `:`",
                self.vip.interface
            ));
        }
        if self.vip.hold_down > HOLD_DOWN {
            problems.push(format!("[vip] hold_down is at most {HOLD_DOWN} seconds"));
        }
        if let Some(Bgp::Exabgp(path)) = &self.vip.bgp
            && !path.is_absolute()
        {
            problems.push(format!(
                "[vip] bgp = {{ exabgp = \"{}\" }} is not an absolute path",
                path.display()
            ));
        }
        let mut names = BTreeMap::new();
        for peer in &self.peers {
            let name = &peer.name;
            if !is_name(name) {
                problems.push(format!(
                    "`{name}` cannot be the name of a peer: use 1 to 32 letters, digits, `_`, `.` and `-`"
                ));
            }
            if names.insert(name, ()).is_some() {
                problems.push(format!("two peers are called `{name}`; names are unique"));
            }
            if let Err(why) = peer.endpoint() {
                problems.push(format!("peer `{name}`: {why}"));
            }
            if let Some(port) = &peer.port
                && !self.ports.iter().any(|it| it.name == *port)
            {
                problems.push(format!(
                    "peer `{name}` is behind port `{port}`, which is not a port"
                ));
            }
        }
    }
}

impl Peer {
    /// Where flows that are left to it go; or what is wrong with it.
    fn endpoint(&self) -> Result<Endpoint, String> {
        let gre = self.encapsulation == PeerEncapsulation::Gre;
        for (member, misplaced, of) in [
            ("key", !gre && self.key.is_some(), "gre"),
            ("vni", gre && self.vni.is_some(), "vxlan"),
            ("mac", gre && self.mac.is_some(), "vxlan"),
        ] {
            if misplaced {
                return Err(format!("{member} is for encapsulation = \"{of}\" only"));
            }
        }
        let encapsulation = if gre {
            Encapsulation::Gre { key: self.key }
        } else {
            let (Some(vni), Some(mac)) = (self.vni, &self.mac) else {
                let why = "encapsulation = \"vxlan\" needs vni and mac, the MAC address of the peer in that network";
                return Err(why.to_owned());
            };
            Encapsulation::Vxlan {
                vni,
                mac: mac.parse().map_err(|error| format!("mac: {error}"))?,
            }
        };
        let endpoint = Endpoint {
            address: EndpointAddress::Tunnel(Target {
                encapsulation,
                destination: self.address,
                source: self.source,
            }),
            port: self.port.clone(),
        };
        match fallback_to(&endpoint).and_then(|rule| rule.check().map_err(place)) {
            Ok(()) => Ok(endpoint),
            Err(why) => Err(why),
        }
    }
}

/// A rule that sends flows there.
fn fallback_to(endpoint: &Endpoint) -> Result<Rule, String> {
    let id = "@vip/peer".parse();
    Ok(Rule {
        id: id.map_err(|error: dataplane_user::rule::ParseError| error.to_string())?,
        priority: 0,
        filter_type: FilterType::Flow,
        filters: vec![Filter {
            dst: vec![IpAddr::from([192, 0, 2, 1]).into()],
            ..Filter::default()
        }],
        action: Action::Balance(Balance {
            affinity: Affinity::Flow,
            backends: Vec::new(),
            fallback: Some(endpoint.clone()),
            silent: false,
        }),
    })
}

/// What is wrong, by the name of the setting.
fn place(contradiction: Contradiction) -> String {
    let Place::Tunnel(_, part) = contradiction.place else {
        return contradiction.why.to_owned();
    };
    let name = match part {
        Part::Source => "source",
        Part::Vni => "vni",
        Part::Mac => "mac",
        Part::Destination | Part::Teid | Part::Qfi => "address",
    };
    format!("{name}: {}", contradiction.why)
}

#[cfg(test)]
mod tests;
