//! The short way, which nearly all packets take: whole TCP and UDP packets without VLAN tags, of flows that
//! this CPU knows and that a FLOW rule sends on.
//!
//! It decides nothing that [`crate::steer`] would not decide the same: what that has found out about a packet of a flow is
//! [noted](note) in the flow cache, together with the octets that all packets have in common of which it is as true. So a packet
//! is not parsed, it is compared. Whatever is unusual is left to the long way, before anything is changed or counted.

mod form;
mod note;
mod wrap;

use form::{Alone, Bare, Contained, Inside, Network, Numbered, Shape, octets};

use crate::{
    flow::{FlowKey, KeyRest, Record},
    packet::{Header, Packet},
    parse::{Ip, is_mapped, mapped},
    rewrite::{self, Address},
    steer::unsteered,
    table::{CacheWay, Direction, FlowRef, Index, Port, Tables, flag},
    verdict::{Reason, Verdict},
    wire::{
        ethernet::{self, Ethernet},
        gtpu::{self, Gtpu, message},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{TCP, Tcp, UDP, Udp},
        vxlan,
    },
};

/// In [`CacheWay::how`]: packets that begin a connection are not usual.
const BEGINS: u32 = 8;
/// In [`CacheWay::how`]: packets go their original path, and are counted.
const PASSTHROUGH: u64 = 1 << 9;
/// In [`CacheWay::how`]: packets are answers.
const REPLY: u64 = 1 << 10;
/// In [`CacheWay::how`], from this bit on: the [`Kind`](wrap::Kind) of tunnel that packets go into.
const KIND: u32 = 11;

/// What [`CacheWay::valid`] is of frames of the form with this number.
const fn valid<T: Tables>(validity: u64, form: usize) -> u64 {
    // Programs that see tunnels know other forms than those that do not.
    let kind = if T::TUNNELS { form } else { form + 14 };
    validity ^ (kind as u64) << 60
}

/// Takes a packet that came by `port` to its verdict, and counts it. `None`: it is to go the long way.
#[inline(always)]
pub(crate) fn packet<P: Packet, T: Tables>(
    packet: &mut P,
    port: &Port,
    tables: &T,
) -> Option<Verdict> {
    if tables.read_only() {
        return None;
    }
    // What follows is there once for each form, in which everything has its place.
    let ethertype = packet.get::<Ethernet>(0)?.ethertype;
    if ethertype == ethernet::IPV4 {
        outside::<P, T, Ipv4>(packet, port, tables)
    } else if ethertype == ethernet::IPV6 {
        outside::<P, T, Ipv6>(packet, port, tables)
    } else {
        None
    }
}

#[inline(always)]
fn outside<P: Packet, T: Tables, O: Network>(
    packet: &mut P,
    port: &Port,
    tables: &T,
) -> Option<Verdict> {
    let at = Ethernet::LEN + size_of::<O>();
    if T::TUNNELS {
        let headers = packet.get::<<Alone<O> as Shape>::Headers>(0)?;
        let protocol = protocol::<Alone<O>>(headers);
        if protocol == UDP && be16(headers, at + 2) == gtpu::PORT {
            return g_pdu::<P, T, O>(packet, port, tables);
        }
    }
    let root = tables.state()?.image().root;
    if root == Index::END && !(T::TUNNELS && port.is_app()) {
        return nameless::<P, T, Alone<O>>(packet, port, tables, false);
    }
    match known::<P, T, Alone<O>>(packet, port, tables) {
        Known::Not => nameless::<P, T, Alone<O>>(packet, port, tables, true),
        Known::Unusual => None,
        Known::Done(verdict) => Some(verdict),
    }
}

/// How a G-PDU begins, and where the packet in it may begin.
type Start = [u8; 20];

