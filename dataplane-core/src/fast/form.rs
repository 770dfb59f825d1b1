//! Kinds of frames that may take the short way, and which octets in them tell flows apart.

use core::marker::PhantomData;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::{
    packet::Header,
    table::CacheWay,
    wire::{
        ethernet::Ethernet,
        gtpu::{Container, Gtpu},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{Ports, Udp},
    },
    word::Word,
};

/// Words that are compared at most.
pub(super) const WORDS: usize = 13;

/// A kind of frame, in which everything has its place: a packet of TCP or UDP with neither options nor extension headers, alone
/// or in a G-PDU, without VLAN tags.
///
/// Of its headers those octets are compared that are the same in all packets of a flow and say what the packet is. What is
/// looked at before is not among them: the version of what is outside, that it is a datagram to the port of GTP-U, and a G-PDU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form {
    /// Where they are.
    words: [Masked; WORDS],
    /// How many of those there are.
    count: usize,
    free: Free,
}

/// A word of a frame, and the bits of it that are compared.
#[derive(Debug, Clone, Copy)]
struct Masked {
    at: usize,
    mask: u64,
}

/// The place of two octets that are not compared, where the index of the interface is that the frame came from: of which word, and
/// how far to the left.
#[derive(Debug, Clone, Copy)]
struct Free {
    index: usize,
    shift: u32,
}

impl Free {
    const fn with(self, index: usize, word: u64, ifindex: u32) -> u64 {
        if index == self.index {
            // It is below `INTERFACES`.
            word | (ifindex as u64) << self.shift
        } else {
            word
        }
    }
}

impl Form {
    /// The packet is behind an IP header of `outside` octets, UDP and a GTP-U header of `gtpu` octets, or behind neither.
    const fn new(outside: usize, gtpu: usize, v6: bool) -> Self {
        let mut octets = Octets([0; _]);
        let mut at = octets.compare(0, Ethernet::LEN);
        if outside != 0 {
            // Of the IP header the protocol is known.
            let protocol = if outside == Ipv6::LEN { 6 } else { 9 };
            at = octets.ip(at, outside == Ipv6::LEN);
            octets.0[at - outside + protocol] = 0;
            at += Udp::LEN;
            octets.compare(at + 4, 4);
            if gtpu == size_of::<Contained>() {
                octets.container(at + Gtpu::LEN);
            }
            at += gtpu;
        }
        at = octets.ip(at, v6);
        let end = octets.compare(at, size_of::<Ports>());
        octets.words(end)
    }

    /// Writes down a frame that came from the interface `ifindex`. `word` has its octets.
    pub(super) fn note(
        &self,
        way: &CacheWay,
        ifindex: u32,
        word: impl Fn(usize) -> Option<u64>,
    ) -> Option<()> {
        for index in 0..WORDS {
            if index >= self.count {
                break;
            }
            let Masked { at, mask } = self.words[index];
            let masked = word(at)? & mask;
            way.word(index).set(self.free.with(index, masked, ifindex));
        }
        Some(())
    }
}

impl CacheWay {
    #[inline(always)]
    pub(super) fn word(&self, index: usize) -> &Word {
        match self.seen.get(index) {
            Some(word) => word,
            None => &self.further[(index - self.seen.len()) % self.further.len()],
        }
    }
}

/// Which bits of a frame are compared.
struct Octets([u8; 128]);

impl Octets {
    /// Compares `len` octets. Answers where they end.
    const fn compare(&mut self, at: usize, len: usize) -> usize {
        let mut index = at;
        while index < at + len {
            self.0[index] = 0xff;
            index += 1;
        }
        index
    }

    /// Compares an IP header: version and length, what makes a fragment, protocol and addresses.
    const fn ip(&mut self, at: usize, v6: bool) -> usize {
        if v6 {
            self.0[at] = 0xf0;
            self.0[at + 6] = 0xff;
            return self.compare(at + Ipv6::SOURCE, Ipv6::LEN - Ipv6::SOURCE);
        }
        let [high, low] = (Ipv4::MORE_FRAGMENTS | Ipv4::FRAGMENT_OFFSET).to_be_bytes();
        self.0[at] = 0xff;
        self.0[at + 6] = high;
        self.0[at + 7] = low;
        self.0[at + 9] = 0xff;
        self.compare(at + Ipv4::SOURCE, Ipv4::LEN - Ipv4::SOURCE)
    }

