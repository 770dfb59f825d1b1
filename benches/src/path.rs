//! The ways that packets take, each with the rules and flows that make them take it.

use dataplane_core::Reason;

use crate::packets::{
    GRE_HEADERS, Maker, N3_HEADERS, downlink, downstream, first_fragment, of_backend,
    second_fragment, translated, uplink, upstream, upstream_v6,
};

/// A way of packets of flows that are known.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// Its name.
    pub id: &'static str,
    /// Net nanoseconds aimed at, on the machine of the project's figures.
    pub target: u64,
    pub(crate) rules: &'static [&'static str],
    /// What comes first, so that there are flows.
    pub(crate) first: &'static [(&'static str, Maker)],
    /// Octets that the front of the packets moves by: a tunnel's headers.
    pub(crate) shift: i32,
    pub(crate) port: &'static str,
    pub(crate) packet: Maker,
    /// How they all end.
    pub(crate) reason: Reason,
}

/// All of them.
pub const PATHS: &[Path] = &[
    Path {
        id: "steer-v4-hit",
        target: 45,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 via app0"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::Steered,
    },
    Path {
        id: "steer-v4-mac-hit",
        target: 45,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward mac 02:00:00:00:0a:01 via app0"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::Steered,
    },
    Path {
        id: "steer-v6-hit",
        target: 50,
        rules: &["a/1 prio 1 flow to 2001:db8:203::9 forward ip 2001:db8:a1::2 via app0"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream_v6,
        reason: Reason::Steered,
    },
    Path {
        id: "reply-hit",
        target: 45,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 via app0"],
        first: &[("access0", upstream)],
        shift: 0,
        port: "app0",
        packet: downstream,
        reason: Reason::Replied,
    },
    Path {
        id: "nat-hit",
        target: 50,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 nat via app0"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::Steered,
    },
    Path {
        id: "nat-reply-hit",
        target: 50,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 nat via app0"],
        first: &[("access0", upstream)],
        shift: 0,
        port: "app0",
        packet: translated,
        reason: Reason::Replied,
    },
    Path {
        id: "vip-dsr-hit",
        target: 27,
        rules: &[
            "@vip/1 prio 128 flow to 203.0.113.9 proto udp dport 443 balance backend a weight 1 up ip 198.18.1.2 via app0",
        ],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::Steered,
    },
    Path {
        id: "vip-dnat-hit",
        target: 30,
        rules: &[
            "@vip/1 prio 128 flow to 203.0.113.9 proto udp dport 443 balance backend a weight 1 up ip 198.18.1.2 nat 8443 via app0",
        ],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::Steered,
    },
    Path {
        id: "vip-dnat-reply-hit",
        target: 30,
        rules: &[
            "@vip/1 prio 128 flow to 203.0.113.9 proto udp dport 443 balance backend a weight 1 up ip 198.18.1.2 nat 8443 via app0",
        ],
        first: &[("access0", upstream)],
        shift: 0,
        port: "app0",
        packet: of_backend,
        reason: Reason::Replied,
    },
    Path {
        id: "fragments",
        target: 100,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 via app0"],
        first: &[("access0", first_fragment)],
        shift: 0,
        port: "access0",
        packet: second_fragment,
        reason: Reason::Steered,
    },
    Path {
        id: "drop",
        target: 45,
        rules: &["a/1 prio 1 flow to 203.0.113.9 drop"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::RuleDrop,
    },
    Path {
        id: "pass",
        target: 45,
        rules: &["a/1 prio 1 flow to 203.0.113.9 passthrough"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::Passthrough,
    },
    Path {
        id: "not-ours",
        target: 20,
        rules: &["a/1 prio 1 flow to 203.0.113.77 forward ip 198.18.1.2 via app0"],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::NoRule,
    },
    Path {
        id: "no-rules",
        target: 20,
        rules: &[],
        first: &[],
        shift: 0,
        port: "access0",
        packet: upstream,
        reason: Reason::NoRule,
    },
];

/// Those of UEs behind tunnels: with a PDU Session Container over IPv4.
pub const MOBILE_PATHS: &[Path] = &[
    Path {
        id: "gtpu-ul-hit",
        target: 28,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 via app0"],
        first: &[("core0", downlink)],
        shift: N3_HEADERS,
        port: "access0",
        packet: uplink,
        reason: Reason::Steered,
    },
    Path {
        id: "gtpu-dl-hit",
        target: 28,
        rules: &["a/1 prio 1 flow to 203.0.113.9 forward ip 198.18.1.2 via app0"],
        first: &[("core0", downlink), ("access0", uplink)],
        shift: -N3_HEADERS,
        port: "app0",
        packet: downstream,
        reason: Reason::Replied,
    },
    Path {
        id: "vip-tunnel-hit",
        target: 35,
        rules: &[
            "@vip/1 prio 128 flow to 203.0.113.9 proto udp dport 443 balance backend a weight 1 up gre 198.18.1.2 from 198.18.0.1 via app0",
        ],
        first: &[],
        shift: -GRE_HEADERS,
        port: "access0",
        packet: upstream,
        reason: Reason::Steered,
    },
];
