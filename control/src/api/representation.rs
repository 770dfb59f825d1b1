//! What requests and answers have in common: bodies, entity tags, preconditions.

use std::error::Error;

use axum::{
    body::Bytes,
    extract::{self, FromRequest, FromRequestParts, Request, rejection::PathRejection},
    http::{HeaderMap, HeaderName, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::problem::Problem;

/// What a path has in the places of names.
pub(super) struct Path<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = extract::Path::from_request_parts(parts, state).await;
        let refused = |why: PathRejection| {
            let detail = format!(
                "{} is not the path of anything: {}",
                parts.uri.path(),
                cause(&why)
            );
            Problem::new(why.status(), detail)
        };
        path.map(|extract::Path(value)| Self(value))
            .map_err(refused)
    }
}

/// What a query says, and nothing else.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = extract::Query::try_from_uri(&parts.uri);
        query
            .map(|extract::Query(value)| Self(value))
            .map_err(|why| Problem::bad_request(format!("the query is wrong: {}", cause(&why))))
    }
}

/// The innermost reason, without what axum was doing at the time.
fn cause(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A JSON body, whatever is in it. Handlers take it as a result: what they look at first decides which error is answered.
pub(super) struct Document(pub(super) Value);

impl<S: Send + Sync> FromRequest<S> for Document {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let media = request.headers().get(header::CONTENT_TYPE);
        let media = media.map(|value| {
            let value = value.to_str().unwrap_or_default().to_ascii_lowercase();
            value
                .split(';')
                .next()
                .unwrap_or_default()
                .trim()
                .to_owned()
        });
        let known = |media: String| media == "application/json" || media.ends_with("+json");
        if !media.is_none_or(known) {
            let detail = "send Content-Type: application/json";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
        let body = Bytes::from_request(request, state).await.map_err(|why| {
            let detail = match why.status() {
                StatusCode::PAYLOAD_TOO_LARGE => {
                    "the body is too large: 1 MiB at the most, 16 MiB for /mp2/v1/configuration"
                        .to_owned()
                }
                _ => why.body_text(),
            };
            Problem::new(why.status(), detail)
        })?;
        let value = serde_json::from_slice(&body);
        value
            .map(Self)
            .map_err(|error| Problem::bad_request(format!("the body is not JSON: {error}")))
    }
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
