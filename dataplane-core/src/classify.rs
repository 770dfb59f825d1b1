//! From the facts of a packet to the first rule that matches.
//!
//! The rule set in force is a tree of splits whose leaves are lists of filters in order of
//! precedence. It is never changed: a new one is built beside it and takes its place at once.

use core::{cell::Cell, hint};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, transmute_ref};

use crate::{
    flow::FlowKey,
    parse::has_ports,
    table::{
        Filter, Index, RuleAction, RuleTables, STEPS, Split, TunnelFilter, field, flag, kind, verb,
    },
    target,
};

/// The value of both ports in packets that have none: outside of every range that asks for ports.
pub const NO_PORTS: u32 = 0x1_0000;

/// Trees that may be left for later on a walk.
pub const AHEAD: usize = 16;

/// Steps of a [`walk`] in one go. Few, as the kernel's verifier takes each for itself.
const ROUNDS: u32 = 64;

/// How often a [`walk`] goes on at the most.
const WALKS: u32 = STEPS / ROUNDS;

/// What is asked: the facts that filters look at, in the words that [`field`] counts, and how.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Query {
    /// Destination address.
    pub destination: [u64; 2],
    /// Source address.
    pub source: [u64; 2],
    /// Destination port or [`NO_PORTS`].
    pub destination_port: u32,
    /// Source port or [`NO_PORTS`].
    pub source_port: u32,
    /// Protocol.
    pub protocol: u32,
    /// Address space.
    pub zone: u32,
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: u32,
    /// Any of [`kind`].
    pub kinds: u16,
    /// The slot of the port that the packet came by: rules that lead there do not apply, unless it is into a tunnel.
    pub from: u16,
    /// Fills the words.
    pub padding: [u32; 2],
}

impl Query {
    /// Asks about packets with `key`.
    #[must_use]
    pub const fn new(key: &FlowKey, tos: u16, kinds: u8, from: u16) -> Self {
        let rest = key.rest;
        let (source_port, destination_port) = if has_ports(rest.protocol()) {
            (rest.source_port() as u32, rest.destination_port() as u32)
        } else {
            (NO_PORTS, NO_PORTS)
        };
        Self {
            destination: key.destination,
            source: key.source,
            destination_port,
            source_port,
            protocol: rest.protocol() as u32,
            zone: rest.zone() as u32,
            tos: tos as u32,
            kinds: kinds as u16,
            from,
            padding: [0; 2],
        }
    }

    /// Whether `filter` matches, but for the DSCP or traffic class.
    #[inline(always)]
    #[must_use]
    pub const fn meets(&self, filter: &Filter) -> bool {
        filter.kind as u16 & self.kinds != 0
            && within(self.destination, &filter.destination)
            && filter.destination_port[0] <= self.destination_port
            && self.destination_port <= filter.destination_port[1]
            && filter.protocol[0] as u32 <= self.protocol
            && self.protocol <= filter.protocol[1] as u32
            && within(self.source, &filter.source)
            && filter.source_port[0] <= self.source_port
            && self.source_port <= filter.source_port[1]
            && filter.zone[0] as u32 <= self.zone
            && self.zone <= filter.zone[1] as u32
    }

    /// The words that [`field`] counts.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> &[u32; 16] {
        transmute_ref!(self)
    }

    /// 1 if `filter` might treat another packet of the flow differently.
    #[inline(always)]
    const fn minds(&self, filter: &Filter) -> u64 {
        filter.minds as u64 >> (self.tos >> 8) & 1
    }
}

