//! A packet made from another by changing what a test is about.

use super::{Extension, MacAddress, Packet, Tag, Transport, address};

impl Packet {
    /// The same packet in the other direction: addresses, ports and MACs exchanged, and an echo
    /// request made a reply.
    pub fn reversed(&self) -> Self {
        let transport = match self.transport.clone() {
            Transport::Tcp {
                source,
                destination,
                flags,
            } => Transport::Tcp {
                source: destination,
                destination: source,
                flags,
            },
            Transport::Udp {
                source,
                destination,
                checksum,
            } => Transport::Udp {
                source: destination,
                destination: source,
                checksum,
            },
            Transport::Sctp {
                source,
                destination,
            } => Transport::Sctp {
                source: destination,
                destination: source,
            },
            Transport::Echo {
                reply,
                id,
                sequence,
            } => Transport::Echo {
                reply: !reply,
                id,
                sequence,
            },
            same @ (Transport::Error { .. } | Transport::Other(_)) => same,
        };
        Self {
            source_mac: self.destination_mac,
            destination_mac: self.source_mac,
            source: self.destination,
            destination: self.source,
            transport,
            ..self.clone()
        }
    }

    /// Sets both MAC addresses.
    pub fn macs(mut self, source: MacAddress, destination: MacAddress) -> Self {
        (self.source_mac, self.destination_mac) = (source, destination);
        self
    }

    /// Replaces the source address.
    pub fn from(mut self, source: &str) -> Self {
        self.source = address(source);
        self
    }

    /// Replaces the destination address.
    pub fn to(mut self, destination: &str) -> Self {
        self.destination = address(destination);
        self
    }

    /// The same to another port.
    pub fn to_port(mut self, port: u16) -> Self {
        if let Some((_, destination)) = self.ports_mut() {
            *destination = port;
        }
        self
    }

    /// The same from another port.
    pub fn from_port(mut self, port: u16) -> Self {
        if let Some((source, _)) = self.ports_mut() {
            *source = port;
        }
        self
    }

    fn ports_mut(&mut self) -> Option<(&mut u16, &mut u16)> {
        match &mut self.transport {
            Transport::Tcp {
                source,
                destination,
                ..
            }
            | Transport::Udp {
                source,
                destination,
                ..
            }
            | Transport::Sctp {
                source,
                destination,
            } => Some((source, destination)),
            Transport::Echo { .. } | Transport::Error { .. } | Transport::Other(_) => None,
        }
    }

    /// Adds a tag inside those already there.
    pub fn tag(mut self, protocol: u16, vlan: u16) -> Self {
        self.tags.push(Tag {
            protocol,
            vlan,
            priority: 3,
        });
        self
    }

    /// Takes the tags off.
    pub fn untagged(mut self) -> Self {
        self.tags.clear();
        self
    }

    /// Sets the TTL or hop limit.
    pub fn ttl(mut self, ttl: u8) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the DSCP and leaves ECN zero.
    pub fn dscp(mut self, dscp: u8) -> Self {
        self.class = dscp << 2;
        self
    }

    /// Sets the whole type of service octet or traffic class.
    pub fn class(mut self, class: u8) -> Self {
        self.class = class;
        self
    }

    /// Sets the identification that fragments share.
    pub fn identification(mut self, identification: u32) -> Self {
        self.identification = identification;
        self
    }

    /// Sets the IPv4 "don't fragment" bit.
    pub fn dont_fragment(mut self) -> Self {
        self.dont_fragment = true;
        self
    }

    /// Adds `words` four-octet words of IPv4 options: no-operation, each.
    pub fn options(mut self, words: usize) -> Self {
        self.options = vec![1; words * 4];
        self
    }

    /// Appends an IPv6 extension header.
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Sets the TCP flags.
    pub fn flags(mut self, value: u8) -> Self {
        let Transport::Tcp { flags, .. } = &mut self.transport else {
            panic!("{:?} has no TCP flags", self.transport);
        };
        *flags = value;
        self
    }

    /// Sets the TCP options.
    pub fn tcp_options(mut self, options: &[u8]) -> Self {
        self.tcp_options = options.to_vec();
        self
    }

    /// Leaves the UDP checksum zero.
    pub fn without_checksum(mut self) -> Self {
        let Transport::Udp { checksum, .. } = &mut self.transport else {
            panic!("{:?} has no optional checksum", self.transport);
        };
        *checksum = false;
        self
    }

    /// Makes the payload `length` octets, each different from its neighbors.
    pub fn payload(mut self, length: usize) -> Self {
        self.payload = (0..length).map(|i| (i % 251) as u8).collect();
        self
    }
}
