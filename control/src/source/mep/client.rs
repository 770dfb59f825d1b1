//! One request to a platform, and every way in which it can go wrong.

use std::{fs, io, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use ureq::{
    Agent, Error,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, ETAG, IF_NONE_MATCH, RETRY_AFTER},
    },
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::super::{Failure, Reason};

/// The longest list of rules that is read.
const LARGEST: u64 = 16 << 20;
/// For the connection alone; the whole answer has the time that was configured.
const CONNECT: Duration = Duration::from_secs(3);
const REDIRECTS: u32 = 3;

/// What a platform answered.
#[derive(Debug)]
pub(super) enum Answer {
    /// A document.
    Document {
        /// Its bytes, whatever they are.
        body: Vec<u8>,
        /// Its version.
        etag: Option<String>,
    },
    /// Nothing changed since the version that was named.
    Unchanged,
    /// There is no such thing.
    Missing,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What to report.
    pub(super) failure: Failure,
    /// When the platform wants to be asked again.
    pub(super) retry_after: Option<Duration>,
}

/// An HTTP client for one platform.
pub(super) struct Client(Agent);

impl Client {
    /// `authority` is a file of certificates in PEM form to trust instead of the public ones.
    pub(super) fn new(timeout: Duration, authority: Option<&Path>) -> Result<Self> {
        let roots = match authority {
            Some(path) => RootCerts::new_with_certs(&certificates(path)?),
            None => RootCerts::WebPki,
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(REDIRECTS)
            // A platform may close an idle connection just when the next request is on its way.
            .max_idle_connections(0)
            .timeout_connect(Some(CONNECT.min(timeout)))
            .timeout_global(Some(timeout))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("edgesteer/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self(config.into()))
    }

    /// Asks for a document, unless it still has the version `known`.
    pub(super) fn get(&self, url: &str, known: Option<&str>) -> Result<Answer, Trouble> {
        let mut request = self.0.get(url).header(ACCEPT, "application/json");
        if let Some(etag) = known {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let mut response = request.call().map_err(|error| trouble(url, &error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_MODIFIED if known.is_some() => return Ok(Answer::Unchanged),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Answer::Missing),
            status => {
                return Err(Trouble {
                    failure: Failure::new(Reason::Status, url, format_args!("answered {status}")),
                    retry_after: retry_after(response.headers()),
                });
            }
        }
        let etag = response.headers().get(ETAG);
        let etag = etag
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let body = response.body_mut().with_config().limit(LARGEST);
        let body = body.read_to_vec().map_err(|error| trouble(url, &error))?;
        Ok(Answer::Document { body, etag })
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let hint = || format!("cannot read certificates from {}", path.display());
    let text = fs::read(path).with_context(hint)?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.with_context(hint)? {
            certificates.push(certificate);
        }
    }
    ensure!(
        !certificates.is_empty(),
        "there is no certificate in {}",
        path.display()
    );
    Ok(certificates)
}

fn trouble(url: &str, error: &Error) -> Trouble {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum is open, and most of it cannot happen to a GET"
    )]
    let reason = match error {
        Error::Timeout(_) => Reason::Timeout,
        Error::HostNotFound | Error::ConnectionFailed | Error::Tls(_) | Error::Rustls(_) => {
            Reason::Unreachable
        }
        Error::Io(error) if error.kind() == io::ErrorKind::TimedOut => Reason::Timeout,
        Error::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Reason::Malformed,
        Error::Io(_) => Reason::Unreachable,
        Error::TooManyRedirects | Error::RedirectFailed => Reason::Redirect,
        Error::BodyExceedsLimit(_) => Reason::TooLarge,
        _ => Reason::Malformed,
    };
    Trouble {
        failure: Failure::new(reason, url, error),
        retry_after: None,
    }
}

/// Seconds; the form with a date is rare and not worth a calendar.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse();
    seconds.ok().map(Duration::from_secs)
}
