use std::{io::ErrorKind, path::PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use axum::http::{Method, Request, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    runtime::Runtime,
};

use crate::problem::Problem;

/// A daemon, reached anew for every question.
pub(super) struct Client {
    runtime: Runtime,
    server: Server,
}

enum Server {
    Unix(PathBuf),
    Tcp(String),
}

impl Client {
    pub(super) fn new(server: &str) -> Result<Self> {
        let server = if let Some(path) = server.strip_prefix("unix:") {
            Server::Unix(path.trim_start_matches("//").into())
        } else if let Some(authority) = server.strip_prefix("http://") {
            Server::Tcp(authority.trim_end_matches('/').to_owned())
        } else {
            bail!("`{server}` is not a server: write unix:PATH or http://HOST:PORT");
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self { runtime, server })
    }

    pub(super) fn get(&self, path: &str) -> Result<Value> {
        self.send(Method::GET, path, None)
    }

    /// The answer; what the daemon refuses is an error with its words.
    pub(super) fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let body = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "edgesteer")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let (status, body) = self.runtime.block_on(self.exchange(request))?;
        if (200..300).contains(&status) {
            return serde_json::from_slice(&body)
                .context("the answer of the daemon is not JSON; is it an edgesteer?");
        }
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Err(anyhow!("{problem}")),
            Err(_) => bail!("the daemon answered {status}"),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(u16, Bytes)> {
        match &self.server {
            Server::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(|error| {
                    let hint = if error.kind() == ErrorKind::PermissionDenied {
                        "only root and the group of the socket may; try sudo"
                    } else {
                        "the daemon does not run; start it with `edgesteer run`, or name another with --server"
                    };
                    anyhow!("cannot reach the daemon at {}: {error}: {hint}", path.display())
                })?;
                converse(stream, request).await
            }
            Server::Tcp(authority) => {
                let stream = TcpStream::connect(authority)
                    .await
                    .with_context(|| format!("cannot reach the daemon at http://{authority}"))?;
                converse(stream, request).await
            }
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<(u16, Bytes)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .context("the daemon closed the connection")?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}