#[inline(always)]
fn g_pdu<P: Packet, T: Tables, O: Network>(
    packet: &mut P,
    port: &Port,
    tables: &T,
) -> Option<Verdict> {
    let start: &Start = packet.get(Ethernet::LEN + size_of::<O>() + Udp::LEN)?;
    let [flags, kind] = octets(start, 0);
    if flags & !OPTIONAL != Gtpu::PLAIN || kind != message::G_PDU {
        return None;
    }
    let known = if flags & Gtpu::EXTENSION != 0 {
        inside::<P, T, O, Contained>(packet, port, tables)
    } else if flags & OPTIONAL != 0 {
        inside::<P, T, O, Numbered>(packet, port, tables)
    } else {
        inside::<P, T, O, Bare>(packet, port, tables)
    };
    match known {
        Known::Done(verdict) => Some(verdict),
        Known::Not | Known::Unusual => None,
    }
}

/// Flags of a GTP-U header that say what else is in there.
const OPTIONAL: u8 = 7;

#[inline(always)]
fn inside<P: Packet, T: Tables, O: Network, G: Header>(
    packet: &mut P,
    port: &Port,
    tables: &T,
) -> Known {
    let at = Ethernet::LEN + size_of::<O>() + Udp::LEN + size_of::<G>();
    let Some([first, ..]) = packet.get::<[u8; 4]>(at) else {
        return Known::Not;
    };
    match first >> 4 {
        4 => known::<P, T, Inside<O, G, Ipv4>>(packet, port, tables),
        6 => known::<P, T, Inside<O, G, Ipv6>>(packet, port, tables),
        _ => Known::Not,
    }
}

/// What the flow cache made of a packet.
enum Known {
    /// It knows no frames like that, or no more how they leave.
    Not,
    /// The long way knows what to do.
    Unusual,
    /// All of it.
    Done(Verdict),
}

/// Does to a packet what was noted of its flow, if this CPU has noted it.
#[inline(always)]
fn known<P: Packet, T: Tables, S: Shape>(packet: &mut P, port: &Port, tables: &T) -> Known {
    let Some(headers) = packet.get::<S::Headers>(0) else {
        return Known::Not;
    };
    let hash = form::hash(S::AT, S::V6, |at| form::word(headers, at));
    let Some(set) = tables.cache(hash) else {
        return Known::Not;
    };
    let [first, second] = &set.ways;
    let way = if S::is_of(first, headers, port.slot) {
        first
    } else if S::is_of(second, headers, port.slot) {
        second
    } else {
        return Known::Not;
    };
    let Some((record, direction)) = flow_of::<T, S>(tables, way) else {
        return Known::Not;
    };
    let Some(measure) = measure::<P, S>(packet, headers) else {
        return Known::Unusual;
    };
    let ip = ip::<S>(headers, measure.length);
    let counted = Counted { record, direction };
    match usual::<P, T, S>(packet, port, tables, way, &counted, &measure, &ip) {
        Some(verdict) => Known::Done(verdict),
        None => Known::Unusual,
    }
}

/// The flow that a way is of, if what was noted is still so.
#[inline(always)]
fn flow_of<'a, T: Tables, S: Shape>(
    tables: &'a T,
    way: &CacheWay,
) -> Option<(&'a Record, Direction)> {
    let flow = way.flow.get();
    let (flow, session) = (FlowRef::from(flow as u32), (flow >> 32) as u32);
    let record = tables.record(flow.id())?;
    let holds = way.valid.get() == valid::<T>(tables.state()?.validity(), S::INDEX)
        && way.moves.get() == record.half(flow.direction()).generation.get()
        && (!T::TUNNELS || way.told.get() == tables.session_changes(session));
    holds.then_some((record, flow.direction()))
}

/// Where a packet is counted, besides its port and its rule.
struct Counted<'a> {
    record: &'a Record,
    direction: Direction,
}

