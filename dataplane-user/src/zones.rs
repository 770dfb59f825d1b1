//! Zones: flows keep to the one that they begin in.

use dataplane_core::table::Role;

use crate::{
    PortStatus,
    rule::{Action, Destination, Endpoint, Filter, Rule},
};

/// Why an application in line cannot be in the middle of the flows that `rule` is for. What it gives back
/// is told by addresses and zone, so it has to be in the zone of the UEs with both of its interfaces.
pub(crate) fn refuse(rule: &Rule, ports: &[PortStatus]) -> Option<String> {
    let Action::Forward {
        destination: destination @ Destination::Inline { .. },
        ..
    } = &rule.action
    else {
        return None;
    };
    let mut sides = destination.endpoints().flat_map(|it| behind(it, ports));
    sides.find_map(|(app, where_)| {
        let mut ues = rule.filters.iter().flat_map(|it| of_flows(it, ports));
        let (zone, why) = ues.find(|(zone, _)| *zone != app.config.zone)?;
        Some(format!(
            "an application in line has to be in the zone of the UEs: {where_} {:?}, which is in zone {}, \
             and the rule is for zone {zone}, {why}",
            app.config.name, app.config.zone
        ))
    })
}

/// The ports that an interface of an application may be behind.
fn behind<'a>(
    endpoint: &Endpoint,
    ports: &'a [PortStatus],
) -> impl Iterator<Item = (&'a PortStatus, &'static str)> {
    let port = endpoint.port.clone();
    ports.iter().filter_map(move |it| match &port {
        Some(name) => (it.config.name == *name).then_some((it, "it is behind")),
        None => (it.config.role == Role::App).then_some((it, "without x-port it may be behind")),
    })
}

/// The zones of flows that a filter may match, and how that is known.
fn of_flows(filter: &Filter, ports: &[PortStatus]) -> Vec<(u16, String)> {
    if let Some(zone) = filter.zone {
        return vec![(zone, "as x-zone says".to_owned())];
    }
    let upstream = ports
        .iter()
        .filter(|port| matches!(port.config.role, Role::Access | Role::Peer));
    upstream
        .map(|port| {
            let why = format!(
                "that of port {:?}, as well: x-zone can say which",
                port.config.name
            );
            (port.config.zone, why)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PortConfig, ports};

    #[test]
    fn an_inline_application_is_in_the_zone_of_its_flows() {
        let sides = |one: &str, other: &str| {
            format!("mac 02:00:00:00:0a:01{one} and mac 02:00:00:00:0a:02{other}")
        };
        let both = sides(" via app0", " via app1");
        for (rule, words) in [
            (format!("zone 0 forward {both}"), &[][..]),
            (
                format!("zone 2 forward {both}"),
                &[
                    "behind \"app0\", which is in zone 0",
                    "zone 2, as x-zone says",
                ],
            ),
            (
                format!("any forward {both}"),
                &["zone 2, that of port \"access1\""],
            ),
            (
                format!("zone 0 forward {}", sides(" via app0", " via app2")),
                &["behind \"app2\", which is in zone 2"],
            ),
            (
                "zone 0 forward ip 198.18.1.2 via app0 and ip 198.18.2.2".to_owned(),
                &["without x-port it may be behind \"app2\""],
            ),
            // Others are found by the flow that they answer, or give nothing back.
            (format!("any duplicate {both}"), &[]),
            ("any forward mac 02:00:00:00:0a:01 via app2".to_owned(), &[]),
        ] {
            let rule = format!("a/1 prio 1 flow {rule}").parse().unwrap();
            let reason = refuse(&rule, &some_ports());
            assert_eq!(reason.is_some(), !words.is_empty(), "{rule}: {reason:?}");
            for word in words {
                assert!(reason.as_ref().unwrap().contains(word), "{reason:?}");
            }
        }
    }

    fn some_ports() -> Vec<PortStatus> {
        let port = |(name, role, zone): &(&str, Role, u16)| PortConfig {
            name: (*name).to_owned(),
            interface: (*name).to_owned(),
            role: *role,
            pair: None,
            zone: *zone,
            gtpu: false,
            mss_clamp: false,
            allow_generic: false,
        };
        let configured = [
            ("access0", Role::Access, 0),
            ("access1", Role::Access, 2),
            ("core0", Role::Core, 0),
            ("app0", Role::App, 0),
            ("app1", Role::App, 0),
            ("app2", Role::App, 2),
        ];
        ports::new(&configured.each_ref().map(port), &[0, 1, 2, 3, 4, 5])
    }
}
