//! Tunnels: packets are looked for in them on some ports only.

use crate::{
    PortStatus,
    rule::{Filter, Rule},
};

/// Why no packet can match a filter of `rule`: it wants a tunnel, and nobody looks into any.
pub(crate) fn refuse(rule: &Rule, ports: &[PortStatus]) -> Option<String> {
    let mut filters = rule.filters.iter().filter(|filter| filter.wants_tunnel());
    let blind = filters.find(|filter| !is_seen(filter, ports))?;
    let where_ = blind
        .zone
        .map_or_else(String::new, |zone| format!(" of zone {zone}"));
    Some(format!(
        "it is for packets in tunnels, and no port{where_} looks into GTP-U: encapsulation = \"gtpu\" on one does"
    ))
}

fn is_seen(filter: &Filter, ports: &[PortStatus]) -> bool {
    let mut ports = ports.iter().map(|port| &port.config);
    ports.any(|port| port.gtpu && filter.zone.is_none_or(|zone| zone == port.zone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PortConfig, Role, ports};

    #[test]
    fn somebody_has_to_look_into_tunnels() {
        for (filter, gtpu, word) in [
            ("any", None, None),
            ("qci 5", None, Some("no port looks")),
            ("tunnel-from 192.0.2.1", None, Some("no port looks")),
            ("any or tunnel-dport 2152", None, Some("no port looks")),
            ("qci 5", Some(2), None),
            ("zone 2 tunnel-to 198.51.100.1", Some(2), None),
            (
                "zone 0 tunnel-sport 2152",
                Some(2),
                Some("no port of zone 0 looks"),
            ),
            ("zone 0", Some(2), None),
        ] {
            let rule = format!("a/1 prio 1 flow {filter} drop").parse().unwrap();
            let reason = refuse(&rule, &some_ports(gtpu));
            assert_eq!(reason.is_some(), word.is_some(), "{filter}: {reason:?}");
            assert!(reason.is_none_or(|it| it.contains(word.unwrap())));
        }
    }

    /// A port in each of two zones; one may look into tunnels.
    fn some_ports(gtpu: Option<u16>) -> Vec<PortStatus> {
        let port = |(name, zone): &(&str, u16)| PortConfig {
            name: (*name).to_owned(),
            interface: (*name).to_owned(),
            role: Role::Access,
            pair: None,
            zone: *zone,
            gtpu: gtpu == Some(*zone),
            mss_clamp: false,
            allow_generic: false,
        };
        ports::new(
            &[("access0", 0), ("access2", 2)].each_ref().map(port),
            &[0, 1],
        )
    }
}
