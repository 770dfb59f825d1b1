//! Flows: their key, and the record of both directions.

mod decision;
mod find;
mod free;
mod index;
mod key;
mod record;

pub use decision::Decision;
pub use find::{Found, find};
pub use free::{allocate, release};
pub use index::{Bucket, ENTRIES, FlowHash, add, find as look_up, forget, remove};
pub use key::{FlowKey, KeyRest, SharedKey};
pub use record::{Half, Path, Record, Sum};
