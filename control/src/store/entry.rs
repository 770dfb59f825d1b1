use std::collections::BTreeSet;

use dataplane_user::rule::{AppInstanceId, RuleId, TrafficRuleId};
use serde::{Deserialize, Serialize};

use crate::{
    mec::{Application, Outcome, Refusal, State, TrafficRule, rule},
    vip,
};

/// Who said that an application or a VIP is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Source {
    /// A platform, over this node's own API.
    Mp2,
    /// The directory of rule files.
    Files,
    /// A platform that is polled.
    Mep,
}

impl Source {
    pub(crate) const ALL: [Self; 3] = [Self::Mp2, Self::Files, Self::Mep];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mp2 => "mp2",
            Self::Files => "files",
            Self::Mep => "mep",
        }
    }
}

/// A valid application.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) source: Source,
    pub(crate) application: Application,
    /// In the order of `application.traffic_rules`.
    outcomes: Vec<(RuleId, Outcome)>,
}

impl Entry {
    /// Checks everything in an application. Pointers in refusals start at the application.
    pub(crate) fn new(
        source: Source,
        application: Application,
    ) -> Result<(AppInstanceId, Self), Refusal> {
        reserved(&application.app_instance_id)
            .map_err(|refusal| refusal.below("/appInstanceId"))?;
        Self::check(source, application, Err)
    }

    /// The same for what was accepted already, maybe by another version: rules that would be refused now are kept, and not
    /// installed.
    pub(super) fn saved(
        source: Source,
        application: Application,
    ) -> Result<(AppInstanceId, Self), Refusal> {
        let keep = |refusal| {
            Ok(Outcome::NotEnforceable(format!(
                "this version refuses it: {refusal}"
            )))
        };
        Self::check(source, application, keep)
    }

    fn check(
        source: Source,
        application: Application,
        refuse: impl Fn(Refusal) -> Result<Outcome, Refusal>,
    ) -> Result<(AppInstanceId, Self), Refusal> {
        let id: AppInstanceId = application
            .app_instance_id
            .parse()
            .map_err(|error| Refusal::new("/appInstanceId", format!("{error}")))?;
        application
            .interface
            .check()
            .map_err(|refusal| refusal.below("/interface"))?;
        let mut outcomes = Vec::with_capacity(application.traffic_rules.len());
        let mut ids = BTreeSet::new();
        for (index, wire) in application.traffic_rules.iter().enumerate() {
            let place = format!("/trafficRules/{index}");
            let outcome = reserved(id.as_ref())
                .and_then(|()| rule(wire, &id, &application.interface))
                .or_else(|refusal| refuse(refusal.below(&place)))?;
            let rule: TrafficRuleId = wire.traffic_rule_id.parse().map_err(|error| {
                Refusal::new(format!("{place}/trafficRuleId"), format!("{error}"))
            })?;
            if !ids.insert(rule.clone()) {
                return Err(Refusal::new(
                    format!("{place}/trafficRuleId"),
                    format!("`{rule}` is there twice"),
                ));
            }
            outcomes.push((
                RuleId {
                    app: id.clone(),
                    rule,
                },
                outcome,
            ));
        }
        let mut names = BTreeSet::new();
        for (index, dns) in application.dns_rules.iter().enumerate() {
            let place = format!("/dnsRules/{index}");
            dns.check().map_err(|refusal| refusal.below(&place))?;
            if dns.dns_rule_id.is_empty() || !names.insert(&dns.dns_rule_id) {
                return Err(Refusal::new(
                    format!("{place}/dnsRuleId"),
                    "an id that no other DNS rule has is needed",
                ));
            }
        }
        Ok((
            id,
            Self {
                source,
                application,
                outcomes,
            },
        ))
    }

    /// The rules as they were said and what they mean here.
    pub(crate) fn rules(&self) -> impl Iterator<Item = (RuleId, &TrafficRule, &Outcome)> {
        let rules = self.application.traffic_rules.iter().zip(&self.outcomes);
        rules.map(|(wire, (id, outcome))| (id.clone(), wire, outcome))
    }
}

/// Refuses the name under which VIPs are.
fn reserved(application: &str) -> Result<(), Refusal> {
    let why = format!("`{application}` is what rules of VIPs are of; choose another id");
    (application != vip::APPLICATION)
        .then_some(())
        .ok_or_else(|| Refusal::new("", why))
}

/// A rule on one line, as it is shown in a difference.
pub(super) fn line(wire: &TrafficRule, outcome: &Outcome) -> String {
    let state = if wire.state == State::Active {
        ""
    } else {
        " (INACTIVE)"
    };
    match outcome {
        Outcome::Enforceable(rule) => format!("{rule}{state}"),
        Outcome::NotEnforceable(why) => format!("not enforceable: {why}{state}"),
    }
}
