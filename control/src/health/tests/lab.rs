//! A network namespace with backends in it.

use std::{
    collections::BTreeMap,
    fs,
    future::Future,
    io::{BufRead as _, BufReader},
    mem::MaybeUninit,
    process::{Child, Command, Stdio},
    time::Duration,
};

use dataplane_user::netlink::Namespace;
use tempfile::NamedTempFile;
use tokio::{sync::watch, time::timeout};

use super::{Check, INTERVAL, Key, Kind, State};

/// A server that answers each path in its own way, and writes the last request to the file it is told.
const SERVER: &str = r#"
import socket, sys, threading, time
listener = socket.create_server(("127.0.0.1", 0), backlog=100)
print(listener.getsockname()[1], flush=True)

def serve(stream):
    request = b""
    while b"\r\n\r\n" not in request:
        request += stream.recv(4096)
    open(sys.argv[1], "wb").write(request)
    path = request.split()[1].decode().split("?")[0]
    say = lambda text: stream.sendall(text.encode())
    head = lambda status: say(f"HTTP/1.1 {status} Not Found\r\nContent-Length: 4\r\n\r\n")
    if path == "/slow-body":
        head(200); time.sleep(2); say("slow")
    elif path == "/endless-body":
        say("HTTP/1.0 200 OK\r\n\r\n")
        while True: say("x" * 100000)
    elif path == "/slow-head":
        say("HTTP/1.1 200"); time.sleep(2)
    elif path == "/garbage":
        say("SSH-2.0-OpenSSH_9.2\r\n")
    elif path == "/endless-head":
        say("HTTP/1.1 200 OK\r\n")
        while True: say("X-More: " + "x" * 100 + "\r\n")
    elif path != "/nothing":
        head(path[1:]); say("body")
    stream.close()

def quietly(stream):
    try: serve(stream)
    except OSError: pass

while True:
    threading.Thread(target=quietly, args=(listener.accept()[0],), daemon=True).start()
"#;

pub(super) struct Lab(Namespace);

impl Lab {
    pub(super) fn new() -> Self {
        let lab = Self(Namespace::create().expect("making network namespaces needs root"));
        lab.shell("ip link set lo up");
        lab
    }

    /// Makes 192.0.2.9 and 2001:db8::9 addresses from which nobody answers.
    pub(super) fn silent(&self) {
        self.shell(
            "ip link add silent type veth peer name nobody && ip link set silent up && ip link set nobody up &&
             ip address add 192.0.2.1/24 dev silent && ip address add 2001:db8::1/64 dev silent nodad &&
             ip neighbor add 192.0.2.9 lladdr 02:00:00:00:00:09 nud permanent dev silent &&
             ip neighbor add 2001:db8::9 lladdr 02:00:00:00:00:09 nud permanent dev silent",
        );
    }

    #[track_caller]
    pub(super) fn shell(&self, script: &str) {
        let mut command = Command::new("sh");
        let output = self.0.run(|| command.args(["-ec", script]).output());
        let output = output.unwrap().unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {words}");
    }

    /// Runs it inside, on one thread.
    pub(super) fn run<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
        };
        self.0.run(|| runtime().unwrap().block_on(work())).unwrap();
    }
}

/// A process that serves HTTP at 127.0.0.1.
pub(super) struct Server {
    process: Child,
    pub(super) port: u16,
    request: NamedTempFile,
}

impl Server {
    pub(super) fn start(lab: &Lab) -> Self {
        let request = NamedTempFile::new().unwrap();
        let mut command = Command::new("python3");
        command
            .args(["-c", SERVER])
            .arg(request.path())
            .stdout(Stdio::piped());
        let mut process = lab.0.run(|| command.spawn()).unwrap().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap();
        Self {
            process,
            port,
            request,
        }
    }

    pub(super) fn last_request(&self) -> String {
        // It may be about to be written.
        loop {
            let text = fs::read_to_string(self.request.path()).unwrap();
            if text.ends_with("\r\n\r\n") {
                return text;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn key(backend: &str) -> Key {
    Key {
        vip: "vip".to_owned(),
        backend: backend.to_owned(),
    }
}

pub(super) fn checks<K: AsRef<str>>(
    all: impl IntoIterator<Item = (K, Check)>,
) -> BTreeMap<Key, Check> {
    let all = all.into_iter();
    all.map(|(backend, check)| (key(backend.as_ref()), check))
        .collect()
}

/// A check that needs 2 to rise and 3 to fall.
pub(super) fn tcp(address: &str, port: u16) -> Check {
    Check {
        kind: Kind::Tcp,
        address: address.parse().unwrap(),
        port,
        interval: INTERVAL,
        timeout: 20 * INTERVAL,
        rise: 2,
        fall: 3,
    }
}

/// Waits until there is a state, and it is so.
pub(super) async fn eventually(state: &watch::Receiver<State>, is_so: impl Fn(&State) -> bool) {
    let look = async {
        while state.borrow().is_empty() || !is_so(&state.borrow()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let result = timeout(Duration::from_secs(20), look).await;
    assert!(result.is_ok(), "not in 20 s: {:?}", *state.borrow());
}

/// How many connections of this thread's namespace wait for the other end.
pub(super) fn connecting() -> usize {
    const SYN_SENT: &str = "02";
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let states = table
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3));
    states.filter(|state| *state == SYN_SENT).count()
}

/// Gives up all privileges, for this thread only.
pub(super) fn become_nobody() {
    // SAFETY: takes no pointer; unlike the library's function it leaves other threads alone.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, 65534, 65534, 65534) };
    assert_eq!(result, 0);
}

/// The processor time that this thread has used.
pub(super) fn processor_time() -> Duration {
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: the pointer is to room for what is written.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, time.as_mut_ptr()) };
    assert_eq!(result, 0);
    // SAFETY: it was written just now.
    let time = unsafe { time.assume_init() };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
