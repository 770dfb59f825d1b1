//! What can go wrong, by what the caller can do about it.

use std::{fs, io, path::PathBuf};

use crate::netlink;

/// Why the data path could not do as it was told. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The options contradict themselves.
    #[error("{0}")]
    Options(String),
    /// The pin directory is not in a BPF file system.
    #[error("{path} is not in a BPF file system: mount -t bpf bpf /sys/fs/bpf", path = .0.display())]
    NoBpffs(PathBuf),
    /// What is pinned was made by another version.
    #[error(
        "{path} holds the state of another version of edgesteer ({what}); it keeps steering as it was told last. \
         To start anew, forgetting flows and counters: edgesteer detach",
        path = .path.display()
    )]
    OtherLayout {
        /// The pinned map.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The kernel refused.
    #[error("{what}: {reason}{hint}")]
    Kernel {
        /// What was tried.
        what: String,
        /// What the kernel said.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// The rule set does not fit.
    #[error(
        "{what} do not fit: {wanted} needed, {limit} allowed. Raise [limits] {option} and start anew with edgesteer detach"
    )]
    TooMany {
        /// What does not fit.
        what: &'static str,
        /// How many there are.
        wanted: usize,
        /// How many there may be.
        limit: usize,
        /// The option that decides.
        option: &'static str,
    },
    /// Rules send into more tunnels than there can be.
    #[error("rules send into too many tunnels at a time: there is room for {limit}")]
    TooManyTunnels {
        /// How many there may be.
        limit: u32,
    },
    /// Rules overlap so much that a packet would have to be compared with too many filters.
    #[error(
        "packets would have to be compared with {steps} filters one by one, {limit} at the most: too many rules match \
         the same addresses, ports and protocols; make one rule of several"
    )]
    TooDeep {
        /// Comparisons in the worst case.
        steps: u32,
        /// Comparisons allowed.
        limit: u32,
    },
    /// There is no such port.
    #[error("there is no port {0:?} with the program attached")]
    NoPort(String),
    /// The frame cannot be asked about.
    #[error("a frame of {0} bytes has no Ethernet header; at least 14 are needed")]
    ShortFrame(usize),
    /// Interfaces and neighbors could not be read.
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    /// Shared memory could not be had.
    #[error("cannot map {name} into memory")]
    Memory {
        /// The map.
        name: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The kernel refused `what`.
    pub(crate) fn kernel(
        what: impl Into<String>,
        error: &(dyn std::error::Error + 'static),
    ) -> Self {
        Self::refused(what.into(), error, may_monitor())
    }

    /// The same in a process that has CAP_PERFMON, or has not.
    fn refused(what: String, error: &(dyn std::error::Error + 'static), monitor: bool) -> Self {
        let mut reason = error.to_string();
        let mut errno = None;
        let mut causes = Some(error);
        while let Some(cause) = causes {
            if let Some(io) = cause.downcast_ref::<io::Error>() {
                errno = io.raw_os_error();
            }
            let text = cause.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            causes = cause.source();
        }
        let verifier = reason.split_once(VERIFIER).map(|(tried, log)| {
            tracing::debug!(log, "the verifier refused the program");
            format!("{tried}. The verifier: {}", cause(log))
        });
        let hint = match errno {
            _ if verifier.is_some() && monitor => {
                ". This kernel does not take the program; with RUST_LOG=debug the log has all that its verifier said"
            }
            Some(libc::EPERM | libc::EACCES) => {
                ". Run as root, or with the capabilities CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            }
            Some(libc::EBUSY | libc::EEXIST) => {
                ". Another XDP program is attached: `edgesteer doctor` names it"
            }
            _ => "",
        };
        Self::Kernel {
            what,
            reason: verifier.unwrap_or(reason),
            hint,
        }
    }
}

/// Whether this thread has CAP_PERFMON, or CAP_SYS_ADMIN, which contains it. The verifier refuses in many words what
/// programs do with pointers where it is missing.
fn may_monitor() -> bool {
    const PERFMON: u64 = 1 << 38;
    const SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    effective.is_none_or(|mask| mask & (PERFMON | SYS_ADMIN) != 0)
}

/// What stands between the error of the system call and the verifier's log.
const VERIFIER: &str = ". Verifier output: ";

/// The line of a verifier's log that says what is wrong: the last, but for its statistics.
fn cause(log: &str) -> &str {
    let statistics = ["verification time", "stack depth", "processed"];
    let mut lines = log.lines().rev().map(str::trim);
    let line =
        lines.find(|line| !line.is_empty() && !statistics.iter().any(|s| line.starts_with(s)));
    line.unwrap_or("nothing was said")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the loader words it.
    #[derive(Debug, thiserror::Error)]
    #[error("the BPF_PROG_LOAD syscall returned {0}. Verifier output: {1}")]
    struct Refused(#[source] io::Error, &'static str);

    #[test]
    fn of_what_the_verifier_says_the_cause_is_kept() {
        let said = |log, monitor| {
            let denied = io::Error::from_raw_os_error(libc::EACCES);
            let error = Refused(denied, log);
            Error::refused("cannot load".to_owned(), &error, monitor).to_string()
        };
        let text = said(
            "0: R1=ctx() R10=fp0\n1038: (63) *(u32 *)(r10 -98) = r2\nmisaligned stack access off 0+0+-98 size 4\n\
             verification time 13444 usec\nstack depth 208+0\nprocessed 800 insns (limit 1000000)\n",
            true,
        );
        assert_eq!(
            text,
            "cannot load: the BPF_PROG_LOAD syscall returned Permission denied (os error 13). The verifier: \
             misaligned stack access off 0+0+-98 size 4. This kernel does not take the program; with RUST_LOG=debug \
             the log has all that its verifier said"
        );
        let text = said("R1 pointer -= pointer prohibited\n", false);
        assert!(text.ends_with("CAP_NET_ADMIN and CAP_PERFMON"), "{text}");
    }
}
