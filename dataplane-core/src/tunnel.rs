//! Looking inside of tunnels, and GTP-U between the endpoints of the RAN and of the core, on N3 and S1-U.

use crate::{
    packet::Packet,
    parse::{Facts, Ip, inner},
    table::{Port, Side, Tables},
    target,
    verdict::Reason,
    wire::{
        gre::GRE,
        gtpu::{Container, Gtpu, Missing, Optional, PORT, extension, message},
        transport::{UDP, Udp},
        vxlan,
    },
};

/// Extension headers looked through at most.
const EXTENSIONS: usize = 8;

/// Which way a packet goes through its tunnel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Way {
    /// It is in no tunnel.
    #[default]
    None,
    /// From the RAN to the core.
    Uplink,
    /// From the core to the RAN.
    Downlink,
    /// To this host, from the other end of a tunnel that rules send into; or into that.
    Target,
}

/// The tunnel that a packet came by, or that a message is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// Address of the endpoint in the RAN: eNB or gNB.
    pub ran: [u64; 2],
    /// Address of the endpoint in the core: SGW or UPF.
    pub core: [u64; 2],
    /// UDP ports of the outer header, the source in the upper half.
    pub ports: u32,
    /// Tunnel endpoint identifier.
    pub teid: u32,
    /// Octets of the outermost IP packet.
    pub length: u32,
    /// The cell of the [`Target`](crate::table::Target) from whose other end the packet comes, plus 1, or
    /// 0. [`Self::way`] may be of another tunnel in that one.
    pub target: u32,
    /// Whether that is a peer.
    pub peer: bool,
    /// Where the packet inside begins.
    pub inside: u32,
    /// Where there is no room for more of it.
    pub end: u32,
    /// Outer network layer.
    pub ip: Ip,
    /// Which way the packet goes.
    pub way: Way,
    /// Of a datagram to the port of GTP-U, in no tunnel: whether it is a G-PDU, and an endpoint of the tunnel that it seems
    /// to be in is not configured.
    pub unconfigured: bool,
    /// The QFI, and [`Self::CONTAINER`] when a PDU Session Container says so; else 0.
    pub qfi: u8,
}

impl Tunnel {
    /// Marks a QFI that is there.
    pub const CONTAINER: u8 = 0x40;

    /// Whether the packet came out of a tunnel that rules send into.
    pub(crate) const fn is_of_target(&self) -> bool {
        !matches!(self.way, Way::None) && self.target != 0
    }

    /// Whether the packet came out of the tunnel of a peer, and is in no other.
    pub(crate) const fn is_of_peer(&self) -> bool {
        matches!(self.way, Way::Target) && self.peer
    }

    /// Whether the packet is in a tunnel of its UE's, or of one that is said to be.
    pub(crate) const fn is_of_ue(&self) -> bool {
        matches!(self.way, Way::Uplink | Way::Downlink)
    }

    /// Which way the tunnel leads that has ended, if what came by `port` and ends for `reason` is a message about that.
    pub(crate) const fn ended_by(&self, reason: Reason, port: &Port) -> Way {
        let from_core = matches!(self.way, Way::Downlink) && port.is_core();
        let from_station = matches!(self.way, Way::Uplink) && port.is_upstream();
        let marker = matches!(reason, Reason::GtpuEndMarker);
        let error = matches!(reason, Reason::GtpuErrorIndication);
        if self.is_of_target() {
            Way::None
        } else if marker && from_core || error && from_station {
            Way::Downlink
        } else if error && from_core {
            // It is about a tunnel to who sends it.
            Way::Uplink
        } else {
            Way::None
        }
    }
}

/// Whether the packet may be in a tunnel.
#[inline(always)]
pub(crate) const fn may_be(facts: &Facts) -> bool {
    match facts.ip.protocol {
        UDP => matches!(facts.ports as u16, PORT | vxlan::PORT),
        GRE => true,
        _ => false,
    }
}

/// Whether this is a datagram to the port of GTP-U.
pub(crate) const fn is_gtpu(facts: &Facts) -> bool {
    facts.ip.protocol == UDP && facts.ports as u16 == PORT
}

/// Parses the headers of tunnels in a packet, which the facts are about so far. Between endpoints of the
/// RAN and the core, or from the end of a tunnel that rules send into, they are about the packet inside
/// afterwards; else they stay.
///
/// # Errors
///
/// The reason why there is nothing inside that can be steered.
// Inlined, and what is inside is parsed from here, once it is known where: calls of calls would be too many for
// the stack of Linux 6.1.
#[inline(always)]
pub(crate) fn open<P: Packet, T: Tables>(
    packet: &P,
    port: &Port,
    tables: &T,
    facts: &mut Facts,
) -> Result<(), Reason> {
    facts.tunnel.target = 0;
    facts.tunnel.unconfigured = false;
    facts.tunnel.length = facts.ip.length;
    if !(port.sees_gtpu() && is_of_ue(tables, facts)) {
        target::find(packet, tables, facts)?;
        if facts.tunnel.way == Way::None {
            return Ok(());
        }
        inner(packet, port.zone, tables, facts)?;
        // What was sent with its tunnel may be answered with one.
        if !is_of_ue(tables, facts) {
            return Ok(());
        }
    }
    of_ue(packet, facts)?;
    inner(packet, port.zone, tables, facts)
}

