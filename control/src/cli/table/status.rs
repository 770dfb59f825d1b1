//! How the node is.

use std::fmt::Write as _;

use serde_json::Value;

use super::{align, bytes, items, text};

/// How the node is.
pub(super) fn status(value: &Value) -> String {
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
