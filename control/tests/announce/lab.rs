//! A host and its router in network namespaces, with real BGP speakers.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use control::announce::{Announcement, Announcer, Driver, OnExit};
use dataplane_user::netlink::Namespace;
use tempfile::TempDir;

/// The VIPs.
pub(crate) const VIPS: [&str; 2] = ["198.51.100.1", "2001:db8::51"];
/// How long anything but a time-out may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Where GoBGP serves its API.
const API: &str = "127.0.0.1:50051";

const ROUTER: &str = "
router id 10.0.0.2;
log stderr all;
protocol device {}
protocol static { ipv4; route 203.0.113.7/32 blackhole; }
template bgp host {
    local as 65000; connect retry time 1; connect delay time 1; error wait time 1, 2;
}
protocol bgp host4 from host { neighbor 10.0.0.1 as 65001; ipv4 { import all; export where source = RTS_STATIC; }; }
protocol bgp host6 from host { neighbor fd00::1 as 65001; ipv6 { import all; export none; }; }
";

const BIRD: &str = "
router id 10.0.0.1;
log stderr all;
protocol device {}
protocol direct { interface \"lo\"; ipv4; ipv6; }
template bgp uplink {
    local as 65001; connect retry time 1; connect delay time 1; error wait time 1, 2;
}
protocol bgp router4 from uplink { neighbor 10.0.0.2 as 65000; ipv4 { import none; export where source = RTS_DEVICE; }; }
protocol bgp router6 from uplink { neighbor fd00::2 as 65000; ipv6 { import none; export where source = RTS_DEVICE; }; }
";

const EXABGP: &str = "
process edgesteer { run SCRIPT PIPE; encoder text; }
neighbor 10.0.0.2 {
    router-id 10.0.0.1; local-address 10.0.0.1; local-as 65001; peer-as 65000;
    family { ipv4 unicast; }
    api { processes [ edgesteer ]; }
}
neighbor fd00::2 {
    router-id 10.0.0.1; local-address fd00::1; local-as 65001; peer-as 65000;
    family { ipv6 unicast; }
    api { processes [ edgesteer ]; }
}
";

const EXABGP_SETTINGS: [&str; 3] = [
    "exabgp.daemon.user=root",
    "exabgp.api.cli=false",
    "exabgp.api.ack=false",
];

const GOBGP: &str = r#"
[global.config]
    as = 65001
    router-id = "10.0.0.1"
[[neighbors]]
    [neighbors.config]
        neighbor-address = "10.0.0.2"
        peer-as = 65000
[[neighbors]]
    [neighbors.config]
        neighbor-address = "fd00::2"
        peer-as = 65000
"#;

/// What announces, and BIRD as the router that hears it.
pub(crate) struct Lab {
    host: Namespace,
    router: Namespace,
    directory: TempDir,
    programs: Vec<Child>,
}

impl Lab {
    /// Two ends of a cable, and nobody that runs.
    pub(crate) fn new() -> Self {
        let lab = Self {
            host: Namespace::create().expect("making network namespaces needs root"),
            router: Namespace::create().unwrap(),
            directory: TempDir::with_prefix("edgesteer-").unwrap(),
            programs: Vec::new(),
        };
        let far = format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            lab.router.as_fd().as_raw_fd()
        );
        lab.host(&format!(
            "ip link set lo up && ip link add host type veth peer name router && ip link set router netns {far} &&
             ip address add 10.0.0.1/30 dev host && ip address add fd00::1/64 dev host nodad && ip link set host up"
        ));
        shell(
            &lab.router,
            "ip link set lo up && ip link set router up &&
             ip address add 10.0.0.2/30 dev router && ip address add fd00::2/64 dev router nodad",
        );
        lab
    }

    /// BIRD on both.
    pub(crate) fn bird() -> Self {
        let mut lab = Self::new();
        lab.route();
        let bird = lab.configure("bird.conf", BIRD);
        let socket = lab.path("bird.ctl");
        lab.start(false, "bird", &["-f", "-c", &bird, "-s", &socket]);
        lab.established();
        lab
    }

    /// ExaBGP on the host.
    pub(crate) fn exabgp() -> (Self, Driver) {
        let mut lab = Self::new();
        lab.route();
        let pipe = lab.path("pipe");
        lab.host(&format!("mkfifo {pipe}"));
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/exabgp-vips");
        let text = EXABGP.replace("SCRIPT", script).replace("PIPE", &pipe);
        let configuration = lab.configure("exabgp.conf", &text);
        let arguments = [&EXABGP_SETTINGS[..], &["exabgp", &configuration]].concat();
        lab.start(false, "env", &arguments);
        lab.established();
        (lab, Driver::Exabgp { pipe: pipe.into() })
    }

    /// GoBGP on the host; and its API.
    pub(crate) fn gobgp() -> (Self, SocketAddr) {
        let mut lab = Self::new();
        lab.route();
        let configuration = lab.configure("gobgp.toml", GOBGP);
        lab.start(false, "gobgpd", &["-f", &configuration, "--api-hosts", API]);
        lab.established();
        let api = API.parse().unwrap();
        lab.eventually("the API", || {
            lab.host.run(|| TcpStream::connect(api).is_ok()).unwrap()
        });
        (lab, api)
    }

    fn route(&mut self) {
        let router = self.configure("router.conf", ROUTER);
        let socket = self.path("router.ctl");
        self.start(true, "bird", &["-f", "-c", &router, "-s", &socket]);
    }

    fn start(&mut self, router: bool, program: &str, arguments: &[&str]) {
        let log = fs::File::create(self.path(&format!("{program}-{router}.log"))).unwrap();
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let namespace = if router { &self.router } else { &self.host };
        let process = namespace.run(|| command.spawn()).unwrap();
        self.programs
            .push(process.expect("run `cargo xtask setup`"));
    }