#[inline(always)]
fn usual<P: Packet, T: Tables, S: Shape>(
    packet: &mut P,
    port: &Port,
    tables: &T,
    way: &CacheWay,
    counted: &Counted<'_>,
    measure: &Measure,
    ip: &Ip,
) -> Option<Verdict> {
    let how = way.how.get();
    let begins = u64::from(measure.tcp_flags & Tcp::SYN) << (BEGINS - 1);
    if how & begins != 0
        || u64::from(measure.length) > way.tunnel[1].get() >> 48
        || ip.ttl <= 1 && is_routed(how)
    {
        return None;
    }
    let (bytes, frame) = (measure.length.into(), measure.frame.into());
    let Counted { record, direction } = counted;
    record.count(tables, *direction, bytes, frame, measure.tcp_flags);
    if let Some(rule) = tables.rule((how >> 32) as u32) {
        rule.add(tables, bytes);
    }
    let [upper, lower] = &way.exit;
    let (macs, verdict) = ([upper.get(), lower.get()], (lower.get() >> 32) as u32);
    let verdict = Verdict::from_word(verdict);
    let changed = how & PASSTHROUGH != 0
        || change(packet, way, how, ip)
            && if T::TUNNELS && S::OUTSIDE == 0 && kind(how) != 0 {
                wrap::wrap(packet, kind(how), way, ip, macs)
            } else {
                let ethertype = if S::V6 {
                    ethernet::IPV6
                } else {
                    ethernet::IPV4
                };
                rewrite::untagged(packet, S::AT, macs, ethertype)
            };
    if !changed {
        return Some(discarded(port.slot, tables, frame));
    }
    tables.count(port.slot, verdict, frame);
    Some(verdict)
}

/// Out of line, so that what is counted of others is known to the compiler.
#[inline(never)]
fn discarded<T: Tables>(slot: u16, tables: &T, bytes: u64) -> Verdict {
    let verdict = Verdict::discard(Reason::NoHeadroom);
    tables.count(slot, verdict, bytes);
    verdict
}

/// Changes the packet behind the link layer as it has to be.
#[inline(always)]
fn change<P: Packet>(packet: &mut P, way: &CacheWay, how: u64, ip: &Ip) -> bool {
    let translated = how as u8 & flag::NAT == 0 || {
        let which = if how & REPLY != 0 {
            Address::Source
        } else {
            Address::Destination
        };
        let [high, low] = &way.address;
        let port = (how >> 16) as u16;
        rewrite::address(packet, ip, which, [high.get(), low.get()], port)
    };
    translated && (!is_routed(how) || rewrite::hop(packet, ip))
}

const fn kind(how: u64) -> u64 {
    how >> KIND & 7
}

const fn is_routed(how: u64) -> bool {
    how as u8 & flag::ROUTE != 0
}

/// The verdict on a packet of no flow that this CPU knows, if no rule is about such; or, if not even `asked`, there are none.
#[inline(always)]
fn nameless<P: Packet, T: Tables, S: Shape>(
    packet: &P,
    port: &Port,
    tables: &T,
    asked: bool,
) -> Option<Verdict> {
    let headers = packet.get::<S::Headers>(0)?;
    if !is_plain::<S>(headers) {
        return None;
    }
    let measure = measure::<P, S>(packet, headers)?;
    let key = key::<S>(headers, port.zone);
    let to = key.rest.destination_port();
    if T::TUNNELS && key.rest.protocol() == UDP && matches!(to, gtpu::PORT | vxlan::PORT) {
        return None;
    }
    if asked {
        let names = tables.names()?;
        // Applications may answer copies, and flows that came to them by a rule that is no more.
        if port.is_app() || names.has(key.destination) || names.has(key.source) {
            return None;
        }
    }
    let verdict = unsteered(port, Reason::NoRule);
    tables.count(port.slot, verdict, measure.frame.into());
    Some(verdict)
}

/// Whether a packet is what it has to be so that its headers are where its form has them.
#[inline(always)]
fn is_plain<S: Shape>(headers: &S::Headers) -> bool {
    let [version_ihl] = octets(headers, S::AT);
    if S::V6 {
        let key = key::<S>(headers, 0);
        return version_ihl >> 4 == 6 && !is_mapped(key.source) && !is_mapped(key.destination);
    }
    let fragment = Ipv4::MORE_FRAGMENTS | Ipv4::FRAGMENT_OFFSET;
    version_ihl == 0x45 && be16(headers, S::AT + 6) & fragment == 0
}

/// What differs from packet to packet.
struct Measure {
    /// Octets of the packet.
    length: u32,
    /// Octets on the wire, without padding.
    frame: u32,
    tcp_flags: u8,
}

