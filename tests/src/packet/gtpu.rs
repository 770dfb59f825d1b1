//! GTPv1-U, 3GPP TS 29.281 section 5, and the PDU Session Container, TS 38.415 section 5.5.2.

use std::net::IpAddr;

use super::{Packet, address};

/// The UDP destination port of everything but echo responses.
pub const GTPU_PORT: u16 = 2152;
/// Message type of a tunneled packet.
pub const G_PDU: u8 = 255;
/// Type of the PDU Session Container.
const SESSION: u8 = 0x85;
/// Type of the UDP Port extension header.
pub const UDP_PORT: u8 = 0x40;

/// A GTP-U message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gtpu {
    /// Message type.
    pub message: u8,
    /// The tunnel, as its receiver knows it.
    pub teid: u32,
    /// Sequence number; its presence is flag S.
    pub sequence: Option<u16>,
    /// N-PDU number; its presence is flag PN.
    pub npdu: Option<u8>,
    /// Extension headers; flag E if there is any.
    pub extensions: Vec<GtpuExtension>,
    /// What follows the header: the tunneled packet, or information elements.
    pub content: Vec<u8>,
}

/// A GTP-U extension header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GtpuExtension {
    /// Extension header type.
    pub kind: u8,
    /// What is between the length octet and the next type; 4n - 2 octets.
    pub content: Vec<u8>,
}

/// What a PDU Session Container says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Session {
    /// From the UPF to the RAN, for the flow with this QFI.
    Downlink(u8),
    /// From the RAN to the UPF, for the flow with this QFI.
    Uplink(u8),
}

impl Gtpu {
    /// A tunneled packet, from its IP header on.
    pub fn pdu(teid: u32, content: Vec<u8>) -> Self {
        Self {
            message: G_PDU,
            teid,
            sequence: None,
            npdu: None,
            extensions: Vec::new(),
            content,
        }
    }

    /// Nothing more comes through the tunnel (section 7.3.2).
    pub fn end_marker(teid: u32) -> Self {
        Self {
            message: 254,
            ..Self::pdu(teid, Vec::new())
        }
    }

    /// Are you there (section 7.2.1)?
    pub fn echo_request(sequence: u16) -> Self {
        Self::signal(1, Vec::new()).sequence(sequence)
    }

    /// The answer to an echo request, with its Recovery element (section 7.2.2).
    pub fn echo_response(sequence: u16) -> Self {
        Self::signal(2, vec![14, 0]).sequence(sequence)
    }

    /// A tunneled packet came to `peer` for a tunnel that is not there (section 7.3.1).
    pub fn error_indication(teid: u32, peer: &str) -> Self {
        let mut content = vec![16];
        content.extend(teid.to_be_bytes());
        let peer = match address(peer) {
            IpAddr::V4(peer) => peer.octets().to_vec(),
            IpAddr::V6(peer) => peer.octets().to_vec(),
        };
        content.extend([133, 0, peer.len() as u8]);
        content.extend(peer);
        Self::signal(26, content).sequence(0)
    }

    /// These types of extension headers are understood, others are not (section 7.2.3).
    pub fn supported_extensions(kinds: &[u8]) -> Self {
        let content = [&[141, kinds.len() as u8][..], kinds].concat();
        Self::signal(31, content).sequence(0)
    }

    /// Sets the sequence number.
    pub fn sequence(mut self, sequence: u16) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// Sets the N-PDU number.
    pub fn npdu(mut self, npdu: u8) -> Self {
        self.npdu = Some(npdu);
        self
    }

    /// Appends an extension header.
    pub fn extension(mut self, kind: u8, content: &[u8]) -> Self {
        let content = content.to_vec();
        self.extensions.push(GtpuExtension { kind, content });
        self
    }

    /// Appends a PDU Session Container that says nothing but this.
    pub fn session(self, session: Session) -> Self {
        let content = match session {
            Session::Downlink(qfi) => [0, qfi],
            Session::Uplink(qfi) => [0x10, qfi],
        };
        self.extension(SESSION, &content)
    }

    /// Appends the UDP port that made the packet this message is about.
    pub fn udp_port(self, port: u16) -> Self {
        self.extension(UDP_PORT, &port.to_be_bytes())
    }

