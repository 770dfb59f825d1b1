//! Putting packets into tunnels over IPv4, with headers that are written word by word, each once.

use zerocopy::{
    FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned,
    network_endian::{U16, U32, U64},
};

use crate::{
    checksum::{fold, halves},
    encapsulate::{TTL, class, ethertype, gtpu_flags},
    packet::{Header, Packet},
    parse::{Ip, is_mapped},
    session,
    table::{CacheWay, Target, encapsulation},
    tunnel::Tunnel,
    wire::{
        ethernet::{self, Ethernet},
        gre::{GRE, Gre},
        gtpu::{self, Container, Gtpu, Optional, extension, message},
        ipv4::Ipv4,
        transport::{UDP, Udp},
        vxlan::{self, Vxlan},
    },
};

/// Headers in front of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum Kind {
    None = 0,
    Gtpu = 1,
    /// With a PDU Session Container.
    Contained = 2,
    Gre = 3,
    GreKey = 4,
    Vxlan = 5,
}

impl Kind {
    /// Octets that it adds to a packet.
    pub(super) const fn overhead(self) -> u32 {
        let headers = match self {
            Self::None => Ethernet::LEN,
            Self::Gtpu => size_of::<OfGtpu>(),
            Self::Contained => size_of::<OfContained>(),
            Self::Gre => size_of::<OfGre>(),
            Self::GreKey => size_of::<OfGreKey>(),
            Self::Vxlan => size_of::<OfVxlan>(),
        };
        (headers - Ethernet::LEN) as u32
    }
}

/// A tunnel as the flow cache has it: of which kind, both ends with the destination in the upper half, and the identifier with
/// type and QFI of a PDU Session Container above it.
pub(super) struct Noted {
    pub(super) kind: Kind,
    pub(super) ends: u64,
    pub(super) label: u64,
}

impl Noted {
    pub(super) const NONE: Self = Self {
        kind: Kind::None,
        ends: 0,
        label: 0,
    };

    /// The sum of what all IP headers have in common that are put in front of packets.
    pub(super) fn sum(&self) -> u16 {
        let protocol = match self.kind {
            Kind::Gre | Kind::GreKey => GRE,
            Kind::None | Kind::Gtpu | Kind::Contained | Kind::Vxlan => UDP,
        };
        let [first, second] = common(protocol);
        fold(halves(first) + halves(second) + halves(self.ends))
    }

    fn gtpu(ends: u64, teid: u32, qfi: u8, kind: u8) -> Self {
        if qfi & Tunnel::CONTAINER == 0 {
            return Self {
                kind: Kind::Gtpu,
                ends,
                label: teid.into(),
            };
        }
        let container = u64::from(kind) << 8 | u64::from(qfi & Container::QFI);
        Self {
            kind: Kind::Contained,
            ends,
            label: container << 32 | u64::from(teid),
        }
    }

    /// A tunnel to a UE, as [`session::exit_v4`] has it.
    pub(super) fn to_ue([ends, tunnel]: [u64; 2]) -> Self {
        Self::gtpu(
            ends,
            tunnel as u32,
            (tunnel >> 32) as u8,
            Container::DOWNLINK,
        )
    }

    /// A tunnel that rules send into, if it is over IPv4.
    pub(super) fn to_target(target: &Target) -> Option<Self> {
        if !is_mapped(target.destination) {
            return None;
        }
        let ends = session::ends(target.destination, target.source);
        let kind = match target.encapsulation {
            // What a rule sends into a tunnel comes from UEs.
            encapsulation::GTPU => {
                let (teid, qfi) = (target.identifier, target.qfi);
                return Some(Self::gtpu(ends, teid, qfi, Container::UPLINK));
            }
            encapsulation::GRE => Kind::Gre,
            encapsulation::GRE_KEY => Kind::GreKey,
            _ => Kind::Vxlan,
        };
        Some(Self {
            kind,
            ends,
            label: target.identifier.into(),
        })
    }
}

/// Puts the packet behind an untagged link-layer header into the tunnel of `kind` that is noted, if there is one. The MAC
/// addresses are as in [`Ethernet::raw`].
#[inline(always)]
#[must_use]
pub(super) fn wrap<P: Packet>(
    packet: &mut P,
    kind: u64,
    way: &CacheWay,
    ip: &Ip,
    macs: [u64; 2],
) -> bool {
    const GTPU: u64 = Kind::Gtpu as u64;
    const CONTAINED: u64 = Kind::Contained as u64;
    const GRE: u64 = Kind::Gre as u64;
    const GRE_KEY: u64 = Kind::GreKey as u64;
    match kind {
        CONTAINED => put::<P, OfContained>(packet, way, ip, macs),
        GTPU => put::<P, OfGtpu>(packet, way, ip, macs),
        GRE => put::<P, OfGre>(packet, way, ip, macs),
        GRE_KEY => put::<P, OfGreKey>(packet, way, ip, macs),
        _ => put::<P, OfVxlan>(packet, way, ip, macs),
    }
}

#[inline(always)]
fn put<P: Packet, H: Headers>(packet: &mut P, way: &CacheWay, ip: &Ip, macs: [u64; 2]) -> bool {
    let [ends, label] = &way.tunnel;
    let (ends, label) = (ends.get(), label.get());
    if !packet.grow_front(size_of::<H>() - Ethernet::LEN) {
        return false;
    }
    let Some(headers) = packet.get_mut::<H>(0) else {
        return false;
    };
    let length = u64::from(ip.length);
    let behind = length + (size_of::<H>() - size_of::<Front>()) as u64;
    let sum = (way.flow.get() >> 48) as u16;
    headers
        .front()
        .set(ip, common(H::PROTOCOL), ends, sum, behind, macs);
    headers.set_rest(ip, label, behind, way, macs);
    true
}

