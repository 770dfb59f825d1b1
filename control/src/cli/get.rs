//! What there is, as the daemon says it.

use std::net::IpAddr;

use anyhow::{Error, Result, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::{Kind, Output, client::Client, print, table};
use crate::{api::percent, session::SessionId};

/// Shows what there is of a kind, or of it what has this name.
pub(super) fn get(client: &Client, kind: Kind, id: Option<&str>, output: Output) -> Result<bool> {
    let value = match (kind, id) {
        (Kind::Applications, Some(id)) => {
            client.get(&format!("/mp2/v1/applications/{}", percent(id)))?
        }
        (Kind::Applications, None) => client.get("/mp2/v1/applications")?,
        (Kind::Vips, Some(id)) => client.get(&format!("/mp2/v1/vips/{}", percent(id)))?,
        (Kind::Vips, None) => client.get("/mp2/v1/vips")?,
        (Kind::Rules, id) => only(
            client.get("/mp2/v1/rules")?,
            id,
            &["rule", "trafficRuleId", "appInstanceId"],
        )?,
        (Kind::Ports, id) => only(client.get("/mp2/v1/ports")?, id, &["name"])?,
        (Kind::Reasons, id) => only(client.get("/mp2/v1/reasons")?, id, &["reason"])?,
        (Kind::Flows, id) => flows(client, id)?,
        (Kind::Sessions, id) => sessions(client, id)?,
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
    pages(client, "flows", &filter.unwrap_or_default())
}

/// All sessions, those of a UE's address, or that of a UE in a zone.
fn sessions(client: &Client, of: Option<&str>) -> Result<Value> {
    let Some(of) = of else {
        return pages(client, "sessions", "");
    };
    let filter = if of.contains('/') {
        let id: SessionId = of.parse().map_err(Error::msg)?;
        format!("&zone={}&ue={}", id.zone, id.ue_address)
    } else {
        let ue: IpAddr = of.parse().map_err(|_| {
            anyhow!("`{of}` is not a UE: write its address, as 10.45.0.7, or with its zone, as 0/10.45.0.7")
        })?;
        format!("&ue={ue}")
    };
    let found = pages(client, "sessions", &filter)?;
    ensure!(found != json!([]), "there is no session of {of}");
    Ok(found)
}

/// Everything in a list that comes in pages.
fn pages(client: &Client, name: &str, filter: &str) -> Result<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let mut page = client.get(&format!("/mp2/v1/{name}?limit=10000{filter}{cursor}"))?;
        if let Value::Array(more) = page[name].take() {
            all.extend(more);
        }
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all.into()),
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
