//! Tunnels that rules send packets into, and that answers come back by: GTP-U, GRE and VXLAN.

use crate::{
    packet::Packet,
    parse::Facts,
    steer::{Plan, Steering},
    table::{RuleAction, RuleTables, Tables, Target, encapsulation, flag, verb},
    tunnel::{self, Way},
    verdict::Reason,
    wire::{
        ethernet::{self, Ethernet},
        gre::{self, GRE, Gre},
        gtpu::{self, Gtpu, message},
        transport::{UDP, Udp},
        vxlan::{self, Vxlan},
    },
};

/// What tells a tunnel from others between the same ends.
struct Label {
    identifier: u32,
    encapsulation: u8,
    /// Where the packet inside begins, or the header that comes before it.
    at: usize,
}

/// Notes the tunnel that a packet comes by, and where the packet inside is, if that comes from the other end of a
/// configured one.
///
/// # Errors
///
/// The reason why there is nothing inside that can be steered.
#[inline(never)]
pub(crate) fn find<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    facts: &mut Facts,
) -> Result<(), Reason> {
    let Some(label) = label(packet, facts).filter(|_| !facts.ip.is_fragment()) else {
        facts.tunnel.unconfigured = false;
        return Ok(());
    };
    let (from, to) = (facts.key.source, facts.key.destination);
    let key = Target::key_of(from, to, label.identifier, label.encapsulation);
    let Some(cell) = tables.opening(&key) else {
        return Ok(());
    };
    let tunnel = &mut facts.tunnel;
    tunnel.ip = facts.ip;
    tunnel.length = facts.ip.length;
    tunnel.target = cell + 1;
    tunnel.peer = tables.target(cell).is_some_and(|target| target.peer != 0);
    tunnel.way = Way::Target;
    tunnel.end = tunnel.ip.end() as u32;
    tunnel.inside = match label.encapsulation {
        encapsulation::GTPU => return tunnel::header(packet, tunnel),
        encapsulation::VXLAN => {
            let frame = packet.get::<Ethernet>(label.at).ok_or(Reason::NotIp)?;
            if !is_ip(frame.ethertype.get()) {
                return Err(Reason::NotIp);
            }
            label.at + Ethernet::LEN
        }
        _ => label.at,
    } as u32;
    Ok(())
}

const fn is_ip(ethertype: u16) -> bool {
    matches!(ethertype, ethernet::IPV4 | ethernet::IPV6)
}

/// What the headers say, if they are those of a tunnel.
#[inline(always)]
fn label<P: Packet>(packet: &P, facts: &Facts) -> Option<Label> {
    let at = usize::from(facts.ip.payload);
    match (facts.ip.protocol, facts.ports as u16) {
        (GRE, _) => gre_label(packet, at),
        (UDP, gtpu::PORT) => {
            let header = packet.get::<Gtpu>(at + Udp::LEN)?;
            (header.is_version_1() && header.message == message::G_PDU).then(|| Label {
                identifier: header.teid.get(),
                encapsulation: encapsulation::GTPU,
                at,
            })
        }
        (UDP, vxlan::PORT) => {
            let header = packet.get::<Vxlan>(at + Udp::LEN)?;
            (header.flags.get() == Vxlan::VALID).then(|| Label {
                identifier: header.vni.get() >> 8,
                encapsulation: encapsulation::VXLAN,
                at: at + Udp::LEN + Vxlan::LEN,
            })
        }
        _ => None,
    }
}

#[inline(always)]
fn gre_label<P: Packet>(packet: &P, at: usize) -> Option<Label> {
    let header = packet.get::<Gre>(at)?;
    let flags = header.flags.get();
    if flags & !(Gre::KEY | Gre::SEQUENCE) != 0 || !is_ip(header.ethertype.get()) {
        return None;
    }
    let mut at = at + Gre::LEN;
    let (mut identifier, mut encapsulation) = (0, encapsulation::GRE);
    if flags & Gre::KEY != 0 {
        identifier = packet.get::<gre::Field>(at)?.get();
        encapsulation = encapsulation::GRE_KEY;
        at += Gre::FIELD;
    }
    if flags & Gre::SEQUENCE != 0 {
        at += Gre::FIELD;
    }
    Some(Label {
        identifier,
        encapsulation,
        at,
    })
}