/// The tunnel of the packet that is asked about, where tunnels are looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct InTunnel {
    /// Source address of the outer header.
    pub source: [u64; 2],
    /// Its destination address.
    pub target: [u64; 2],
    /// QCI of the bearer or 5QI of the QoS flow; 0 when none is known.
    pub qci: u32,
    /// Its UDP source port, or [`NO_PORTS`] in no tunnel.
    pub source_port: u32,
    /// Its UDP destination port.
    pub target_port: u32,
    /// The cell of the [`Target`](crate::table::Target) from whose other end the packet comes, plus 1, or 0.
    pub opened: u32,
    /// Fills the words.
    pub padding: [u32; 4],
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
        qci: 0,
        source_port: NO_PORTS,
        target_port: NO_PORTS,
        opened: 0,
        padding: [0; 4],
    };

    /// The tunnel from one address to another with these ports, that of the source in the upper half.
    #[must_use]
    pub const fn new(source: [u64; 2], target: [u64; 2], ports: u32, qci: u8) -> Self {
        Self {
            source,
            target,
            qci: qci as u32,
            source_port: ports >> 16,
            target_port: ports & 0xffff,
            ..Self::NONE
        }
    }

    /// Whether `filter` matches.
    const fn meets(&self, filter: &TunnelFilter) -> bool {
        filter.source_port[0] <= self.source_port
            && self.source_port <= filter.source_port[1]
            && filter.target_port[0] <= self.target_port
            && self.target_port <= filter.target_port[1]
            && filter.qci[0] as u32 <= self.qci
            && self.qci <= filter.qci[1] as u32
            && within(self.source, &filter.source)
            && within(self.target, &filter.target)
    }
}

/// The answer: what else is known of it, and in the lower half the action of the first rule that matches, plus 1; 0 when
/// there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Answer(u64);

impl From<Answer> for u64 {
    fn from(answer: Answer) -> Self {
        answer.0
    }
}

impl From<u64> for Answer {
    fn from(word: u64) -> Self {
        Self(word)
    }
}

impl Answer {
    const ACTION: u64 = u32::MAX as u64;
    const SENSITIVE: u64 = 1 << 32;
    const BROKEN: u64 = 1 << 33;

    /// The action of the first rule that matches.
    #[must_use]
    pub const fn action(self) -> Option<u32> {
        (self.0 as u32).checked_sub(1)
    }

    const fn set_action(&mut self, action: u32) {
        self.0 = self.0 & !Self::ACTION | (action as u64 + 1);
    }

    /// Whether a PACKET rule matched, or did not, for the DSCP or traffic class of the packet, for its
    /// tunnel or for the port that it came from.
    #[must_use]
    pub const fn is_sensitive(self) -> bool {
        self.0 & Self::SENSITIVE != 0
    }

    /// Whether the rule set could not be followed to its end.
    #[must_use]
    pub const fn is_broken(self) -> bool {
        self.0 & Self::BROKEN != 0
    }
}

/// How far a walk through the rule set has come. It is in memory, of which the kernel's verifier knows nothing, so that
/// a step looks to it like all the others.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Walk {
    /// Only what comes before the best found so far is looked at.
    rank: Cell<u64>,
    /// An [`Answer`].
    found: Cell<u64>,
    /// The next split or filter.
    at: Cell<u32>,
    /// How many of `ahead` are left for later.
    left: Cell<u32>,
    /// In their upper halves what [`Split::also_rank`] is.
    ahead: [Cell<u64>; AHEAD],
}

impl Walk {
    /// Begins anew.
    pub fn begin(&self, root: Index) {
        self.rank.set(u64::MAX);
        self.found.set(0);
        self.at.set(root.0);
        self.left.set(0);
    }

    fn push(&self, split: &Split) {
        let left = self.left.get();
        let also = (split.also_rank as u64) << 32 | split.also.0 as u64;
        self.ahead[left as usize % AHEAD].set(also);
        self.left.set(left.wrapping_add(1));
    }

    /// The latest that was left, if one was; nowhere if nothing in it comes before what was found.
    fn pop(&self) -> Option<Index> {
        let left = self.left.get().checked_sub(1)?;
        self.left.set(left);
        let also = self.ahead[left as usize % AHEAD].get();
        Some(if also >> 32 > self.rank.get() >> 48 {
            Index::END
        } else {
            Index(also as u32)
        })
    }
}

