//! From the facts of a packet to the first rule that matches.
//!
//! The rule set in force is a tree of splits whose leaves are lists of filters in order of
//! precedence. It is never changed: a new one is built beside it and takes its place at once.

use crate::{
    flow::FlowKey,
    parse::has_ports,
    table::{
        Filter, Image, Index, RuleAction, STEPS, Split, Tables, TunnelFilter, field, flag, kind,
        verb,
    },
};

/// The value of both ports in packets that have none: outside of every range that asks for ports.
pub const NO_PORTS: u32 = 0x1_0000;

/// What is asked: the facts that filters look at.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
pub struct Query {
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Source port or [`NO_PORTS`].
    pub source_port: u32,
    /// Destination port or [`NO_PORTS`].
    pub destination_port: u32,
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: u16,
    /// Address space.
    pub zone: u16,
    /// Protocol.
    pub protocol: u8,
    /// Where to begin: [`Image::root`](crate::table::Image::root).
    pub root: u32,
    /// Any of [`kind`].
    pub kinds: u8,
    /// The slot of the port that the packet came by: rules that lead there do not apply.
    pub from: u16,
}

impl Query {
    /// Asks about packets with `key`.
    #[must_use]
    pub const fn new(image: Image, key: &FlowKey, tos: u16, kinds: u8, from: u16) -> Self {
        let rest = key.rest;
        let (source_port, destination_port) = if has_ports(rest.protocol()) {
            (rest.source_port() as u32, rest.destination_port() as u32)
        } else {
            (NO_PORTS, NO_PORTS)
        };
        Self {
            source: key.source,
            destination: key.destination,
            source_port,
            destination_port,
            tos,
            zone: rest.zone(),
            protocol: rest.protocol(),
            root: image.root.0,
            kinds,
            from,
        }
    }

    /// Out of line, as the next, so that the verifier forgets which comparison decided.
    #[inline(never)]
    const fn is_low(&self, split: &Split) -> bool {
        match split.field {
            field::DESTINATION => below(self.destination, split.threshold),
            field::SOURCE => below(self.source, split.threshold),
            field::DESTINATION_PORT => (self.destination_port as u64) < split.threshold[1],
            field::SOURCE_PORT => (self.source_port as u64) < split.threshold[1],
            field::PROTOCOL => (self.protocol as u64) < split.threshold[1],
            _ => (self.zone as u64) < split.threshold[1],
        }
    }

    /// Whether `filter` matches, but for the DSCP or traffic class.
    #[inline(never)]
    const fn meets(&self, filter: &Filter) -> bool {
        filter.kind & self.kinds != 0
            && within(self.destination, &filter.destination)
            && within(self.source, &filter.source)
            && filter.destination_port[0] <= self.destination_port
            && self.destination_port <= filter.destination_port[1]
            && filter.source_port[0] <= self.source_port
            && self.source_port <= filter.source_port[1]
            && filter.protocol[0] <= self.protocol
            && self.protocol <= filter.protocol[1]
            && filter.zone[0] <= self.zone
            && self.zone <= filter.zone[1]
    }

    /// Whether `filter` would treat a packet of the same family differently for its class alone. Out of line
    /// because the stack is small.
    #[inline(never)]
    const fn minds_class(&self, filter: &Filter) -> bool {
        let (first, last) = if self.tos < 256 { (0, 63) } else { (256, 511) };
        filter.tos[0] > first || filter.tos[1] < last
    }
}

/// The tunnel of the packet that is asked about, where tunnels are looked into.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct InTunnel {
    /// Source address of the outer header.
    pub source: [u64; 2],
    /// Its destination address.
    pub target: [u64; 2],
    /// Its UDP source port, or [`NO_PORTS`] in no tunnel.
    pub source_port: u32,
    /// Its UDP destination port.
    pub target_port: u32,
    /// QCI of the bearer or 5QI of the QoS flow; 0 when none is known.
    pub qci: u8,
}

impl Default for InTunnel {
    fn default() -> Self {
        Self::NONE
    }
}

impl InTunnel {
    /// No tunnel: outside of every range.
    pub const NONE: Self = Self {
        source: [0; 2],
        target: [0; 2],
        source_port: NO_PORTS,
        target_port: NO_PORTS,
        qci: 0,
    };

    /// The tunnel from one address to another with these ports, that of the source in the upper half.
    #[must_use]
    pub const fn new(source: [u64; 2], target: [u64; 2], ports: u32, qci: u8) -> Self {
        Self {
            source,
            target,
            source_port: ports >> 16,
            target_port: ports & 0xffff,
            qci,
        }
    }

