//! From what is said to what is: a VIP to the rule of the data path.

use std::{collections::BTreeMap, net::IpAddr};

use dataplane_user::{
    PortConfig, refuse_endpoint,
    rule::{
        Action, Affinity as Kept, Backend as Target, BackendId, BackendState, Balance, Endpoint,
        EndpointAddress, Filter, FilterType, Rule, RuleId,
    },
};
use serde_json::json;

use super::{Affinity, Backend, Mode, Protocol, State, Vip, VipId};
use crate::{
    health::Check,
    mec::{
        DestinationInterface, Interface, InterfaceType, Refusal, TunnelInfo, TunnelType, endpoint,
    },
    store::Applications,
};

/// What the configuration says of where flows can go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// Those whom flows may be left to, by name.
    pub(crate) peers: BTreeMap<String, Endpoint>,
    /// All ports; none if they are not known.
    pub(crate) ports: Vec<PortConfig>,
}

/// Which backend of which VIP.
pub(crate) type HealthId = (VipId, BackendId);

/// What is known of backends that are checked. Nothing is known of one until it has passed or failed often enough.
pub(crate) type HealthOf = BTreeMap<HealthId, Health>;

/// What checks of a backend have found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Up,
    /// And why.
    Down(String),
}

/// What a VIP depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings<'a> {
    pub(crate) applications: &'a Applications,
    pub(crate) health: &'a HealthOf,
    pub(crate) site: &'a Site,
}

/// A VIP as things are.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) rule: Rule,
    /// In the order in which they were said.
    pub(crate) backends: Vec<Seen>,
    /// Whether enough backends take flows.
    pub(crate) healthy: bool,
    /// Why flows do not go to the peer that they should.
    pub(crate) trouble: Option<String>,
}

/// A backend as things are.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) id: BackendId,
    pub(crate) state: State,
    /// Why it is not in the state that is wanted.
    pub(crate) reason: Option<String>,
    /// What checks have found; nothing yet, or there are none.
    pub(crate) health: Option<Health>,
    /// How it is checked, if it is.
    pub(crate) check: Option<Check>,
}

impl Vip {
    /// The VIP as things are. `id` is that of its rule, and `ids` are those of its backends.
    pub(crate) fn resolve(
        &self,
        id: &RuleId,
        ids: &[BackendId],
        around: Surroundings<'_>,
    ) -> Resolved {
        let mut rule = self.rule(id);
        let mut targets = Vec::new();
        let mut backends = Vec::new();
        for (backend, name) in self.backends.iter().zip(ids) {
            let found = self.place(backend, around);
            let found = found.and_then(|(endpoint, address)| {
                let target = Target {
                    id: name.clone(),
                    weight: backend.weight,
                    state: BackendState::Down,
                    endpoint,
                };
                rule.action = self.balance(vec![target.clone()], None);
                let checked = rule.check().map_err(|contradiction| contradiction.why);
                checked.map(|()| (target, address)).map_err(str::to_owned)
            });
            let health = self.health_check.as_ref();
            let health =
                health.and_then(|_| around.health.get(&(id.rule.clone(), name.clone())).cloned());
            let seen = self.seen(backend, name, found.as_ref(), health);
            targets.extend(found.ok().map(|(target, _)| Target {
                state: match seen.state {
                    State::Up => BackendState::Up,
                    State::Draining => BackendState::Draining,
                    State::Down => BackendState::Down,
                },
                ..target
            }));
            backends.push(seen);
        }
        let up = targets.iter().filter(|it| it.takes_flows()).count();
        targets.sort_by(|one, other| one.id.cmp(&other.id));
        let peer = self.fallback.as_ref().and_then(|it| it.peer.as_ref());
        let fallback = peer.and_then(|peer| around.site.peers.get(peer));
        rule.action = self.balance(targets, fallback.cloned());
        let missing = peer.filter(|_| fallback.is_none());
        Resolved {
            rule,
            backends,
            healthy: up >= self.min_healthy,
            trouble: missing.map(|it| format!("there is no [[peer]] `{it}` to fall back to")),
        }
    }

    /// The rule with no backends. `id` is its own.
    pub(super) fn rule(&self, id: &RuleId) -> Rule {
        let protocol = match self.protocol {
            Protocol::Tcp => Some(6),
            Protocol::Udp => Some(17),
            Protocol::Sctp => Some(132),
            Protocol::Any => None,
        };
        Rule {
            id: id.clone(),
            priority: self.priority,
            filter_type: FilterType::Flow,
            filters: vec![Filter {
                dst: vec![self.address.into()],
                dst_port: self.port.into_iter().map(Into::into).collect(),
                protocol: protocol.into_iter().collect(),
                zone: self.zone,
                ..Filter::default()
            }],
            action: self.balance(Vec::new(), None),
        }
    }

