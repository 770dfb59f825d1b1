//! What an operator decides about the data path.

use std::{fs, path::PathBuf, time::Duration};

use dataplane_core::session::SessionRef;
use dataplane_core::table::CHOICES;
pub use dataplane_core::table::Role;

use crate::{
    Error, ports,
    rule::{AddressRange, Endpoint},
    sessions,
};

/// Everything there is to decide.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where programs and maps are pinned: a directory of a bpffs, used by nothing else.
    pub pin_directory: PathBuf,
    /// The ports.
    pub ports: Vec<PortConfig>,
    /// Sizes of the tables; they hold from the first start until the next [`detach`](crate::Dataplane::detach).
    pub limits: Limits,
    /// When flows are forgotten.
    pub timeouts: Timeouts,
    /// Whose tunnels are looked into.
    pub gtpu: Gtpu,
    /// Other MEC hosts that may send what UEs have sent, each at the end of a tunnel.
    pub peers: Vec<Endpoint>,
}

impl Options {
    /// Whether a data path can be opened with them, as far as they tell.
    pub fn check(&self) -> Result<(), Error> {
        ports::check(&self.ports)?;
        self.limits.check(possible_cpus()?)?;
        sessions::endpoints(&self.gtpu).map(drop)
    }

    /// Whether packets are looked for in tunnels, whatever the rules.
    pub(crate) fn has_tunnels(&self) -> bool {
        !self.peers.is_empty() || self.ports.iter().any(|port| port.gtpu)
    }
}

/// CPUs that there may be, each of which has a part of the tables.
pub(crate) fn possible_cpus() -> Result<u32, Error> {
    let cpus = aya::util::nr_cpus();
    cpus.map(|cpus| cpus as u32)
        .map_err(|(file, error)| Error::kernel(format!("cannot read {file}"), &error))
}

/// Addresses of the endpoints of GTP-U. Only what goes from one side to the other is looked into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gtpu {
    /// eNBs and gNBs.
    pub ran: Vec<AddressRange>,
    /// SGWs and UPFs.
    pub core: Vec<AddressRange>,
}

/// A network interface whose packets are steered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The name of the port.
    pub name: String,
    /// The name of the interface.
    pub interface: String,
    /// What it faces.
    pub role: Role,
    /// The port at the other end of the wire. Without one, the kernel routes what is not steered.
    pub pair: Option<String>,
    /// The address space of what is behind it.
    pub zone: u16,
    /// Whether GTP-U is looked into here.
    pub gtpu: bool,
    /// Whether TCP connections of UEs behind tunnels that begin here get no larger MSS than fits into the
    /// tunnel; both the UE's ports and those of applications have to say so.
    pub mss_clamp: bool,
    /// Whether the slower generic mode will do when the driver has no XDP.
    pub allow_generic: bool,
}

/// Sizes of the tables, each from 1 to 2^29 (and fewer rules on more than 4 CPUs).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Flows. Each takes 384 bytes for its record, 43 to 85 in the table that leads to it, 24 for the backends that UEs
    /// keep, and 768 to 1536 in the flow caches of all CPUs together: the least of all, 1240, where flows and CPUs are powers of two.
    pub flows: u32,
    /// Filters after compilation, repetitions in the tree included, 128 bytes each and twice that room, and 64 for splits.
    pub filters: u32,
    /// Rules, 56 bytes each and 32 for every CPU; and combinations of tunnel attributes, 88 bytes each.
    pub rules: u32,
    /// Fragmented datagrams on their way at a time.
    pub fragments: u32,
    /// UEs behind tunnels, up to 2^23. Each takes 208 bytes for its record and about 480 for four keys: one for the
    /// UE's address, and one for each tunnel from or to it, of which there may be three on average.
    pub sessions: u32,
    /// VIPs, 262,152 bytes each and twice that room. Each of their backends also counts as a rule, and so does what is chosen
    /// without any.
    pub vips: u32,
}

impl Default for Limits {
    /// One hundredth of the memory for flows, between 16,384 and 131,072.
    fn default() -> Self {
        const FLOW: u64 = 1240;
        let hundredth = memory().unwrap_or(0) / 100;
        let flows = (hundredth / FLOW).clamp(1 << 14, 1 << 17);
        Self {
            flows: flows as u32,
            filters: 1 << 17,
            rules: 1 << 15,
            fragments: 1 << 12,
            sessions: 1 << 14,
            vips: 32,
        }
    }
}

