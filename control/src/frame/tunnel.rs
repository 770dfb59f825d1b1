//! Frames in GTP-U (3GPP TS 29.281, 5.1).

use std::net::IpAddr;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use serde::Serialize;

use super::ends;

/// The UDP port of GTP-U.
const PORT: u16 = 2152;
const G_PDU: u8 = 255;
/// Version 1, GTP and not GTP'.
const PLAIN: u8 = 0x30;
const EXTENSION: u8 = 4;
/// The optional word of the header is there if any of these flags is set.
const OPTIONAL: u8 = 7;
const PDU_SESSION_CONTAINER: u8 = 0x85;

/// A tunnel that a packet is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tunnel {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) teid: u32,
    /// With a PDU Session Container, as on N3.
    pub(crate) qfi: Option<u8>,
}

impl Tunnel {
    /// The tunnel that the packet of a frame is in.
    pub(crate) fn of(frame: &[u8]) -> Option<Self> {
        let (source, destination) = ends(frame)?;
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            return None;
        };
        let (header, rest) = udp.payload().split_first_chunk::<8>()?;
        let [flags, message, _, _, teid @ ..] = *header;
        if udp.destination_port() != PORT || flags & 0xf0 != PLAIN || message != G_PDU {
            return None;
        }
        let container = match rest {
            // Behind the word with the type of the first extension: its length, its PDU type, its QFI.
            [_, _, _, PDU_SESSION_CONTAINER, _, _, qfi, ..]
                if flags & OPTIONAL != 0 && flags & EXTENSION != 0 =>
            {
                Some(qfi & 0x3f)
            }
            _ => None,
        };
        Some(Self {
            source,
            destination,
            teid: u32::from_be_bytes(teid),
            qfi: container,
        })
    }

    /// The frame with its packet in this tunnel. `uplink`: it comes from the RAN.
    pub(crate) fn around(&self, frame: &[u8], uplink: bool) -> Result<Vec<u8>, String> {
        let at = if frame.get(12..14) == Some(&[0x81, 0x00]) {
            18
        } else {
            14
        };
        let (link, inner) = frame.split_at_checked(at).ok_or("the frame is too short")?;
        let mut content = Vec::new();
        if let Some(qfi) = self.qfi {
            let kind = u8::from(uplink) << 4;
            content.extend([0, 0, 0, PDU_SESSION_CONTAINER, 1, kind, qfi, 0]);
        }
        content.extend(inner);
        let flags = PLAIN | if self.qfi.is_some() { EXTENSION } else { 0 };
        let length = u16::try_from(content.len()).map_err(|error| error.to_string())?;
        let mut payload = vec![flags, G_PDU];
        payload.extend(length.to_be_bytes());
        payload.extend(self.teid.to_be_bytes());
        payload.extend(content);
        let (ethertype, builder) = match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => (
                [0x08, 0x00],
                PacketBuilder::ipv4(source.octets(), destination.octets(), 64),
            ),
            (IpAddr::V6(source), IpAddr::V6(destination)) => (
                [0x86, 0xdd],
                PacketBuilder::ipv6(source.octets(), destination.octets(), 64),
            ),
            _ => return Err("both ends of a tunnel are of the same IP version".to_owned()),
        };
        let mut out = link[..at - 2].to_vec();
        out.extend(ethertype);
        let written = builder.udp(PORT, PORT).write(&mut out, &payload);
        written.map_err(|error| error.to_string())?;
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::build;

    #[test]
    fn what_is_put_into_a_tunnel_is_found_in_it() {
        for (ends, qfi) in [
            (["192.0.2.1", "198.51.100.1"], None),
            (["192.0.2.1", "198.51.100.1"], Some(9)),
            (["2001:db8::1", "2001:db8::2"], Some(63)),
        ] {
            let [source, destination] = ends.map(|end| end.parse().unwrap());
            let tunnel = Tunnel {
                source,
                destination,
                teid: 0x1234_5678,
                qfi,
            };
            for line in [
                "udp 10.45.0.7:5000 > 203.0.113.9:443 vlan 7",
                "tcp [2001:db8::7]:1 > [2001:db8::9]:2",
            ] {
                let plain = build(line, None).unwrap();
                assert_eq!(Tunnel::of(&plain), None);
                let frame = tunnel.around(&plain, true).unwrap();
                assert_eq!(Tunnel::of(&frame), Some(tunnel), "{line}");
                assert!(frame.ends_with(&plain[18..]));
            }
        }
    }

    #[test]
    fn the_header_is_that_of_the_standard() {
        let tunnel = Tunnel {
            source: [192, 0, 2, 1].into(),
            destination: [198, 51, 100, 1].into(),
            teid: 0x1234,
            qfi: Some(9),
        };
        let plain = build("udp 10.45.0.2:1234 > 10.0.0.1:80", None).unwrap();
        let frame = tunnel.around(&plain, true).unwrap();
        let header = [
            0x34, 0xff, 0, 52, 0, 0, 0x12, 0x34, 0, 0, 0, 0x85, 1, 0x10, 9, 0,
        ];
        assert_eq!(frame[42..58], header);
        assert_eq!(frame[58..], plain[14..]);
    }

    #[test]
    fn what_is_cut_short_is_in_no_tunnel() {
        let tunnel = Tunnel {
            source: [192, 0, 2, 1].into(),
            destination: [198, 51, 100, 1].into(),
            teid: 1,
            qfi: Some(9),
        };
        let plain = build("udp 10.45.0.2:1234 > 10.0.0.1:80", None).unwrap();
        let frame = tunnel.around(&plain, false).unwrap();
        for length in 0..50 {
            assert_eq!(Tunnel::of(&frame[..length]), None, "{length}");
        }
    }
}
