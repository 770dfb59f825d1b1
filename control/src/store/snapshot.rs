use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use dataplane_user::rule::{AppInstanceId, RuleId, RuleSet};

use super::{Entry, Sessions, Vips};
use crate::{
    mec::{Outcome, State as Activity},
    vip::{self, HealthOf, Site, Surroundings},
};

/// The applications by id; cheap to copy.
pub(crate) type Applications = BTreeMap<AppInstanceId, Arc<Entry>>;

/// All that is desired; cheap to copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Desired {
    pub(crate) applications: Applications,
    pub(crate) sessions: Sessions,
    pub(crate) vips: Vips,
}

/// What came of telling others of addresses: nothing, or what was wrong.
pub(crate) type Told = BTreeMap<IpAddr, Result<(), String>>;

/// What is desired and what came of it, at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// Grows with every change.
    pub(crate) revision: u64,
    /// The revision that the data path has.
    pub(crate) programmed: u64,
    pub(crate) applications: Applications,
    /// What a platform says of UEs behind tunnels.
    pub(crate) sessions: Sessions,
    pub(crate) vips: Vips,
    /// What checks have found of backends.
    pub(crate) health: Arc<HealthOf>,
    /// Addresses of VIPs that others are told of, or why they are not.
    pub(super) announced: Arc<Told>,
    /// By what VIPs reach others.
    pub(crate) site: Arc<Site>,
    /// The rules that the data path took last.
    pub(super) rules: RuleSet,
    /// Rules that the data path left out.
    pub(crate) not_installed: BTreeMap<RuleId, String>,
    /// Why the data path does not have this revision, or not what checks have found since.
    pub(crate) failure: Option<String>,
}

impl Snapshot {
    pub(crate) fn desired(&self) -> Desired {
        Desired {
            applications: self.applications.clone(),
            sessions: self.sessions.clone(),
            vips: self.vips.clone(),
        }
    }

    /// Whether the data path has what is desired, but for rules that it left out.
    pub(crate) const fn in_force(&self) -> bool {
        self.programmed == self.revision && self.failure.is_none()
    }

    /// Whether others are told of an address.
    pub(crate) fn announces(&self, address: IpAddr) -> bool {
        matches!(self.announced.get(&address), Some(Ok(())))
    }

    /// Why others could not be told what they should be of an address.
    pub(crate) fn untold(&self, address: IpAddr) -> Option<&str> {
        self.announced
            .get(&address)?
            .as_ref()
            .err()
            .map(String::as_str)
    }

    /// What VIPs depend on.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            applications: &self.applications,
            health: &self.health,
            site: &self.site,
        }
    }

    /// Rules that no packet comes under, as things are: those left out, and those that wait for a session that says
    /// their QCI.
    pub(super) fn without_effect(&self) -> BTreeMap<RuleId, String> {
        let rules = self.applications.values().flat_map(|entry| entry.rules());
        let waiting = rules.filter_map(|(id, wire, outcome)| match outcome {
            Outcome::Enforceable(rule) if wire.state == Activity::Active => {
                Some((id, self.sessions.refuse(rule)?))
            }
            Outcome::Enforceable(_) | Outcome::NotEnforceable(_) => None,
        });
        let mut rules: BTreeMap<_, _> = waiting.collect();
        rules.extend(self.not_installed.clone());
        rules
    }
}

impl Desired {
    /// The rules that should be in force.
    pub(crate) fn rules(&self, health: &HealthOf, site: &Site) -> RuleSet {
        let active = self.applications.values().flat_map(|entry| entry.rules());
        let active = active.filter(|(_, wire, _)| wire.state == Activity::Active);
        let active = active.filter_map(|(_, _, outcome)| match outcome {
            Outcome::Enforceable(rule) => Some(Arc::clone(rule)),
            Outcome::NotEnforceable(_) => None,
        });
        let around = Surroundings {
            applications: &self.applications,
            health,
            site,
        };
        let vips = self.vips.values().filter_map(|vip| vip.resolve(around));
        let mut vips: Vec<_> = vips.map(|vip| vip.rule).collect();
        vip::share_echoes(&mut vips);
        RuleSet::shared(active.chain(vips.into_iter().map(Arc::new)))
    }
}
