//! What is known and counted of both directions of a flow.

#[cfg(not(target_arch = "bpf"))]
use zerocopy::{FromBytes, IntoBytes, KnownLayout};

use super::{FlowKey, SharedKey};
use crate::{
    parse::Link,
    table::{Direction, Tables},
    wire::transport::Tcp,
    word::Word,
};

/// The way back to the UE: the link layer of the latest upstream packet, turned round.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Path {
    /// MAC address of the UE's side, and the slot of the port in the lower 16 bits.
    pub ue: Word,
    /// MAC address that upstream packets are sent to.
    pub core: Word,
    /// VLAN tags.
    pub tags: Word,
}

impl Path {
    /// A MAC address of the UE's side, and the slot of the port that it is behind.
    pub(crate) const fn ue(mac: u64, slot: u16) -> u64 {
        mac << 16 | slot as u64
    }

    /// That of a packet that came by `slot`.
    fn set(&self, link: &Link, slot: u16) {
        self.ue.set(Self::ue(link.source, slot));
        self.core.set(link.destination);
        self.tags.set(link.tags);
    }
}

/// Packets, and their bytes without and with the link layer.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Sum {
    /// Packets.
    pub packets: Word,
    /// Bytes of the IP packets.
    pub bytes: Word,
    /// Bytes of the frames.
    pub wire_bytes: Word,
}

/// What is counted of one direction of a flow by the CPU that owns it, the one that saw it first.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Half {
    /// Packets and bytes.
    pub owned: Sum,
    /// When the last packet came, on any CPU, in jiffies.
    pub last_seen: Word,
    /// The owner plus 1, or 0.
    pub owner: Word,
    /// TCP control bits seen; see [`Self::tcp_flags`].
    pub tcp_flags: Word,
    /// In the lower half how often the key of packets in this direction has changed, or led here no more. In the upper half how often the way back or the session has changed.
    pub generation: Word,
    /// Fills the line.
    pub padding: Word,
}

impl Half {
    /// How far to the left SYN is put aside.
    const ASIDE: u32 = 8;

    /// Whether `cpu` owns the counters.
    pub(crate) fn is_owned(&self, cpu: u32) -> bool {
        self.owner.get() == u64::from(cpu) + 1
    }

    /// Whether there is nothing new in these TCP control bits.
    pub(crate) fn has_seen(&self, flags: u8) -> bool {
        let flags = u64::from(flags);
        self.tcp_flags.get() & flags == flags
    }

    /// TCP control bits seen in the latest connection.
    #[must_use]
    pub fn tcp_flags(&self) -> u8 {
        let bits = self.tcp_flags.get();
        (bits | bits >> Self::ASIDE) as u8
    }
}

/// A flow, in lines of the cache: the first and that of its direction are all that most packets touch.
#[derive(Debug, Default)]
#[cfg_attr(not(target_arch = "bpf"), derive(FromBytes, IntoBytes, KnownLayout))]
#[repr(C)]
pub struct Record {
    /// The [`Decision`](super::Decision) for packets of each direction.
    pub decided: [Word; 2],
    /// Where the rule it comes under, or came under last, is counted, plus 1. User space knows rules by
    /// that, and makes it 0 when the rule is gone.
    pub rule: Word,
    /// Which way back is current: 0 or 1. The one not in use is written, then made current.
    pub path: Word,
    /// The [`SessionRef`](crate::session::SessionRef) of a UE behind a tunnel, or 0.
    pub session: Word,
    /// A way back.
    pub even: Path,
    /// Upstream and downstream.
    pub halves: [Half; 2],
    /// Another way back.
    pub odd: Path,
    /// DSCP or traffic class of the packet that made the flow; in the upper half the UDP ports of the tunnel that
    /// [`Self::session`] was noted with.
    pub tos: Word,
    /// Whether the record is in use.
    pub live: Word,
    /// When the flow began, in jiffies; if the record is free, the number of the next that is, plus 1, or 0.
    pub first_seen: Word,
    /// The [`Decision`](super::Decision) by FLOW rules alone.
    pub context: Word,
    /// What CPUs counted that do not own the direction, atomically.
    pub others: [Sum; 2],
    /// The key of upstream packets.
    pub key: SharedKey,
    /// The key of downstream packets.
    pub reply: SharedKey,
    /// 1 while a rule forwards the flow, if it is that of a UE behind a tunnel: an application has it.
    pub forwarded: Word,
}

const _: () = assert!(size_of::<Record>() == 6 * 64);

impl Record {
    /// [`Self::rule`] of a connection that was left to the data network, as answers had not arrived.
    pub(crate) const LEFT: u64 = u32::MAX as u64;

    /// Whether packets with `key` are of this flow, in `direction`.
    pub(crate) fn has(&self, key: &FlowKey, direction: Direction) -> bool {
        match direction {
            Direction::Upstream => self.key.has(key),
            Direction::Downstream => self.reply.has(key),
        }
    }

    /// Whether packets could be of this flow and of `other`, or of both directions of that.
    #[inline(always)]
    pub(super) fn has_a_key_of(&self, other: &Self) -> bool {
        self.key.is(&other.key)
            || self.key.is(&other.reply)
            || self.reply.is(&other.key)
            || self.reply.is(&other.reply)
    }

    /// The half of packets in `direction`.
    #[must_use]
    pub const fn half(&self, direction: Direction) -> &Half {
        &self.halves[direction as usize]
    }

    /// The decision for packets in `direction`.
    #[must_use]
    pub const fn decision(&self, direction: Direction) -> &Word {
        match direction {
            Direction::Upstream => &self.decided[0],
            Direction::Downstream => &self.decided[1],
        }
    }