/// All headers in front of a packet that is in a tunnel.
trait Headers: Header {
    /// Of the outer packet.
    const PROTOCOL: u8;

    fn front(&mut self) -> &mut Front;

    /// Sets what is behind the IP header, which has `behind` octets behind it.
    fn set_rest(&mut self, ip: &Ip, label: u64, behind: u64, way: &CacheWay, macs: [u64; 2]);
}

/// Ethernet and IPv4 without options.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Front {
    ethernet: Ethernet,
    /// All but the destination address.
    ip: [U64; 2],
    destination: U32,
}

impl Front {
    #[inline(always)]
    fn set(
        &mut self,
        inner: &Ip,
        [first, second]: [u64; 2],
        ends: u64,
        sum: u16,
        behind: u64,
        macs: [u64; 2],
    ) {
        let (class, length) = (class(inner), behind as u32 + Ipv4::LEN as u32);
        let first = first | u64::from(class) << 48 | u64::from(length) << 32;
        let sum = !fold(u32::from(sum) + u32::from(class) + length);
        self.ethernet.set_raw(macs);
        self.ethernet.ethertype = U16::new(ethernet::IPV4);
        let source = ends & 0xffff_ffff;
        self.ip = [first, second | u64::from(sum) << 32 | source].map(U64::new);
        self.destination = U32::new((ends >> 32) as u32);
    }
}

/// The first words of an IPv4 header, without class, length, checksum and source.
const fn common(protocol: u8) -> [u64; 2] {
    [
        0x45 << 56 | Ipv4::DONT_FRAGMENT as u64,
        (TTL as u64) << 56 | (protocol as u64) << 48,
    ]
}

/// A UDP header without a checksum: over IPv4 none is needed, the packet inside has its own (RFC 768).
const fn udp(from: u16, to: u16, length: u64) -> U64 {
    U64::new((from as u64) << 48 | (to as u64) << 32 | length << 16)
}

/// A GTP-U header, and `behind` octets from UDP on.
const fn g_pdu(label: u64, behind: u64, contained: bool) -> U64 {
    let first = (gtpu_flags(contained) as u64) << 56 | (message::G_PDU as u64) << 48;
    let length = behind - (Udp::LEN + Gtpu::LEN) as u64;
    U64::new(first | length << 32 | label & 0xffff_ffff)
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OfGtpu {
    front: Front,
    udp: U64,
    gtpu: U64,
}

impl Headers for OfGtpu {
    const PROTOCOL: u8 = UDP;

    fn front(&mut self) -> &mut Front {
        &mut self.front
    }

    #[inline(always)]
    fn set_rest(&mut self, _: &Ip, label: u64, behind: u64, _: &CacheWay, _: [u64; 2]) {
        self.udp = udp(gtpu::PORT, gtpu::PORT, behind);
        self.gtpu = g_pdu(label, behind, false);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OfContained {
    front: Front,
    udp: U64,
    gtpu: U64,
    /// [`Optional`] and [`Container`].
    rest: U64,
}

const _: () = assert!(Optional::LEN + Container::LEN == size_of::<U64>());

impl Headers for OfContained {
    const PROTOCOL: u8 = UDP;

    fn front(&mut self) -> &mut Front {
        &mut self.front
    }

    #[inline(always)]
    fn set_rest(&mut self, _: &Ip, label: u64, behind: u64, _: &CacheWay, _: [u64; 2]) {
        const REST: u64 =
            (extension::PDU_SESSION_CONTAINER as u64) << 32 | 1 << 24 | extension::NONE as u64;
        self.udp = udp(gtpu::PORT, gtpu::PORT, behind);
        self.gtpu = g_pdu(label, behind, true);
        self.rest = U64::new(REST | (label >> 32 & 0xffff) << 8);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OfGre {
    front: Front,
    gre: U32,
}

impl Headers for OfGre {
    const PROTOCOL: u8 = GRE;

    fn front(&mut self) -> &mut Front {
        &mut self.front
    }

    #[inline(always)]
    fn set_rest(&mut self, ip: &Ip, _: u64, _: u64, _: &CacheWay, _: [u64; 2]) {
        self.gre = U32::new(ethertype(ip).into());
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OfGreKey {
    front: Front,
    gre: U64,
}

impl Headers for OfGreKey {
    const PROTOCOL: u8 = GRE;

    fn front(&mut self) -> &mut Front {
        &mut self.front
    }

    #[inline(always)]
    fn set_rest(&mut self, ip: &Ip, label: u64, _: u64, _: &CacheWay, _: [u64; 2]) {
        let first = u64::from(Gre::KEY) << 48 | u64::from(ethertype(ip)) << 32;
        self.gre = U64::new(first | label & 0xffff_ffff);
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct OfVxlan {
    front: Front,
    udp: U64,
    vxlan: U64,
    frame: Ethernet,
}

impl Headers for OfVxlan {
    const PROTOCOL: u8 = UDP;

    fn front(&mut self) -> &mut Front {
        &mut self.front
    }

    /// The frame inside is sent from the address that the outer one is sent from. In the flow cache, the place of an address has
    /// how it begins, and the UDP port.
    #[inline(always)]
    fn set_rest(&mut self, ip: &Ip, label: u64, behind: u64, way: &CacheWay, macs: [u64; 2]) {
        let [upper, port] = &way.address;
        self.udp = udp(port.get() as u16, vxlan::PORT, behind);
        self.vxlan = U64::new(u64::from(Vxlan::VALID) << 32 | (label & 0xff_ffff) << 8);
        self.frame.set_raw([upper.get(), macs[1]]);
        self.frame.ethertype = U16::new(ethertype(ip));
    }
}
