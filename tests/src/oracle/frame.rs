//! What is in a frame, as the oracle sees it: all of what it is a part of, or about.

use std::{fmt, net::IpAddr};

use super::{envelope::Envelope, outside::Outside};
use crate::packet::{G_PDU, IcmpError, Packet, Transport, describe};

/// A packet, or one fragment of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The whole packet; of a message between the ends of tunnels, only its link layer counts.
    pub packet: Packet,
    /// The tunnel that it is in.
    pub envelope: Option<Envelope>,
    /// The tunnel of a destination that all of it is in.
    pub outside: Option<Outside>,
    /// Which fragment of it, if it is one.
    pub piece: Option<Piece>,
    /// Of an ICMP error, what it is about.
    pub(super) error: Option<Error>,
}

/// A fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its place among the fragments of the packet.
    pub index: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    kind: IcmpError,
    /// The packet it is about, with addresses as they are quoted, and as it was when it was quoted.
    about: Packet,
    before: Packet,
    /// How much is quoted, in octets from the IP header on.
    length: usize,
}

impl Piece {
    /// Octets that a fragment carries.
    pub const OCTETS: usize = 24;
    /// The payload of packets that are cut; whatever the transport, it makes three fragments.
    pub const PAYLOAD: usize = 50;
    /// How many they become.
    pub const COUNT: usize = 3;
}

impl From<Packet> for Frame {
    fn from(packet: Packet) -> Self {
        Self {
            packet,
            envelope: None,
            outside: None,
            piece: None,
            error: None,
        }
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(&self.bytes()))
    }
}

impl Frame {
    /// The error that the node `from` sends about what it received, quoting its headers and all
    /// (`true`), 8 (`None`), or no octets (`false`) of the transport.
    pub fn error(from: IpAddr, kind: IcmpError, about: &Packet, quote: Option<bool>) -> Self {
        let headers = about.transport_offset() - about.network_offset();
        let length = match quote {
            Some(true) => 548,
            None => headers + 8,
            Some(false) => headers,
        };
        let packet = Packet::error(&from.to_string(), kind, about, length)
            .macs(about.destination_mac, about.source_mac);
        let packet = Packet {
            tags: about.tags.clone(),
            ..packet
        };
        Self {
            packet,
            envelope: None,
            outside: None,
            piece: None,
            error: Some(Error {
                kind,
                about: about.clone(),
                before: about.clone(),
                length,
            }),
        }
    }

    /// Fragments of a packet whose identification no other has.
    pub fn fragment(&self, index: usize, identification: u32) -> Self {
        let packet = self.packet.clone().payload(Piece::PAYLOAD);
        Self {
            packet: packet.identification(identification),
            envelope: self.envelope.clone(),
            outside: self.outside.clone(),
            piece: Some(Piece { index }),
            error: None,
        }
    }

    /// The same in a tunnel, or in none.
    pub fn within(self, envelope: Option<Envelope>) -> Self {
        Self { envelope, ..self }
    }

    /// The same in the tunnel of a destination, or in none.
    pub fn through(self, outside: Option<Outside>) -> Self {
        Self { outside, ..self }
    }

    /// What nobody sees who does not know the tunnel of the destination.
    pub fn outermost(&self) -> Self {
        match &self.outside {
            None => self.clone(),
            Some(outside) => {
                let inside = &self.carried()[self.packet.network_offset()..];
                outside.around(&self.packet, inside).into()
            }
        }
    }

    /// The octets on the wire.
    pub fn bytes(&self) -> Vec<u8> {
        self.outermost().carried()
    }

    /// The octets without the tunnel of the destination.
    fn carried(&self) -> Vec<u8> {
        let inside = match self.piece {
            None => self.packet.bytes(),
            Some(piece) => self
                .packet
                .fragments(Piece::OCTETS)
                .swap_remove(piece.index),
        };
        match &self.envelope {
            None => inside,
            Some(envelope) => {
                let inside = &inside[self.packet.network_offset()..];
                envelope.around(&self.packet, inside).bytes()
            }
        }
    }

    /// Whether it is neither a fragment nor an ICMP error, so that there may be such a thing of it.
    pub fn is_plain(&self) -> bool {
        self.piece.is_none()
            && !matches!(self.packet.transport, Transport::Error { .. })
            && self.message().is_none()
    }

    /// The type of the message between the ends of tunnels that this is, if it carries no packet.
    pub fn message(&self) -> Option<u8> {
        let kind = self.envelope.as_ref()?.gtpu.message;
        (kind != G_PDU).then_some(kind)
    }

    /// Counts a hop of what is outermost but for the tunnel of the destination. `false`: it was the last one.
    pub fn hop(&mut self) -> bool {
        let outermost = match &mut self.envelope {
            Some(envelope) => &mut envelope.outer,
            None => &mut self.packet,
        };
        let more = outermost.ttl > 1;
        outermost.ttl -= u8::from(more);
        more
    }

    /// The packet that an ICMP error quotes, if it quotes enough of it to tell its flow.
    pub fn quoted(&self) -> Option<&Packet> {
        let Error { about, length, .. } = self.error.as_ref()?;
        let headers = about.transport_offset() - about.network_offset();
        let needed = match about.ports() {
            None if !is_icmp(about) => 0,
            Some(_) | None => 8,
        };
        (headers + needed <= *length).then_some(about)
    }

    /// Address translation towards the application, and with it that of a port: of what an error quotes, the source
    /// is meant.
    pub fn translate_destination(&mut self, new: IpAddr, port: Option<u16>) {
        if self.quoted().is_none() {
            self.packet.destination = new;
            change(&mut self.packet, port, Packet::to_port);
            return;
        }
        self.quote(|packet, about| {
            if packet.destination == about.source {
                packet.destination = new;
            }
            about.source = new;
            change(about, port, Packet::from_port);
        });
    }

    /// Address translation towards the UE: of what an error quotes, the destination is meant. An
    /// error that is not from the application itself keeps its source.
    pub fn translate_source(&mut self, old: IpAddr, new: IpAddr, port: Option<u16>) {
        if self.quoted().is_none() {
            self.packet.source = new;
            change(&mut self.packet, port, Packet::from_port);
            return;
        }
        self.quote(|packet, about| {
            if packet.source == old {
                packet.source = new;
            }
            about.destination = new;
            change(about, port, Packet::to_port);
        });
    }

    fn quote(&mut self, change: impl FnOnce(&mut Packet, &mut Packet)) {
        let Some(error) = &mut self.error else {
            return;
        };
        change(&mut self.packet, &mut error.about);
        let Error {
            kind,
            about,
            before,
            length,
        } = error;
        let from = self.packet.source.to_string();
        let quoting = Packet::error_about_translated(&from, *kind, about, before, *length);
        self.packet.transport = quoting.transport;
    }
}

/// Changes a port of a packet, if that is to change.
fn change(packet: &mut Packet, port: Option<u16>, how: fn(Packet, u16) -> Packet) {
    if let Some(port) = port {
        *packet = how(packet.clone(), port);
    }
}

/// Whether it is of ICMP or ICMPv6.
pub(super) fn is_icmp(packet: &Packet) -> bool {
    matches!(packet.protocol(), 1 | 58)
}
