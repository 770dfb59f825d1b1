//! The daemon dies under traffic and comes back: no packet is lost and no counter starts over.
#![expect(clippy::unwrap_used, reason = "what fails in a step fails the test")]

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tests::lab::{Lab, Mode, Namespace, http_get, run};

const RULES: &str = r#"{
  "appInstanceId": "video",
  "trafficRules": [{
    "trafficRuleId": "all",
    "filterType": "FLOW",
    "priority": 10,
    "trafficFilter": [{ "dstAddress": ["203.0.113.9"] }],
    "action": "FORWARD_DECAPSULATED",
    "dstInterface": [{ "interfaceType": "IP", "dstIpAddress": "198.18.1.2", "x-nat": true }],
    "state": "ACTIVE"
  }]
}"#;
/// Where the daemon serves metrics, in the namespace of the host.
const METRICS: &str = "127.0.0.1:9464";
/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);
/// Datagrams that are sent, and the time between two.
const DATAGRAMS: u32 = 3_000;
const GAP: Duration = Duration::from_millis(1);

#[test]
fn no_packet_and_no_counter_is_lost() {
    let lab = Lab::new(Mode::Wire).unwrap();
    let _servers = lab.serve().unwrap();
    let service = SocketAddr::new(Lab::SERVICE, Lab::PORT);
    let mut daemon = Daemon::new(&lab.host).unwrap();
    daemon.start(&lab.host).unwrap();
    wait("steering", || {
        let answer = http_get(&lab.ue, service, "/")?;
        ensure!(answer == "app-a: GET /", "{answer}");
        Ok(())
    });
    let before = daemon.rule_packets(&lab.host).unwrap();

    let socket = lab.ue.enter(|| {
        let socket = UdpSocket::bind("10.45.0.7:0").unwrap();
        socket.connect(service).unwrap();
        socket
    });
    let own = socket.local_addr().unwrap().port();
    let answers = thread::scope(|scope| {
        let traffic = scope.spawn(|| exchange(&socket));
        thread::sleep(Duration::from_millis(500));
        daemon.kill();
        thread::sleep(Duration::from_millis(500));
        http_get(&lab.ue, service, "/alone").expect("new flows are steered without a daemon");
        daemon.start(&lab.host).unwrap();
        traffic.join().unwrap()
    });
    assert_eq!(answers, DATAGRAMS, "datagrams answered by the application");

    let flow = daemon.flow(&lab.host, own).unwrap();
    for direction in ["upstream", "downstream"] {
        let packets = flow[direction]["packets"].as_u64();
        assert_eq!(packets, Some(DATAGRAMS.into()), "{direction}: {flow}");
    }
    let counted = daemon.rule_packets(&lab.host).unwrap() - before;
    assert!(
        counted >= 2 * u64::from(DATAGRAMS),
        "the rule counted {counted} packets"
    );
}

/// Sends all datagrams and counts the answers of the application.
fn exchange(socket: &UdpSocket) -> u32 {
    socket
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            let mut buffer = [0; 64];
            let mut seen = vec![false; DATAGRAMS as usize];
            while let Ok(length) = socket.recv(&mut buffer) {
                let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
                let number = answer
                    .strip_prefix("app-a: ")
                    .expect("the application answers");
                seen[number.parse::<usize>().unwrap()] = true;
                if seen.iter().all(|seen| *seen) {
                    break;
                }
            }
            seen.iter().filter(|seen| **seen).count() as u32
        });
        for number in 0..DATAGRAMS {
            socket.send(number.to_string().as_bytes()).unwrap();
            thread::sleep(GAP);
        }
        receiver.join().unwrap()
    })
}

/// The daemon, in the namespace of the host.
struct Daemon {
    program: PathBuf,
    directory: PathBuf,
    pins: PathBuf,
    process: Option<Child>,
}

impl Daemon {
    fn new(host: &Namespace) -> Result<Self> {
        let id = host.name();
        let daemon = Self {
            program: build()?,
            directory: PathBuf::from(format!("/run/{id}")),
            pins: PathBuf::from(format!("/sys/fs/bpf/{id}")),
            process: None,
        };
        fs::create_dir_all(daemon.directory.join("rules.d"))?;
        fs::write(daemon.directory.join("rules.d/video.json"), RULES)?;
        fs::write(daemon.configuration(), daemon.text())?;
        Ok(daemon)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("edgesteer.toml")
    }

