use serde_json::Value;

use super::{align, bytes, items, text};

/// VIPs; of a single one its backends as well, which `wide` shows of all.
pub(super) fn table(value: &Value, wide: bool) -> String {
    let one = std::slice::from_ref(value);
    let vips = value.as_array().map_or(one, Vec::as_slice);
    let rows = vips.iter().map(|vip| {
        let status = &vip["status"];
        let up = items(&status["backends"]).filter(|it| it["state"] == "UP");
        vec![
            text(&vip["vipId"]),
            text(&vip["address"]),
            text(&vip["protocol"]),
            text(&vip["port"]),
            text(&vip["mode"]),
            format!("{}/{}", up.count(), items(&vip["backends"]).count()),
            answer(&status["healthy"]),
            answer(&status["announced"]),
            answer(&status["installed"]),
            text(&status["packets"]),
            bytes(&status["bytes"]),
            text(&vip["source"]),
            text(&status["reason"]),
        ]
    });
    let columns = [
        "VIP",
        "ADDRESS",
        "PROTO",
        "PORT",
        "MODE",
        "UP",
        "HEALTHY",
        "ANNOUNCED",
        "INSTALLED",
        "PACKETS",
        "BYTES",
        "SOURCE",
        "WHY NOT",
    ];
    let out = align(&columns, rows);
    if value.is_object() || wide && !vips.is_empty() {
        format!("{out}\n{}", backends(vips))
    } else {
        out
    }
}

fn backends(vips: &[Value]) -> String {
    let rows = vips.iter().flat_map(|vip| {
        let backends = items(&vip["backends"]).zip(items(&vip["status"]["backends"]));
        let backends = backends.map(|(said, seen)| {
            vec![
                text(&vip["vipId"]),
                text(&seen["id"]),
                text(&said["weight"]),
                text(&seen["state"]),
                text(&seen["health"]),
                text(&seen["packets"]),
                bytes(&seen["bytes"]),
                text(&seen["reason"]),
            ]
        });
        let without = &vip["status"]["fallback"];
        let without = (without["packets"].as_u64() > Some(0)).then(|| {
            let mut row = vec!["-".to_owned(); 8];
            row[0] = text(&vip["vipId"]);
            row[1] = "(none takes flows)".to_owned();
            row[5] = text(&without["packets"]);
            row[6] = bytes(&without["bytes"]);
            row
        });
        backends.chain(without)
    });
    let columns = [
        "VIP", "BACKEND", "WEIGHT", "STATE", "HEALTH", "PACKETS", "BYTES", "WHY",
    ];
    align(&columns, rows)
}

fn answer(value: &Value) -> String {
    if *value == true { "yes" } else { "no" }.to_owned()
}