    /// Compares the type of the extension header, its length, QFI and that there is no other.
    const fn container(&mut self, at: usize) {
        self.compare(at + 3, 2);
        self.0[at + 6] = Container::QFI;
        self.0[at + 7] = 0xff;
    }

    /// As words, of headers that end at `end`.
    const fn words(&self, end: usize) -> Form {
        let mut words = [Masked { at: 0, mask: 0 }; WORDS];
        let (mut count, mut next) = (0, 0);
        while next < end {
            if self.0[next] == 0 {
                next += 1;
                continue;
            }
            let at = if next + 8 > end { end - 8 } else { next };
            let mut octets = [0; 8];
            let mut index = 0;
            while index < 8 {
                octets[index] = self.0[at + index];
                index += 1;
            }
            let mask = u64::from_ne_bytes(octets);
            words[count] = Masked { at, mask };
            count += 1;
            next = at + 8;
        }
        let mut place = free(&words, count);
        if place.is_none() {
            // What the last word has in common with the one before need not be compared twice.
            let (last, before) = (words[count - 1], words[count - 2]);
            let mask = u64::from_le(last.mask) >> ((before.at + 8 - last.at) * 8);
            words[count - 1].mask = (mask << ((before.at + 8 - last.at) * 8)).to_le();
            place = free(&words, count);
        }
        let free = place.expect("two octets side by side that are free in each form");
        Form { words, count, free }
    }
}

/// Two octets that are not compared, side by side.
const fn free(words: &[Masked; WORDS], count: usize) -> Option<Free> {
    let mut index = 0;
    while index < count {
        let mut shift = 0;
        while shift <= 48 {
            if words[index].mask >> shift & 0xffff == 0 {
                return Some(Free { index, shift });
            }
            shift += 8;
        }
        index += 1;
    }
    None
}

/// A [`Form`] that the compiler knows.
pub(super) trait Shape {
    /// All headers, and of those behind IP what TCP and UDP have both.
    type Headers: Header;

    /// Octets of the outer IP header, or 0.
    const OUTSIDE: usize;
    /// Octets of the GTP-U header, or 0.
    const GTPU: usize;
    /// Whether the packet is IPv6.
    const V6: bool;

    /// Where the packet begins.
    const AT: usize =
        Ethernet::LEN + Self::OUTSIDE + if Self::OUTSIDE == 0 { 0 } else { Udp::LEN } + Self::GTPU;
    /// Where its payload does.
    const PAYLOAD: usize = Self::AT + if Self::V6 { Ipv6::LEN } else { Ipv4::LEN };

    const FORM: Form = Form::new(Self::OUTSIDE, Self::GTPU, Self::V6);

    /// Where the form is in [`FORMS`].
    const INDEX: usize = index(Self::OUTSIDE, Self::GTPU, Self::V6);

    /// Whether frames of this flow look like that.
    #[inline(always)]
    fn is_of(way: &CacheWay, headers: &Self::Headers, ifindex: u32) -> bool {
        let form = const { Self::FORM };
        let mut other = 0;
        for index in 0..WORDS {
            if index < form.count {
                let Masked { at, mask } = form.words[index];
                let masked = word(headers, at) & mask;
                let seen = form.free.with(index, masked, ifindex);
                other |= seen ^ way.word(index).get();
            }
        }
        other == 0
    }
}

const fn index(outside: usize, gtpu: usize, v6: bool) -> usize {
    let tunnels = match (outside, gtpu) {
        (0, _) => 0,
        (Ipv4::LEN, _) => gtpu / 4 - 1,
        _ => gtpu / 4 + 2,
    };
    tunnels * 2 + v6 as usize
}

/// All forms: alone, then over IPv4 and over IPv6, each by the length of its GTP-U header, and each with IPv4 and IPv6 inside.
/// What is left makes it a power of two, so that a verifier knows what remains of an index.
static FORMS: [Form; 16] = {
    let mut forms = [Form::new(0, 0, false); 16];
    forms[1] = Form::new(0, 0, true);
    let mut index = 2;
    while index < 14 {
        let outside = if index < 8 { Ipv4::LEN } else { Ipv6::LEN };
        let gtpu = 8 + (index - 2) % 6 / 2 * 4;
        forms[index] = Form::new(outside, gtpu, index % 2 == 1);
        index += 1;
    }
    forms
};

