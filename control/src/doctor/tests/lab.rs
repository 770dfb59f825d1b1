//! Two namespaces joined by a veth, and a program that is not ours.

use std::{
    fs,
    net::IpAddr,
    os::fd::{FromRawFd, OwnedFd},
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use dataplane_user::netlink::{self, Namespace, Present};

use super::super::{Finding, Level, Plan, Port, Report, examine};
use crate::announce::OURS;

/// A port `access` on `near`, whose other end `far` is in another namespace.
pub(super) struct Lab {
    pub(super) plan: Plan,
    near: Namespace,
    far: Namespace,
    /// Whoever lives in the other namespace: by it the namespace can be found.
    inhabitant: Option<Child>,
}

impl Lab {
    /// A veth as the kernel makes it, with enough queues.
    pub(super) fn new() -> Self {
        Self::with_queues("numrxqueues 4", "numtxqueues 4")
    }

    /// One that is ready to be steered.
    pub(super) fn prepared() -> Self {
        let lab = Self::new();
        lab.far("ethtool -K far gro on tx off");
        lab
    }

    pub(super) fn with_queues(near: &str, far: &str) -> Self {
        let namespace = || Namespace::create().expect("making network namespaces needs root");
        let mut lab = Self {
            plan: Plan {
                ports: vec![Port {
                    name: "access".to_owned(),
                    interface: "near".to_owned(),
                    routed: true,
                    ..Port::default()
                }],
                pin_directory: "/sys/fs/bpf/edgesteer".into(),
                ..Plan::default()
            },
            near: namespace(),
            far: namespace(),
            inhabitant: None,
        };
        let inhabitant = lab.far.run(|| Command::new("sleep").arg("600").spawn());
        let inhabitant = inhabitant.unwrap().unwrap();
        lab.near(&format!(
            "ip link add near {near} type veth peer name far {far} netns {}",
            inhabitant.id()
        ));
        lab.inhabitant = Some(inhabitant);
        lab.near("ip link set near up");
        lab.far("ip link set far up");
        lab.near("sysctl -qw net/ipv4/ip_forward=1 net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/near/rp_filter=0");
        lab
    }

    /// Leaves nobody in the other namespace.
    pub(super) fn hide(&mut self) {
        if let Some(mut child) = self.inhabitant.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    pub(super) fn near(&self, command: &str) {
        shell(&self.near, command);
    }

    pub(super) fn far(&self, command: &str) {
        shell(&self.far, command);
    }

    /// Announces a VIP on `lo`.
    pub(super) fn announce(&self, vip: IpAddr) {
        let set = || netlink::set_address(1, vip, OURS, None, Present::Refused);
        self.near.run(set).unwrap().unwrap();
    }

    pub(super) fn examine(&self) -> Report {
        self.near.run(|| examine(&self.plan)).unwrap()
    }

    /// The worst finding of a check.
    pub(super) fn finding(&self, check: &str) -> Finding {
        let report = self.examine();
        let findings = report
            .findings
            .iter()
            .filter(|finding| finding.check == check);
        let worst = findings.max_by_key(|finding| finding.level);
        match worst {
            Some(finding) => finding.clone(),
            // Some checks speak only when there is something to say.
            None => Finding::ok("none", "", ""),
        }
    }

    /// Asserts that the trap is found, runs the cure as printed, and asserts that it is gone.
    #[track_caller]
    pub(super) fn cured(&self, check: &str, level: Level) {
        let finding = self.finding(check);
        assert_eq!(finding.level, level, "{check}: {}", finding.what);
        let cure = finding.cure.expect("there is a cure");
        self.near(&cure);
        let finding = self.finding(check);
        assert_eq!(finding.level, Level::Ok, "after {cure}: {}", finding.what);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.hide();
    }
}

#[track_caller]
fn shell(namespace: &Namespace, command: &str) {
    let output = namespace.run(|| Command::new("sh").arg("-c").arg(command).output());
    let output = output.unwrap().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

/// A program that passes everything, loaded and pinned by somebody else.
pub(super) struct Foreign {
    program: OwnedFd,
    path: String,
}

impl Foreign {
    pub(super) fn load(name: &str) -> Self {
        const LOAD: i64 = 5;
        const PIN: i64 = 6;
        const XDP: u32 = 6;
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        // r0 = XDP_PASS; exit
        let instructions: [u64; 2] = [0x0000_0002_0000_00b7, 0x95];
        let license = c"GPL";
        let mut load = [0_u8; 64];
        load[..4].copy_from_slice(&XDP.to_ne_bytes());
        load[4..8].copy_from_slice(&2_u32.to_ne_bytes());
        load[8..16].copy_from_slice(&(instructions.as_ptr() as u64).to_ne_bytes());
        load[16..24].copy_from_slice(&(license.as_ptr() as u64).to_ne_bytes());
        load[48..48 + name.len()].copy_from_slice(name.as_bytes());
        let fd = bpf(LOAD, &load);
        // SAFETY: the descriptor was just made and nobody else has it.
        let program = unsafe { OwnedFd::from_raw_fd(fd) };

        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = format!(
            "/sys/fs/bpf/edgesteer-doctor-{}-{number}",
            std::process::id()
        );
        let pathname = format!("{path}\0");
        let mut pin = [0_u8; 12];
        pin[..8].copy_from_slice(&(pathname.as_ptr() as u64).to_ne_bytes());
        pin[8..].copy_from_slice(&fd.to_ne_bytes());
        bpf(PIN, &pin);
        Self { program, path }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// As the kernel prints it.
    pub(super) fn tag(&self) -> String {
        use std::os::fd::AsRawFd;
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()));
        let info = info.unwrap();
        let tag = info.lines().find_map(|line| line.strip_prefix("prog_tag:"));
        tag.unwrap().trim().to_owned()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Left over at worst; the name says whose it was.
        let _ = fs::remove_file(&self.path);
    }
}

fn bpf(command: i64, attributes: &[u8]) -> i32 {
    // SAFETY: what the attributes point to outlives the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            attributes.len(),
        )
    };
    assert!(
        result >= 0,
        "bpf({command}): {}",
        std::io::Error::last_os_error()
    );
    result as i32
}