/// Parses the header of GTP-U between endpoints of the RAN and the core.
#[inline(never)]
fn of_ue<P: Packet>(packet: &P, facts: &mut Facts) -> Result<(), Reason> {
    if facts.ip.is_fragment() {
        // The others of its kind have no tunnel header.
        return Err(Reason::GtpuFragment);
    }
    let tunnel = &mut facts.tunnel;
    tunnel.ports = facts.ports;
    tunnel.ip = facts.ip;
    tunnel.qfi = 0;
    header(packet, tunnel)
}

/// Whether this is GTP-U between endpoints of the RAN and the core; then the tunnel is theirs.
#[inline(never)]
fn is_of_ue<T: Tables>(tables: &T, facts: &mut Facts) -> bool {
    if !is_gtpu(facts) {
        return false;
    }
    let (from, to) = (facts.key.source, facts.key.destination);
    let tunnel = &mut facts.tunnel;
    match (tables.side(&from), tables.side(&to)) {
        (Side::Ran, Side::Core) => {
            tunnel.ran = from;
            tunnel.core = to;
            tunnel.way = Way::Uplink;
            true
        }
        (Side::Core, Side::Ran) => {
            tunnel.ran = to;
            tunnel.core = from;
            tunnel.way = Way::Downlink;
            true
        }
        (one, other) => {
            tunnel.unconfigured = one == Side::None || other == Side::None;
            false
        }
    }
}

/// Parses the header, and notes where the packet inside begins and ends.
pub(crate) fn header<P: Packet>(packet: &P, tunnel: &mut Tunnel) -> Result<(), Reason> {
    let at = usize::from(tunnel.ip.payload) + Udp::LEN;
    let header = packet.get::<Gtpu>(at).ok_or(Reason::MalformedGtpu)?;
    if !header.is_version_1() {
        return Err(Reason::GtpuOther);
    }
    let end = at + Gtpu::LEN + usize::from(header.length.get());
    if end > tunnel.ip.end() {
        return Err(Reason::MalformedGtpu);
    }
    tunnel.teid = header.teid.get();
    match header.message {
        message::G_PDU => {}
        message::END_MARKER => return Err(Reason::GtpuEndMarker),
        message::ERROR_INDICATION => return Err(error_indication(packet, header, at, end, tunnel)),
        message::ECHO_REQUEST | message::ECHO_RESPONSE => return Err(Reason::GtpuEcho),
        message::SUPPORTED_EXTENSION_HEADERS => return Err(Reason::GtpuSupportedExtensionHeaders),
        _ => return Err(Reason::GtpuOther),
    }
    let mut at = at + Gtpu::LEN;
    if header.has_optional() {
        let optional = packet.get::<Optional>(at).ok_or(Reason::MalformedGtpu)?;
        at += Optional::LEN;
        if header.has_extension() && optional.next_extension != extension::NONE {
            at = extensions(packet, tunnel, at, end, optional.next_extension)?;
        }
    }
    if at > end {
        return Err(Reason::MalformedGtpu);
    }
    tunnel.inside = at as u32;
    tunnel.end = end as u32;
    Ok(())
}

/// Steps over the extension headers, of which the first, at `at`, is of type `kind`; the message ends at
/// `end`. Each says how long it is in units of four octets.
fn extensions<P: Packet>(
    packet: &P,
    tunnel: &mut Tunnel,
    mut at: usize,
    end: usize,
    mut kind: u8,
) -> Result<usize, Reason> {
    for _ in 0..EXTENSIONS {
        if at + Container::LEN > end {
            return Err(Reason::MalformedGtpu);
        }
        let first = packet.get::<Container>(at).ok_or(Reason::HeaderChain)?;
        if first.units == 0 || at + usize::from(first.units) * 4 > end {
            return Err(Reason::MalformedGtpu);
        }
        if kind == extension::PDU_SESSION_CONTAINER {
            tunnel.qfi = Tunnel::CONTAINER | first.qfi & Container::QFI;
        } else if extension::is_required(kind) {
            return Err(Reason::GtpuExtension);
        }
        at += usize::from(first.units) * 4;
        // The verifier does not follow single octets.
        [_, kind] = *packet.get::<[u8; 2]>(at - 2).ok_or(Reason::HeaderChain)?;
        if kind == extension::NONE {
            return Ok(at);
        }
    }
    Err(Reason::HeaderChain)
}

/// Takes the tunnel that is not there from an Error Indication: it tells of the endpoint that sends it.
fn error_indication<P: Packet>(
    packet: &P,
    header: &Gtpu,
    at: usize,
    end: usize,
    tunnel: &mut Tunnel,
) -> Reason {
    let mut at = at + Gtpu::LEN;
    if header.has_optional() {
        let Some(optional) = packet.get::<Optional>(at) else {
            return Reason::MalformedGtpu;
        };
        at += Optional::LEN;
        if header.has_extension() && optional.next_extension != extension::NONE {
            at = match extensions(packet, tunnel, at, end, optional.next_extension) {
                Ok(at) => at,
                Err(reason) => return reason,
            };
        }
    }
    if at + Missing::LEN > end {
        return Reason::MalformedGtpu;
    }
    tunnel.teid = match packet.get::<Missing>(at) {
        Some(missing) if missing.teid_type == Missing::TEID => missing.teid.get(),
        _ => return Reason::MalformedGtpu,
    };
    Reason::GtpuErrorIndication
}