/// The form of a frame whose packet is at `at` behind an IP header of `outside` octets, or none, and its number.
pub(super) fn of(at: usize, outside: usize, v6: bool) -> Option<(&'static Form, usize)> {
    let before = Ethernet::LEN + outside + if outside == 0 { 0 } else { Udp::LEN };
    let gtpu = at.checked_sub(before)?;
    let known = match outside {
        0 => gtpu == 0,
        _ => matches!(gtpu, 8 | 12 | 16),
    };
    if !known {
        return None;
    }
    let index = index(outside, gtpu, v6);
    Some((&FORMS[index % FORMS.len()], index))
}

/// The hash of a packet of the same flow as this one: of its addresses and ports, as they lie there. Fast rather than
/// unguessable: it only picks a set of the flow cache. `word` has eight octets from a place on.
#[inline(always)]
pub(super) fn hash(at: usize, v6: bool, word: impl Fn(usize) -> u64) -> u32 {
    const FIRST: u64 = 0x9e37_79b9_7f4a_7c15;
    const SECOND: u64 = 0xc2b2_ae3d_27d4_eb4f;
    const THIRD: u64 = 0xff51_afd7_ed55_8ccd;
    let (addresses, ports) = if v6 {
        // Products that do not wait for each other.
        let source = word(at + 8) ^ word(at + 16).rotate_left(17);
        let destination = word(at + 24) ^ word(at + 32).rotate_left(17);
        let both = source.wrapping_mul(FIRST) ^ destination.wrapping_mul(SECOND);
        (both, word(at + Ipv6::LEN))
    } else {
        let both = word(at + Ipv4::SOURCE).wrapping_mul(FIRST);
        (both, word(at + Ipv4::LEN))
    };
    let ports = u64::from((ports.to_le() as u32).to_le()).wrapping_mul(SECOND);
    let mixed = (addresses ^ addresses >> 32 ^ ports).wrapping_mul(THIRD);
    (mixed >> 32) as u32
}

/// An IP header without options.
pub(super) trait Network: Header {
    const V6: bool;
}

impl Network for Ipv4 {
    const V6: bool = false;
}

impl Network for Ipv6 {
    const V6: bool = true;
}

/// A packet that is in no tunnel.
pub(super) struct Alone<I>(PhantomData<I>);

impl<I: Network> Shape for Alone<I> {
    type Headers = Plain<I>;
    const OUTSIDE: usize = 0;
    const GTPU: usize = 0;
    const V6: bool = I::V6;
}

/// A packet in a G-PDU.
pub(super) struct Inside<O, G, I>(PhantomData<(O, G, I)>);

impl<O: Network, G: Header, I: Network> Shape for Inside<O, G, I> {
    type Headers = Tunnelled<O, G, I>;
    const OUTSIDE: usize = size_of::<O>();
    const GTPU: usize = size_of::<G>();
    const V6: bool = I::V6;
}