/// Finds the first rule that matches, from `root` on.
pub fn first_match<T: RuleTables>(
    tables: &T,
    root: Index,
    query: &Query,
    tunnel: &InTunnel,
) -> Answer {
    let way = Walk::default();
    way.begin(root);
    to_the_end(|| walk(tables, query, tunnel, &way))
}

/// Goes on with a [`walk`] until it has come to its end, or it takes too long.
#[inline(always)]
pub fn to_the_end(walk: impl Fn() -> Answer) -> Answer {
    let mut answer = walk();
    for _ in 1..WALKS {
        if !answer.is_broken() {
            break;
        }
        answer = walk();
    }
    answer
}

/// Goes on with a walk. The answer is broken while it has not come to its end.
pub fn walk<T: RuleTables>(tables: &T, query: &Query, tunnel: &InTunnel, walk: &Walk) -> Answer {
    let mut answer = Answer::from(walk.found.get());
    let mut at = Index(walk.at.get());
    for _ in 0..ROUNDS {
        let next = if at.is_filter() {
            let Some(filter) = tables.filter(at.cell()) else {
                break;
            };
            // Read anew: what the compiler would keep has no room on the stack.
            let query = hint::black_box(query);
            if filter.rank >= walk.rank.get() {
                Index::END
            } else if !query.meets(filter) {
                filter.next
            } else {
                answer.0 |= query.minds(filter) * Answer::SENSITIVE;
                if u32::from(filter.tos[0]) <= query.tos
                    && query.tos <= u32::from(filter.tos[1])
                    && (filter.tunnel == 0
                        || T::TUNNELS && comes_by(tables, tunnel, filter.tunnel - 1))
                {
                    let Some(action) = tables.action(filter.action) else {
                        break;
                    };
                    if !leads_back(tables, action, query.from, tunnel) {
                        answer.set_action(filter.action);
                        walk.rank.set(filter.rank);
                        Index::END
                    } else {
                        // To a packet of the same flow from elsewhere it would apply.
                        answer.0 |= u64::from(filter.kind / kind::PACKET) * Answer::SENSITIVE;
                        filter.next
                    }
                } else {
                    filter.next
                }
            }
        } else {
            let Some(split) = tables.split(at.cell()) else {
                break;
            };
            if u64::from(split.rank) > walk.rank.get() >> 32 {
                Index::END
            } else {
                if split.also != Index::END {
                    walk.push(split);
                }
                answer.0 |= u64::from(split.sensitive) * Answer::SENSITIVE;
                let way = split.way(value::<T>(split.field, query, tunnel));
                let Some(next) = split.ways.get(way) else {
                    break;
                };
                *next
            }
        };
        at = if next != Index::END {
            next
        } else if let Some(next) = walk.pop() {
            // Where it is nowhere, the next step takes cell 0, which leads nowhere.
            next
        } else {
            return answer;
        };
    }
    walk.found.set(answer.into());
    walk.at.set(at.0);
    Answer(answer.0 | Answer::BROKEN)
}

/// The value of a field.
#[inline(always)]
fn value<T: RuleTables>(field: u8, query: &Query, tunnel: &InTunnel) -> u32 {
    let place = (field % field::TUNNEL) as usize;
    if T::TUNNELS && field & field::TUNNEL != 0 {
        let words: &[u32; 16] = transmute_ref!(tunnel);
        words[place]
    } else {
        query.words()[place]
    }
}

/// Whether the tunnel is one that the filter in `cell` wants.
#[inline(always)]
fn comes_by<T: RuleTables>(tables: &T, tunnel: &InTunnel, cell: u32) -> bool {
    tables
        .tunnel_filter(cell)
        .is_some_and(|filter| tunnel.meets(filter))
}

/// Whether `action` sends packets back where they come from: out of the port in slot `from`, or into the tunnel that they
/// came out of.
fn leads_back<T: RuleTables>(
    tables: &T,
    action: &RuleAction,
    from: u16,
    tunnel: &InTunnel,
) -> bool {
    if T::TUNNELS && action.flags & flag::TUNNEL != 0 {
        return tunnel.opened != 0 && target::is_same(tables, tunnel.opened - 1, action.first);
    }
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