/// Whether the same tunnel ends at two next hops: packets from there look alike.
#[inline(always)]
pub(crate) fn is_same<T: RuleTables>(tables: &T, one: u32, other: u32) -> bool {
    if one == other {
        return true;
    }
    match (tables.target(one), tables.target(other)) {
        (Some(one), Some(other)) => one.key() == other.key(),
        _ => false,
    }
}

impl<T: Tables> Steering<'_, T> {
    /// Whether the packet comes from a UE's side, or from a peer, and is not on its way to a UE.
    #[inline(always)]
    pub(crate) fn is_upstream(&self) -> bool {
        let to_ue = T::TUNNELS && self.facts.tunnel.way == Way::Downlink;
        self.port.is_upstream() && !to_ue && !self.is_from_target() || self.is_from_peer()
    }

    /// Whether the packet came out of a tunnel that some rule sends into.
    #[inline(always)]
    pub(crate) fn is_from_target(&self) -> bool {
        T::TUNNELS && self.facts.tunnel.is_of_target()
    }

    /// Whether the packet came from a peer, which has it from a UE.
    #[inline(always)]
    pub(crate) fn is_from_peer(&self) -> bool {
        T::TUNNELS && self.facts.tunnel.is_of_peer()
    }

    /// Whether that is the tunnel which answers to what `action` sends come by.
    #[inline(never)]
    pub(crate) fn answers(&self, action: &RuleAction) -> bool {
        let kept = self.facts.tunnel.way != Way::Target;
        action.verb == verb::FORWARD
            && (!kept || action.flags & flag::ENCAPSULATED != 0)
            && self.came_through(action)
    }

    /// Whether the packet came out of the tunnel that `action` sends into.
    fn came_through(&self, action: &RuleAction) -> bool {
        self.is_from_target()
            && action.flags & flag::TUNNEL != 0
            && is_same(self.tables, self.facts.tunnel.target - 1, action.first)
    }

    /// Whether the packet, which is sent as `action` says, may leave by the port that it came by. With a lower TTL it goes
    /// into a tunnel that it does not pass beside already, or to an application without the tunnel that it came out of.
    #[inline(never)]
    pub(crate) fn turns_round(&self, action: &RuleAction) -> bool {
        if action.flags & flag::TUNNEL == 0 {
            return self.is_from_target() && self.port.is_app() && action.flags & flag::ROUTE != 0;
        }
        let key = &self.facts.key;
        let is_end =
            |target: &Target, address| address == target.source || address == target.destination;
        self.tables
            .target(action.first)
            .is_some_and(|target| !is_end(target, key.source) && !is_end(target, key.destination))
    }

    /// Has what is noted to be sent go into the tunnel of `action`, unless the packet has just come out of it.
    #[inline(never)]
    pub(crate) fn enter_target(&self, action: &RuleAction) -> Plan {
        if self.came_through(action) {
            return self.leave(Reason::OwnOutput);
        }
        if !self.note_target(action.first) {
            return self.leave(Reason::NextHopUnresolved);
        }
        let send = self.notes.send.get();
        self.plan(send.into_tunnel(self.notes.exit.overhead() as u32))
    }

    /// Notes a tunnel that rules send into.
    pub(crate) fn note_target(&self, cell: u32) -> bool {
        let Some(target) = self.tables.target(cell) else {
            return false;
        };
        let port = match target.encapsulation {
            encapsulation::GTPU => gtpu::PORT,
            _ => self.facts.key.source_port_outside(),
        };
        let exit = &self.notes.exit;
        exit.source.set(target.source);
        exit.destination.set(target.destination);
        exit.mac.set(target.mac);
        exit.identifier.set(target.identifier);
        exit.port.set(port);
        exit.encapsulation.set(target.encapsulation);
        exit.qfi.set(target.qfi);
        exit.way.set(Way::Target);
        true
    }
}
