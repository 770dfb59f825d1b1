//! What requests and answers have in common: bodies, entity tags, preconditions.

use axum::{
    body::Bytes,
    extract::rejection::{BytesRejection, QueryRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

/// A JSON body, whatever is in it.
pub(super) fn json(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Value, Problem> {
    let media = headers
        .get(header::CONTENT_TYPE)
        .map(|value| value.to_str().unwrap_or_default());
    let media = media.map(|value| {
        value
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase()
    });
    if media
        .as_ref()
        .is_some_and(|media| media != "application/json" && !media.ends_with("+json"))
    {
        let detail = "send Content-Type: application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = body.map_err(|rejection| Problem::new(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))
}

/// A refused query string.
pub(super) fn query(rejection: QueryRejection) -> Problem {
    Problem::bad_request(rejection.body_text())
}

/// The strong entity tag of a representation: of the very bytes that an answer carries.
pub(super) fn etag(bytes: &[u8]) -> String {
    format!(
        "\"{}\"",
        crate::dataplane::hex(&Sha256::digest(bytes)[..16])
    )
}

fn bytes(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// A resource with its tag; 304 when the client has it already.
pub(super) fn resource(headers: &HeaderMap, value: &impl Serialize) -> Response {
    let body = bytes(value);
    let tag = etag(&body);
    let known = list(headers, &header::IF_NONE_MATCH);
    if known
        .iter()
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    {
        return (StatusCode::NOT_MODIFIED, [(header::ETAG, tag)]).into_response();
    }
    (
        [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::ETAG, tag),
        ],
        body,
    )
        .into_response()
}

/// The header with the tag of a resource whose representation is not the body.
pub(super) fn tag_of(value: &impl Serialize) -> [(HeaderName, String); 1] {
    [(header::ETAG, etag(&bytes(value)))]
}

fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    let values = headers
        .get_all(name)
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    values
        .flat_map(|value| {
            value
                .split(',')
                .map(|tag| tag.trim().to_owned())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// `If-Match` (RFC 9110, 13.1.1). What is no entity tag matches nothing, which is 412 and not 400.
#[derive(Clone, Debug)]
pub(super) struct Precondition(Vec<String>);

impl Precondition {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self(list(headers, &header::IF_MATCH))
    }

    /// Whether the resource is, if it exists, what the client thinks it is.
    pub(super) fn check(&self, current: Option<&impl Serialize>) -> Result<(), Problem> {
        if self.0.is_empty() {
            return Ok(());
        }
        let tag = current.map(|value| etag(&bytes(value)));
        let holds =
            tag.is_some_and(|tag| self.0.iter().any(|wanted| wanted == "*" || *wanted == tag));
        let detail = "the resource is not what If-Match says: read it again";
        holds
            .then_some(())
            .ok_or_else(|| Problem::new(StatusCode::PRECONDITION_FAILED, detail))
    }
}
