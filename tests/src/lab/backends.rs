//! The backends of a VIP at one host: web servers, each in a namespace of its own.

use std::{
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use serde_json::{Value, json};

use super::{Namespace, program::Program};

/// The VIP.
pub(super) const VIP: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)), 80);
/// Octets that a long download has after the name of who serves it.
pub const LONG: usize = 60 * 8192;

/// Serves its name at once, and at `/long` piece by piece for some seconds; gives back what is posted.
const SERVER: &str = r#"
import http.server, socketserver, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(sys.argv[1].encode())
        if self.path == "/long":
            for piece in range(60):
                self.wfile.write(b"." * 8192)
                time.sleep(0.1)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *words): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128
Server(("", 8080), Handler).serve_forever()
"#;
/// Two of them, `a` behind `app0` and `b` behind `app1`.
#[derive(Debug)]
pub(super) struct Backends {
    /// The name of the host in answers.
    site: String,
    /// 198.18.NETWORK.0/24 is that of the first, and the next one that of the second.
    network: usize,
    pub(super) apps: [Namespace; 2],
    servers: Mutex<[Option<Program>; 2]>,
    directory: PathBuf,
}

impl Backends {
    /// Ports for both on the host, and no servers yet; their logs go to `directory`.
    pub(super) fn new(
        site: &str,
        network: usize,
        apps: [Namespace; 2],
        host: &Namespace,
        directory: PathBuf,
    ) -> Result<Self> {
        for (place, app) in apps.iter().enumerate() {
            let port = format!("app{place}");
            host.link(&port, (app, "eth0"))?;
            app.prepare_far_end("eth0")?;
            let network = format!("198.18.{}", network + place);
            host.ip(&format!("addr add {network}.1/24 dev {port}"))?;
            app.ip(&format!(
                "link set lo up\naddr add {network}.2/24 dev eth0\nroute add default via {network}.1"
            ))?;
        }
        Ok(Self {
            site: site.to_owned(),
            network,
            apps,
            servers: Mutex::default(),
            directory,
        })
    }

    /// What their VIP says of them, with these states.
    pub(super) fn say(&self, states: [&str; 2]) -> Value {
        let backends = states.iter().enumerate().map(|(place, state)| {
            let address = format!("198.18.{}.2", self.network + place);
            json!({"address": address, "port": 8080, "state": state, "x-port": format!("app{place}")})
        });
        backends.collect()
    }

    /// Makes their ports narrow. They know, but tell the client that they take long segments.
    pub(super) fn narrow(&self, host: &Namespace, mtu: u16) -> Result<()> {
        for (place, app) in self.apps.iter().enumerate() {
            host.ip(&format!("link set app{place} mtu {mtu}"))?;
            let router = format!("198.18.{}.1", self.network + place);
            app.ip(&format!(
                "route change default via {router} mtu lock {mtu} advmss 1460"
            ))?;
        }
        Ok(())
    }

    /// Starts a backend's server.
    pub(super) fn serve(&self, place: usize) -> Result<()> {
        let name = format!("{} {}", self.site, ["a", "b"][place]);
        let mut command = self.apps[place].command("python3");
        command.args(["-c", SERVER, &name]);
        let server = Program::start(command, &self.directory, &format!("server{place}"))?;
        self.replace(place, Some(server));
        Ok(())
    }

    /// Kills a backend's server. Its kernel refuses what comes.
    pub(super) fn kill(&self, place: usize) {
        self.replace(place, None);
    }

    fn replace(&self, place: usize, server: Option<Program>) {
        // It holds whatever somebody panicked at.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers[place] = server;
    }

    pub(super) fn keep(&mut self) {
        self.apps.iter_mut().for_each(Namespace::keep);
        let servers = self.servers.get_mut();
        let servers = servers.unwrap_or_else(PoisonError::into_inner);
        servers.iter_mut().flatten().for_each(Program::keep);
    }
}

/// Asks the VIP who serves.
pub(super) fn ask(patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&VIP, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let body = body(&mut stream)?;
    if body.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body)
}

/// Sends so many octets to the VIP, and answers how many came back.
pub(super) fn echo(octets: usize) -> io::Result<usize> {
    let mut stream = TcpStream::connect_timeout(&VIP, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "POST / HTTP/1.0\r\nContent-Length: {octets}\r\n\r\n"
    )?;
    stream.write_all(&vec![b'.'; octets])?;
    Ok(body(&mut stream)?.len())
}

/// Begins a long download. It goes on as the caller reads it.
pub(super) fn download() -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&VIP, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(b"GET /long HTTP/1.0\r\n\r\n")?;
    Ok(stream)
}

fn body(stream: &mut TcpStream) -> io::Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer
        .split("\r\n\r\n")
        .nth(1)
        .unwrap_or_default()
        .to_owned())
}
