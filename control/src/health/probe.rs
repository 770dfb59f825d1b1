//! One check: what is asked of a backend, and what its answer means.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    Check, Kind,
    ping::Pinger,
    verdict::{Finding, Outcome},
};

/// A connection whose check is over may take so long to end in good order: closing it while the backend still sends would reset it,
/// which fills the logs of many a server.
const FAREWELL: Duration = Duration::from_millis(100);
/// What a backend still sends is read up to here, octets.
const REST: usize = 64 * 1024;
/// A status line and headers that are longer are no answer, octets.
const HEAD: usize = 16 * 1024;

/// What remains to be done once the finding is there.
type Farewell = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Why a check did not pass.
#[derive(Debug)]
struct Failure {
    outcome: Outcome,
    reason: String,
}

/// Makes a check.
pub(super) async fn probe(check: &Check, pinger: &Pinger) -> (Finding, Farewell) {
    let start = Instant::now();
    let backend = SocketAddr::new(check.address, check.port);
    let attempt = async {
        match &check.kind {
            Kind::Tcp => tcp(backend).await,
            Kind::Http { path } => http(backend, path).await,
            Kind::Icmp => icmp(check, pinger).await,
        }
    };
    let result = timeout(check.timeout, attempt).await;
    let failure = match result {
        Ok(Ok(farewell)) => {
            let finding = Finding {
                latency: Some(start.elapsed()),
                ..Finding::of(Outcome::Passed)
            };
            return (finding, farewell);
        }
        Ok(Err(failure)) => failure,
        Err(_) => Failure {
            outcome: Outcome::TimedOut,
            reason: format!("no answer in {:?}", check.timeout),
        },
    };
    let finding = Finding {
        reason: Some(failure.reason),
        ..Finding::of(failure.outcome)
    };
    (finding, Box::pin(std::future::ready(())))
}

async fn tcp(backend: SocketAddr) -> Result<Farewell, Failure> {
    let stream = TcpStream::connect(backend).await?;
    Ok(Box::pin(part(stream)))
}

/// Closes our direction, and the connection once the backend has closed its own.
async fn part(mut stream: TcpStream) {
    let rest = async {
        stream.shutdown().await?;
        let (mut seen, mut buffer) = (0, [0; 1024]);
        while seen < REST {
            match stream.read(&mut buffer).await? {
                0 => break,
                length => seen += length,
            }
        }
        io::Result::Ok(())
    };
    // Whatever it does, the check is over.
    let _ = timeout(FAREWELL, rest).await;
}

async fn http(backend: SocketAddr, path: &str) -> Result<Farewell, Failure> {
    let request = Request::get(path)
        .header(header::HOST, backend.to_string())
        .header(
            header::USER_AGENT,
            concat!("edgesteer/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Failure {
            outcome: Outcome::Unchecked,
            reason: format!("the path `{path}` cannot be asked for: {error}"),
        })?;
    let stream = TcpStream::connect(backend).await?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = Box::pin(connection);
    let response = {
        let mut answer = pin!(sender.send_request(request));
        tokio::select! {
            answer = &mut answer => answer?,
            // It holds the answer, or the reason why there is none.
            ended = &mut connection => { ended?; answer.await? }
        }
    };
    let status = response.status();
    if !status.is_success() && !status.is_redirection() {
        return Err(Failure {
            outcome: Outcome::WrongAnswer,
            reason: format!("HTTP status {status}"),
        });
    }
    Ok(Box::pin(async move {
        let rest = async { tokio::join!(connection, read(response)) };
        let _ = timeout(FAREWELL, rest).await;
    }))
}

/// Takes what there is of a body.
async fn read(response: Response<Incoming>) {
    let mut body = response.into_body();
    let mut seen = 0;
    while let Some(Ok(frame)) = body.frame().await {
        seen += frame.data_ref().map_or(0, Bytes::len);
        if seen > REST {
            return;
        }
    }
}

async fn icmp(check: &Check, pinger: &Pinger) -> Result<Farewell, Failure> {
    pinger.echo(check.address).await?;
    Ok(Box::pin(std::future::ready(())))
}

impl Finding {
    /// With nothing more to say.
    pub(super) const fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            reason: None,
            latency: None,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        use io::ErrorKind::{
            ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable,
        };
        let kinds: [(&[io::ErrorKind], Outcome); 3] = [
            (&[ConnectionRefused, ConnectionReset], Outcome::Refused),
            (&[io::ErrorKind::TimedOut], Outcome::TimedOut),
            (
                &[HostUnreachable, NetworkUnreachable, NetworkDown],
                Outcome::Unreachable,
            ),
        ];
        let found = kinds.iter().find(|(of, _)| of.contains(&error.kind()));
        // Others are ours: no descriptors, ports or memory left, or not permitted.
        let outcome = found.map_or(Outcome::Unchecked, |(_, outcome)| *outcome);
        Self {
            outcome,
            reason: error.to_string(),
        }
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        let source = std::error::Error::source(&error);
        let reason = source.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
        Self {
            outcome: Outcome::WrongAnswer,
            reason: format!("no HTTP answer: {reason}"),
        }
    }
}