    /// Whether `filter` matches.
    const fn meets(&self, filter: &TunnelFilter) -> bool {
        filter.source_port[0] <= self.source_port
            && self.source_port <= filter.source_port[1]
            && filter.target_port[0] <= self.target_port
            && self.target_port <= filter.target_port[1]
            && filter.qci[0] <= self.qci
            && self.qci <= filter.qci[1]
            && within(self.source, &filter.source)
            && within(self.target, &filter.target)
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The action of the first rule that matches, plus 1; 0 when there is none.
    action: u32,
    state: u32,
}

impl From<Answer> for u64 {
    fn from(answer: Answer) -> Self {
        Self::from(answer.state) << 32 | Self::from(answer.action)
    }
}

impl From<u64> for Answer {
    fn from(word: u64) -> Self {
        Self {
            action: word as u32,
            state: (word >> 32) as u32,
        }
    }
}

impl Answer {
    const SENSITIVE: u32 = 1;
    const BROKEN: u32 = 2;

    /// The action of the first rule that matches.
    #[must_use]
    pub const fn action(self) -> Option<u32> {
        if self.action == 0 {
            None
        } else {
            Some(self.action - 1)
        }
    }

    /// Whether a PACKET rule matched, or did not, for the DSCP or traffic class of the packet, for its
    /// tunnel or for the port that it came from.
    #[must_use]
    pub const fn is_sensitive(self) -> bool {
        self.state & Self::SENSITIVE != 0
    }

    /// Whether the rule set could not be followed to its end.
    #[must_use]
    pub const fn is_broken(self) -> bool {
        self.state & Self::BROKEN != 0
    }
}

/// Finds the first rule that matches.
pub fn first_match<T: Tables>(tables: &T, query: &Query, tunnel: &InTunnel) -> Answer {
    let mut answer = Answer {
        action: 0,
        state: 0,
    };
    let mut at = Index(query.root);
    for _ in 0..STEPS {
        if at == Index::END {
            return answer;
        }
        if !at.is_filter() {
            let Some(split) = tables.split(at.cell()) else {
                break;
            };
            at = if query.is_low(split) {
                split.low
            } else {
                split.high
            };
            continue;
        }
        let Some(filter) = tables.filter(at.cell()) else {
            break;
        };
        if query.meets(filter) {
            let minds_tunnel = filter.tunnel != 0;
            if filter.kind == kind::PACKET && (minds_tunnel || query.minds_class(filter)) {
                answer.state |= Answer::SENSITIVE;
            }
            if filter.tos[0] <= query.tos
                && query.tos <= filter.tos[1]
                && (!minds_tunnel || T::TUNNELS && comes_by(tables, tunnel, filter.tunnel - 1))
            {
                let Some(action) = tables.action(filter.action) else {
                    break;
                };
                if !leads_back(tables, action, query.from) {
                    answer.action = filter.action + 1;
                    return answer;
                }
                if filter.kind == kind::PACKET {
                    // To a packet of the same flow from another port it would apply.
                    answer.state |= Answer::SENSITIVE;
                }
            }
        }
        at = filter.next;
    }
    answer.state |= Answer::BROKEN;
    answer
}

/// Whether the tunnel is one that the filter in `cell` wants. Out of line, as the comparisons of [`Query`].
#[inline(never)]
fn comes_by<T: Tables>(tables: &T, tunnel: &InTunnel, cell: u32) -> bool {
    tables
        .tunnel_filter(cell)
        .is_some_and(|filter| tunnel.meets(filter))
}

/// Whether `action` sends packets out of the port in slot `from`.
fn leads_back<T: Tables>(tables: &T, action: &RuleAction, from: u16) -> bool {
    let leads = |hop| tables.hop(hop).is_some_and(|hop| hop.slot == from);
    matches!(action.verb, verb::FORWARD | verb::DUPLICATE)
        && (leads(action.first) || action.flags & flag::INLINE != 0 && leads(action.second))
}

const fn below(value: [u64; 2], limit: [u64; 2]) -> bool {
    value[0] < limit[0] || value[0] == limit[0] && value[1] < limit[1]
}

pub(crate) const fn within(value: [u64; 2], range: &[[u64; 2]; 2]) -> bool {
    !below(value, range[0]) && !below(range[1], value)
}
