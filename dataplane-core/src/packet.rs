//! Access to a packet: typed views at offsets, and moving its two ends.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::checksum::fold;

/// A header that may be viewed in place: any bytes are a valid value, at any alignment.
pub trait Header: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned {}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned> Header for T {}

/// A packet, starting at its Ethernet header.
///
/// Moving an end takes `&mut self`, so no header view outlives it: the borrow checker enforces what
/// the kernel's verifier demands of packet pointers.
pub trait Packet {
    /// Headers are looked for at offsets below this one only.
    const REACH: usize = 512;

    /// The header at `offset`, if the packet holds all of it.
    fn get<T: Header>(&self, offset: usize) -> Option<&T>;

    /// The header at `offset`, to be changed.
    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T>;

    /// Bytes in the packet.
    fn len(&self) -> usize;

    /// Whether the packet has at least `len` bytes.
    fn holds(&self, len: usize) -> bool {
        len <= self.len()
    }

    /// Whether there is no byte in the packet.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The one's complement sum of `len` bytes from `offset` on as 16-bit words, the last filled up
    /// with zero (RFC 1071). Beyond [`Self::REACH`] too, and slow.
    fn sum(&self, offset: usize, len: usize) -> Option<u16>;

    /// Drops `len` bytes from the front.
    fn trim_front(&mut self, len: usize) -> bool;

    /// Adds `len` bytes of unspecified value at the front.
    fn grow_front(&mut self, len: usize) -> bool;

    /// Shortens the packet to `len` bytes.
    fn truncate(&mut self, len: usize) -> bool;
}

/// A packet in memory, with the room before it that a driver leaves.
#[derive(Debug)]
pub struct Buffer<'a> {
    bytes: &'a mut [u8],
    start: usize,
    end: usize,
}

impl<'a> Buffer<'a> {
    /// What XDP leaves in front of a packet.
    pub const HEADROOM: usize = 256;

    /// The packet `bytes[start..]`; what lies before `start` is headroom.
    #[must_use]
    pub fn new(bytes: &'a mut [u8], start: usize) -> Self {
        let end = bytes.len();
        Self {
            start: start.min(end),
            bytes,
            end,
        }
    }

    /// The bytes of the packet.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }
}

impl Packet for Buffer<'_> {
    fn get<T: Header>(&self, offset: usize) -> Option<&T> {
        if offset >= Self::REACH {
            return None;
        }
        let (header, _) = T::ref_from_prefix(self.bytes().get(offset..)?).ok()?;
        Some(header)
    }

    fn get_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        if offset >= Self::REACH {
            return None;
        }
        let bytes = self.bytes.get_mut(self.start + offset..self.end)?;
        let (header, _) = T::mut_from_prefix(bytes).ok()?;
        Some(header)
    }

    fn len(&self) -> usize {
        self.end - self.start
    }

    fn sum(&self, offset: usize, len: usize) -> Option<u16> {
        let bytes = self.bytes().get(offset..)?.get(..len)?;
        let word = |pair: &[u8]| match *pair {
            [high, low] => u16::from_be_bytes([high, low]),
            [high] => u16::from_be_bytes([high, 0]),
            _ => 0,
        };
        Some(fold(
            bytes.chunks(2).map(|pair| u32::from(word(pair))).sum(),
        ))
    }

    fn trim_front(&mut self, len: usize) -> bool {
        let fits = len <= self.len();
        if fits {
            self.start += len;
        }
        fits
    }

    fn grow_front(&mut self, len: usize) -> bool {
        let fits = len <= self.start;
        if fits {
            self.start -= len;
        }
        fits
    }

    fn truncate(&mut self, len: usize) -> bool {
        let fits = len <= self.len();
        if fits {
            self.end = self.start + len;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use zerocopy::network_endian::U16;

    use super::*;

    #[test]
    fn views_stay_inside_the_packet() {
        let mut bytes = [0, 1, 2, 3, 4, 5];
        let mut packet = Buffer::new(&mut bytes, 2);
        assert_eq!(packet.get::<U16>(0).map(|value| value.get()), Some(0x0203));
        assert_eq!(packet.get::<U16>(3), None);
        assert_eq!(packet.get::<U16>(usize::MAX), None);
        assert_eq!(packet.sum(1, 3), Some(0x0304 + 0x0500));
        assert_eq!(packet.sum(1, 4), None);
        assert!(packet.grow_front(2));
        assert!(!packet.grow_front(1));
        assert!(packet.truncate(3));
        assert!(!packet.trim_front(4));
        assert_eq!(packet.bytes(), [0, 1, 2]);
    }
}
