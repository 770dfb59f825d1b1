//! Has the backends of VIPs checked.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use super::{Backend, CheckType, Health, HealthOf, Protocol, Vip};
use crate::{
    health::{Check, Checker, Key, Kind, State},
    store::{Snapshot, Store},
};

/// Follows what is desired and what checks find, until the daemon ends.
pub(crate) async fn check(store: Arc<Store>, checker: Checker) {
    let mut desired = store.follow();
    let mut found = checker.state();
    let mut before = BTreeMap::new();
    desired.mark_changed();
    loop {
        tokio::select! {
            changed = desired.changed() => {
                if changed.is_err() {
                    return;
                }
                let now = Arc::clone(&desired.borrow_and_update());
                let (checks, assumed) = checks(&now);
                if checks != before {
                    before.clone_from(&checks);
                    checker.follow(checks, assumed);
                }
            }
            changed = found.changed() => {
                if changed.is_err() {
                    return;
                }
                let verdicts = verdicts(&found.borrow_and_update());
                // What the data path does not take is offered again by others.
                let _ = store.health(verdicts).await;
            }
        }
    }
}

/// How backends are to be checked, and what they are taken for until it is known.
fn checks(now: &Snapshot) -> (BTreeMap<Key, Check>, BTreeMap<Key, bool>) {
    let mut checks = BTreeMap::new();
    let mut assumed = BTreeMap::new();
    let vips = now.vips.iter();
    for (id, entry) in vips.filter(|(_, it)| it.vip.health_check.is_some()) {
        let resolved = entry.resolve(now.surroundings());
        for backend in resolved.into_iter().flat_map(|it| it.backends) {
            let Some(check) = backend.check else {
                continue;
            };
            let key = Key {
                vip: id.to_string(),
                backend: backend.id.to_string(),
            };
            let up = backend.health.map(|it| it == Health::Up);
            assumed.extend(up.map(|up| (key.clone(), up)));
            checks.insert(key, check);
        }
    }
    (checks, assumed)
}

fn verdicts(found: &State) -> HealthOf {
    let known = found.iter().filter_map(|(key, health)| {
        let id = (key.vip.parse().ok()?, key.backend.parse().ok()?);
        let why = || health.reason.clone().unwrap_or_default();
        let up = |up| if up { Health::Up } else { Health::Down(why()) };
        Some((id, up(health.up?)))
    });
    known.collect()
}

impl Vip {
    /// How a backend at this address is checked, if it is.
    pub(super) fn check_of(&self, backend: &Backend, address: IpAddr) -> Option<Check> {
        let said = self.health_check.as_ref()?;
        let seconds = |number: u32| Duration::from_secs(number.into());
        Some(Check {
            kind: match said.kind {
                CheckType::Tcp => Kind::Tcp,
                CheckType::Http => Kind::Http {
                    path: said.path.clone().unwrap_or_else(|| "/".to_owned()),
                },
                CheckType::Icmp => Kind::Icmp,
            },
            address,
            port: self.port_to_check(backend).unwrap_or_default(),
            interval: seconds(said.interval_seconds),
            timeout: seconds(said.timeout_seconds),
            rise: said.rise,
            fall: said.fall,
        })
    }

    /// The TCP port that checks connect to.
    pub(super) fn port_to_check(&self, backend: &Backend) -> Option<u16> {
        let said = self.health_check.as_ref().and_then(|it| it.port);
        let tcp = matches!(self.protocol, Protocol::Tcp | Protocol::Any);
        said.or_else(|| backend.port.or(self.port).filter(|_| tcp))
    }
}
