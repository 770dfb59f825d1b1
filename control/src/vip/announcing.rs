//! Has the addresses of VIPs announced.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{sync::oneshot, task};

use crate::{
    announce::{Announcer, Driver, OnExit, State},
    config::{self, Bgp, Vip},
    store::Store,
};

/// Takes up what was announced before. It fails where the addresses could not be announced at all.
pub(crate) async fn announcer(config: &Vip) -> Result<Announcer> {
    let driver = match &config.bgp {
        None => Driver::Interface {
            name: config.interface.clone(),
        },
        Some(Bgp::Exabgp(pipe)) => Driver::Exabgp { pipe: pipe.clone() },
        Some(Bgp::Gobgp(api)) => Driver::Gobgp { api: *api },
    };
    let on_exit = match config.on_exit {
        config::OnExit::Withdraw => OnExit::Withdraw,
        config::OnExit::Keep => OnExit::Keep,
    };
    let hold_down = Duration::from_secs(config.hold_down);
    let announcer = task::spawn_blocking(move || Announcer::new(driver, hold_down, on_exit));
    announcer
        .await?
        .context("cannot announce VIPs: see [vip] in the configuration")
}

/// Has announced what is healthy, until the daemon is `ending`; then withdraws it, if that is wanted, and returns when
/// routers have been told. Until the data path has had what is desired once, what was announced before stays.
pub(crate) async fn announce(
    store: Arc<Store>,
    announcer: Announcer,
    mut ending: oneshot::Receiver<()>,
) {
    let mut desired = store.follow();
    let mut state = announcer.state();
    let mut before = None;
    desired.mark_changed();
    loop {
        tokio::select! {
            changed = desired.changed() => {
                if changed.is_err() {
                    break;
                }
                let snapshot = Arc::clone(&desired.borrow_and_update());
                if before.is_none() && !snapshot.in_force() {
                    continue;
                }
                let now = snapshot.to_announce();
                if before.as_ref() != Some(&now) {
                    announcer.follow(now.clone());
                    before = Some(now);
                }
            }
            changed = state.changed() => {
                if changed.is_err() {
                    break;
                }
                let announced = state.borrow_and_update().clone();
                let told = announced.into_iter().filter_map(|(address, it)| match it.error {
                    Some(why) => Some((address, Err(why))),
                    None => (it.state == State::Announced).then_some((address, Ok(()))),
                });
                store.announced(told.collect()).await;
            }
            _ = &mut ending => break,
        }
    }
    if task::spawn_blocking(move || announcer.stop())
        .await
        .is_err()
    {
        tracing::error!("VIPs are not withdrawn; see the log above");
    }
}
