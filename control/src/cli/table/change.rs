//! What a change does, and what becomes of a packet.

use std::fmt::Write as _;

use serde_json::Value;

use super::{ends, items, text};

/// A difference, rule by rule.
pub(in crate::cli) fn changes(outline: &Value) -> String {
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
pub(in crate::cli) fn outcome(outline: &Value) -> String {
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

pub(in crate::cli) fn explanation(question: &Value, answer: &Value) -> String {
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
