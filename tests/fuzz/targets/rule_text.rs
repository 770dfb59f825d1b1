//! A rule that can be read is written in one form only, and read from it again.
#![no_main]

use dataplane_user::rule::Rule;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse(), Ok(rule));
    }
});
