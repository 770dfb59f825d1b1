//! Tables for people. `-o json` is for programs.

mod vips;

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::Value;

use super::Kind;

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

/// A difference, rule by rule.
pub(super) fn changes(outline: &Value) -> String {
    let mut out = String::new();
    for change in items(&outline["changes"]) {
        let sign = match change["kind"].as_str() {
            Some("added") => '+',
            Some("removed") => '-',
            _ => '~',
        };
        let _ = writeln!(out, "{sign} {}", text(&change["text"]));
        if let Some(before) = change["before"].as_str() {
            let _ = writeln!(out, "  was {before}");
        }
    }
    if out.is_empty() {
        out += "no changes\n";
    }
    out
}

/// What became of a change.
pub(super) fn outcome(outline: &Value) -> String {
    let left_out: Vec<_> = outline["notInstalled"]
        .as_object()
        .into_iter()
        .flatten()
        .collect();
    let mut out = format!("in force, revision {}", outline["revision"]);
    if !left_out.is_empty() {
        let _ = write!(out, ", but NOT all rules:");
    }
    for (rule, why) in left_out {
        let _ = write!(out, "\n! {rule} is left out: {}", text(why));
    }
    out
}

pub(super) fn explanation(question: &Value, answer: &Value) -> String {
    let mut out = String::new();
    let packet = if question["flow"].is_null() {
        format!("{} bytes", text(&question["hex"]).len() / 2)
    } else {
        text(&question["flow"])
    };
    let tunnel = |tunnel: &Value| {
        let qfi = tunnel["qfi"].as_u64().map(|qfi| format!(" qfi {qfi}"));
        let [source, destination, teid] =
            ["source", "destination", "teid"].map(|member| text(&tunnel[member]));
        tunnel.is_object().then(|| {
            format!(
                "{source} > {destination} teid {teid}{}",
                qfi.unwrap_or_default()
            )
        })
    };
    let reason = format!("{} ({})", text(&answer["reason"]), text(&answer["meaning"]));
    for (name, value) in [
        (
            "packet",
            format!("{packet}, entering by {}", text(&question["in"])),
        ),
        ("action", text(&answer["action"])),
        ("reason", reason),
        ("rule", text(&answer["rule"])),
        ("leaves by", text(&answer["targetPort"])),
        (
            "flow",
            if answer["flow"].is_null() {
                "-".to_owned()
            } else {
                ends(&answer["flow"]).join(" > ")
            },
        ),
        ("frame", text(&answer["frame"])),
    ] {
        let _ = writeln!(out, "{name:10} {value}");
        let (member, value) = match name {
            "packet" => ("tunnel", tunnel(&answer["tunnelIn"])),
            "leaves by" => ("tunnel", tunnel(&answer["tunnelOut"])),
            "rule" => ("backend", answer["backend"].as_str().map(str::to_owned)),
            _ => continue,
        };
        if let Some(value) = value {
            let _ = writeln!(out, "  {member:8} {value}");
        }
    }
    out
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

fn flows(value: &Value, wide: bool) -> String {
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

fn sessions(value: &Value, wide: bool) -> String {
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

fn status(value: &Value) -> String {
    let mut out = String::new();
    let (revision, rules, data) = (&value["revision"], &value["rules"], &value["dataPath"]);
    let adopted = if data["adopted"] == true {
        ", adopted from an earlier run"
    } else {
        ""
    };
    for (name, what) in [
        (
            "node",
            format!(
                "{}, edgesteer {}",
                text(&value["node"]),
                text(&value["version"])
            ),
        ),
        (
            "revision",
            format!(
                "{} desired, {} in the data path",
                revision["desired"], revision["programmed"]
            ),
        ),
        (
            "rules",
            format!(
                "{} desired, {} installed, of {} applications and {} VIPs",
                rules["desired"], rules["programmed"], value["applications"], value["vips"]
            ),
        ),
        ("data path", format!("epoch {}{adopted}", data["epoch"])),
        (
            "program",
            format!(
                "{} instructions verified, {}",
                data["programInstructions"],
                bytes(&data["programBytes"])
            ),
        ),
    ] {
        let _ = writeln!(out, "{name:10} {what}");
    }
    let cache = &data["flowCache"];
    let [lookups, misses] = ["lookups", "misses"].map(|it| cache[it].as_f64().unwrap_or_default());
    if lookups > 0.0 {
        let hits = (lookups - misses) * 100.0 / lookups;
        let _ = writeln!(
            out,
            "{:10} {hits:.1} % hits of {} packets of flows",
            "flow cache", cache["lookups"]
        );
    }
    if let Some(why) = revision["failure"].as_str() {
        let _ = writeln!(out, "{:10} {why}", "problem");
    }
    for source in items(&value["sources"]) {
        let (name, rules) = (text(&source["source"]), text(&source["rules"]));
        let _ = writeln!(
            out,
            "{:10} {name}: {} applications, {rules} rules",
            "source", source["applications"]
        );
        for failure in items(&source["failures"]) {
            let _ = writeln!(out, "{:10} {}", "  problem", text(failure));
        }
    }
    let sessions: Vec<_> = items(&data["sessions"])
        .filter(|count| count["sessions"] != 0)
        .map(|count| {
            let state = text(&count["state"]).to_lowercase();
            let said = if count["provisioned"] == true {
                ", provisioned"
            } else {
                ""
            };
            format!("{} {state}{said}", count["sessions"])
        })
        .collect();
    if !sessions.is_empty() {
        let _ = writeln!(out, "{:10} {}", "sessions", sessions.join("; "));
    }
    for hop in items(&value["nextHops"]) {
        let answer = hop["resolvedMac"].as_str().map_or_else(
            || "NOT RESOLVED".to_owned(),
            |mac| format!("{mac} on {}", text(&hop["resolvedPort"])),
        );
        let _ = writeln!(
            out,
            "{:10} {} is {answer}",
            "next hop",
            text(&hop["address"])
        );
    }
    let rows = items(&data["pressure"])
        .map(|map| vec![text(&map["name"]), text(&map["used"]), text(&map["max"])]);
    out + "\n" + &align(&["TABLE", "USED", "MAXIMUM"], rows)
}

/// The ends of a flow, with ports where there are some.
fn ends(flow: &Value) -> [String; 2] {
    [("source", "sourcePort"), ("destination", "destinationPort")].map(|(address, port)| {
        let address = text(&flow[address]);
        match flow[port].as_u64() {
            None | Some(0) => address,
            Some(port) if address.contains(':') => format!("[{address}]:{port}"),
            Some(port) => format!("{address}:{port}"),
        }
    })
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
