//! What there is, as the daemon says it.

use std::net::IpAddr;

use anyhow::{Result, bail};
use serde_json::Value;

use super::{Kind, Output, client::Client, print, table};
use crate::api::percent;

/// Shows what there is of a kind, or of it what has this name.
pub(super) fn get(client: &Client, kind: Kind, id: Option<&str>, output: Output) -> Result<bool> {
    let value = match (kind, id) {
        (Kind::Applications, Some(id)) => {
            client.get(&format!("/mp2/v1/applications/{}", percent(id)))?
        }
        (Kind::Applications, None) => client.get("/mp2/v1/applications")?,
        (Kind::Rules, id) => only(
            client.get("/mp2/v1/rules")?,
            id,
            &["rule", "trafficRuleId", "appInstanceId"],
        )?,
        (Kind::Ports, id) => only(client.get("/mp2/v1/ports")?, id, &["name"])?,
        (Kind::Reasons, id) => only(client.get("/mp2/v1/reasons")?, id, &["reason"])?,
        (Kind::Flows, id) => flows(client, id)?,
        (Kind::Status, None) => client.get("/mp2/v1/status")?,
        (Kind::Status, Some(id)) => bail!("there is one status; leave `{id}` out"),
    };
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&value)?,
        Output::Yaml => serde_yaml_ng::to_string(&value)?,
        Output::Table => table::render(kind, &value, false),
        Output::Wide => table::render(kind, &value, true),
    })
}

/// All flows, or those of a UE, of a rule or of an application.
pub(super) fn flows(client: &Client, of: Option<&str>) -> Result<Value> {
    let filter = of.map(|of| {
        let member = match of {
            _ if of.parse::<IpAddr>().is_ok() => "ue",
            _ if of.contains('/') => "rule",
            _ => "app",
        };
        format!("&{member}={}", percent(of))
    });
    let filter = filter.unwrap_or_default();
    let mut flows = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.get(&format!("/mp2/v1/flows?limit=1000{filter}{cursor}"))?;
        if let Value::Array(more) = page["flows"].take() {
            flows.extend(more);
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(flows.into()),
        }
    }
}

/// The items of which a member is `id`; some, if one is asked for.
fn only(items: Value, id: Option<&str>, members: &[&str]) -> Result<Value> {
    let (Some(id), Some(all)) = (id, items.as_array()) else {
        return Ok(items);
    };
    let matches = |item: &&Value| members.iter().any(|member| item[*member] == id);
    let found: Vec<_> = all.iter().filter(matches).cloned().collect();
    if found.is_empty() {
        let names = all.iter().filter_map(|item| item[members[0]].as_str());
        let some = names.take(40).collect::<Vec<_>>().join(", ");
        let there = if some.is_empty() { "nothing" } else { &some };
        bail!("there is no `{id}`; there is {there}");
    }
    Ok(found.into())
}
