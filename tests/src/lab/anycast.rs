//! Several MEC hosts that announce one VIP to a router, each with two backends.
//!
//! ```text
//!                           ┌── access0 [ site 1 ] app0, app1: backends a and b
//!  client ──── router (BIRD)├── access0 [ site 2 ] app0, app1
//! 10.45.0.7                 └── access0 [ site 3 ] app0, app1
//! ```
//!
//! The router takes the first site that announces. Sites run BIRD, and the third one FRR.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Daemon, Namespace, forward, http_get, program::Program, unique_name, wait};

/// The lab. Dropping it removes everything.
#[derive(Debug)]
pub struct Anycast {
    /// Who asks.
    pub client: Namespace,
    router: Namespace,
    /// The hosts, in the order of the router's preference.
    pub sites: Vec<Site>,
    directory: PathBuf,
    programs: Vec<Program>,
    keep: bool,
}

/// A MEC host with its applications.
#[derive(Debug)]
pub struct Site {
    /// The host.
    pub host: Namespace,
    /// edgesteer on it.
    pub daemon: Daemon,
    number: usize,
    apps: [Namespace; 2],
    servers: Mutex<[Option<Program>; 2]>,
    speakers: Vec<Program>,
    directory: PathBuf,
    keep: bool,
}

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

impl Anycast {
    /// The VIP.
    pub const VIP: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(203, 0, 113, 80)), 80);
    /// Octets that a long download has after the name of who serves it.
    pub const LONG: usize = 60 * 8192;

    /// So many sites, all running and announcing.
    pub fn start(sites: usize) -> Result<Self> {
        Self::named(&unique_name()?, sites)
    }

    /// The same with namespaces that are called `PREFIX-client` and so on; replaces one of the same name.
    pub fn named(prefix: &str, sites: usize) -> Result<Self> {
        let namespace = |name: &str| Namespace::create(&format!("{prefix}-{name}"));
        let directory = PathBuf::from(format!("/run/{prefix}-router"));
        fs::create_dir_all(&directory)?;
        let mut lab = Self {
            client: namespace("client")?,
            router: namespace("router")?,
            sites: Vec::new(),
            directory,
            programs: Vec::new(),
            keep: false,
        };
        lab.client.link("client0", (&lab.router, "clients"))?;
        lab.client
            .ip("addr add 10.45.0.7/24 dev client0\nroute add default via 10.45.0.1")?;
        lab.router
            .ip("link set lo up\naddr add 10.45.0.1/24 dev clients")?;
        forward(&lab.router)?;
        for number in 1..=sites {
            let host = namespace(&format!("site{number}"))?;
            let apps = [
                namespace(&format!("site{number}-a"))?,
                namespace(&format!("site{number}-b"))?,
            ];
            lab.sites.push(Site::new(number, host, apps, &lab.router)?);
        }
        lab.route()?;
        for site in &mut lab.sites {
            site.speak()?;
            site.serve(0)?;
            site.serve(1)?;
            site.daemon.start(&site.host)?;
        }
        for site in &lab.sites {
            site.wait_announced(true)?;
        }
        Ok(lab)
    }

    /// Leaves the lab in place, and what runs in it running, when the value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
        self.client.keep();
        self.router.keep();
        self.programs.iter_mut().for_each(Program::keep);
        self.sites.iter_mut().for_each(Site::keep);
    }

    /// BIRD on the router.
    fn route(&mut self) -> Result<()> {
        let sites = self.sites.iter().map(|site| {
            let (number, preference) = (site.number, 400 - 100 * site.number);
            format!(
                "protocol bgp site{number} from site {{ neighbor {} as {};
                 ipv4 {{ import filter {{ if net != 203.0.113.80/32 then reject; bgp_local_pref = {preference}; accept; }};
                         export none; }}; }}\n",
                site.address(2),
                65000 + number
            )
        });
        let text = format!(
            "router id 10.45.0.1;\nlog stderr all;\nprotocol device {{ scan time 1; }}
             protocol kernel {{ ipv4 {{ import none; export all; }}; }}
             template bgp site {{ local as 65000; hold time 3; keepalive time 1; connect delay time 1;
                                  connect retry time 1; error wait time 1, 2; }}\n{}",
            sites.collect::<String>()
        );
        self.programs
            .push(bird(&self.router, &self.directory, &text)?);
        Ok(())
    }

    /// Asks the VIP who serves. `None`: nobody answered in this time.
    pub fn ask(&self, patience: Duration) -> Option<String> {
        self.client.enter(|| ask(patience)).ok()
    }

    /// Sends so many octets to the VIP, and answers how many came back.
    pub fn echo(&self, octets: usize) -> io::Result<usize> {
        self.client.enter(|| {
            let mut stream = TcpStream::connect_timeout(&Self::VIP, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            stream.set_write_timeout(Some(Duration::from_secs(10)))?;
            write!(
                stream,
                "POST / HTTP/1.0\r\nContent-Length: {octets}\r\n\r\n"
            )?;
            stream.write_all(&vec![b'.'; octets])?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer.split("\r\n\r\n").nth(1).unwrap_or_default().len())
        })
    }

    /// Has the router send no more than this to the client at once, of which nobody else knows.
    pub fn narrow_to_client(&self, mtu: u16) -> Result<()> {
        let batch = format!("route change 10.45.0.0/24 dev clients mtu lock {mtu}");
        self.router.ip(&batch)
    }

    /// Makes the ports of the first site's backends narrow. They know, but tell the client that they take long segments.
    pub fn narrow_to_backends(&self, mtu: u16) -> Result<()> {
        let site = &self.sites[0];
        for (place, app) in site.apps.iter().enumerate() {
            site.host.ip(&format!("link set app{place} mtu {mtu}"))?;
            let router = format!("198.18.{}.1", 10 * site.number + place);
            app.ip(&format!(
                "route change default via {router} mtu lock {mtu} advmss 1460"
            ))?;
        }
        Ok(())
    }

    /// Begins a long download. It goes on as the caller reads it.
    pub fn download(&self) -> Result<TcpStream> {
        let begin = || -> io::Result<TcpStream> {
            let mut stream = TcpStream::connect_timeout(&Self::VIP, Duration::from_secs(2))?;
            stream.set_read_timeout(Some(Duration::from_secs(3)))?;
            stream.write_all(b"GET /long HTTP/1.0\r\n\r\n")?;
            Ok(stream)
        };
        self.client.enter(begin).context("cannot begin a download")
    }

    /// Cuts the cable of a site, at the router, or puts it back.
    pub fn cut(&self, site: usize, cut: bool) -> Result<()> {
        let state = if cut { "down" } else { "up" };
        self.router
            .ip(&format!("link set site{} {state}", site + 1))
    }

    /// The site that the router sends to, from 1.
    pub fn preferred(&self) -> Option<usize> {
        let mut command = self.router.command("ip");
        let output = command
            .args(["route", "get", "203.0.113.80"])
            .output()
            .ok()?;
        let words = String::from_utf8_lossy(&output.stdout);
        let device = words.split("dev site").nth(1)?;
        device.split(' ').next()?.parse().ok()
    }
}