    /// The current way back.
    #[must_use]
    pub fn way_back(&self) -> &Path {
        if self.path.get() == 0 {
            &self.even
        } else {
            &self.odd
        }
    }

    /// Whether the latest upstream packet came by `slot` with this link layer.
    pub(crate) fn came_by(&self, link: &Link, slot: u16) -> bool {
        let current = self.way_back();
        current.ue.get() == Path::ue(link.source, slot)
            && current.core.get() == link.destination
            && current.tags.get() == link.tags
    }

    /// Remembers that upstream packets now come by `slot` with this link layer.
    pub fn follow<T: Tables>(&self, tables: &T, link: &Link, slot: u16) {
        if self.came_by(link, slot) {
            return;
        }
        let (other, index) = if self.path.get() == 0 {
            (&self.odd, 1)
        } else {
            (&self.even, 0)
        };
        other.set(link, slot);
        self.path.set(index);
        self.moved(tables);
    }

    /// Remembers where the first packet of a flow came from, and its session. Nobody else knows the flow yet.
    pub(crate) fn begin<T: Tables>(&self, tables: &T, link: &Link, slot: u16, session: u64) {
        let [up, _] = &self.halves;
        up.owner.set(u64::from(tables.cpu()) + 1);
        self.even.set(link, slot);
        self.path.set(0);
        self.session.set(session);
    }

    /// Remembers the session of the UE, and how it goes through its tunnels.
    pub(crate) fn set_session<T: Tables>(&self, tables: &T, session: u64) {
        if self.session.get() != session {
            self.session.set(session);
            self.moved(tables);
        }
    }

    /// What the flow cache knows of the way that packets take is no longer so.
    pub(crate) fn moved<T: Tables>(&self, tables: &T) {
        for half in &self.halves {
            tables.add(&half.generation, 1 << 32);
        }
    }

    /// Counts a packet on this CPU.
    pub fn count<T: Tables>(
        &self,
        tables: &T,
        direction: Direction,
        bytes: u64,
        wire_bytes: u64,
        tcp_flags: u8,
    ) {
        let half = self.half(direction);
        let me = u64::from(tables.cpu()) + 1;
        let owner = half.owner.get();
        if owner == me || owner == 0 && tables.claim(&half.owner, me) == me {
            half.owned.add(bytes, wire_bytes);
            half.last_seen.set(tables.now());
        } else {
            let others = match direction {
                Direction::Upstream => &self.others[0],
                Direction::Downstream => &self.others[1],
            };
            tables.add(&others.packets, 1);
            tables.add(&others.bytes, bytes);
            tables.add(&others.wire_bytes, wire_bytes);
            // The line is the owner's: it is taken from it no more often than it has to be.
            let now = tables.now();
            if half.last_seen.get() != now {
                half.last_seen.set(now);
            }
        }
        if !half.has_seen(tcp_flags) {
            self.note_tcp_flags(tables, direction, tcp_flags.into());
        }
    }

    /// Notes TCP control bits that are new. A SYN after the end of a connection begins another with the
    /// same ports (RFC 9293, 3.6.1), of which nothing was seen yet. So that it is new, and no packet before
    /// it costs more, the end of a connection puts SYN aside.
    #[inline(never)]
    pub(crate) fn note_tcp_flags<T: Tables>(&self, tables: &T, direction: Direction, flags: u64) {
        const SYN: u64 = Tcp::SYN as u64;
        const ACK: u64 = Tcp::ACK as u64;
        const ENDS: u64 = (Tcp::FIN | Tcp::RST) as u64;
        let half = self.half(direction);
        let other = self.half(direction.opposite());
        let ended = (half.tcp_flags.get() | other.tcp_flags.get()) & ENDS != 0;
        if flags & (SYN | ACK) == SYN && ended {
            other.last_seen.set(0);
            other.tcp_flags.set(0);
            half.tcp_flags.set(0);
        }
        tables.set_bits(&half.tcp_flags, flags);
        if flags & ENDS != 0 {
            for half in &self.halves {
                let seen = half.tcp_flags.get();
                half.tcp_flags
                    .set(seen & !SYN | (seen & SYN) << Half::ASIDE);
            }
        }
    }

    /// Packets, bytes and bytes on the wire counted in a direction by all CPUs.
    #[must_use]
    pub fn counted(&self, direction: Direction) -> [u64; 3] {
        let owned = &self.half(direction).owned;
        let others = match direction {
            Direction::Upstream => &self.others[0],
            Direction::Downstream => &self.others[1],
        };
        [
            owned.packets.get() + others.packets.get(),
            owned.bytes.get() + others.bytes.get(),
            owned.wire_bytes.get() + others.wire_bytes.get(),
        ]
    }

    /// Forgets what was counted.
    pub fn clear(&self) {
        for half in &self.halves {
            half.owned.clear();
            half.last_seen.set(0);
            half.owner.set(0);
            half.tcp_flags.set(0);
        }
        for others in &self.others {
            others.clear();
        }
    }
}

impl Sum {
    /// Counts a packet, where no other CPU writes.
    #[inline(always)]
    pub(crate) fn add(&self, bytes: u64, wire_bytes: u64) {
        let add = |cell: &Word, value| cell.set(cell.get() + value);
        add(&self.packets, 1);
        add(&self.bytes, bytes);
        add(&self.wire_bytes, wire_bytes);
    }

    fn clear(&self) {
        self.packets.set(0);
        self.bytes.set(0);
        self.wire_bytes.set(0);
    }
}
