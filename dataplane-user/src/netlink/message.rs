//! The netlink wire format: messages of attributes, native byte order, aligned to four bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Type bits of an attribute; the others are flags.
const TYPE_MASK: u16 = 0x3fff;

const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// A request under construction.
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A message of type `kind` that starts with the family's fixed header.
    pub(super) fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let flags = flags | libc::NLM_F_REQUEST;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags as u16).to_ne_bytes());
        bytes.extend_from_slice(header);
        bytes.resize(align(bytes.len()), 0);
        Self(bytes)
    }

    /// Appends an attribute.
    pub(super) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (4 + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(align(self.0.len()), 0);
        self
    }

    /// Appends an IP address.
    pub(super) fn address(self, kind: u16, address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => self.attribute(kind, &address.octets()),
            IpAddr::V6(address) => self.attribute(kind, &address.octets()),
        }
    }

    /// The bytes to send.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

/// A received message.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: i32,
    pub(super) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes after a fixed header of `header` bytes.
    pub(super) fn attributes(&self, header: usize) -> impl Iterator<Item = (u16, &'a [u8])> {
        attributes(self.payload.get(align(header)..).unwrap_or_default())
    }
}

/// Splits a datagram into its messages; a damaged tail ends it.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        let kind = u16_at(bytes, 4)?;
        let flags = i32::from(u16_at(bytes, 6)?);
        let payload = bytes.get(HEADER..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some(Message {
            kind,
            flags,
            payload,
        })
    })
}

/// Splits a run of attributes; also for nested ones.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub(super) fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

pub(super) fn i32_at(bytes: &[u8], offset: usize) -> Option<i32> {
    u32_at(bytes, offset).map(u32::cast_signed)
}

/// Text up to the first NUL.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0);
    String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]).into_owned()
}

/// An address whose family follows from its length.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(octets).into())
}

/// The address family number of an address.
pub(super) fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let bytes = Request::new(30, libc::NLM_F_ACK, &[1, 2, 3, 4])
            .attribute(7, b"abc")
            .address(8, "192.0.2.1".parse().unwrap())
            .finish();
        let message = messages(&bytes).next().unwrap();
        assert_eq!(message.kind, 30);
        assert_eq!(message.flags, libc::NLM_F_ACK | libc::NLM_F_REQUEST);
        let found: Vec<_> = message.attributes(4).collect();
        assert_eq!(found, [(7, &b"abc"[..]), (8, &[192, 0, 2, 1][..])]);
    }

    #[test]
    fn every_truncation_ends_quietly() {
        let bytes = Request::new(30, 0, &[1, 2, 3, 4])
            .attribute(7, &[0; 9])
            .attribute(8, &[0; 4])
            .finish();
        for length in 0..bytes.len() {
            assert_eq!(messages(&bytes[..length]).count(), 0);
            assert!(attributes(&bytes[20..length.max(20)]).count() <= 2);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
    }
}
