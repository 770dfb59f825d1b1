//! What can be wrong with a VIP, whatever there is beside it.

use std::{collections::BTreeSet, net::IpAddr};

use dataplane_user::rule::{Backend as Target, BackendId, BackendState, Balance, Place, RuleId};
use serde_json::json;

use super::{Affinity, Backend, CheckType, FallbackAction, Mode, Protocol, Site, Vip};
use crate::mec::{Interface, Refusal, TunnelType, host, tunnel_pointer};

/// Seconds between two checks at the most.
const INTERVAL: u32 = 3600;
/// Successes or failures in a row at the most.
const IN_A_ROW: u32 = 100;

impl Vip {
    /// Checks what the types do not; the names of the backends, in their order. `id` is that of its rule.
    pub(crate) fn check(&self, id: &RuleId) -> Result<Vec<BackendId>, Refusal> {
        host("/address", self.address)?;
        if self.port == Some(0) {
            return Err(Refusal::new("/port", "a port is from 1 to 65535"));
        }
        if self.affinity_timeout_seconds.is_some() && self.affinity != Affinity::Ue {
            let why = "with affinity UE only: a flow keeps its backend for as long as that lives";
            return Err(Refusal::new("/affinityTimeoutSeconds", why));
        }
        if self.min_healthy == 0 {
            let why = "at least 1; without a backend nothing is served";
            return Err(Refusal::new("/minHealthy", why));
        }
        if self.backends.len() > Balance::BACKENDS {
            let why = format!("{} backends at the most", Balance::BACKENDS);
            return Err(Refusal::new("/backends", why));
        }
        self.check_tunnel()?;
        let mut names = BTreeSet::new();
        let mut ids = Vec::with_capacity(self.backends.len());
        for (index, backend) in self.backends.iter().enumerate() {
            let place = format!("/backends/{index}");
            let name = self.check_backend(backend);
            let name = name.map_err(|refusal| refusal.below(&place))?;
            if !names.insert(name.clone()) {
                let pointer = format!("{place}/{}", backend.member());
                return Err(Refusal::new(pointer, format!("`{name}` is there twice")));
            }
            ids.push(name);
        }
        self.check_health()?;
        self.check_fallback()?;
        self.check_rule(id, &ids)?;
        Ok(ids)
    }