    pub(super) fn balance(&self, backends: Vec<Target>, fallback: Option<Endpoint>) -> Action {
        Action::Balance(Balance {
            affinity: match self.affinity {
                Affinity::Flow => Kept::Flow,
                Affinity::Ue => Kept::Ue {
                    timeout: self.timeout(),
                },
            },
            backends,
            fallback,
            silent: false,
        })
    }

    /// How packets get to a backend that has this address, if any, or is this application. Refusals are as those of
    /// destinations of rules.
    pub(super) fn endpoint(
        &self,
        backend: &Backend,
        address: Option<IpAddr>,
        application: &Interface,
    ) -> Result<Endpoint, Refusal> {
        let text = address.map(|it| it.to_string());
        let (interface_type, tunnel_info) = match self.mode {
            Mode::Dsr if application.mac_address.is_some() => (InterfaceType::Mac, None),
            Mode::Dsr | Mode::Dnat => (InterfaceType::Ip, None),
            Mode::Tunnel => (InterfaceType::Tunnel, Some(self.tunnel_info(text.clone()))),
        };
        let mac = self.tunnel.as_ref().map(|it| &it.tunnel_specific_data);
        let wire = DestinationInterface {
            interface_type,
            tunnel_info,
            src_mac_address: None,
            dst_mac_address: mac.and_then(|it| it.mac_address.clone()),
            dst_ip_address: text,
            nat: (self.mode == Mode::Dnat).then_some(true),
            port: backend.behind.clone(),
        };
        let mut endpoint = endpoint(&wire, application)?;
        if let EndpointAddress::Ip { nat_port, .. } = &mut endpoint.address {
            *nat_port = backend.port;
        }
        Ok(endpoint)
    }

    fn tunnel_info(&self, destination: Option<String>) -> TunnelInfo {
        let said = self.tunnel.as_ref();
        TunnelInfo {
            tunnel_type: said.map_or(TunnelType::Gre, |it| it.tunnel_type),
            tunnel_dst_address: destination,
            tunnel_src_address: said.and_then(|it| it.tunnel_src_address.clone()),
            tunnel_specific_data: said.map(|it| json!(it.tunnel_specific_data)),
        }
    }

    /// Where a backend is now, and its address if it has one; or why nothing can be sent to it.
    fn place(
        &self,
        backend: &Backend,
        around: Surroundings<'_>,
    ) -> Result<(Endpoint, Option<IpAddr>), String> {
        let none = Interface::default();
        let (application, address) = match &backend.app_instance_id {
            None => (&none, backend.address),
            Some(name) => {
                let entry = name
                    .parse()
                    .ok()
                    .and_then(|id| around.applications.get(&id));
                let entry = entry.ok_or_else(|| format!("there is no application `{name}`"))?;
                let interface = &entry.application.interface;
                (interface, self.address_of(interface))
            }
        };
        let by_mac = self.mode == Mode::Dsr && application.mac_address.is_some();
        if address.is_none() && (!by_mac || self.health_check.is_some()) {
            let version = if self.address.is_ipv4() { 4 } else { 6 };
            let purpose = if by_mac { " to check" } else { "" };
            return Err(format!(
                "the interface of the application has no IPv{version} address{purpose}"
            ));
        }
        let endpoint = self.endpoint(backend, address, application);
        let endpoint = endpoint.map_err(|refusal| refusal.detail)?;
        let ports = &around.site.ports;
        let refused = refuse_endpoint(&endpoint, ports).filter(|_| !ports.is_empty());
        refused.map_or(Ok((endpoint, address)), Err)
    }

    /// The address of an application of its own, which for translation is of the version of the VIP, and else better.
    fn address_of(&self, application: &Interface) -> Option<IpAddr> {
        let all = application.ip_addresses.iter().flatten();
        let own = all
            .filter_map(|it| it.trim().parse::<IpAddr>().ok())
            .filter(|it| *it != self.address);
        let (fit, other): (Vec<_>, Vec<_>) =
            own.partition(|it| it.is_ipv4() == self.address.is_ipv4());
        let other = other.first().filter(|_| self.mode != Mode::Dnat);
        fit.first().or(other).copied()
    }

    fn seen(
        &self,
        backend: &Backend,
        id: &BackendId,
        found: Result<&(Target, Option<IpAddr>), &String>,
        health: Option<Health>,
    ) -> Seen {
        let wanted = backend.state;
        let reason = match (found, &health) {
            (Err(why), _) => Some(why.clone()),
            (Ok(_), _) if wanted == State::Down || self.health_check.is_none() => None,
            (Ok(_), Some(Health::Up)) => None,
            (Ok(_), Some(Health::Down(why))) => Some(format!("checks fail: {why}")),
            (Ok(_), None) => Some("no check has passed yet".to_owned()),
        };
        let address = found.ok().and_then(|(_, address)| *address);
        Seen {
            id: id.clone(),
            state: if reason.is_some() {
                State::Down
            } else {
                wanted
            },
            reason,
            check: address.and_then(|it| self.check_of(backend, it)),
            health,
        }
    }
}
