//! The program `edgesteer` on the MEC host of a lab.

use std::{
    env, fs,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Namespace, http_get, run};

/// How long the daemon may take for anything.
const PATIENCE: Duration = Duration::from_secs(20);

/// The daemon, in the namespace of the host. It goes with the value, and the program with it.
#[derive(Debug)]
pub struct Daemon {
    program: PathBuf,
    directory: PathBuf,
    pins: PathBuf,
    process: Option<Child>,
    keep: bool,
}

impl Daemon {
    /// Where it serves metrics, in the namespace of the host.
    pub const METRICS: &str = "127.0.0.1:9464";

    /// Builds it, and writes its configuration: the ports of a lab, these rules as they are said over Mp1, and
    /// for ports where packets come in tunnels between the endpoints of a [`Mobile`](super::Mobile).
    pub fn new(host: &Namespace, rules: &str, tunnels: bool) -> Result<Self> {
        Self::configured(host, &Self::ports(tunnels), rules)
    }

    /// The same with another configuration, but for where its files are.
    pub fn configured(host: &Namespace, configuration: &str, rules: &str) -> Result<Self> {
        let id = host.name();
        let daemon = Self {
            program: build()?,
            directory: PathBuf::from(format!("/run/{id}")),
            pins: PathBuf::from(format!("/sys/fs/bpf/{id}")),
            process: None,
            keep: false,
        };
        fs::create_dir_all(daemon.directory.join("rules.d"))?;
        daemon.write_rules(rules)?;
        fs::write(daemon.configuration(), daemon.text(configuration))?;
        Ok(daemon)
    }

    /// Leaves it running, and its files in place, when the value is dropped.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    /// Puts other rules in the place of those before; the daemon watches the file.
    pub fn write_rules(&self, rules: &str) -> Result<()> {
        // Renamed into place: the daemon never reads half a file.
        let new = self.directory.join("video.json.new");
        fs::write(&new, rules)?;
        Ok(fs::rename(new, self.directory.join("rules.d/video.json"))?)
    }

    fn configuration(&self) -> PathBuf {
        self.directory.join("edgesteer.toml")
    }

    fn ports(tunnels: bool) -> String {
        let port = |name: &str, role: &str, pair: &str| {
            format!("[[port]]\nname = '{name}'\ninterface = '{name}'\nrole = '{role}'\n{pair}\n")
        };
        let (inside, endpoints) = if tunnels {
            let endpoints = "[gtpu]\nran = ['192.0.2.0/29']\ncore = ['192.0.2.10']\n";
            ("encapsulation = 'gtpu'", endpoints)
        } else {
            ("", "")
        };
        let end = |pair: &str| format!("pair = '{pair}'\n{inside}");
        [
            port("access0", "access", &end("core0")),
            port("core0", "core", &end("access0")),
            port("app0", "app", inside),
            port("app1", "app", inside),
            endpoints.to_owned(),
        ]
        .concat()
    }

    fn text(&self, configuration: &str) -> String {
        let directory = self.directory.display();
        [
            format!(
                "[node]\nstate_directory = '{directory}/state'\npin_directory = '{}'\n",
                self.pins.display()
            ),
            configuration.to_owned(),
            format!("[api]\nsocket = '{directory}/api.sock'\n"),
            format!("[metrics]\nlisten = '{}'\n", Self::METRICS),
            format!("[source.files]\ndirectory = '{directory}/rules.d'\n"),
        ]
        .concat()
    }

    /// Starts it, and waits until it answers.
    pub fn start(&mut self, host: &Namespace) -> Result<()> {
        let log = fs::File::create(self.directory.join("log"))?;
        let mut command = host.command(&self.program.to_string_lossy());
        command.arg("run").arg("--config").arg(self.configuration());
        // Whoever started it decides when it ends, and not a Ctrl-C.
        command.process_group(0).stdin(Stdio::null());
        command.stdout(log.try_clone()?).stderr(log);
        self.process = Some(command.spawn()?);
        wait("the daemon", || {
            self.get(host, "flows")
                .map(drop)
                .with_context(|| fs::read_to_string(self.directory.join("log")).unwrap_or_default())
        })
    }

    /// Ends it without a chance to say goodbye.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Ends it as a service manager does.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            // SAFETY: no pointers are passed, and the child has not been waited for.
            unsafe { libc::kill(process.id() as libc::pid_t, libc::SIGTERM) };
            let status = process.wait()?;
            ensure!(status.success(), "it ended with {status}");
        }
        Ok(())
    }

    /// What `edgesteer get KIND -o json` prints.
    pub fn get(&self, host: &Namespace, kind: &str) -> Result<Value> {
        self.json(host, &["get", kind])
    }

    /// What `edgesteer explain -o json` prints of the first packet of a flow that comes by a port.
    pub fn explain(&self, host: &Namespace, port: &str, flow: &str) -> Result<Value> {
        self.json(host, &["explain", "--in", port, "--flow", flow])
    }

    fn json(&self, host: &Namespace, arguments: &[&str]) -> Result<Value> {
        let mut command = host.command(&self.program.to_string_lossy());
        command.arg("--server");
        command.arg(format!("unix:{}/api.sock", self.directory.display()));
        let output = command.args(arguments).args(["-o", "json"]).output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// What it says of its first VIP.
    pub fn vip(&self, host: &Namespace) -> Result<Value> {
        let vips = self.get(host, "vips")?;
        let vip = vips.as_array().and_then(|it| it.first()).cloned();
        Ok(vip.context("no VIP")?["status"].clone())
    }

    /// Packets that ended for a reason, on all ports.
    pub fn reason(&self, host: &Namespace, name: &str) -> Result<u64> {
        let metrics = http_get(host, Self::METRICS.parse()?, "/metrics")?;
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

    /// The flow from this port of the UE.
    pub fn flow(&self, host: &Namespace, port: u16) -> Result<Value> {
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
    pub fn rule_packets(&self, host: &Namespace) -> Result<u64> {
        let metrics = http_get(host, Self::METRICS.parse()?, "/metrics")?;
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
        if self.keep {
            return;
        }
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

/// Builds the daemon as this test was built, and answers where it is. A program that is no test was built together with it.
pub fn build() -> Result<PathBuf> {
    let own = env::current_exe()?;
    let directory = own.parent().context("no target directory")?;
    // A test is target/debug/deps/restart-HASH.
    let Some(directory) = directory.parent().filter(|_| directory.ends_with("deps")) else {
        let program = directory.join("edgesteer");
        ensure!(program.exists(), "{} is not built", program.display());
        return Ok(program);
    };
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
    Ok(directory.join("edgesteer"))
}

/// Tries again until it works, or fails as the last try did.
pub fn wait<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() > deadline => return Err(error.context(what.to_owned())),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    }
}