    fn text(&self) -> String {
        let port = |name: &str, role: &str, pair: &str| {
            format!("[[port]]\nname = '{name}'\ninterface = '{name}'\nrole = '{role}'\n{pair}\n")
        };
        let directory = self.directory.display();
        [
            format!(
                "[node]\nstate_directory = '{directory}/state'\npin_directory = '{}'\n",
                self.pins.display()
            ),
            port("access0", "access", "pair = 'core0'"),
            port("core0", "core", "pair = 'access0'"),
            port("app0", "app", ""),
            port("app1", "app", ""),
            format!("[api]\nsocket = '{directory}/api.sock'\n"),
            format!("[metrics]\nlisten = '{METRICS}'\n"),
            format!("[source.files]\ndirectory = '{directory}/rules.d'\n"),
        ]
        .concat()
    }

    fn start(&mut self, host: &Namespace) -> Result<()> {
        let log = fs::File::create(self.directory.join("log"))?;
        let mut command = host.command(&self.program.to_string_lossy());
        command.arg("run").arg("--config").arg(self.configuration());
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.process = Some(command.spawn()?);
        wait("the daemon", || {
            self.get(host, "flows")
                .map(drop)
                .with_context(|| fs::read_to_string(self.directory.join("log")).unwrap_or_default())
        });
        Ok(())
    }

    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn get(&self, host: &Namespace, kind: &str) -> Result<Value> {
        let mut command = host.command(&self.program.to_string_lossy());
        command.arg("--server");
        command.arg(format!("unix:{}/api.sock", self.directory.display()));
        let output = command.args(["get", kind, "-o", "json"]).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The flow of datagrams from this port of the UE.
    fn flow(&self, host: &Namespace, port: u16) -> Result<Value> {
        let flows = self.get(host, "flows")?;
        let is_ours = |flow: &&Value| {
            flow["sourcePort"].as_u64() == Some(port.into()) && flow["upstream"].is_object()
        };
        let found = objects(&flows).into_iter().find(is_ours);
        Ok(found
            .with_context(|| format!("no flow from {port}: {flows}"))?
            .clone())
    }

    /// Packets that the rule has counted.
    fn rule_packets(&self, host: &Namespace) -> Result<u64> {
        let metrics = http_get(host, METRICS.parse()?, "/metrics")?;
        let of_rule = |line: &str| {
            let is_it = line.contains("rule_packets_total{") && line.contains("video");
            is_it
                .then(|| line.rsplit(' ').next()?.parse::<f64>().ok())
                .flatten()
        };
        let packets = metrics.lines().find_map(of_rule);
        Ok(packets.with_context(|| format!("no rule counter:\n{metrics}"))? as u64)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.pins);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// All objects inside a JSON value, outermost first.
fn objects(value: &Value) -> Vec<&Value> {
    let inside: Vec<&Value> = match value {
        Value::Object(members) => members.values().collect(),
        Value::Array(elements) => elements.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    };
    let own = value.is_object().then_some(value);
    own.into_iter()
        .chain(inside.into_iter().flat_map(objects))
        .collect()
}

/// Builds the daemon as this test was built, and answers where it is.
fn build() -> Result<PathBuf> {
    let cargo = env!("CARGO");
    let mut command = Command::new(cargo);
    command.args([
        "build",
        "--quiet",
        "--package",
        "control",
        "--bin",
        "edgesteer",
    ]);
    run(command.current_dir(env!("CARGO_MANIFEST_DIR")))?;
    // This test is target/debug/deps/restart-HASH.
    let own = std::env::current_exe()?;
    let directory = own.parent().and_then(|deps| deps.parent());
    Ok(directory.context("no target directory")?.join("edgesteer"))
}

/// Tries again until it works.
fn wait(what: &str, mut attempt: impl FnMut() -> Result<()>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = attempt() {
        assert!(Instant::now() < deadline, "{what}: {error:#}");
        thread::sleep(Duration::from_millis(50));
    }
}