impl Limits {
    /// Whether there can be tables of these sizes, on so many CPUs.
    pub(crate) fn check(&self, cpus: u32) -> Result<(), Error> {
        let Self {
            flows,
            filters,
            rules,
            fragments,
            sessions,
            vips,
        } = *self;
        // The kernel numbers entries in 32 bits. A flow takes two keys; filters and rules take twice the
        // room, and a rule has that on every CPU; one bit of a number tells direction or kind.
        let most = 1 << 29;
        let most_rules = most.min(u32::MAX / 2 / cpus.max(1));
        for (name, limit, most) in [
            ("flows", flows, most),
            ("filters", filters, most),
            ("rules", rules, most_rules),
            ("fragments", fragments, most),
            ("sessions", sessions, SessionRef::LIMIT),
            ("vips", vips, u32::MAX / 2 / CHOICES),
        ] {
            if !(1..=most).contains(&limit) {
                return Err(Error::Options(format!(
                    "[limits] {name} = {limit} is not possible: it must be from 1 to {most}"
                )));
            }
        }
        Ok(())
    }
}

/// Bytes of memory in this host.
fn memory() -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = total.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// How long a flow is remembered after its last packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP, once both sides have acknowledged something.
    pub tcp_established: Duration,
    /// TCP, before that.
    pub tcp_transitory: Duration,
    /// TCP, after a RST, or a FIN from each side.
    pub tcp_closing: Duration,
    /// UDP.
    pub udp: Duration,
    /// ICMP and ICMPv6.
    pub icmp: Duration,
    /// All other protocols.
    pub other: Duration,
    /// Not of a flow: how long a UE's tunnels are remembered after the last packet in them.
    pub session: Duration,
}

impl Default for Timeouts {
    /// TCP as RFC 5382 (REQ-5) asks of NATs, UDP as RFC 4787 (REQ-5) and ICMP as RFC 5508 (REQ-2) do.
    fn default() -> Self {
        Self {
            tcp_established: Duration::from_secs(2 * 3600 + 240),
            tcp_transitory: Duration::from_secs(240),
            tcp_closing: Duration::from_secs(10),
            udp: Duration::from_secs(300),
            icmp: Duration::from_secs(60),
            other: Duration::from_secs(300),
            session: Duration::from_secs(3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{Dataplane, memory};

    #[test]
    fn limits_that_cannot_be_are_named_with_their_range() {
        let usual = Limits::default();
        for (limits, name, most) in [
            (Limits { flows: 0, ..usual }, "flows = 0 ", 1 << 29),
            (
                Limits {
                    flows: 1 << 31,
                    ..usual
                },
                "flows = 2147483648 ",
                1 << 29,
            ),
            (
                Limits {
                    filters: 0,
                    ..usual
                },
                "filters = 0 ",
                1 << 29,
            ),
            (
                Limits {
                    rules: 1 << 28,
                    ..usual
                },
                "rules = 268435456 ",
                u32::MAX / 2 / 64,
            ),
            (
                Limits {
                    fragments: u32::MAX,
                    ..usual
                },
                "fragments = 4294967295 ",
                1 << 29,
            ),
        ] {
            let error = limits.check(64).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(error.ends_with(&format!("from 1 to {most}")), "{error}");
        }
    }

    #[test]
    fn limits_that_can_be_overflow_nothing() {
        for cpus in [1, 2, 3, 64, 8192] {
            let most = 1 << 29;
            let limits = Limits {
                flows: most,
                filters: most,
                rules: most.min(u32::MAX / 2 / cpus),
                fragments: most,
                sessions: SessionRef::LIMIT,
                vips: u32::MAX / 2 / CHOICES,
            };
            limits.check(cpus).unwrap();
            assert!(
                memory::sizes(&limits, cpus)
                    .iter()
                    .all(|(_, size)| *size > 0)
            );
        }
    }

    #[test]
    fn nothing_is_made_for_limits_that_cannot_be() {
        let pins = format!("/sys/fs/bpf/edgesteer-test-{}-limits", std::process::id());
        let opened = Dataplane::open(Options {
            pin_directory: PathBuf::from(&pins),
            ports: Vec::new(),
            limits: Limits {
                flows: 1 << 31,
                ..Limits::default()
            },
            timeouts: Timeouts::default(),
            gtpu: Gtpu::default(),
            peers: Vec::new(),
        });
        assert!(matches!(opened, Err(Error::Options(_))), "{opened:?}");
        assert!(!Path::new(&pins).exists());
    }
}
