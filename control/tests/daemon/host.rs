//! A MEC host in a network namespace of its own, and the program on it.

use std::{
    fs::{self, Permissions},
    io::{Read as _, Write as _},
    net::UdpSocket,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use dataplane_user::netlink::Namespace;
use serde_json::Value;
use tempfile::TempDir;

/// How long the daemon may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What is between the ports and the sources in every configuration.
const CONFIGURATION: &str = "
[[port]]
name = 'access0'
interface = 'access0'
role = 'access'
pair = 'core0'
[[port]]
name = 'core0'
interface = 'core0'
role = 'core'
pair = 'access0'
[[port]]
name = 'app0'
interface = 'app0'
role = 'app'
";

/// Ports `access0`, `core0` and `app0`, each with its far end beside it, and an application at 198.18.1.2 behind the last.
pub(crate) struct Host {
    namespace: Namespace,
    directory: TempDir,
    pins: PathBuf,
}

/// A daemon that runs; dropping it kills it.
pub(crate) struct Daemon {
    process: Child,
    /// Where it tells systemd how it is.
    notices: UnixDatagram,
}

impl Host {
    pub(crate) fn new() -> Self {
        let directory = TempDir::with_prefix("edgesteer-").unwrap();
        let pins = Path::new("/sys/fs/bpf").join(directory.path().file_name().unwrap());
        let host = Self {
            namespace: Namespace::create().expect("making network namespaces needs root"),
            directory,
            pins,
        };
        for port in ["access0", "core0", "app0"] {
            host.shell(&format!(
                "ip link add {port} numrxqueues 4 numtxqueues 4 type veth peer name far-{port} numrxqueues 4 numtxqueues 4 &&
                 ip link set {port} up && ip link set far-{port} up && ethtool -K far-{port} gro on tx off >/dev/null"
            ));
        }
        host.shell(
            "ip address add 198.18.1.1/24 dev app0 &&
             ip neighbor add 198.18.1.2 lladdr 02:00:00:00:0a:02 nud permanent dev app0",
        );
        fs::create_dir(host.path("rules.d")).unwrap();
        host.configure("");
        host
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes the configuration: the ports, and whatever else.
    pub(crate) fn configure(&self, rest: &str) {
        self.write_configuration(CONFIGURATION, rest);
    }

    /// The same, where UEs are behind tunnels.
    pub(crate) fn configure_gtpu(&self, rest: &str) {
        let ports = CONFIGURATION.replace("\npair", "\nencapsulation = 'gtpu'\npair");
        self.write_configuration(&ports, rest);
    }

    fn write_configuration(&self, ports: &str, rest: &str) {
        let directory = self.directory.path().display();
        let text = format!(
            "[node]\nstate_directory = '{directory}/state'\npin_directory = '{}'\n\
             [api]\nsocket = '{directory}/api.sock'\n{ports}\n{rest}",
            self.pins.display()
        );
        fs::write(self.path("edgesteer.toml"), text).unwrap();
    }

    /// The section that makes the rule files of this host a source.
    pub(crate) fn files(&self) -> String {
        format!(
            "[source.files]\ndirectory = '{}'\n",
            self.path("rules.d").display()
        )
    }

    /// Starts the daemon as root.
    pub(crate) fn start(&self) -> Daemon {
        self.spawn(Command::new(env!("CARGO_BIN_EXE_edgesteer")))
    }

    /// Starts the daemon as a user who has nothing but these capabilities, named as systemd does.
    pub(crate) fn start_with(&self, capabilities: &[&str]) -> Daemon {
        const NOBODY: u32 = 65534;
        let program = self.path("edgesteer");
        if !program.exists() {
            // Nobody may see what is in root's own directories.
            fs::copy(env!("CARGO_BIN_EXE_edgesteer"), &program).unwrap();
        }
        fs::create_dir_all(&self.pins).unwrap();
        for path in [self.directory.path(), &self.pins] {
            chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let names = capabilities
            .iter()
            .map(|name| name.replace("CAP_", ",+").to_lowercase());
        let set = format!("-all{}", names.collect::<String>());
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid=65534",
                "--regid=65534",
                "--clear-groups",
                "--no-new-privs",
            ])
            .args(["--inh-caps", "--ambient-caps", "--bounding-set"].map(|o| format!("{o}={set}")))
            .arg(program);
        self.spawn(command)
    }

    fn spawn(&self, mut command: Command) -> Daemon {
        let socket = self.path("notify");
        let _ = fs::remove_file(&socket);
        let notices = UnixDatagram::bind(&socket).unwrap();
        fs::set_permissions(&socket, Permissions::from_mode(0o666)).unwrap();
        let log = fs::File::create(self.path("log")).unwrap();
        command
            .args(["run", "--config"])
            .arg(self.path("edgesteer.toml"))
            .env("NOTIFY_SOCKET", socket)
            .stdin(Stdio::null())
            .stderr(log);
        let process = self.namespace.run(|| command.spawn()).unwrap().unwrap();
        Daemon { process, notices }
    }

    /// What the daemon logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// Waits until the daemon has logged this.
    #[track_caller]
    pub(crate) fn logs(&self, words: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(Instant::now() < end, "no `{words}` in {}", self.log());
            sleep(Duration::from_millis(50));
        }
    }

    /// Runs the command line and returns what it printed and its exit code.
    pub(crate) fn edgesteer(&self, arguments: &[&str]) -> (String, i32) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edgesteer"));
        command.args(arguments);
        if ["doctor", "detach"].contains(&arguments[0]) {
            command.arg("--config").arg(self.path("edgesteer.toml"));
        }
        if arguments[0] != "detach" {
            let server = format!("unix:{}", self.path("api.sock").display());
            command.args(["--server", &server]);
        }
        let output = self.namespace.run(|| command.output()).unwrap().unwrap();
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        (
            String::from_utf8([stdout, stderr].concat()).unwrap(),
            status.code().unwrap(),
        )
    }

    /// What a command printed that has to succeed.
    #[track_caller]
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        let (text, code) = self.edgesteer(arguments);
        assert_eq!(code, 0, "{arguments:?}: {text}\n{}", self.log());
        text
    }

    /// The JSON that a command printed.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.said(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// What a command said that has to be refused.
    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str]) -> String {
        let (text, code) = self.edgesteer(arguments);
        assert_eq!(code, 1, "{arguments:?}: {text}");
        text
    }

    /// The daemon's metrics.
    pub(crate) fn metrics(&self) -> String {
        let mut stream = UnixStream::connect(self.path("api.sock")).unwrap();
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A socket whose packets to this service come in by `access0`.
    pub(crate) fn service(&self, address: &str) -> UdpSocket {
        let service = address.split(':').next().unwrap();
        self.shell(&format!(
            "ip address add 10.45.0.9/32 dev far-access0 && ip route add {service} dev far-access0 src 10.45.0.9 &&
             ip neighbor add {service} lladdr 02:00:00:00:00:09 nud permanent dev far-access0"
        ));
        let socket = self.namespace.run(|| UdpSocket::bind("0.0.0.0:0"));
        let socket = socket.unwrap().unwrap();
        socket.connect(address).unwrap();
        socket
    }

    /// Does something where the daemon is.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.run(work).unwrap()
    }

    #[track_caller]
    pub(crate) fn shell(&self, script: &str) {
        let mut command = Command::new("sh");
        command.args(["-ec", script]);
        let output = self.namespace.run(|| command.output()).unwrap().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {words}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The program leaves the interfaces with the namespace.
        let _ = fs::remove_dir_all(&self.pins);
    }
}

