//! Chance, for what must not happen everywhere at once.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
};

/// Any number. The hasher's keys are random; nothing may depend on how good they are.
pub(crate) fn number() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Between 0 and 1.
pub(crate) fn fraction() -> f64 {
    (number() >> 11) as f64 / (1_u64 << 53) as f64
}
