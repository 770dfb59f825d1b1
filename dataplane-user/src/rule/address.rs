use std::{
    fmt::{self, Display, Formatter},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::ParseError;

const WHAT: &str = "an address, a prefix or a range of addresses";

/// Addresses of one family from `first` to `last`, both included.
///
/// MEC 011 gives no grammar for `srcAddress` and `dstAddress`. Read are `a`, `a/len`, `a/mask` (IPv4), `a-b` and
/// `p/len-q/len` (from the first address of `p` to the last of `q`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

impl AddressRange {
    /// The addresses from `first` to `last`; `None` when the families differ or they are the wrong way round.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last })
    }

    /// The prefix of `length` bits that `address` is in; `None` when the length exceeds that of the address.
    pub fn prefix(address: IpAddr, length: u8) -> Option<Self> {
        let (width, bits) = bits_of(address);
        let host = width.checked_sub(length)?;
        let mask = u128::MAX.checked_shr(128 - u32::from(host)).unwrap_or(0);
        Some(Self {
            first: address_of(width, bits & !mask),
            last: address_of(width, bits | mask),
        })
    }

    /// The lowest address.
    pub const fn first(&self) -> IpAddr {
        self.first
    }

    /// The highest address.
    pub const fn last(&self) -> IpAddr {
        self.last
    }

    /// Whether these are IPv4 addresses.
    pub const fn is_ipv4(&self) -> bool {
        self.first.is_ipv4()
    }

    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.is_ipv4() == address.is_ipv4() && (self.first..=self.last).contains(&address)
    }

    /// The length of the prefix that this range is, if it is one.
    fn prefix_length(&self) -> Option<u8> {
        let (width, first) = bits_of(self.first);
        let (_, last) = bits_of(self.last);
        let host = u8::try_from(128 - (first ^ last).leading_zeros()).ok()?;
        let length = width - host;
        (Self::prefix(self.first, length)? == *self).then_some(length)
    }
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        Self {
            first: address,
            last: address,
        }
    }
}

impl FromStr for AddressRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |why: String| ParseError::new(WHAT, text, why);
        let range = match text.split_once('-') {
            None => block(text).map_err(refuse)?,
            Some((from, to)) => {
                let (from, to) = (block(from).map_err(refuse)?, block(to).map_err(refuse)?);
                if from.is_ipv4() != to.is_ipv4() {
                    return Err(refuse("its ends are of different families".to_owned()));
                }
                Self::new(from.first, to.last)
                    .ok_or_else(|| refuse("its first address is above its last".to_owned()))?
            }
        };
        match (range.first, range.last) {
            (IpAddr::V6(first), IpAddr::V6(last))
                if first.to_ipv4_mapped().is_some() && last.to_ipv4_mapped().is_some() =>
            {
                Err(refuse(
                    "IPv4-mapped addresses never are on the wire; write the IPv4 address"
                        .to_owned(),
                ))
            }
            _ => Ok(range),
        }
    }
}

impl Display for AddressRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (first, last) = (self.first, self.last);
        match self.prefix_length() {
            _ if first == last => write!(f, "{first}"),
            Some(length) => write!(f, "{first}/{length}"),
            None => write!(f, "{first}-{last}"),
        }
    }
}

/// An address, or a prefix with its length or mask. The error is the reason alone.
fn block(text: &str) -> Result<AddressRange, String> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address.trim(), Some(length.trim())),
        None => (text.trim(), None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| format!("`{address}` is not an IP address"))?;
    let Some(text) = length else {
        return Ok(address.into());
    };
    let length = match text.parse::<Ipv4Addr>() {
        Ok(mask) if address.is_ipv4() => {
            mask_length(mask).ok_or_else(|| format!("`{mask}` is not a network mask"))?
        }
        Ok(_) => return Err("IPv6 prefixes have a length, not a mask".to_owned()),
        Err(_) if text.bytes().all(|b| b.is_ascii_digit()) => text
            .parse()
            .map_err(|_| format!("`{text}` is not a prefix length"))?,
        Err(_) => return Err(format!("`{text}` is neither a prefix length nor a mask")),
    };
    AddressRange::prefix(address, length)
        .ok_or_else(|| format!("a prefix length of {length} is more than the address has"))
}

fn mask_length(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    let length = bits.leading_ones();
    (bits.count_ones() == length)
        .then(|| u8::try_from(length).ok())
        .flatten()
}

/// The width of the family and the address as a number.
fn bits_of(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address))),
        IpAddr::V6(address) => (128, u128::from(address)),
    }
}

fn address_of(width: u8, bits: u128) -> IpAddr {
    match u32::try_from(bits) {
        Ok(bits) if width == 32 => Ipv4Addr::from(bits).into(),
        _ => Ipv6Addr::from(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_has_a_canonical_one() {
        for (text, canonical) in [
            ("10.45.0.7", "10.45.0.7"),
            (" 10.45.0.7/32 ", "10.45.0.7"),
            ("10.45.1.2/16", "10.45.0.0/16"),
            ("10.45.0.0/255.255.0.0", "10.45.0.0/16"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("10.0.0.1-10.0.0.9", "10.0.0.1-10.0.0.9"),
            ("10.0.0.0 - 10.0.0.255", "10.0.0.0/24"),
            ("10.0.0.0/24-10.0.1.0/24", "10.0.0.0/23"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("2001:db8::1", "2001:db8::1"),
            ("::/0", "::/0"),
            (
                "2001:db8::/32-2001:dba::/32",
                "2001:db8::-2001:dba:ffff:ffff:ffff:ffff:ffff:ffff",
            ),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(range.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse::<AddressRange>().unwrap(), range);
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "",
            "x",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/255.0.255.0",
            "::/129",
            "::/256",
            "10.0.0.9-10.0.0.1",
            "10.0.0.1-::1",
            "10.0.0.1-",
            "2001:db8::/ffff::",
            "::1/255.0.0.0",
            "::ffff:10.0.0.1",
            "10.0.0.1,10.0.0.2",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_reason_says_what_is_wrong() {
        let error = "10.0.0.0/33".parse::<AddressRange>().unwrap_err();
        assert_eq!(
            error.reason(),
            "a prefix length of 33 is more than the address has"
        );
    }
}
