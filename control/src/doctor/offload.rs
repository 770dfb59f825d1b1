//! What the interface does to frames before XDP sees them.

use super::{Finding, Subject, ethtool::Features, port::runs_generic};

pub(super) fn findings(port: &Subject<'_>, features: &Features) -> Vec<Finding> {
    let name = &port.link.name;
    let at = port.at();
    let mut findings = Vec::new();
    if features.any(&["rx-lro", "rx-gro-hw"]) {
        findings.push(Finding::warning(
            "receive-offload",
            &at,
            "the NIC merges packets: many drivers then refuse native mode",
            format!("ethtool -K {name} lro off rx-gro-hw off"),
        ));
    }
    let nic = port.link.kind.as_deref() != Some("veth");
    if nic && features.any(&["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"]) {
        findings.push(Finding::warning(
            "vlan-offload",
            &at,
            "the NIC takes VLAN tags off before XDP sees the frame",
            format!("ethtool -K {name} rxvlan off rx-vlan-stag-hw-parse off"),
        ));
    }
    if runs_generic(port) && features.any(&["rx-gro"]) {
        findings.push(Finding::warning(
            "generic-gro",
            &at,
            "in generic mode XDP sees merged packets, longer than the MTU",
            format!("ethtool -K {name} gro off"),
        ));
    }
    if findings.is_empty() {
        findings.push(Finding::ok("offloads", at, "none is in the way"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use dataplane_user::netlink::Link;

    use super::{super::Port, *};

    #[test]
    fn offloads_of_a_nic_are_found() {
        let link = Link {
            index: 1,
            name: "eth1".to_owned(),
            mac: None,
            ethernet: true,
            mtu: 9000,
            max_mtu: 9600,
            up: true,
            carrier: true,
            kind: None,
            peer: None,
            peer_namespace: None,
            master: None,
            rx_queues: 1,
            tx_queues: 1,
            xdp: None,
        };
        let port = Port::default();
        let subject = Subject {
            port: &port,
            link: &link,
        };
        let checks = |features: Features| -> Vec<_> {
            let findings = findings(&subject, &features);
            findings.iter().map(|finding| finding.check).collect()
        };
        assert_eq!(checks(["rx-gro-hw", "rx-gro"].into()), ["receive-offload"]);
        assert_eq!(checks(["rx-lro"].into()), ["receive-offload"]);
        assert_eq!(checks(["rx-vlan-hw-parse"].into()), ["vlan-offload"]);
        assert_eq!(checks(["rx-gro", "tx-checksum-ipv4"].into()), ["offloads"]);
    }
}
