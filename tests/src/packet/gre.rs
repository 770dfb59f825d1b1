//! GRE, RFC 2784, with key and sequence number, RFC 2890.

use etherparse::checksum::Sum16BitWords;

use super::Packet;

/// The IP protocol number.
pub(super) const PROTOCOL: u8 = 47;

/// A packet behind a GRE header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gre {
    /// EtherType of the content.
    pub protocol: u16,
    /// The key, if there is one.
    pub key: Option<u32>,
    /// The sequence number, if there is one.
    pub sequence: Option<u32>,
    /// Whether there is a checksum.
    pub checksum: bool,
    /// What follows the header.
    pub content: Vec<u8>,
}

impl Gre {
    /// A packet with the smallest header.
    pub fn new(inner: &Packet) -> Self {
        Self {
            protocol: if inner.source.is_ipv4() {
                0x0800
            } else {
                0x86dd
            },
            key: None,
            sequence: None,
            checksum: false,
            content: inner.network_bytes(),
        }
    }

    /// Sets the key.
    pub fn key(mut self, key: u32) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the sequence number.
    pub fn sequence(mut self, sequence: u32) -> Self {
        self.sequence = Some(sequence);
        self
    }

    /// Adds a checksum.
    pub fn checksum(mut self) -> Self {
        self.checksum = true;
        self
    }

    /// The packet that brings it from one endpoint to another.
    pub fn over(&self, source: &str, destination: &str) -> Packet {
        Packet {
            payload: self.bytes(),
            ..Packet::other(source, destination, PROTOCOL)
        }
    }

    /// Header and content.
    pub fn bytes(&self) -> Vec<u8> {
        let flag = |present: bool, bit: u8| if present { bit } else { 0 };
        let flags = flag(self.checksum, 0x80)
            | flag(self.key.is_some(), 0x20)
            | flag(self.sequence.is_some(), 0x10);
        let mut bytes = vec![flags, 0];
        bytes.extend(self.protocol.to_be_bytes());
        if self.checksum {
            bytes.extend([0; 4]);
        }
        for number in [self.key, self.sequence].into_iter().flatten() {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(&self.content);
        if self.checksum {
            let sum = internet_checksum(&bytes);
            bytes[4..6].copy_from_slice(&sum.to_be_bytes());
        }
        bytes
    }

    /// Takes header and content apart, and says what is wrong with them.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (&[flags, version, p0, p1], mut rest) =
            bytes.split_first_chunk().ok_or("the GRE header is cut")?;
        if flags & !0xb0 != 0 || version != 0 {
            return Err(format!("GRE with flags {flags:02x}{version:02x}"));
        }
        let mut word = |present: bool| match rest.split_first_chunk() {
            _ if !present => Ok(None),
            Some((&word, after)) => {
                rest = after;
                Ok(Some(u32::from_be_bytes(word)))
            }
            None => Err("the GRE header is cut"),
        };
        let checksum = word(flags & 0x80 != 0)?.is_some();
        let (key, sequence) = (word(flags & 0x20 != 0)?, word(flags & 0x10 != 0)?);
        if checksum && internet_checksum(bytes) != 0 {
            return Err("the GRE checksum is wrong".into());
        }
        Ok(Self {
            protocol: u16::from_be_bytes([p0, p1]),
            key,
            sequence,
            checksum,
            content: rest.to_vec(),
        })
    }
}

/// RFC 1071, over a field that is zero; 0 over octets that are right.
fn internet_checksum(bytes: &[u8]) -> u16 {
    let sum = Sum16BitWords::new().add_slice(bytes);
    sum.ones_complement().to_be()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_built_octet_for_octet_and_taken_apart() {
        let inner = Packet::udp("10.45.0.7:5000", "203.0.113.9:443");
        let inner6 = Packet::udp("[2001:db8::7]:5000", "[2001:db8::9]:443");
        let base = Gre::new(&inner);
        for (gre, header) in [
            (base.clone(), &[0, 0, 8, 0][..]),
            (Gre::new(&inner6), &[0, 0, 0x86, 0xdd]),
            (base.clone().key(0x0102_0304), &[0x20, 0, 8, 0, 1, 2, 3, 4]),
            (base.clone().sequence(9), &[0x10, 0, 8, 0, 0, 0, 0, 9]),
            (
                base.key(1).sequence(2),
                &[0x30, 0, 8, 0, 0, 0, 0, 1, 0, 0, 0, 2],
            ),
        ] {
            let bytes = gre.bytes();
            assert_eq!(bytes, [header, &gre.content].concat());
            assert_eq!(Gre::parse(&bytes), Ok(gre.clone()));
            // With a checksum, four octets more before key and sequence number.
            let checked = gre.checksum();
            let bytes = checked.bytes();
            assert_eq!(bytes[0], header[0] | 0x80);
            assert_eq!(bytes[8..header.len() + 4], header[4..]);
            assert_eq!(Gre::parse(&bytes), Ok(checked));
        }
    }

    #[test]
    fn what_is_not_sound_is_refused() {
        let sound = Gre::new(&Packet::udp("10.0.0.1:1", "10.0.0.2:2")).checksum();
        let mut bytes = sound.bytes();
        *bytes.last_mut().unwrap() ^= 1;
        assert_eq!(Gre::parse(&bytes), Err("the GRE checksum is wrong".into()));
        assert_eq!(Gre::parse(&bytes[..6]), Err("the GRE header is cut".into()));
        bytes[1] = 1;
        assert_eq!(Gre::parse(&bytes), Err("GRE with flags 8001".into()));
    }
}