/// Measures a packet of TCP or UDP, if it is all there and what is said of lengths agrees.
#[inline(always)]
fn measure<P: Packet, S: Shape>(packet: &P, headers: &S::Headers) -> Option<Measure> {
    let length = length(headers, S::AT, S::V6);
    let mut whole = length;
    if S::OUTSIDE != 0 {
        whole = self::length(headers, Ethernet::LEN, S::OUTSIDE == Ipv6::LEN);
        let udp = Ethernet::LEN + S::OUTSIDE;
        let said = u32::from(be16(headers, udp + 4)) + S::OUTSIDE as u32;
        let rest = u32::from(be16(headers, udp + Udp::LEN + 2)) + (S::OUTSIDE + 16) as u32;
        let before = (S::AT - Ethernet::LEN) as u32;
        if said != whole || rest != whole || length + before > whole {
            return None;
        }
    }
    let frame = whole + Ethernet::LEN as u32;
    let header = (S::PAYLOAD - S::AT) as u32;
    if length < header + Udp::LEN as u32 || !packet.holds(frame as usize) {
        return None;
    }
    let room = length - header;
    let tcp_flags = match protocol::<S>(headers) {
        TCP => {
            let tcp = packet.get::<Tcp>(S::PAYLOAD)?;
            let len = tcp.header_len();
            if len < Tcp::LEN || len > room as usize {
                return None;
            }
            tcp.flags
        }
        UDP => {
            // Neither shorter than its header nor longer than there is room.
            let payload = u32::from(be16(headers, S::PAYLOAD + 4)).wrapping_sub(Udp::LEN as u32);
            if payload > room - Udp::LEN as u32 {
                return None;
            }
            0
        }
        _ => return None,
    };
    Some(Measure {
        length,
        frame,
        tcp_flags,
    })
}

#[inline(always)]
fn be16<H: Header>(headers: &H, at: usize) -> u16 {
    u16::from_be_bytes(octets(headers, at))
}

#[inline(always)]
fn be32<H: Header>(headers: &H, at: usize) -> u32 {
    u32::from_be_bytes(octets(headers, at))
}

#[inline(always)]
fn be64<H: Header>(headers: &H, at: usize) -> u64 {
    u64::from_be_bytes(octets(headers, at))
}

/// Octets of the IP packet at `at`.
#[inline(always)]
fn length<H: Header>(headers: &H, at: usize, v6: bool) -> u32 {
    if v6 {
        u32::from(be16(headers, at + 4)) + Ipv6::LEN as u32
    } else {
        be16(headers, at + 2).into()
    }
}

#[inline(always)]
fn protocol<S: Shape>(headers: &S::Headers) -> u8 {
    let [protocol] = octets(headers, S::AT + if S::V6 { 6 } else { 9 });
    protocol
}

#[inline(always)]
fn key<S: Shape>(headers: &S::Headers, zone: u16) -> FlowKey {
    let address = |at: usize| {
        if S::V6 {
            [be64(headers, at), be64(headers, at + 8)]
        } else {
            mapped(be32(headers, at))
        }
    };
    let (source, destination) = if S::V6 {
        (Ipv6::SOURCE, Ipv6::DESTINATION)
    } else {
        (Ipv4::SOURCE, Ipv4::DESTINATION)
    };
    FlowKey {
        source: address(S::AT + source),
        destination: address(S::AT + destination),
        rest: KeyRest::new(be32(headers, S::PAYLOAD), zone, protocol::<S>(headers)),
    }
}

/// What changing a packet asks of it.
#[inline(always)]
fn ip<S: Shape>(headers: &S::Headers, length: u32) -> Ip {
    let [class, next, ..] = octets::<_, 4>(headers, S::AT);
    let [ttl] = octets(headers, S::AT + if S::V6 { 7 } else { 8 });
    Ip {
        length,
        offset: S::AT as u16,
        payload: S::PAYLOAD as u16,
        tos: if S::V6 {
            u16::from(class << 4 | next >> 4) | 256
        } else {
            (next >> 2).into()
        },
        ttl,
        protocol: protocol::<S>(headers),
        v6: S::V6,
        ..Ip::default()
    }
}