/// GTP-U headers: without anything else, with sequence numbers, and with a PDU Session Container.
pub(super) type Bare = [u8; 8];
pub(super) type Numbered = [u8; 12];
pub(super) type Contained = [u8; 16];

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Plain<I> {
    ethernet: Ethernet,
    ip: I,
    upper: Udp,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Tunnelled<O, G, I> {
    ethernet: Ethernet,
    outside: O,
    udp: Udp,
    gtpu: G,
    ip: I,
    upper: Udp,
}

/// Eight octets as they are in memory.
#[inline(always)]
pub(super) fn word<H: Header>(headers: &H, at: usize) -> u64 {
    u64::from_ne_bytes(octets(headers, at))
}

/// Octets of headers, which are known to be there. As a slice of them is taken, the compiler sees that too.
#[inline(always)]
pub(super) fn octets<H: Header, const N: usize>(headers: &H, at: usize) -> [u8; N] {
    match headers.as_bytes().get(at..).and_then(<[u8]>::first_chunk) {
        Some(octets) => *octets,
        None => [0; N],
    }
}

/// Writes octets of headers, which are known to be there.
#[inline(always)]
pub(super) fn put<H: Header, const N: usize>(headers: &mut H, at: usize, octets: [u8; N]) {
    let place = headers.as_mut_bytes().get_mut(at..);
    if let Some(place) = place.and_then(<[u8]>::first_chunk_mut) {
        *place = octets;
    }
}

/// Sets both MAC addresses, which are as in [`Ethernet::raw`].
#[inline(always)]
pub(super) fn address<H: Header>(headers: &mut H, [upper, lower]: [u64; 2]) {
    put(headers, 0, upper.to_ne_bytes());
    put(headers, size_of::<u64>(), (lower as u32).to_ne_bytes());
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{vec, vec::Vec};

    use super::*;

    fn is_listed<S: Shape>() -> bool {
        let (form, index) = of(S::AT, S::OUTSIDE, S::V6).unwrap();
        let words = |form: &Form| form.words.map(|word| (word.at, word.mask));
        index == S::INDEX && form.count == S::FORM.count && words(form) == words(&S::FORM)
    }

    fn are_listed<O: Network>() -> bool {
        is_listed::<Inside<O, Bare, Ipv4>>()
            && is_listed::<Inside<O, Bare, Ipv6>>()
            && is_listed::<Inside<O, Numbered, Ipv4>>()
            && is_listed::<Inside<O, Numbered, Ipv6>>()
            && is_listed::<Inside<O, Contained, Ipv4>>()
            && is_listed::<Inside<O, Contained, Ipv6>>()
    }

    #[test]
    fn forms_are_found_where_the_compiler_has_them() {
        assert!(is_listed::<Alone<Ipv4>>() && is_listed::<Alone<Ipv6>>());
        assert!(are_listed::<Ipv4>() && are_listed::<Ipv6>());
    }

    /// Which bits of a frame may differ from those of the one that was noted.
    fn free<S: Shape>() -> Vec<(usize, u8)> {
        let way = CacheWay::default();
        let mut frame = vec![0x5a; size_of::<S::Headers>()];
        let (form, _) = of(S::AT, S::OUTSIDE, S::V6).unwrap();
        let noted = form.note(&way, 5, |at| {
            Some(u64::from_ne_bytes(frame[at..at + 8].try_into().unwrap()))
        });
        noted.unwrap();
        let is_of = |frame: &[u8], ifindex| {
            S::is_of(&way, S::Headers::ref_from_bytes(frame).unwrap(), ifindex)
        };
        assert!(is_of(&frame, 5) && !is_of(&frame, 4) && !is_of(&frame, 5 << 8));
        let mut free = Vec::new();
        for at in 0..frame.len() {
            let mut bits = 0;
            for bit in 0..8 {
                frame[at] ^= 1 << bit;
                bits |= u8::from(is_of(&frame, 5)) << bit;
                frame[at] ^= 1 << bit;
            }
            if bits != 0 {
                free.push((at, bits));
            }
        }
        free
    }

    /// Class, length, identification, flags but for "more fragments", TTL and checksum.
    fn free_of_v4(at: usize) -> Vec<(usize, u8)> {
        let whole = |places: [usize; 5]| places.map(|place| (at + place, 0xff));
        let mut free = whole([1, 2, 3, 4, 5]).to_vec();
        free.extend([
            (at + 6, 0xc0),
            (at + 8, 0xff),
            (at + 10, 0xff),
            (at + 11, 0xff),
        ]);
        free
    }

    #[test]
    fn what_tells_flows_apart_is_compared_and_nothing_else() {
        // What follows the ports: of UDP, length and checksum.
        let mut plain = free_of_v4(14);
        plain.extend((38..42).map(|at| (at, 0xff)));
        assert_eq!(free::<Alone<Ipv4>>(), plain);

        let mut tunnelled = free_of_v4(14);
        // The protocol, the UDP header, and of the GTP-U header all but the TEID: they are looked at before, or not at all.
        tunnelled.push((23, 0xff));
        tunnelled.extend((34..46).map(|at| (at, 0xff)));
        // Sequence and N-PDU number; PDU type, and what is beside the QFI.
        tunnelled.extend([(50, 0xff), (51, 0xff), (52, 0xff), (55, 0xff), (56, 0xc0)]);
        tunnelled.extend(free_of_v4(58));
        tunnelled.extend((82..86).map(|at| (at, 0xff)));
        tunnelled.sort_unstable();
        assert_eq!(free::<Inside<Ipv4, Contained, Ipv4>>(), tunnelled);
    }
}
