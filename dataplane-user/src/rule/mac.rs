use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use super::ParseError;

/// An Ethernet address. Reads `02:00:00:00:00:01` and `02-00-00-00-00-01`, writes the former.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// The address as it is on the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether one station can own it: not a group address and not all zero.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl From<[u8; 6]> for Mac {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl FromStr for Mac {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = || {
            ParseError::new(
                "a MAC address",
                text,
                "write six pairs of hex digits, like 02:00:00:00:00:01",
            )
        };
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut octets = [0; 6];
        let mut pairs = text.split(separator);
        for octet in &mut octets {
            let pair = pairs
                .next()
                .filter(|pair| pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()));
            *octet = u8::from_str_radix(pair.ok_or_else(refuse)?, 16).map_err(|_| refuse())?;
        }
        if pairs.next().is_some() {
            Err(refuse())
        } else {
            Ok(Self(octets))
        }
    }
}

impl Display for Mac {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_read() {
        let mac = Mac([0xfc, 0x3f, 0x2b, 0x42, 0xdc, 0xba]);
        assert_eq!("fc:3f:2b:42:dc:ba".parse::<Mac>().unwrap(), mac);
        assert_eq!("FC-3F-2B-42-DC-BA".parse::<Mac>().unwrap(), mac);
        assert_eq!(mac.to_string(), "fc:3f:2b:42:dc:ba");
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in [
            "",
            "02",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "02:00-00:00:00:01",
            "+2:00:00:00:00:01",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }
}
