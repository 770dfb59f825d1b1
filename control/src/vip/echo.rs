//! Which VIPs of an address answer echo requests.

use std::{collections::BTreeMap, net::IpAddr};

use dataplane_user::rule::{Action, Balance, Rule};

/// Has echo requests to each address answered while one of its VIPs takes flows, whichever that is: others are silent then. `rules`
/// are those of all VIPs of these addresses.
pub(crate) fn share(rules: &mut [Rule]) {
    let mut addresses = BTreeMap::<IpAddr, Vec<&mut Rule>>::new();
    for rule in rules {
        if let Some(address) = address(rule) {
            addresses.entry(address).or_default().push(rule);
        }
    }
    for vips in addresses.values_mut() {
        let takers: Vec<_> = vips
            .iter()
            .filter(|it| takes_flows(it))
            .map(|it| zone(it))
            .collect();
        for vip in vips {
            let zone = zone(vip);
            let meets = |other: &Option<u16>| zone.is_none() || other.is_none() || zone == *other;
            let silent = !takes_flows(vip) && takers.iter().any(meets);
            if let Action::Balance(balance) = &mut vip.action {
                balance.silent = silent;
            }
        }
    }
}

fn address(rule: &Rule) -> Option<IpAddr> {
    Some(rule.filters.first()?.dst.first()?.first())
}

fn zone(rule: &Rule) -> Option<u16> {
    rule.filters.first()?.zone
}

fn takes_flows(rule: &Rule) -> bool {
    matches!(&rule.action, Action::Balance(balance) if Balance::takes_flows(balance))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_flows_answers_for_all_vips_of_an_address() {
        let up = "backend a weight 1 up ip 192.0.2.10";
        let idle = "backend a weight 0 up ip 192.0.2.10";
        for (rules, silent) in [
            (vec![("", up)], vec![false]),
            (vec![("", idle)], vec![false]),
            (vec![("", idle), ("", "")], vec![false, false]),
            (vec![("", up), ("", idle)], vec![false, true]),
            (vec![("", ""), ("", up), ("", up)], vec![true, false, false]),
            (vec![("zone 1", ""), ("zone 2", up)], vec![false, false]),
            (vec![("zone 1", ""), ("", up)], vec![true, false]),
            (vec![("", ""), ("zone 2", up)], vec![true, false]),
        ] {
            let rule = |(place, (zone, backend)): (usize, &(&str, &str))| {
                let text =
                    format!("@vip/{place} prio 1 flow to 203.0.113.9 {zone} balance {backend}");
                text.parse::<Rule>().unwrap()
            };
            let mut all: Vec<_> = rules.iter().enumerate().map(rule).collect();
            let elsewhere = "@vip/z prio 1 flow to 203.0.113.10 balance";
            all.push(elsewhere.parse().unwrap());
            share(&mut all);
            let is_silent = |rule: &Rule| matches!(&rule.action, Action::Balance(it) if it.silent);
            let mut now: Vec<_> = all.iter().map(is_silent).collect();
            assert_eq!(now.pop(), Some(false));
            assert_eq!(now, silent, "{rules:?}");
            // As things are and not as they were.
            share(&mut all);
            assert!(all.iter().map(is_silent).take(silent.len()).eq(silent));
        }
    }
}