impl Daemon {
    /// The next notice that begins so; those before it are passed over. None if there is none in this time.
    pub(crate) fn notice(&self, start: &str, time: Duration) -> Option<String> {
        let end = Instant::now() + time;
        let mut buffer = [0; 4096];
        loop {
            let left = end.checked_duration_since(Instant::now())?;
            self.notices
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))
                .unwrap();
            let Ok(length) = self.notices.recv(&mut buffer) else {
                continue;
            };
            let notice = String::from_utf8_lossy(&buffer[..length]);
            if let Some(line) = notice.lines().find(|line| line.starts_with(start)) {
                return Some(line.to_owned());
            }
        }
    }

    /// Waits until rules are in force.
    #[track_caller]
    pub(crate) fn ready(self, host: &Host) -> Self {
        let ready = self.notice("READY=1", PATIENCE);
        assert!(ready.is_some(), "not ready: {}", host.log());
        self
    }

    /// Whether it ended by itself, and badly.
    pub(crate) fn fails(mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.process.try_wait().unwrap() {
                return !status.success();
            }
            sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends it as systemd does; whether it ended well.
    pub(crate) fn stop(mut self) -> bool {
        let id = self.process.id().to_string();
        Command::new("kill").arg(id).status().unwrap();
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.process.try_wait().unwrap() {
                let stopping = self.notice("STOPPING=1", Duration::from_millis(100));
                return status.success() && stopping.is_some();
            }
            sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