    /// What the first PDU Session Container says.
    pub fn said(&self) -> Option<Session> {
        let container = self.extensions.iter().find(|it| it.kind == SESSION)?;
        match *container.content.first_chunk()? {
            [kind, flow] if kind >> 4 == 0 => Some(Session::Downlink(flow & 0x3f)),
            [kind, flow] if kind >> 4 == 1 => Some(Session::Uplink(flow & 0x3f)),
            _ => None,
        }
    }

    /// The UDP datagram that brings the message from one `address:port` to another.
    pub fn over(&self, source: &str, destination: &str) -> Packet {
        Packet {
            payload: self.bytes(),
            ..Packet::udp(source, destination)
        }
    }

    /// The message.
    pub fn bytes(&self) -> Vec<u8> {
        let Self {
            sequence,
            npdu,
            extensions,
            ..
        } = self;
        let flag = |present: bool, bit: u8| if present { bit } else { 0 };
        let flags =
            flag(!extensions.is_empty(), 4) | flag(sequence.is_some(), 2) | flag(npdu.is_some(), 1);
        let mut rest = Vec::new();
        if flags != 0 {
            rest.extend(sequence.unwrap_or(0).to_be_bytes());
            rest.push(npdu.unwrap_or(0));
            for GtpuExtension { kind, content } in extensions {
                assert_eq!(content.len() % 4, 2, "extension headers are words");
                rest.extend([*kind, (content.len() / 4 + 1) as u8]);
                rest.extend(content);
            }
            rest.push(0);
        }
        rest.extend(&self.content);
        let length = u16::try_from(rest.len()).expect("the message fits its length field");
        let mut bytes = vec![0x30 | flags, self.message];
        bytes.extend(length.to_be_bytes());
        bytes.extend(self.teid.to_be_bytes());
        bytes.extend(rest);
        bytes
    }

    /// Takes a message apart, and says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (&[flags, message, l0, l1, t0, t1, t2, t3], mut rest) =
            bytes.split_first_chunk().ok_or("the GTP-U header is cut")?;
        if flags & 0xf8 != 0x30 {
            return Err(format!("the flags {flags:02x} are not of GTPv1-U"));
        }
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        if length != rest.len() {
            return Err(format!("GTP-U length {length}, and {} octets", rest.len()));
        }
        let mut gtpu = Self {
            message,
            ..Self::pdu(u32::from_be_bytes([t0, t1, t2, t3]), Vec::new())
        };
        if flags & 7 != 0 {
            let (&[s0, s1, npdu, next], after) = rest
                .split_first_chunk()
                .ok_or("the optional fields of GTP-U are cut")?;
            gtpu.sequence = (flags & 2 != 0).then(|| u16::from_be_bytes([s0, s1]));
            gtpu.npdu = (flags & 1 != 0).then_some(npdu);
            rest = after;
            if flags & 4 != 0 {
                (gtpu.extensions, rest) = extensions(next, after)?;
            }
        }
        gtpu.content = rest.to_vec();
        Ok(gtpu)
    }

    fn signal(message: u8, content: Vec<u8>) -> Self {
        Self {
            message,
            ..Self::pdu(0, content)
        }
    }
}

