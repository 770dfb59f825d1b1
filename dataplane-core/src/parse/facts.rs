//! What steering looks at of a packet.

use crate::{
    flow::FlowKey,
    tunnel::{Tunnel, Way},
    wire::ethernet::Ethernet,
};

/// The link-layer header of a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Destination MAC address, in the lower 48 bits.
    pub destination: u64,
    /// Source MAC address, in the lower 48 bits.
    pub source: u64,
    /// Up to two VLAN tags, outermost in the upper half, each a TPID and a TCI; 0 is none.
    pub tags: u64,
    /// Octets of the header: where the next one begins.
    pub len: u16,
    /// EtherType of what follows.
    pub ethertype: u16,
}

impl Link {
    /// What the header says, without tags.
    pub(crate) const fn set(&mut self, header: &Ethernet) {
        self.destination = header.destination();
        self.source = header.source();
        self.tags = 0;
        self.len = Ethernet::LEN as u16;
        self.ethertype = header.ethertype.get();
    }
}

/// What an IP header says besides the addresses, and where the next header is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ip {
    /// Octets of header and payload.
    pub length: u32,
    /// Offset of the header.
    pub offset: u16,
    /// Offset of the payload.
    pub payload: u16,
    /// DSCP of IPv4, or traffic class of IPv6 plus 256.
    pub tos: u16,
    /// Of a fragment: its offset in the datagram, in units of 8 octets, times 2, plus 1. Else 0.
    pub fragment: u16,
    /// Of a fragment: the identification of the datagram.
    pub identification: u32,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Whether it is IPv6.
    pub v6: bool,
    /// Whether routers may fragment it: IPv4 without DF.
    pub may_fragment: bool,
}

impl Ip {
    /// Whether this is a fragment.
    #[must_use]
    pub const fn is_fragment(&self) -> bool {
        self.fragment != 0
    }

    /// Whether this is a fragment without the first octets of the datagram.
    #[must_use]
    pub const fn is_later_fragment(&self) -> bool {
        self.fragment > 1
    }

    pub(super) const fn set_fragment(&mut self, offset: u16, identification: u32) {
        self.fragment = offset << 1 | 1;
        self.identification = identification;
    }

    /// Where the packet ends.
    pub(crate) const fn end(&self) -> usize {
        self.offset as usize + self.length as usize
    }

    /// Octets of the payload.
    pub(super) const fn room(&self) -> usize {
        self.end() - self.payload as usize
    }
}

/// Everything that steering needs to know of a packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// Link layer.
    pub link: Link,
    /// Network layer.
    pub ip: Ip,
    /// The flow that the packet belongs to.
    pub key: FlowKey,
    /// The ports in the key, for those who need not wait for the zone.
    pub ports: u32,
    /// TCP control bits.
    pub tcp_flags: u8,
    /// Whether this is an ICMP error, which belongs to the flow it quotes.
    pub icmp_error: bool,
    /// Whether that tells enough of the packet in [`Self::quote`].
    pub quotes: bool,
    /// The packet that an ICMP error quotes.
    pub quote: Quote,
    /// The tunnel it came by: then all else but the link layer is about the packet inside.
    pub tunnel: Tunnel,
}

/// A packet that an ICMP error quotes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quote {
    /// Network layer.
    pub ip: Ip,
    /// Its flow.
    pub key: FlowKey,
}

impl Facts {
    /// Octets on the wire, without padding: what is counted.
    #[must_use]
    pub const fn wire_len(&self) -> u64 {
        let packet = match self.tunnel.way {
            Way::None => self.ip.length,
            Way::Uplink | Way::Downlink | Way::Target => self.tunnel.length,
        };
        self.link.len as u64 + packet as u64
    }

    /// Octets that the tunnel it came by adds to the packet.
    pub(crate) const fn overhead(&self) -> u32 {
        match self.tunnel.way {
            Way::None => 0,
            Way::Uplink | Way::Downlink => self.tunnel.ip.length - self.ip.length,
            Way::Target => self.tunnel.length - self.ip.length,
        }
    }

    /// Octets of headers between the link-layer header and the packet.
    pub(crate) const fn outside(&self) -> u16 {
        self.ip.offset.saturating_sub(self.link.len)
    }
}
