//! What the host itself may lack.

use std::{ffi::CString, fs, os::unix::ffi::OsStrExt, path::Path};

use super::{Finding, Plan};

const HOST: &str = "host";
/// The first kernel with XDP in several buffers; BPF links, managed neighbors and the clock helper are older.
const OLDEST: (u32, u32) = (5, 18);
/// `BPF_FS_MAGIC`
const BPF_FILE_SYSTEM: i64 = 0xcafe_4a11;
const MOUNT_POINT: &str = "/sys/fs/bpf";
const BTF: &str = "/sys/kernel/btf/vmlinux";

const CAPABILITIES: [(u32, &str); 3] = [
    (39, "CAP_BPF"),
    (12, "CAP_NET_ADMIN"),
    // Without it the verifier refuses arithmetic on pointers to packets.
    (38, "CAP_PERFMON"),
];

pub(super) fn findings(plan: &Plan) -> Vec<Finding> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let mut findings = vec![
        kernel(release.trim()),
        type_information(Path::new(BTF)),
        capabilities(&status),
        file_system(&plan.pin_directory),
    ];
    findings.extend(compiler());
    if plan.ports.iter().any(|port| port.routed) {
        findings.push(forwarding("ip-forward", "net/ipv4/ip_forward", "IPv4"));
        if uses_ipv6() {
            findings.push(forwarding(
                "ipv6-forward",
                "net/ipv6/conf/all/forwarding",
                "IPv6",
            ));
        }
    }
    findings
}

fn kernel(release: &str) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map_while(|number| number.parse().ok());
    let version = numbers.next().zip(numbers.next());
    let (major, minor) = OLDEST;
    match version {
        Some(version) if version >= OLDEST => {
            Finding::ok(CHECK, HOST, format_args!("Linux {release}"))
        }
        Some(_) => Finding::error(
            CHECK,
            HOST,
            format_args!("Linux {release} is too old for XDP with frames in several buffers"),
            format!("boot Linux {major}.{minor} or newer, better a long-term one such as 6.1"),
        ),
        None => Finding::warning(
            CHECK,
            HOST,
            format_args!("cannot tell what kernel {release:?} is"),
            None,
        ),
    }
}

fn type_information(path: &Path) -> Finding {
    const CHECK: &str = "btf";
    if path.exists() {
        return Finding::ok(CHECK, HOST, "the kernel has type information");
    }
    Finding::error(
        CHECK,
        HOST,
        format_args!(
            "the kernel has no type information: {} is missing",
            path.display()
        ),
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distributions do".to_owned(),
    )
}

/// An interpreted program works, ten times slower. Only the first network namespace has the switch.
fn compiler() -> Option<Finding> {
    const CHECK: &str = "bpf-jit";
    let value = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok()?;
    if value.trim() != "0" {
        return Some(Finding::ok(CHECK, HOST, "BPF is compiled"));
    }
    Some(Finding::warning(
        CHECK,
        HOST,
        "BPF is interpreted, which is slow",
        "sysctl -w net/core/bpf_jit_enable=1".to_owned(),
    ))
}

fn capabilities(status: &str) -> Finding {
    const CHECK: &str = "capabilities";
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let Some(effective) = effective else {
        return Finding::warning(CHECK, HOST, "could not read the capabilities", None);
    };
    let missing: Vec<_> = CAPABILITIES
        .iter()
        .filter(|(bit, _)| effective & (1 << bit) == 0)
        .map(|(_, name)| *name)
        .collect();
    let all = CAPABILITIES.map(|(_, name)| name);
    if missing.is_empty() {
        return Finding::ok(CHECK, HOST, all.join(", "));
    }
    Finding::error(
        CHECK,
        HOST,
        format_args!("missing {}", missing.join(", ")),
        format!(
            "run as root, or in the systemd unit: AmbientCapabilities={}",
            all.join(" ")
        ),
    )
}

/// Pins live in a BPF file system only.
fn file_system(directory: &Path) -> Finding {
    const CHECK: &str = "bpf-file-system";
    let there = directory
        .ancestors()
        .find(|path| path.exists())
        .unwrap_or_else(|| Path::new("/"));
    match magic(there) {
        Some(BPF_FILE_SYSTEM) => Finding::ok(
            CHECK,
            HOST,
            format_args!("{} holds pins", directory.display()),
        ),
        found => {
            let what = match found {
                Some(_) => "is not in a BPF file system",
                None => "cannot be read",
            };
            let directory = directory.display();
            let cure = if directory.to_string().starts_with(MOUNT_POINT) {
                format!("mount -t bpf bpf {MOUNT_POINT}")
            } else {
                format!("mkdir -p {directory} && mount -t bpf bpf {directory}")
            };
            Finding::error(CHECK, HOST, format_args!("{directory} {what}"), cure)
        }
    }
}

fn magic(path: &Path) -> Option<i64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut answer: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in NUL and the answer is writable.
    match unsafe { libc::statfs(path.as_ptr(), &raw mut answer) } {
        0 => Some(answer.f_type),
        _ => None,
    }
}

/// In routed mode the kernel carries what is not steered.
fn forwarding(check: &'static str, key: &str, family: &str) -> Finding {
    let value = fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default();
    if value.trim() != "0" {
        return Finding::ok(check, HOST, format_args!("{family} is forwarded"));
    }
    Finding::error(
        check,
        HOST,
        format_args!(
            "{family} is not forwarded: what is not steered is lost at ports without a pair"
        ),
        format!("sysctl -w {key}=1"),
    )
}

/// Whether an interface has an IPv6 address of more than its own link.
fn uses_ipv6() -> bool {
    const GLOBAL: &str = "00";
    let table = fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split_whitespace().nth(3) == Some(GLOBAL))
}

#[cfg(test)]
mod tests {
    use super::{super::Level, *};

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(kernel("6.1.0-37-cloud-amd64").level, Level::Ok);
        assert_eq!(kernel("5.18.0").level, Level::Ok);
        assert_eq!(kernel("5.15.0-91-generic").level, Level::Error);
        assert_eq!(kernel("4.19").level, Level::Error);
        assert_eq!(kernel("plan9").level, Level::Warning);
    }

    #[test]
    fn missing_type_information_is_found() {
        assert_eq!(type_information(Path::new("/nowhere")).level, Level::Error);
    }

    #[test]
    fn each_missing_capability_is_named() {
        let status = |mask: u64| format!("Name:\tx\nCapEff:\t{mask:016x}\nCapBnd:\t0\n");
        let all = (1 << 39) | (1 << 38) | (1 << 12);
        assert_eq!(capabilities(&status(all)).level, Level::Ok);
        let finding = capabilities(&status(1 << 39));
        assert_eq!(finding.level, Level::Error);
        assert_eq!(finding.what, "missing CAP_NET_ADMIN, CAP_PERFMON");
    }
}
