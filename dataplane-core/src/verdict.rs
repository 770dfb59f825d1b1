//! What becomes of a packet, and the one reason why.

/// What becomes of a packet.
///
/// One word: a structure would pass through memory, field by field in and whole out, and a CPU waits
/// for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
pub struct Verdict(u32);

impl Verdict {
    const PASS: u32 = 0;
    const DISCARD: u32 = 1;
    const REFLECT: u32 = 2;
    /// A bit of its own: it is what nearly all are asked for.
    const REDIRECT: u32 = 4;

    const fn new(action: u32, slot: u16, reason: Reason) -> Self {
        Self(action << 24 | (slot as u32) << 8 | reason as u32)
    }

    /// The packet is given to the kernel.
    pub const fn pass(reason: Reason) -> Self {
        Self::new(Self::PASS, 0, reason)
    }

    /// The packet ends here.
    pub const fn discard(reason: Reason) -> Self {
        Self::new(Self::DISCARD, 0, reason)
    }

    /// The packet leaves by the port in `slot`.
    pub const fn redirect(slot: u16, reason: Reason) -> Self {
        Self::new(Self::REDIRECT, slot, reason)
    }

    /// The packet leaves by the port in `slot`, for the reason of this number.
    pub(crate) const fn redirected(slot: u16, reason: u8) -> Self {
        Self(Self::REDIRECT << 24 | (slot as u32) << 8 | reason as u32)
    }

    /// The packet, which has become an answer, goes back out of the port it came from.
    pub const fn reflect(reason: Reason) -> Self {
        Self::new(Self::REFLECT, 0, reason)
    }

