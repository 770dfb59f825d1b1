//! The ways that packets take, each with the rules and flows that make them take it.

use dataplane_core::Reason;
use dataplane_user::rule::RuleSet;
use tests::packet::{Gtpu, Packet, Session};

/// Makes the packet of a flow.
pub(crate) type Maker = fn(u16) -> Packet;

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
        id: "passthrough-hit",
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
];

/// Octets in front of a packet on N3: IPv4, UDP, GTP-U and a PDU Session Container.
const N3_HEADERS: i32 = 20 + 8 + 8 + 4 + 4;

/// Packets that are the first of their flow.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    /// Its name.
    pub id: &'static str,
    /// Net nanoseconds aimed at, on the machine of the project's figures.
    pub target: u64,
    count: u32,
}

/// All of them.
pub const MISSES: &[Miss] = &[
    Miss {
        id: "miss-10",
        target: 250,
        count: 10,
    },
    Miss {
        id: "miss-10k",
        target: 350,
        count: 10_000,
    },
];

impl Miss {
    pub(crate) fn rules(&self) -> RuleSet {
        rules(self.count)
    }

    pub(crate) fn packet(&self, flow: u16) -> Packet {
        let service = service(u32::from(flow) * 40_503 % self.count);
        Packet::udp(
            &format!("10.45.{}.{}:5000", flow >> 8, flow & 0xff),
            &service,
        )
        .payload(22)
    }
}

/// So many rules, each for a service of its own: 10.200.0.0, 10.200.0.1 and so on.
pub fn rules(count: u32) -> RuleSet {
    let rule = |number| {
        let (address, port) = (
            service(number),
            ["198.18.1.2 via app0", "198.18.2.2 via app1"],
        );
        let (address, _) = address.split_once(':').expect("a port");
        let text = format!(
            "app{}/rule{number} prio {} flow from 10.45.0.0/16 to {address} proto udp dport 443 forward ip {}",
            number % 100,
            number % 200,
            port[number as usize % 2],
        );
        text.parse().expect("a rule")
    };
    (0..count).map(rule).collect()
}

fn service(number: u32) -> String {
    format!("10.200.{}.{}:443", number >> 8, number & 0xff)
}

fn upstream(flow: u16) -> Packet {
    Packet::udp(&ue(flow), "203.0.113.9:443").payload(22)
}

fn downstream(flow: u16) -> Packet {
    upstream(flow).reversed()
}

fn translated(flow: u16) -> Packet {
    downstream(flow).from("198.18.1.2")
}

fn upstream_v6(flow: u16) -> Packet {
    let ue = format!("[2001:db8:45::{:x}]:{}", flow >> 4, 5000 + (flow & 15));
    Packet::udp(&ue, "[2001:db8:203::9]:443").payload(2)
}

fn uplink(flow: u16) -> Packet {
    let inner = upstream(flow).payload(42);
    let pdu = Gtpu::pdu(0x1_0000 + u32::from(flow >> 4), inner.network_bytes());
    pdu.session(Session::Uplink(9))
        .over("192.0.2.1:2152", "198.51.100.1:2152")
}

fn downlink(flow: u16) -> Packet {
    let inner = upstream(flow).payload(42).reversed();
    let pdu = Gtpu::pdu(0x2_0000 + u32::from(flow >> 4), inner.network_bytes());
    pdu.session(Session::Downlink(9))
        .over("198.51.100.1:2152", "192.0.2.1:2152")
}

/// Sixteen flows for each UE.
fn ue(flow: u16) -> String {
    format!(
        "10.45.{}.{}:{}",
        flow >> 12,
        flow >> 4 & 0xff,
        5000 + (flow & 15)
    )
}
