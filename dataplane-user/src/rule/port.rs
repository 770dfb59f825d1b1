use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
};

use super::ParseError;

/// Transport ports from `first` to `last`, both included. Reads `80`, `8000-8999` and `8000:8999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The ports from `first` to `last`; `None` when they are the wrong way round.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl From<u16> for PortRange {
    fn from(port: u16) -> Self {
        Self {
            first: port,
            last: port,
        }
    }
}

impl FromStr for PortRange {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let what = "a port or a range of ports";
        let port = |part: &str| {
            let part = part.trim();
            let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten().ok_or_else(|| {
                ParseError::new(
                    what,
                    text,
                    "write a number from 0 to 65535, or two with a `-` between them",
                )
            })
        };
        let (first, last) = match text.split_once(['-', ':']) {
            Some((first, last)) => (port(first)?, port(last)?),
            None => (port(text)?, port(text)?),
        };
        Self::new(first, last)
            .ok_or_else(|| ParseError::new(what, text, "the first port is above the last"))
    }
}

impl Display for PortRange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings() {
        for (text, canonical) in [
            ("80", "80"),
            (" 1 - 2 ", "1-2"),
            ("1:2", "1-2"),
            ("0-65535", "0-65535"),
            ("7-7", "7"),
        ] {
            let range: PortRange = text.parse().unwrap();
            assert_eq!(range.to_string(), canonical);
            assert_eq!(canonical.parse::<PortRange>().unwrap(), range);
        }
    }

    #[test]
    fn refusals() {
        for text in [
            "", "-", "x", "65536", "2-1", "1-", "-1", "1-2-3", "+1", "http",
        ] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }
}
