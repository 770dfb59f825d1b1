//! Tables for people. `-o json` is for programs.

mod change;
mod status;
mod traffic;
mod vips;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Kind;

pub(super) use change::{changes, explanation, outcome};
use status::status;
use traffic::{ends, flows, sessions};

pub(super) fn render(kind: Kind, value: &Value, wide: bool) -> String {
    match kind {
        Kind::Applications => applications(value),
        Kind::Rules => rules(value, wide),
        Kind::Ports => ports(value, wide),
        Kind::Flows => flows(value, wide),
        Kind::Sessions => sessions(value, wide),
        Kind::Vips => vips::table(value, wide),
        Kind::Reasons => reasons(value, wide),
        Kind::Status => status(value),
    }
}

fn applications(value: &Value) -> String {
    let one = std::slice::from_ref(value);
    let applications = value.as_array().map_or(one, Vec::as_slice);
    let rows = applications.iter().map(|app| {
        let active = items(&app["trafficRules"])
            .filter(|rule| rule["state"] == "ACTIVE")
            .count();
        let rules = format!("{active}/{}", items(&app["trafficRules"]).count());
        let addresses: Vec<_> = items(&app["interface"]["ipAddresses"]).map(text).collect();
        let addresses = if addresses.is_empty() {
            "-".to_owned()
        } else {
            addresses.join(",")
        };
        vec![
            text(&app["appInstanceId"]),
            text(&app["appName"]),
            text(&app["source"]),
            rules,
            text(&app["interface"]["port"]),
            addresses,
        ]
    });
    align(
        &[
            "APPLICATION",
            "NAME",
            "SOURCE",
            "ACTIVE RULES",
            "PORT",
            "ADDRESSES",
        ],
        rows,
    )
}

fn rules(value: &Value, wide: bool) -> String {
    let rows = items(value).map(|rule| {
        let status = &rule["status"];
        let installed = if status["installed"] == true {
            "yes".to_owned()
        } else {
            "no".to_owned()
        };
        let mut row = vec![
            text(&rule["rule"]),
            text(&rule["priority"]),
            text(&rule["filterType"]),
            text(&rule["action"]),
            text(&rule["state"]),
            installed,
            text(&status["packets"]),
            bytes(&status["bytes"]),
            text(&status["reason"]),
        ];
        if wide {
            row.push(ago(&status["lastHit"]));
            row.push(text(&rule["source"]));
            row.push(text(&rule["text"]));
        }
        row
    });
    let columns = [
        "RULE",
        "PRIO",
        "TYPE",
        "ACTION",
        "STATE",
        "INSTALLED",
        "PACKETS",
        "BYTES",
        "WHY NOT",
        "LAST HIT",
        "SOURCE",
        "TEXT",
    ];
    align(&columns[..if wide { 12 } else { 9 }], rows)
}

fn ports(value: &Value, wide: bool) -> String {
    let rows = items(value).map(|port| {
        let packets: u64 = items(&port["counters"])
            .filter_map(|counter| counter["packets"].as_u64())
            .sum();
        let mut row = vec![
            text(&port["name"]),
            text(&port["interface"]),
            text(&port["role"]),
            text(&port["mode"]),
            text(&port["pair"]),
            packets.to_string(),
            text(&port["reason"]),
        ];
        if wide {
            row.extend(["ifindex", "mac", "mtu", "zone"].map(|member| text(&port[member])));
        }
        row
    });
    let columns = [
        "PORT",
        "INTERFACE",
        "ROLE",
        "XDP",
        "PAIR",
        "PACKETS IN",
        "WHY NOT",
        "IFINDEX",
        "MAC",
        "MTU",
        "ZONE",
    ];
    align(&columns[..if wide { 11 } else { 7 }], rows)
}

/// Reasons that occurred, those that occurred most first; all of them when wide, and the one that was asked for.
fn reasons(value: &Value, wide: bool) -> String {
    let all = wide || items(value).count() == 1;
    let mut reasons: Vec<_> = items(value)
        .filter(|reason| all || reason["packets"] != 0)
        .collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason["packets"].as_u64()));
    let rows = reasons.iter().map(|r| {
        vec![
            text(&r["reason"]),
            text(&r["packets"]),
            bytes(&r["bytes"]),
            text(&r["meaning"]),
        ]
    });
    align(&["REASON", "PACKETS", "BYTES", "MEANING"], rows)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// A time in seconds since 1970, as people say how long ago it was.
fn ago(time: &Value) -> String {
    let Some(time) = time.as_f64() else {
        return text(time);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = (now.unwrap_or_default().as_secs_f64() - time).max(0.0);
    match seconds {
        ..100.0 => format!("{seconds:.1} s ago"),
        ..6_000.0 => format!("{:.0} min ago", seconds / 60.0),
        ..360_000.0 => format!("{:.0} h ago", seconds / 3_600.0),
        _ => format!("{:.0} days ago", seconds / 86_400.0),
    }
}

/// Bytes as people say them.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn bytes(value: &Value) -> String {
    let mut amount = value.as_u64().unwrap_or_default() as f64;
    let mut units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next().unwrap_or_default();
    for next in units {
        if amount < 1024.0 {
            break;
        }
        amount /= 1024.0;
        unit = next;
    }
    if unit == "B" {
        format!("{amount} B")
    } else {
        format!("{amount:.1} {unit}")
    }
}

/// Columns as wide as what is in them. A column of which every cell is `-` is left out.
fn align(columns: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.collect();
    if rows.is_empty() {
        return "none".to_owned();
    }
    let shown: Vec<_> = (0..columns.len())
        .filter(|&column| rows.iter().any(|row| row[column] != "-"))
        .collect();
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
            .max(columns[column].len())
    };
    let line = |cell: &dyn Fn(usize) -> String| {
        let cells: Vec<_> = shown
            .iter()
            .map(|&column| format!("{:1$}", cell(column), width(column)))
            .collect();
        cells.join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(&|column| columns[column].to_owned());
    for row in &rows {
        out += &line(&|column| row[column].clone());
    }
    out
}