fn ask(patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&Anycast::VIP, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    if body.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(body.to_owned())
}

/// BIRD in a namespace with this configuration.
fn bird(namespace: &Namespace, directory: &std::path::Path, text: &str) -> Result<Program> {
    let configuration = directory.join("bird.conf");
    fs::write(&configuration, text)?;
    let mut command = namespace.command("bird");
    command.arg("-f").arg("-c").arg(configuration);
    command.arg("-s").arg(directory.join("bird.ctl"));
    Program::start(command, directory, "bird")
}

impl Site {
    fn new(
        number: usize,
        host: Namespace,
        apps: [Namespace; 2],
        router: &Namespace,
    ) -> Result<Self> {
        let directory = PathBuf::from(format!("/run/{}-programs", host.name()));
        fs::create_dir_all(&directory)?;
        // FRR works as another user.
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o777))?;
        let far = format!("site{number}");
        host.link("access0", (router, &far))?;
        router.prepare_far_end(&far)?;
        let link = |end| format!("192.0.2.{}", 16 * number + end);
        router.ip(&format!("addr add {}/28 dev {far}", link(1)))?;
        host.ip(&format!(
            "link set lo up\naddr add {}/28 dev access0\nroute add default via {}",
            link(2),
            link(1)
        ))?;
        forward(&host)?;
        for (place, app) in apps.iter().enumerate() {
            let port = format!("app{place}");
            host.link(&port, (app, "eth0"))?;
            app.prepare_far_end("eth0")?;
            let network = format!("198.18.{}", 10 * number + place);
            host.ip(&format!("addr add {network}.1/24 dev {port}"))?;
            app.ip(&format!(
                "link set lo up\naddr add {network}.2/24 dev eth0\nroute add default via {network}.1"
            ))?;
        }
        let port = |name: &str, role: &str| {
            format!("[[port]]\nname = '{name}'\ninterface = '{name}'\nrole = '{role}'\n")
        };
        let ports = [
            port("access0", "access"),
            port("app0", "app"),
            port("app1", "app"),
        ];
        let vip = "[vip]\nhold_down = 2\n";
        let daemon = Daemon::configured(&host, &(ports.concat() + vip), "{\"vips\": []}")?;
        let site = Self {
            host,
            daemon,
            number,
            apps,
            servers: Mutex::default(),
            speakers: Vec::new(),
            directory,
            keep: false,
        };
        site.say(["UP", "UP"])?;
        Ok(site)
    }

    fn address(&self, end: usize) -> String {
        format!("192.0.2.{}", 16 * self.number + end)
    }

    fn keep(&mut self) {
        self.keep = true;
        self.host.keep();
        self.daemon.keep();
        self.apps.iter_mut().for_each(Namespace::keep);
        self.speakers.iter_mut().for_each(Program::keep);
        let servers = self.servers.get_mut();
        let servers = servers.unwrap_or_else(PoisonError::into_inner);
        servers.iter_mut().flatten().for_each(Program::keep);
    }

    /// Says which backends should serve, and in which state.
    pub fn say(&self, states: [&str; 2]) -> Result<()> {
        let backends = states.iter().enumerate().map(|(place, state)| {
            let address = format!("198.18.{}.2", 10 * self.number + place);
            json!({"address": address, "port": 8080, "state": state, "x-port": format!("app{place}")})
        });
        let vip = json!({"vips": [{
            "vipId": "web", "address": "203.0.113.80", "protocol": "TCP", "port": 80, "mode": "DNAT",
            "backends": backends.collect::<Vec<_>>(), "announce": true, "fallback": {"action": "PASS"},
            "healthCheck": {"type": "TCP", "port": 8080, "intervalSeconds": 1, "timeoutSeconds": 1, "rise": 1, "fall": 1}
        }]});
        self.daemon.write_rules(&vip.to_string())
    }

    /// Starts a backend's server.
    pub fn serve(&self, place: usize) -> Result<()> {
        let name = format!("site{} {}", self.number, ["a", "b"][place]);
        let mut command = self.apps[place].command("python3");
        command.args(["-c", SERVER, &name]);
        let server = Program::start(command, &self.directory, &format!("server{place}"))?;
        self.replace_server(place, Some(server));
        Ok(())
    }

    /// Kills a backend's server. Its kernel refuses what comes.
    pub fn kill(&self, place: usize) {
        self.replace_server(place, None);
    }

    fn replace_server(&self, place: usize, server: Option<Program>) {
        // It holds whatever somebody panicked at.
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers[place] = server;
    }

    /// Starts the BGP speaker.
    pub fn speak(&mut self) -> Result<()> {
        let (own, router) = (self.address(2), self.address(1));
        let number = 65000 + self.number;
        if self.number < 3 {
            let text = format!(
                "router id {own};\nlog stderr all;\nprotocol device {{}}\nprotocol direct {{ interface \"lo\"; ipv4; }}
                 protocol bgp uplink {{ local as {number}; neighbor {router} as 65000; hold time 3; keepalive time 1;
                 connect delay time 1; connect retry time 1; error wait time 1, 2;
                 ipv4 {{ import none; export where source = RTS_DEVICE; }}; }}"
            );
            self.speakers
                .push(bird(&self.host, &self.directory, &text)?);
            return Ok(());
        }
        let text = format!(
            "router bgp {number}\n bgp router-id {own}\n no bgp ebgp-requires-policy\n timers bgp 1 3\n \
             neighbor {router} remote-as 65000\n neighbor {router} timers connect 1\n \
             address-family ipv4 unicast\n  redistribute connected\n"
        );
        for (name, text) in [("zebra", "hostname site\n"), ("bgpd", &*text)] {
            let configuration = self.directory.join(format!("{name}.conf"));
            fs::write(&configuration, text)?;
            let mut command = self.host.command(&format!("/usr/local/lib/frr/{name}"));
            command.args([
                "-u",
                "frr",
                "-g",
                "frr",
                "-A",
                "127.0.0.1",
                "-P",
                "0",
                "--log",
                "stdout",
                "-f",
            ]);
            command
                .arg(configuration)
                .arg("-z")
                .arg(self.directory.join("zserv.api"));
            command.arg("--vty_socket").arg(&self.directory);
            command
                .arg("-i")
                .arg(self.directory.join(format!("{name}.pid")));
            self.speakers
                .push(Program::start(command, &self.directory, name)?);
        }
        Ok(())
    }

    /// What edgesteer says of the VIP.
    pub fn status(&self) -> Result<Value> {
        let vips = self.daemon.get(&self.host, "vips")?;
        let vip = vips.as_array().and_then(|it| it.first()).cloned();
        Ok(vip.context("no VIP")?["status"].clone())
    }

    /// Packets that ended for a reason, on all ports.
    pub fn reason(&self, name: &str) -> Result<u64> {
        let metrics = http_get(&self.host, Daemon::METRICS.parse()?, "/metrics")?;
        let of_reason = |line: &&str| {
            line.starts_with("edgesteer_packets_total")
                && line.contains(&format!("reason=\"{name}\""))
        };
        let values = metrics
            .lines()
            .filter(of_reason)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        Ok(values.sum::<f64>() as u64)
    }

    /// Returns when the VIP is announced, or not.
    pub fn wait_announced(&self, announced: bool) -> Result<()> {
        wait("the announcement", || {
            let status = self.status()?;
            anyhow::ensure!(status["announced"] == announced, "{status}");
            Ok(())
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

impl Drop for Anycast {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}