    /// Checks that there is the peer that is fallen back to.
    pub(crate) fn check_peer(&self, site: &Site) -> Result<(), Refusal> {
        let peer = self.fallback.as_ref().and_then(|it| it.peer.as_ref());
        match peer {
            Some(peer) if !site.peers.contains_key(peer) => {
                let why = format!("there is no [[peer]] `{peer}` in the configuration");
                Err(Refusal::new("/fallback/peer", why))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Checks that there are the ports that backends are said to be behind: what is sent to others is lost.
    pub(crate) fn check_ports(&self, site: &Site) -> Result<(), Refusal> {
        for (index, backend) in self.backends.iter().enumerate() {
            let there = |name: &String| site.ports.iter().any(|port| port.name == *name);
            if let Some(name) = backend.behind.as_ref().filter(|name| !there(name)) {
                let pointer = format!("/backends/{index}/x-port");
                return Err(Refusal::new(pointer, format!("there is no port `{name}`")));
            }
        }
        Ok(())
    }

    fn check_tunnel(&self) -> Result<(), Refusal> {
        let Some(tunnel) = &self.tunnel else {
            return Ok(());
        };
        if self.mode != Mode::Tunnel {
            return Err(Refusal::new("/tunnel", "with mode TUNNEL only"));
        }
        let known: &[&str] = match tunnel.tunnel_type {
            TunnelType::Gre => &["greKey"],
            TunnelType::Vxlan => &["vni", "macAddress"],
            TunnelType::GtpU => &["teid", "qfi"],
        };
        let data = json!(tunnel.tunnel_specific_data);
        let mut members = data.as_object().into_iter().flatten();
        match members.find(|(member, _)| !known.contains(&member.as_str())) {
            Some((member, _)) => Err(Refusal::new(
                format!("/tunnel/tunnelSpecificData/{member}"),
                format!("tunnels of this type have {} only", known.join(" and ")),
            )),
            None => Ok(()),
        }
    }

    fn check_backend(&self, backend: &Backend) -> Result<BackendId, Refusal> {
        if backend.app_instance_id.is_some() == backend.address.is_some() {
            return Err(Refusal::new(
                "",
                "either appInstanceId or address is needed",
            ));
        }
        if let Some(address) = backend.address {
            host("/address", address)?;
            if address == self.address {
                let why = "a backend has an address of its own, beside that of the VIP";
                return Err(Refusal::new("/address", why));
            }
        }
        let pointer = format!("/{}", backend.member());
        let id = backend.name().parse();
        let id = id.map_err(|error| Refusal::new(pointer, format!("{error}")))?;
        let why = match backend.port {
            Some(_) if self.mode != Mode::Dnat => {
                "with mode DNAT only; otherwise packets keep the port of the VIP"
            }
            Some(0) => "a port is from 1 to 65535",
            Some(_) if !matches!(self.protocol, Protocol::Tcp | Protocol::Udp) => {
                "ports are translated with protocol TCP or UDP only"
            }
            Some(_) | None => return Ok(id),
        };
        Err(Refusal::new("/port", why))
    }

    fn check_health(&self) -> Result<(), Refusal> {
        let Some(check) = &self.health_check else {
            return Ok(());
        };
        let refuse =
            |member: &str, why: String| Err(Refusal::new(format!("/healthCheck/{member}"), why));
        for (member, value, most) in [
            ("intervalSeconds", check.interval_seconds, INTERVAL),
            (
                "timeoutSeconds",
                check.timeout_seconds,
                check.interval_seconds,
            ),
            ("rise", check.rise, IN_A_ROW),
            ("fall", check.fall, IN_A_ROW),
        ] {
            if !(1..=most).contains(&value) {
                let than = if member == "timeoutSeconds" {
                    ", which intervalSeconds says"
                } else {
                    ""
                };
                return refuse(member, format!("a number from 1 to {most}{than}"));
            }
        }
        let http = check.kind == CheckType::Http;
        if let Some(path) = &check.path {
            let plain = |c: char| c.is_ascii_graphic();
            if !http {
                return refuse("path", "with type HTTP only".to_owned());
            }
            if !path.starts_with('/') || !path.chars().all(plain) {
                let why = "a path begins with `/` and has no spaces: write them as %20";
                return refuse("path", why.to_owned());
            }
        }
        let known = |backend: &Backend| self.port_to_check(backend).is_some();
        match check.port {
            Some(_) if check.kind == CheckType::Icmp => {
                refuse("port", "ICMP has no ports".to_owned())
            }
            Some(0) => refuse("port", "a port is from 1 to 65535".to_owned()),
            None if check.kind != CheckType::Icmp && !self.backends.iter().all(known) => {
                let why = "which TCP port to check is needed, as neither the backend nor the VIP says one";
                refuse("port", why.to_owned())
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_fallback(&self) -> Result<(), Refusal> {
        let Some(fallback) = &self.fallback else {
            return Ok(());
        };
        let why = match (fallback.action, &fallback.peer) {
            (FallbackAction::Peer, None) => "action PEER needs the name of a [[peer]]",
            (FallbackAction::Pass, Some(_)) => "with action PEER only",
            (FallbackAction::Peer, Some(_)) | (FallbackAction::Pass, None) => return Ok(()),
        };
        Err(Refusal::new("/fallback/peer", why))
    }

    /// Checks the rule that it would be if applications were such that nothing is wrong with them.
    fn check_rule(&self, id: &RuleId, ids: &[BackendId]) -> Result<(), Refusal> {
        let mut rule = self.rule(id);
        // Without backends, this is about nothing else.
        let well = rule.check();
        well.map_err(|it| Refusal::new("/affinityTimeoutSeconds", it.why))?;
        let some = if self.address.is_ipv4() {
            IpAddr::from([192, 0, 2, 1])
        } else {
            IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])
        };
        let application = Interface {
            mac_address: Some("02:00:00:00:00:01".to_owned()),
            ..Interface::default()
        };
        let address = Interface::default();
        for (index, (backend, id)) in self.backends.iter().zip(ids).enumerate() {
            let interface = match backend.address {
                Some(_) => &address,
                None => &application,
            };
            let endpoint = self.endpoint(backend, backend.address.or(Some(some)), interface);
            let endpoint = endpoint.map_err(|refusal| {
                let pointer = self.pointer(backend, index, &refusal.pointer);
                Refusal::new(pointer, refusal.detail)
            })?;
            let target = Target {
                id: id.clone(),
                weight: backend.weight,
                state: BackendState::Up,
                endpoint,
            };
            rule.action = self.balance(vec![target], None);
            rule.check().map_err(|contradiction| {
                let place = match contradiction.place {
                    Place::Tunnel(_, part) => tunnel_pointer(part),
                    Place::Filters
                    | Place::Filter(_)
                    | Place::Dscp(_)
                    | Place::Qci(_)
                    | Place::Endpoint(_)
                    | Place::Nat(_)
                    | Place::Balance
                    | Place::Backend(_)
                    | Place::Fallback => "",
                };
                let pointer = self.pointer(backend, index, place);
                Refusal::new(pointer, contradiction.why)
            })?;
        }
        Ok(())
    }

    /// Where in a VIP is what has this pointer in a destination of a rule.
    fn pointer(&self, backend: &Backend, index: usize, pointer: &str) -> String {
        match pointer.strip_prefix("/tunnelInfo") {
            Some("/tunnelDstAddress") => format!("/backends/{index}/{}", backend.member()),
            Some(rest) => format!("/tunnel{rest}"),
            None if pointer == "/dstMacAddress" && self.mode == Mode::Tunnel => {
                "/tunnel/tunnelSpecificData/macAddress".to_owned()
            }
            None => format!("/backends/{index}/{}", backend.member()),
        }
    }
}
