//! VXLAN, RFC 7348 section 5.

use super::Packet;

/// The UDP destination port.
pub const VXLAN_PORT: u16 = 4789;

/// An Ethernet frame behind a VXLAN header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vxlan {
    /// The network identifier, 24 bits.
    pub vni: u32,
    /// The frame.
    pub content: Vec<u8>,
}

impl Vxlan {
    /// A frame in this network.
    pub fn new(vni: u32, inner: &Packet) -> Self {
        let content = inner.bytes();
        Self { vni, content }
    }

    /// The UDP datagram that brings it from one `address:port` to another.
    pub fn over(&self, source: &str, destination: &str) -> Packet {
        Packet {
            payload: self.bytes(),
            ..Packet::udp(source, destination)
        }
    }

    /// Header and frame.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![8, 0, 0, 0];
        bytes.extend((self.vni << 8).to_be_bytes());
        bytes.extend(&self.content);
        bytes
    }

    /// Takes header and frame apart, and says what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first_chunk() {
            None => Err("the VXLAN header is cut".into()),
            Some((&[8, 0, 0, 0, v0, v1, v2, 0], content)) => Ok(Self {
                vni: u32::from_be_bytes([0, v0, v1, v2]),
                content: content.to_vec(),
            }),
            Some((header, _)) => Err(format!("the VXLAN header is {header:02x?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_built_octet_for_octet_and_taken_apart() {
        let inner = Packet::udp("10.45.0.7:5000", "203.0.113.9:443");
        let vxlan = Vxlan::new(0x12_3456, &inner);
        let bytes = vxlan.bytes();
        let header = [8, 0, 0, 0, 0x12, 0x34, 0x56, 0];
        assert_eq!(bytes, [&header[..], &inner.bytes()].concat());
        assert_eq!(Vxlan::parse(&bytes), Ok(vxlan));
        Vxlan::parse(&bytes[..7]).unwrap_err();
        Vxlan::parse(&[0; 8]).unwrap_err();
    }
}
