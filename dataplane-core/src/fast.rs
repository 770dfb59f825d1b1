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
    checksum,
    flow::{FlowKey, Half, KeyRest},
    packet::{Header, Packet},
    parse::{Ip, is_mapped, mapped},
    rewrite::{self, Address},
    steer::unsteered,
    table::{CacheWay, FlowRef, Index, Passage, Port, Tables, flag},
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
const BEGINS: u64 = 1 << 8;
/// In [`CacheWay::how`]: packets go their original path, and are counted.
const PASSTHROUGH: u64 = 1 << 9;
/// In [`CacheWay::how`]: packets are answers.
const REPLY: u64 = 1 << 10;
/// In [`CacheWay::how`], from this bit on: the [`Kind`](wrap::Kind) of tunnel that packets go into.
const KIND: u32 = 11;
/// In [`CacheWay::how`]: a router's work is done.
const ROUTE: u64 = flag::ROUTE as u64;
/// In [`CacheWay::how`]: this CPU owns the counters of the flow's direction.
const OWNED: u64 = 1 << 14;
/// More is done to packets than to send them with other MAC addresses and another TTL.
const MORE: u64 = flag::NAT as u64 | PASSTHROUGH | 7 << KIND;

/// What [`CacheWay::valid`] is of frames of the form with this number.
const fn valid<T: Tables>(validity: u64, form: usize) -> u64 {
    // Programs that see tunnels know other forms than those that do not.
    let kind = if T::TUNNELS { form } else { form + 14 };
    validity ^ (kind as u64) << 60
}

/// Takes a packet that came from the interface `ifindex` to its verdict, and counts it. `None`: it is to go the long way.
#[inline(always)]
pub(crate) fn packet<P: Packet, T: Tables>(
    packet: &mut P,
    ifindex: u32,
    tables: &T,
) -> Option<Verdict> {
    if tables.read_only() {
        return None;
    }
    // No packet that takes this way is shorter. What follows is there once for each form, in which everything has its place.
    let headers = packet.get::<<Alone<Ipv4> as Shape>::Headers>(0)?;
    let ethertype = u16::from_ne_bytes(octets(headers, Ethernet::LEN - 2));
    if ethertype == ethernet::IPV4.to_be() {
        outside::<P, T, Ipv4>(packet, ifindex, tables)
    } else if ethertype == ethernet::IPV6.to_be() {
        outside::<P, T, Ipv6>(packet, ifindex, tables)
    } else {
        None
    }
}

#[inline(always)]
fn outside<P: Packet, T: Tables, O: Network>(
    packet: &mut P,
    ifindex: u32,
    tables: &T,
) -> Option<Verdict> {
    let headers = packet.get::<<Alone<O> as Shape>::Headers>(0)?;
    if T::TUNNELS
        && protocol::<Alone<O>>(headers) == UDP
        && be16(headers, Alone::<O>::PAYLOAD + 2) == gtpu::PORT
    {
        return g_pdu::<P, T, O>(packet, ifindex, tables);
    }
    let measure = measure::<P, Alone<O>>(packet)?;
    let root = tables.state()?.image().root;
    if root == Index::END {
        let port = tables.port(ifindex)?;
        if !(T::TUNNELS && port.is_app()) {
            return nameless::<P, T, Alone<O>>(packet, port, tables, &measure, false);
        }
    }
    match known::<P, T, Alone<O>>(packet, ifindex, tables, &measure) {
        Known::Not => {
            let port = tables.port(ifindex)?;
            nameless::<P, T, Alone<O>>(packet, port, tables, &measure, true)
        }
        Known::Unusual => None,
        Known::Done(verdict) => Some(verdict),
    }
}

/// How a G-PDU begins, and where the packet in it may begin.
type Start = [u8; 20];

