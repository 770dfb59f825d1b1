//! Flows, and the sessions of UEs behind tunnels.

use serde_json::Value;

use super::{ago, align, bytes, items, text};

pub(super) fn flows(value: &Value, wide: bool) -> String {
    let rows = items(value).map(|flow| {
        let [source, destination] = ends(flow);
        let (up, down) = (&flow["upstream"], &flow["downstream"]);
        let mut row = vec![
            text(&flow["protocol"]),
            source,
            destination,
            text(&flow["rule"]),
            format!("{} > {}", text(&flow["ingress"]), text(&flow["target"])),
            text(&up["packets"]),
            bytes(&up["bytes"]),
            text(&down["packets"]),
            bytes(&down["bytes"]),
        ];
        if wide {
            row.extend([
                text(&flow["zone"]),
                text(&flow["backend"]),
                bytes(&up["wireBytes"]),
                bytes(&down["wireBytes"]),
                ago(&flow["firstSeen"]),
                ago(&flow["lastSeen"]),
            ]);
        }
        row
    });
    let columns = [
        "PROTO",
        "SOURCE",
        "DESTINATION",
        "RULE",
        "PORTS",
        "UP PKTS",
        "UP BYTES",
        "DOWN PKTS",
        "DOWN BYTES",
        "ZONE",
        "BACKEND",
        "UP WIRE",
        "DOWN WIRE",
        "FIRST SEEN",
        "LAST SEEN",
    ];
    align(&columns[..if wide { 15 } else { 9 }], rows)
}

pub(super) fn sessions(value: &Value, wide: bool) -> String {
    let rows = items(value).map(|session| {
        let teids = |member: &str| {
            let bearers = items(&session["bearers"]).map(|bearer| text(&bearer[member]));
            bearers.collect::<Vec<_>>().join(",")
        };
        let said = match session["provisioned"].as_bool() {
            Some(true) => "provisioned",
            _ => "learned",
        };
        let mut row = vec![
            text(&session["zone"]),
            text(&session["ueAddress"]),
            text(&session["state"]).to_lowercase(),
            said.to_owned(),
            text(&session["ranAddress"]),
            text(&session["coreAddress"]),
            teids("uplinkTeid"),
            teids("downlinkTeid"),
            text(&session["qfi"]),
        ];
        if wide {
            let flows = items(&session["qosFlows"])
                .map(|flow| format!("{}={}", text(&flow["qfi"]), text(&flow["5qi"])));
            let flows = flows.collect::<Vec<_>>().join(",");
            row.extend([
                teids("qci"),
                if flows.is_empty() {
                    "-".to_owned()
                } else {
                    flows
                },
                ago(&session["lastSeen"]),
            ]);
        }
        row
    });
    let columns = [
        "ZONE",
        "UE",
        "STATE",
        "FROM",
        "RAN",
        "CORE",
        "UP TEID",
        "DOWN TEID",
        "QFI",
        "QCI",
        "QFI=5QI",
        "LAST SEEN",
    ];
    align(&columns[..if wide { 12 } else { 9 }], rows)
}

/// The ends of a flow, with ports where there are some.
pub(super) fn ends(flow: &Value) -> [String; 2] {
    [("source", "sourcePort"), ("destination", "destinationPort")].map(|(address, port)| {
        let address = text(&flow[address]);
        match flow[port].as_u64() {
            None | Some(0) => address,
            Some(port) if address.contains(':') => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
        }
    })
}
