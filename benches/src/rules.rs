//! Rule sets by their size, and packets that are the first of their flow under them.

use dataplane_user::rule::RuleSet;
use tests::packet::Packet;

/// Packets that are the first of their flow.
#[derive(Clone, Copy, Debug)]
pub struct Miss {
    /// Its name.
    pub id: &'static str,
    /// Net nanoseconds aimed at, on the machine of the project's figures.
    pub target: u64,
    /// Rules in force.
    pub rules: u32,
}

/// All of them, by the number of rules.
pub const MISSES: &[Miss] = &[
    Miss::new("miss-10", 250, 10),
    Miss::new("miss-100", 250, 100),
    Miss::new("miss-1k", 300, 1_000),
    Miss::new("miss-10k", 350, 10_000),
    Miss::new("miss-100k", 500, 100_000),
    Miss::new("miss-1m", 500, 1_000_000),
];

impl Miss {
    const fn new(id: &'static str, target: u64, rules: u32) -> Self {
        Self { id, target, rules }
    }

    /// The first packet of a flow to any of the services.
    pub(crate) fn packet(&self, flow: u32) -> Vec<u8> {
        let ue = format!("10.45.{}.{}:5000", flow >> 8, flow & 0xff);
        let service = (flow.wrapping_mul(0x9e37_79b1) >> 12) % self.rules;
        let packet = Packet::udp(&ue, &format!("{}:443", address(service)));
        packet.payload(22).bytes()
    }
}

/// So many rules, each for a service of its own: 10.200.0.0, 10.200.0.1 and so on.
pub fn rules(count: u32) -> RuleSet {
    let rule = |number| {
        let text = format!(
            "app{}/rule{number} prio {} flow from 10.45.0.0/16 to {} proto udp dport 443 forward ip 198.18.1.2 via app0",
            number % 100,
            number % 200,
            address(number),
        );
        text.parse().expect("a rule")
    };
    (0..count).map(rule).collect()
}

/// A VIP with so many backends.
pub(crate) fn vip(backends: u32) -> RuleSet {
    let backends = (0..backends)
        .map(|number| format!("backend b{number:04} weight 1 up ip 198.18.1.2 via app0"));
    let backends = backends.collect::<Vec<_>>().join(" ");
    let text =
        format!("@vip/1 prio 128 flow to 203.0.113.9 proto udp dport 443 balance {backends}");
    [text.parse().expect("a rule")].into_iter().collect()
}

/// The address of a service.
pub(crate) fn address(number: u32) -> String {
    let [_, high, middle, low] = number.to_be_bytes();
    format!("10.{}.{middle}.{low}", 200 + u32::from(high))
}
