use std::{
    fmt::{self, Display, Formatter},
    str::FromStr,
    sync::Arc,
};

use super::ParseError;

const MAX_LENGTH: usize = 255;

pub(super) fn checked(what: &'static str, text: &str) -> Result<Arc<str>, ParseError> {
    if text.is_empty() {
        return Err(ParseError::new(what, text, "it is empty"));
    }
    if text.len() > MAX_LENGTH {
        let why = format!(
            "it has {} bytes, at most {MAX_LENGTH} are allowed",
            text.len()
        );
        return Err(ParseError::new(what, text, why));
    }
    if text.chars().any(char::is_control) {
        return Err(ParseError::new(what, text, "it has control characters"));
    }
    Ok(text.into())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(std::sync::Arc<str>);

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::rule::ParseError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                $crate::rule::id::checked($what, text).map(Self)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

pub(super) use id;

id! {
    /// The platform's name of an application instance: 1 to 255 bytes, no control characters.
    AppInstanceId, "an application instance id"
}

id! {
    /// The name of a rule within its application: 1 to 255 bytes, no control characters.
    TrafficRuleId, "a traffic rule id"
}

/// The name of a rule on this node. Its order (bytes of the application, then of the rule) breaks ties of priority.
///
/// The text form is `APP/RULE`; a space, `/` or `%` inside an id is written as `%20`, `%2F`, `%25`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleId {
    /// The application that owns the rule.
    pub app: AppInstanceId,
    /// The rule within the application.
    pub rule: TrafficRuleId,
}

impl FromStr for RuleId {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let what = "a rule id";
        let Some((app, rule)) = text.split_once('/') else {
            return Err(ParseError::new(what, text, "write APPLICATION/RULE"));
        };
        if rule.contains('/') {
            return Err(ParseError::new(
                what,
                text,
                "write a `/` that belongs to an id as %2F",
            ));
        }
        let unescape = |part| {
            unescape(part)
                .ok_or_else(|| ParseError::new(what, text, "a `%` is followed by two hex digits"))
        };
        Ok(Self {
            app: unescape(app)?.parse()?,
            rule: unescape(rule)?.parse()?,
        })
    }
}

impl Display for RuleId {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{}/{}",
            escape(self.app.as_ref()),
            escape(self.rule.as_ref())
        ))
    }
}

/// Makes `text` one word: without spaces and slashes.
pub(super) fn escape(text: &str) -> String {
    text.replace('%', "%25")
        .replace(' ', "%20")
        .replace('/', "%2F")
}

/// The inverse of [`escape`], taking any `%XX`.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            let value = digit()? * 16 + digit()?;
            bytes.push(u8::try_from(value).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_with_separators_round_trip() {
        let id = RuleId {
            app: "a/b c%".parse().unwrap(),
            rule: "ü 1".parse().unwrap(),
        };
        assert_eq!(id.to_string(), "a%2Fb%20c%25/ü%201");
        assert_eq!(id.to_string().parse::<RuleId>().unwrap(), id);
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in [
            "", "/", "a", "a/", "/b", "a/b/c", "a%/b", "a%2/b", "a%zz/b", "a%ff/b", "a%0a/b",
        ] {
            assert!(text.parse::<RuleId>().is_err(), "{text}");
        }
        assert!("x".repeat(255).parse::<AppInstanceId>().is_ok());
        assert!("x".repeat(256).parse::<AppInstanceId>().is_err());
        assert!("a\tb".parse::<TrafficRuleId>().is_err());
    }
}