    /// As a number, which is below 2^27.
    pub(crate) const fn word(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// Where the packet goes.
    #[must_use]
    pub const fn action(self) -> Action {
        if self.0 & Self::REDIRECT << 24 != 0 {
            return Action::Redirect((self.0 >> 8) as u16);
        }
        match self.0 >> 24 {
            Self::PASS => Action::Pass,
            Self::DISCARD => Action::Discard,
            _ => Action::Reflect,
        }
    }

    /// Why; also the number of the counter it is counted in.
    #[must_use]
    pub const fn reason(self) -> u8 {
        self.0 as u8
    }
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To the kernel of this host.
    Pass,
    /// Nowhere.
    Discard,
    /// Out of the port in this slot.
    Redirect(u16),
    /// Back out of the port it came from.
    Reflect,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet ended as it did. Every packet ends for exactly one reason, so the counters
        /// of all reasons add up to the packets seen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in metrics, logs and the command line.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub const fn doc(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

reasons! {
    /// A rule sent the packet to its destination.
    Steered = "steered",
    /// A rule sent the packet to its destination, without a flow entry because the flow table is full.
    SteeredStateless = "steered_stateless",
    /// The packet of a flow went back to the UE by the way the flow came in.
    Replied = "replied",
    /// An inline application gave the packet back, and it went on by its original path.
    Continued = "continued",
    /// A PASSTHROUGH rule let the packet go its original path.
    Passthrough = "passthrough",
    /// The packet went its original path, and a copy was asked for by a DUPLICATE rule.
    Duplicated = "duplicated",
    /// An echo request to a VIP was answered by edgesteer, as it has a backend.
    VipEcho = "vip_echo",
    /// No backend of the VIP takes flows: the packet went its original path.
    NoBackend = "no_backend",
    /// No backend of the VIP takes flows: the packet went to the peer that is to take them.
    VipPeer = "vip_peer",
    /// The packet came from a peer, and no backend of the VIP takes flows here either: discarded, lest it go round.
    VipLoop = "vip_loop",
    /// A DROP rule discarded the packet.
    RuleDrop = "rule_drop",
    /// No rule matched: the packet went its original path.
    NoRule = "no_rule",
    /// Neither IPv4 nor IPv6 (ARP, LLDP and the like): the packet went its original path.
    NotIp = "not_ip",
    /// Neighbor discovery or multicast listener discovery, the ARP of IPv6: the packet went its original path.
    NeighborDiscovery = "neighbor_discovery",
    /// The interface is not a configured port: the kernel got the packet.
    UnknownPort = "unknown_port",
    /// The packet's flow does not expect it from this port: it went its original path.
    WrongSide = "wrong_side",
    /// The port is the one that the rule's destination is on, or the tunnel the one that it would go into: the packet went its
    /// original path.
    OwnOutput = "own_output",
    /// The next hop has no known MAC address yet: the packet went its original path, unsteered.
    NextHopUnresolved = "next_hop_unresolved",
    /// TTL or hop limit is used up: the packet went its original path, where a router answers it.
    TtlExpired = "ttl_expired",
    /// The flow table is full and the rule cannot work without an entry: the packet went its original path.
    FlowTableFull = "flow_table_full",
    /// Replies of another flow look the same, so the answers could not be told apart: the packet went its original path.
    ReplyConflict = "reply_conflict",
    /// A later fragment whose first fragment was not seen: it went its original path.
    FragmentUnknown = "fragment_unknown",
    /// More headers than are looked through: the packet went its original path.
    HeaderChain = "header_chain",
    /// The rule set in force could not be followed to its end: the packet went its original path.
    RuleSetBroken = "rule_set_broken",
    /// The port to leave by takes no packets: the packet went to the kernel.
    PortDown = "port_down",
    /// The driver left no room to change the packet's headers: it was discarded.
    NoHeadroom = "no_headroom",
    /// Too long for the port to leave by, and routers may fragment it or its sender's tunnel is not known: the packet went its original path.
    NeedsFragmentation = "needs_fragmentation",
    /// Too long for the port to leave by: discarded, and the sender was told the MTU.
    MtuExceeded = "mtu_exceeded",
    /// Too long for the port to leave by: discarded, and the sender not told again so soon.
    MtuExceededUntold = "mtu_exceeded_untold",
    /// The UE's downlink tunnel is not known, so that answers could not reach it: the packet went its original path.
    NoDownlinkTunnel = "no_downlink_tunnel",
    /// The UE's downlink tunnel has ended and the next is not known yet: discarded.
    DownlinkPending = "downlink_pending",
    /// Two endpoints of the core have a UE of this address in one zone, or it came by a tunnel that its provisioned
    /// session does not have: the packet went its original path.
    SessionConflict = "session_conflict",
    /// No room for another session: the packet went its original path.
    SessionTableFull = "session_table_full",
    /// What the rule asks of a packet in a tunnel is not done by this release: it went its original path.
    TunnelUnsupported = "tunnel_unsupported",
    /// An application's packet to a UE, of no flow, went to it by its tunnel.
    AppInitiated = "app_initiated",
    /// A GTP-U Echo Request or Response: it went its original path.
    GtpuEcho = "gtpu_echo",
    /// A GTP-U Error Indication: it went its original path, and the tunnel it is about has ended.
    GtpuErrorIndication = "gtpu_error_indication",
    /// A GTP-U Supported Extension Headers Notification: it went its original path.
    GtpuSupportedExtensionHeaders = "gtpu_supported_extension_headers",
    /// A GTP-U End Marker: it went its original path, and its tunnel has ended.
    GtpuEndMarker = "gtpu_end_marker",
    /// GTP', another version or another message than those of GTP-U: it went its original path.
    GtpuOther = "gtpu_other",
    /// A G-PDU with an extension header that its endpoint has to know, and edgesteer does not: it went its original path.
    GtpuExtension = "gtpu_extension",
    /// A fragment of a datagram to the port of GTP-U: it went its original path.
    GtpuFragment = "gtpu_fragment",
    /// A G-PDU that carries neither IPv4 nor IPv6: it went its original path.
    GtpuNotIp = "gtpu_not_ip",
    /// A G-PDU between endpoints that are not configured, and under no rule: it went its original path.
    GtpuUnconfigured = "gtpu_unconfigured",
    /// A GTP-U header that contradicts itself or the packet: it went its original path.
    MalformedGtpu = "malformed_gtpu",
    /// The packet in a tunnel contradicts itself: it went its original path.
    MalformedInner = "malformed_inner",
    /// An application answered a copy: discarded, since the original was answered elsewhere.
    CopyReply = "copy_reply",
    /// The frame is shorter than an Ethernet header or its VLAN tags: discarded.
    MalformedEthernet = "malformed_ethernet",
    /// The IPv4 header contradicts itself or the frame: discarded.
    MalformedIpv4 = "malformed_ipv4",
    /// The IPv6 header or an extension header contradicts itself or the frame: discarded.
    MalformedIpv6 = "malformed_ipv6",
    /// The TCP header contradicts itself or the packet: discarded.
    MalformedTcp = "malformed_tcp",
    /// The UDP header contradicts itself or the packet: discarded.
    MalformedUdp = "malformed_udp",
    /// The packet is too short for an SCTP header: discarded.
    MalformedSctp = "malformed_sctp",
    /// The packet is too short for an ICMP or ICMPv6 header: discarded.
    MalformedIcmp = "malformed_icmp",
    /// A fragment that would overlap the TCP header (RFC 1858, RFC 3128): discarded.
    TinyFragment = "tiny_fragment",
    /// An IPv6 packet with an IPv4-mapped address, which no network carries: discarded.
    MappedAddress = "mapped_address",
}

impl Default for Reason {
    /// The first; the value that memory of zeros has.
    fn default() -> Self {
        Self::Steered
    }
}

impl Reason {
    /// Whether the packet contradicts itself, so that it is discarded wherever it came from.
    #[must_use]
    pub const fn is_malformed(self) -> bool {
        matches!(
            self,
            Self::MalformedEthernet
                | Self::MalformedIpv4
                | Self::MalformedIpv6
                | Self::MalformedTcp
                | Self::MalformedUdp
                | Self::MalformedSctp
                | Self::MalformedIcmp
                | Self::TinyFragment
                | Self::MappedAddress
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_numbered_named_and_explained() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(
                reason
                    .name()
                    .bytes()
                    .all(|byte| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit())
            );
            assert!(reason.doc().ends_with('.') && !reason.doc().starts_with(' '));
        }
    }
}
