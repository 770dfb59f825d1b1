//! Reading a list of traffic rules as platforms really send it.

use std::collections::BTreeSet;

use dataplane_user::rule::AppInstanceId;
use serde_json::{Map, Value};

use crate::mec::{self, Interface, Refusal, TrafficRule};

/// The rules of an application after an answer.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Merged {
    /// Those that are good now, and for each that is not what it last was.
    pub(super) rules: Vec<TrafficRule>,
    /// What is wrong with the others.
    pub(super) refusals: Vec<Refusal>,
}

/// The elements of the list in an answer.
///
/// Besides the array of the standard: `null`, which is how Go writes an empty one; a single rule; an object with the array
/// as its only member.
pub(super) fn elements(body: &[u8]) -> Result<Vec<Value>, String> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    match value {
        Value::Array(elements) => Ok(elements),
        Value::Null => Ok(Vec::new()),
        Value::Object(object) => wrapped(object).ok_or_else(|| unexpected("another object")),
        Value::String(_) => Err(unexpected("a string")),
        Value::Number(_) => Err(unexpected("a number")),
        Value::Bool(_) => Err(unexpected("a boolean")),
    }
}

fn wrapped(mut object: Map<String, Value>) -> Option<Vec<Value>> {
    if object.contains_key("trafficRuleId") {
        return Some(vec![Value::Object(object)]);
    }
    let name = object.keys().next()?.clone();
    if object.len() > 1 || !name.to_ascii_lowercase().starts_with("trafficrule") {
        return None;
    }
    match object.remove(&name)? {
        Value::Array(elements) => Some(elements),
        rule @ Value::Object(_) => Some(vec![rule]),
        Value::Null => Some(Vec::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn unexpected(what: &str) -> String {
    format!("{what} where an array of traffic rules is expected")
}

/// Takes every good rule; one that is bad stays what it last was.
///
/// A bad element without an id may be any of the rules that are missing, so none of these is given up.
pub(super) fn merge(
    application: &AppInstanceId,
    interface: &Interface,
    before: &[TrafficRule],
    elements: Vec<Value>,
) -> Merged {
    let mut merged = Merged::default();
    let mut seen = BTreeSet::new();
    let mut nameless = false;
    for (index, element) in elements.into_iter().enumerate() {
        let element = mec::unwrap(element, "TrafficRule");
        let name = element.get("trafficRuleId").and_then(Value::as_str);
        let name = name.filter(|name| !name.is_empty()).map(str::to_owned);
        let rule = mec::read::<TrafficRule>(element).and_then(|rule| {
            mec::rule(&rule, application, interface)?;
            if seen.contains(&rule.traffic_rule_id) {
                let detail = format!("`{}` is the id of an earlier rule", rule.traffic_rule_id);
                return Err(Refusal::new("/trafficRuleId", detail));
            }
            Ok(rule)
        });
        match rule {
            Ok(rule) => {
                // An earlier version that was kept for a bad element gives way.
                merged
                    .rules
                    .retain(|other| other.traffic_rule_id != rule.traffic_rule_id);
                seen.insert(rule.traffic_rule_id.clone());
                merged.rules.push(rule);
            }
            Err(refusal) => {
                merged.refusals.push(refusal.below(&format!("/{index}")));
                nameless |= name.is_none();
                keep(&mut merged.rules, before, |old| {
                    Some(old) == name.as_deref()
                });
            }
        }
    }
    if nameless {
        keep(&mut merged.rules, before, |_| true);
    }
    merged
}

/// Adds the earlier rules of these ids that are not there.
fn keep(rules: &mut Vec<TrafficRule>, before: &[TrafficRule], wanted: impl Fn(&str) -> bool) {
    for old in before {
        let id = &old.traffic_rule_id;
        if wanted(id) && !rules.iter().any(|rule| rule.traffic_rule_id == *id) {
            rules.push(old.clone());
        }
    }
}
