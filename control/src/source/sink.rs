//! From a source into the store.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::Deliver;
use crate::store::{Content, Source, Store};

/// What the store has of a source: after a start, what was in force before it.
pub(crate) fn held(store: &Store, source: Source) -> Content {
    let snapshot = store.snapshot();
    let applications = snapshot.applications.iter();
    let applications = applications.filter(|(_, entry)| entry.source == source);
    let vips = snapshot.vips.iter();
    let vips = vips.filter(|(_, entry)| entry.source == source);
    Content {
        applications: applications
            .map(|(id, entry)| (id.clone(), entry.application.clone()))
            .collect(),
        vips: vips
            .map(|(id, entry)| (id.clone(), entry.vip.clone()))
            .collect(),
    }
}

/// Makes what `source` has in the store what it hands over.
///
/// The result blocks: it is for threads outside of the runtime.
pub(crate) fn into_store(store: Arc<Store>, source: Source, runtime: Handle) -> Deliver {
    Box::new(move |content| {
        let delivery = store.deliver(source, content.clone());
        let refused = runtime.block_on(delivery);
        refused.map_err(|problem| problem.to_string())
    })
}
