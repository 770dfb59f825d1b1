//! What systemd is told: READY once the rules are in force, and what there is of them whenever that changes.
//!
//! Not being run by systemd is no error, so whether anybody hears it is not looked at.

use std::sync::Arc;

use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::{api::rule_counts, store::Snapshot};

/// Follows the state until the daemon ends.
pub(crate) async fn follow(mut state: watch::Receiver<Arc<Snapshot>>) {
    let mut ready = false;
    loop {
        let now = Arc::clone(&state.borrow_and_update());
        let _ = sd_notify::notify(&[NotifyState::Status(&status(&now))]);
        if !ready && now.programmed == now.revision {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
            ready = true;
        }
        if state.changed().await.is_err() {
            return;
        }
    }
}

/// Says that the daemon ends; what steers does not.
pub(crate) fn stopping() {
    let status = NotifyState::Status("stopping; traffic stays steered");
    let _ = sd_notify::notify(&[NotifyState::Stopping, status]);
}

fn status(now: &Snapshot) -> String {
    match &now.failure {
        Some(why) => format!("rules are NOT in force as desired: {why}"),
        None => {
            let (desired, programmed) = rule_counts(now);
            format!(
                "{programmed} of {desired} active rules in force, revision {}",
                now.revision
            )
        }
    }
}
