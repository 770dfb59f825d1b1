//! What becomes of a copy of a packet, which traffic control makes.

use super::Scratch;
use crate::{
    packet::Packet,
    table::{Direction, Tables, flag, kind, verb},
    wire::ethernet,
};

/// Where a copy of a packet goes, and where the packet itself goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate {
    /// Interface that the copy leaves by.
    pub copy: u32,
    /// MAC address that the copy is sent to.
    pub destination: u64,
    /// MAC address that it is sent from.
    pub source: u64,
    /// Interface at the other end of the wire, or 0 when the kernel routes the packet.
    pub original: u32,
    /// Octets of headers that the copy goes without, which follow the link-layer header.
    pub outside: u16,
    /// EtherType of what the copy begins with.
    pub ethertype: u16,
}

impl Duplicate {
    /// Octets that a copy may go without, at most.
    pub const OUTSIDE: u16 = 160;
}

/// What a DUPLICATE rule asks for a packet that [`packet`](super::packet) ended for [`Reason::Duplicated`](crate::Reason::Duplicated).
pub fn duplicate<P: Packet, T: Tables>(
    packet: &P,
    ifindex: u32,
    tables: &T,
    scratch: &mut Scratch,
) -> Option<Duplicate> {
    let port = tables.port(ifindex)?;
    let steering = scratch.parse(packet, port, tables).ok()?;
    let (found, quoted) = steering.find();
    if T::TUNNELS {
        steering.recognize();
    }
    let (cell, direction) = match found {
        Some(found) => {
            let cell = steering.decision(&found, quoted).ok()?;
            (cell, found.flow.direction())
        }
        // Without a flow it can only be a rule for single packets.
        None => (
            steering.classify(kind::PACKET).action()?,
            Direction::Upstream,
        ),
    };
    let action = tables
        .action(cell)
        .filter(|action| action.verb == verb::DUPLICATE)?;
    let downstream = direction == Direction::Downstream;
    let of_flow = action.kind == kind::FLOW;
    // A flow is copied where it comes from, not where an application sends it again.
    let from_its_side = if downstream {
        !port.is_app()
    } else {
        port.is_upstream()
    };
    if of_flow && !from_its_side {
        return None;
    }
    let core_side = action.flags & flag::INLINE != 0 && (port.is_core() || of_flow && downstream);
    let hop = tables.hop(if core_side {
        action.second
    } else {
        action.first
    })?;
    let exit = tables
        .port_in(hop.slot)
        .filter(|exit| exit.slot != port.slot)?;
    let facts = steering.facts;
    let bare = T::TUNNELS && facts.tunnel.is_of_ue() && action.flags & flag::ENCAPSULATED == 0;
    if bare && facts.outside() > Duplicate::OUTSIDE {
        return None;
    }
    Some(Duplicate {
        copy: exit.ifindex,
        destination: hop.mac,
        source: exit.mac,
        original: tables.port_in(port.pair).map_or(0, |pair| pair.ifindex),
        outside: if bare { facts.outside() } else { 0 },
        ethertype: if facts.ip.v6 {
            ethernet::IPV6
        } else {
            ethernet::IPV4
        },
    })
}