/// The extension headers from one of type `kind` on, and what follows them.
fn extensions(mut kind: u8, mut rest: &[u8]) -> Result<(Vec<GtpuExtension>, &[u8]), String> {
    let mut extensions = Vec::new();
    while kind != 0 {
        let words = usize::from(*rest.first().ok_or("a GTP-U extension header is missing")?);
        let header = words.checked_mul(4).filter(|length| *length > 0);
        let (header, after) = header
            .and_then(|length| rest.split_at_checked(length))
            .ok_or_else(|| format!("a GTP-U extension header of {words} words"))?;
        let [_, content @ .., next] = header else {
            unreachable!("it has at least four octets");
        };
        let content = content.to_vec();
        extensions.push(GtpuExtension { kind, content });
        (kind, rest) = (*next, after);
    }
    Ok((extensions, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An IPv4 packet with a UDP datagram of four octets, its checksums left zero.
    const INNER: &str = "450000200000400040110000 0a2d0002 0a000001 04d20050000c0000 61626364";

    fn messages() -> Vec<(Gtpu, String)> {
        let pdu = Gtpu::pdu(0x1234, hex(INNER));
        let short = Gtpu::pdu(1, Vec::new());
        let of = |message: Gtpu, bytes: &str| (message, bytes.to_owned());
        vec![
            of(pdu.clone(), &format!("30ff0020 00001234 {INNER}")),
            of(
                pdu.clone().session(Session::Downlink(9)),
                &format!("34ff0028 00001234 00000085 01000900 {INNER}"),
            ),
            of(
                pdu.clone().session(Session::Uplink(9)),
                &format!("34ff0028 00001234 00000085 01100900 {INNER}"),
            ),
            of(
                pdu.clone().sequence(0xabcd),
                &format!("32ff0024 00001234 abcd0000 {INNER}"),
            ),
            of(
                pdu.sequence(1).npdu(7).session(Session::Uplink(63)),
                &format!("37ff0028 00001234 00010785 01103f00 {INNER}"),
            ),
            of(
                short.clone().session(Session::Downlink(9)).udp_port(2152),
                "34ff000c 00000001 00000085 01000940 01086800",
            ),
            // With a sending time stamp (flag QMP): eight octets, and four for padding.
            of(
                short.extension(SESSION, &hex("0809 0102030405060708 00000000")),
                "34ff0014 00000001 00000085 04080901 02030405 06070800 00000000",
            ),
            of(Gtpu::echo_request(7), "32010004 00000000 00070000"),
            of(Gtpu::echo_response(7), "32020006 00000000 00070000 0e00"),
            of(
                Gtpu::error_indication(0x1234, "192.168.0.1"),
                "321a0010 00000000 00000000 1000001234 850004c0a80001",
            ),
            of(
                Gtpu::error_indication(0x1234, "2001:db8::1"),
                "321a001c 00000000 00000000 1000001234 850010 20010db8000000000000000000000001",
            ),
            of(Gtpu::end_marker(0x1234), "30fe0000 00001234"),
            of(
                Gtpu::end_marker(0x1234).session(Session::Downlink(9)),
                "34fe0008 00001234 00000085 01000900",
            ),
            of(
                Gtpu::supported_extensions(&[SESSION]),
                "321f0007 00000000 00000000 8d0185",
            ),
        ]
    }

    #[test]
    fn messages_are_built_octet_for_octet() {
        for (message, bytes) in messages() {
            assert_eq!(message.bytes(), hex(&bytes), "{message:?}");
        }
    }

    #[test]
    fn messages_are_taken_apart_as_they_were_built() {
        for (message, bytes) in messages() {
            assert_eq!(Gtpu::parse(&hex(&bytes)), Ok(message));
        }
    }

    #[test]
    fn the_container_says_direction_and_flow() {
        let pdu = Gtpu::pdu(1, Vec::new());
        assert_eq!(pdu.said(), None);
        for session in [Session::Uplink(9), Session::Downlink(63)] {
            let pdu = pdu.clone().udp_port(1).session(session);
            assert_eq!(pdu.said(), Some(session));
        }
        // The flags beside the QFI do not count.
        let pdu = pdu.extension(SESSION, &[0x10, 0xc9]);
        assert_eq!(pdu.said(), Some(Session::Uplink(9)));
    }

    #[test]
    fn what_is_not_a_message_is_refused() {
        for (bytes, reason) in [
            ("30ff0000 000012", "the GTP-U header is cut"),
            ("20ff0000 00001234", "the flags 20 are not of GTPv1-U"),
            ("50ff0000 00001234", "the flags 50 are not of GTPv1-U"),
            ("30ff0001 00001234", "GTP-U length 1, and 0 octets"),
            ("30ff0000 00001234 00", "GTP-U length 0, and 1 octets"),
            (
                "32ff0002 00001234 0001",
                "the optional fields of GTP-U are cut",
            ),
            (
                "34ff0004 00001234 00000085",
                "a GTP-U extension header is missing",
            ),
            (
                "34ff0008 00001234 00000085 00100900",
                "a GTP-U extension header of 0 words",
            ),
            (
                "34ff0008 00001234 00000085 02100900",
                "a GTP-U extension header of 2 words",
            ),
        ] {
            assert_eq!(Gtpu::parse(&hex(bytes)), Err(reason.to_owned()));
        }
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .chars()
            .filter_map(|digit| digit.to_digit(16))
            .map(|digit| digit as u8)
            .collect();
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()
    }
}
