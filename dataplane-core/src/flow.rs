//! Flows: their key, and the record of both directions.

mod decision;
mod find;
mod key;
mod record;

pub use decision::Decision;
pub use find::{Found, find};
pub use key::{FlowKey, KeyRest, SharedKey};
pub use record::{Half, Path, Record, Sum};
