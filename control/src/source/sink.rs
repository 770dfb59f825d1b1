//! From a source into the store.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{Applications, Deliver};
use crate::store::{Source, Store};

/// What the store has of a source: after a start, what was in force before it.
pub(crate) fn held(store: &Store, source: Source) -> Applications {
    let snapshot = store.snapshot();
    let entries = snapshot.applications.iter();
    entries
        .filter(|(_, entry)| entry.source == source)
        .map(|(id, entry)| (id.clone(), entry.application.clone()))
        .collect()
}

/// Makes the applications of `source` in the store what it hands over.
///
/// The result blocks: it is for threads outside of the runtime.
pub(crate) fn into_store(store: Arc<Store>, source: Source, runtime: Handle) -> Deliver {
    Box::new(move |applications| {
        let delivery = store.deliver(source, applications.clone());
        let refused = runtime.block_on(delivery);
        refused.map_err(|problem| problem.to_string())
    })
}
