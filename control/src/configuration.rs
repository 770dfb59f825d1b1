//! What one source says, whole: the body of `/configuration` and of a rule file.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    mec::{self, Application, Refusal},
    session::Session,
    vip::Vip,
};

/// What it does not say stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Configuration {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) applications: Option<Vec<Application>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sessions: Option<Vec<Session>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vips: Option<Vec<Vip>>,
}

const EXPECTED: &str = "an application, a list of them or \
    {\"applications\": [..], \"sessions\": [..], \"vips\": [..]} is expected";

impl Configuration {
    /// Reads a configuration, a list of applications, or one application.
    pub(crate) fn read(value: Value) -> Result<Self, Refusal> {
        match value {
            Value::Array(_) => Ok(Self {
                applications: Some(mec::read_any(value)?),
                ..Self::default()
            }),
            Value::Object(ref map) if map.contains_key("appInstanceId") => Ok(Self {
                applications: Some(vec![mec::read(value)?]),
                ..Self::default()
            }),
            Value::Object(ref map) if map.is_empty() => Err(Refusal::new("", EXPECTED)),
            Value::Object(_) => mec::read(value),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                Err(Refusal::new("", EXPECTED))
            }
        }
    }
}