    fn established(&self) {
        for session in ["host4", "host6"] {
            let show = format!("show protocols {session}");
            self.eventually(&show, || self.ask(&show).contains("Established"));
        }
    }

    fn configure(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory
            .path()
            .join(name)
            .to_str()
            .unwrap()
            .to_owned()
    }

    /// An announcer on the host.
    pub(crate) fn announcer(
        &self,
        driver: Driver,
        hold_down: Duration,
        on_exit: OnExit,
    ) -> Announcer {
        let new = || Announcer::new(driver, hold_down, on_exit);
        self.host.run(new).unwrap().unwrap()
    }

    /// A process of its own that announces all VIPs until it is killed.
    pub(crate) fn announcing_process(&self, driver: Driver, on_exit: OnExit) -> Process {
        let fork = || {
            // SAFETY: the child goes on with this one thread; the allocator is usable after a fork, and nothing else
            // that it uses of the parent can have been locked.
            match unsafe { libc::fork() } {
                0 => {
                    let announcer = Announcer::new(driver, Duration::ZERO, on_exit);
                    let _announcer = announcer.inspect(|it| it.follow(all(true)));
                    loop {
                        sleep(PATIENCE);
                    }
                }
                child => child,
            }
        };
        Process(self.host.run(fork).unwrap())
    }

    /// What the router's BIRD answers.
    fn ask(&self, question: &str) -> String {
        let socket = self.path("router.ctl");
        let output = Command::new("birdc")
            .args(["-s", &socket])
            .args(question.split(' '))
            .output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    /// Whether the router knows the way.
    pub(crate) fn routed(&self, vip: &str) -> bool {
        let length = if vip.contains(':') { 128 } else { 32 };
        let answer = self.ask(&format!("show route for {vip}/{length}"));
        answer.contains(&format!("{vip}/{length}"))
    }

    /// How many updates and withdrawals the router has heard.
    pub(crate) fn heard(&self) -> u64 {
        let answer = self.ask("show protocols all host4") + &self.ask("show protocols all host6");
        let lines = answer.lines().map(str::trim);
        let counts = lines.filter(|line| {
            line.starts_with("Import updates:") || line.starts_with("Import withdraws:")
        });
        counts
            .map(|line| {
                line.split_whitespace()
                    .nth(2)
                    .unwrap()
                    .parse::<u64>()
                    .unwrap()
            })
            .sum()
    }

    /// Waits until the router knows the ways to all VIPs, or to none; how long that took.
    #[track_caller]
    pub(crate) fn wait(&self, routed: bool) -> Duration {
        let start = Instant::now();
        self.eventually("the router's routes", || {
            VIPS.iter().all(|vip| self.routed(vip) == routed)
        });
        start.elapsed()
    }

    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, is_so: impl Fn() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !is_so() {
            assert!(Instant::now() < end, "{what}: {}", self.logs());
            sleep(Duration::from_millis(20));
        }
    }

    fn logs(&self) -> String {
        let files = fs::read_dir(self.directory.path())
            .unwrap()
            .map(|it| it.unwrap().path());
        let logs = files.filter(|path| path.extension().is_some_and(|it| it == "log"));
        logs.map(|log: PathBuf| text(&log)).collect()
    }

    #[track_caller]
    pub(crate) fn host(&self, script: &str) -> String {
        shell(&self.host, script)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for program in &mut self.programs {
            // ExaBGP ends its own processes, unless it is killed; any of them may have ended.
            let _ = Command::new("kill").arg(program.id().to_string()).status();
            let end = Instant::now() + PATIENCE;
            while Instant::now() < end && matches!(program.try_wait(), Ok(None)) {
                sleep(Duration::from_millis(10));
            }
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

/// A process that was forked off.
pub(crate) struct Process(libc::pid_t);

impl Process {
    /// Kills it, as the kernel does when there is no memory left.
    pub(crate) fn kill(self) {
        // SAFETY: takes no pointer; a child that was not waited for keeps its number.
        let result = unsafe { libc::kill(self.0, libc::SIGKILL) };
        assert_eq!(result, 0);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // SAFETY: takes no pointer; as above.
        let _ = unsafe { libc::kill(self.0, libc::SIGKILL) };
        // SAFETY: nobody wants the status, for which the pointer would be.
        let _ = unsafe { libc::waitpid(self.0, std::ptr::null_mut(), 0) };
    }
}

pub(crate) fn lo() -> Driver {
    Driver::Interface {
        name: "lo".to_owned(),
    }
}

/// All VIPs, healthy or not.
pub(crate) fn all(healthy: bool) -> BTreeMap<IpAddr, bool> {
    VIPS.iter()
        .map(|vip| (vip.parse().unwrap(), healthy))
        .collect()
}

/// What the announcer says of a VIP, once it is so.
#[track_caller]
pub(crate) fn said(
    announcer: &Announcer,
    vip: &str,
    is_so: impl Fn(&Announcement) -> bool,
) -> Announcement {
    let state = announcer.state();
    let vip = vip.parse().unwrap();
    let end = Instant::now() + PATIENCE;
    loop {
        let now = state.borrow().get(&vip).cloned();
        match now {
            Some(now) if is_so(&now) => return now,
            now => assert!(Instant::now() < end, "{now:?}"),
        }
        sleep(Duration::from_millis(20));
    }
}

#[track_caller]
fn shell(namespace: &Namespace, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]);
    let output = namespace.run(|| command.output()).unwrap().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> String {
    format!(
        "\n== {}\n{}",
        path.display(),
        fs::read_to_string(path).unwrap_or_default()
    )
}