#[inline(always)]
fn g_pdu<P: Packet, T: Tables, O: Network>(
    packet: &mut P,
    ifindex: u32,
    tables: &T,
) -> Option<Verdict> {
    let start: &Start = packet.get(Ethernet::LEN + size_of::<O>() + Udp::LEN)?;
    let [flags, kind] = octets(start, 0);
    if flags & !OPTIONAL != Gtpu::PLAIN || kind != message::G_PDU {
        return None;
    }
    let known = if flags & Gtpu::EXTENSION != 0 {
        inside::<P, T, O, Contained>(packet, ifindex, tables)
    } else if flags & OPTIONAL != 0 {
        inside::<P, T, O, Numbered>(packet, ifindex, tables)
    } else {
        inside::<P, T, O, Bare>(packet, ifindex, tables)
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
    ifindex: u32,
    tables: &T,
) -> Known {
    let at = Ethernet::LEN + size_of::<O>() + Udp::LEN + size_of::<G>();
    match packet.get::<[u8; 4]>(at) {
        Some([first, ..]) if first >> 4 == 4 => {
            contained::<P, T, Inside<O, G, Ipv4>>(packet, ifindex, tables)
        }
        Some([first, ..]) if first >> 4 == 6 => {
            contained::<P, T, Inside<O, G, Ipv6>>(packet, ifindex, tables)
        }
        _ => Known::Not,
    }
}

#[inline(always)]
fn contained<P: Packet, T: Tables, S: Shape>(packet: &mut P, ifindex: u32, tables: &T) -> Known {
    match measure::<P, S>(packet) {
        Some(measure) => known::<P, T, S>(packet, ifindex, tables, &measure),
        None => Known::Not,
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
fn known<P: Packet, T: Tables, S: Shape>(
    packet: &mut P,
    ifindex: u32,
    tables: &T,
    measure: &Measure,
) -> Known {
    let Some(headers) = packet.get_mut::<S::Headers>(0) else {
        return Known::Not;
    };
    let hash = form::hash(S::AT, S::V6, |at| form::word(headers, at));
    let Some(set) = tables.cache(hash) else {
        return Known::Not;
    };
    let [first, second] = &set.ways;
    let way = if S::is_of(first, headers, ifindex) {
        first
    } else if S::is_of(second, headers, ifindex) {
        second
    } else {
        return Known::Not;
    };
    let Some(half) = half::<T, S>(tables, way) else {
        return Known::Not;
    };
    let how = way.how.get();
    if u64::from(measure.length) > way.tunnel[1].get() >> 48
        || measure.tcp_flags & Tcp::SYN != 0 && how & BEGINS != 0
    {
        return Known::Unusual;
    }
    let [upper, lower] = &way.exit;
    let (macs, passage) = ([upper.get(), lower.get()], (lower.get() >> 32) as u32);
    let changed = if how & MORE == 0 {
        if how & ROUTE != 0 && !hop::<S>(headers) {
            return Known::Unusual;
        }
        if S::OUTSIDE == 0 {
            form::address(headers, macs);
            true
        } else {
            rewrite::untagged(packet, S::AT, macs, ethertype::<S>())
        }
    } else {
        if how & PASSTHROUGH != 0 {
            let verdict = Verdict::from_word(way.address[0].get() as u32);
            return Known::Done(end(tables, way, measure, verdict));
        }
        let ip = ip::<S>(headers, measure.length);
        if how & ROUTE != 0 && !hop::<S>(headers) {
            return Known::Unusual;
        }
        if S::OUTSIDE == 0 {
            form::address(headers, macs);
        }
        (how as u8 & flag::NAT == 0 || translate::<P, S>(packet, way, how, &ip))
            && if T::TUNNELS && S::OUTSIDE == 0 && kind(how) != 0 {
                wrap::wrap(packet, kind(how), way, &ip, macs)
            } else {
                S::OUTSIDE == 0 || rewrite::untagged(packet, S::AT, macs, ethertype::<S>())
            }
    };
    if !changed {
        let verdict = Verdict::discard(Reason::NoHeadroom);
        return Known::Done(end(tables, way, measure, verdict));
    }
    account(tables, way, half, how, measure);
    let passage = Passage::from_word(passage);
    tables.count_passage(passage, measure.frame.into());
    Known::Done(passage.verdict())
}

const fn ethertype<S: Shape>() -> u16 {
    if S::V6 {
        ethernet::IPV6
    } else {
        ethernet::IPV4
    }
}

/// Where packets are counted of the flow that a way is of, if what was noted is still so.
#[inline(always)]
fn half<'a, T: Tables, S: Shape>(tables: &'a T, way: &CacheWay) -> Option<&'a Half> {
    let flow = way.flow.get();
    let record = tables.record(FlowRef::from(flow as u32).id())?;
    let half = &record.halves[(flow >> 31) as usize % 2];
    let holds = way.valid.get() == valid::<T>(tables.state()?.validity(), S::INDEX)
        && way.moves.get() == half.generation.get()
        && (!T::TUNNELS || way.told.get() == tables.session_changes((flow >> 32) as u32));
    holds.then_some(half)
}

/// Counts a packet in its flow and its rule.
#[inline(always)]
fn account<T: Tables>(tables: &T, way: &CacheWay, half: &Half, how: u64, measure: &Measure) {
    let (bytes, frame) = (measure.length.into(), measure.frame.into());
    let flags = measure.tcp_flags;
    if how & OWNED != 0 {
        half.owned.add(bytes, frame);
        half.last_seen.set(tables.now());
        if flags != 0 && !half.has_seen(flags) {
            note_tcp_flags(tables, way.flow.get(), flags);
        }
    } else {
        count_elsewhere(tables, way.flow.get(), bytes, frame, flags);
    }
    if let Some(rule) = tables.rule_at((how >> 32) as u32) {
        rule.add(tables, bytes);
    }
}

#[inline(never)]
fn note_tcp_flags<T: Tables>(tables: &T, flow: u64, flags: u8) {
    let flow = FlowRef::from(flow as u32);
    if let Some(record) = tables.record(flow.id()) {
        record.note_tcp_flags(tables, flow.direction(), flags.into());
    }
}

#[inline(never)]
fn count_elsewhere<T: Tables>(tables: &T, flow: u64, bytes: u64, frame: u64, flags: u8) {
    let flow = FlowRef::from(flow as u32);
    if let Some(record) = tables.record(flow.id()) {
        record.count(tables, flow.direction(), bytes, frame, flags);
    }
}

/// Counts a packet that does not leave as others of its flow.
#[inline(always)]
fn end<T: Tables>(tables: &T, way: &CacheWay, measure: &Measure, verdict: Verdict) -> Verdict {
    let lengths = u64::from(measure.frame) << 32 | u64::from(measure.length);
    end_with(tables, way, lengths, measure.tcp_flags, verdict)
}

/// Out of line: it is the same for all forms.
#[inline(never)]
fn end_with<T: Tables>(
    tables: &T,
    way: &CacheWay,
    lengths: u64,
    tcp_flags: u8,
    verdict: Verdict,
) -> Verdict {
    let measure = Measure {
        length: lengths as u32,
        frame: (lengths >> 32) as u32,
        tcp_flags,
    };
    let flow = FlowRef::from(way.flow.get() as u32);
    if let Some(record) = tables.record(flow.id()) {
        let half = record.half(flow.direction());
        account(tables, way, half, way.how.get(), &measure);
    }
    let passage = Passage::from_word((way.exit[1].get() >> 32) as u32);
    tables.count(passage.from(), verdict, measure.frame.into());
    verdict
}

/// Decrements TTL or hop limit. `false`: that is below 2, and nothing was changed.
#[inline(always)]
fn hop<S: Shape>(headers: &mut S::Headers) -> bool {
    if S::V6 {
        let [limit] = octets(headers, S::AT + 7);
        if limit < 2 {
            return false;
        }
        form::put(headers, S::AT + 7, [limit - 1]);
        return true;
    }
    // TTL, protocol and checksum. As the TTL is the upper octet of its word, the checksum gets 0x100 more, which is 1 as it
    // lies there, and what is carried (RFC 1624, with all that is known put in).
    let word = u32::from_le_bytes(octets(headers, S::AT + 8));
    if word & 0xfe == 0 {
        return false;
    }
    let next = u64::from(word) + 0xffff;
    let carried = if next >> 16 >= 0xffff { 0x1_0000 } else { 0 };
    form::put(headers, S::AT + 8, ((next + carried) as u32).to_le_bytes());
    true
}

/// Puts another address, and another port, in the place of one.
#[inline(always)]
fn translate<P: Packet, S: Shape>(packet: &mut P, way: &CacheWay, how: u64, ip: &Ip) -> bool {
    let [first, second] = [way.address[0].get(), way.address[1].get()];
    let is_reply = how & REPLY != 0;
    if S::V6 {
        let which = if is_reply {
            Address::Source
        } else {
            Address::Destination
        };
        return rewrite::address(packet, ip, which, [first, second], (how >> 16) as u16);
    }
    let Some(headers) = packet.get_mut::<S::Headers>(0) else {
        return false;
    };
    let (address, port) = ((second as u32).to_ne_bytes(), (second >> 32) as u16);
    if is_reply {
        form::put(headers, S::AT + Ipv4::SOURCE, address);
        form::put(headers, S::PAYLOAD, port.to_ne_bytes());
    } else {
        form::put(headers, S::AT + Ipv4::DESTINATION, address);
        form::put(headers, S::PAYLOAD + 2, port.to_ne_bytes());
    }
    let checksum = u16::from_ne_bytes(octets(headers, S::AT + 10));
    let updated = checksum::update(checksum, first as u16);
    form::put(headers, S::AT + 10, updated.to_ne_bytes());
    let change = (first >> 16) as u16;
    if ip.protocol == TCP {
        let Some(checksum) = packet.get_mut::<[u8; 2]>(S::PAYLOAD + Tcp::CHECKSUM) else {
            return false;
        };
        *checksum = checksum::update(u16::from_ne_bytes(*checksum), change).to_ne_bytes();
        return true;
    }
    let checksum = u16::from_ne_bytes(octets(headers, S::PAYLOAD + Udp::CHECKSUM));
    // Zero says that there is none, so none may become zero (RFC 768).
    if checksum != 0 {
        let updated = match checksum::update(checksum, change) {
            0 => 0xffff,
            updated => updated,
        };
        form::put(headers, S::PAYLOAD + Udp::CHECKSUM, updated.to_ne_bytes());
    }
    true
}

const fn kind(how: u64) -> u64 {
    how >> KIND & 7
}

/// The verdict on a packet of no flow that this CPU knows, if no rule is about such; or, if not even `asked`, there are none.
#[inline(always)]
fn nameless<P: Packet, T: Tables, S: Shape>(
    packet: &P,
    port: &Port,
    tables: &T,
    measure: &Measure,
    asked: bool,
) -> Option<Verdict> {
    let headers = packet.get::<S::Headers>(0)?;
    if !is_plain::<S>(headers) {
        return None;
    }
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
fn measure<P: Packet, S: Shape>(packet: &P) -> Option<Measure> {
    let headers = packet.get::<S::Headers>(0)?;
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
