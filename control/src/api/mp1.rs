//! MEC 011: applications read and update their own rules.

use std::sync::Arc;

use axum::{extract::State, http::HeaderMap, response::Response};
use dataplane_user::rule::AppInstanceId;
use serde::{Serialize, de::DeserializeOwned};

use super::{
    Context,
    representation::{Document, Path, Precondition, resource},
};
use crate::{
    mec::{Application, DnsRule, TrafficRule, read, unwrap},
    problem::Problem,
    store::{Applications, Desired, Entry, Source, owned},
};

type Body = Result<Document, Problem>;

pub(super) async fn traffic_rules(
    State(context): State<Context>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    list::<TrafficRule>(&context, &app, &headers)
}

pub(super) async fn dns_rules(
    State(context): State<Context>,
    Path(app): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    list::<DnsRule>(&context, &app, &headers)
}

pub(super) async fn traffic_rule(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    one::<TrafficRule>(&context, &path, &headers)
}

pub(super) async fn dns_rule(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    one::<DnsRule>(&context, &path, &headers)
}

pub(super) async fn put_traffic_rule(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    put::<TrafficRule>(&context, path, &headers, body).await
}

pub(super) async fn put_dns_rule(
    State(context): State<Context>,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    put::<DnsRule>(&context, path, &headers, body).await
}

/// A kind of rule that applications have.
trait Kind: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The member that generated clients wrap the body in.
    const NAME: &'static str;
    /// The member of [`Application`] that holds them.
    const MEMBER: &'static str;
    fn id(&mut self) -> &mut String;
    fn of(application: &Application) -> &[Self];
    fn of_mut(application: &mut Application) -> &mut [Self];
}

impl Kind for TrafficRule {
    const NAME: &'static str = "TrafficRule";
    const MEMBER: &'static str = "trafficRules";

    fn id(&mut self) -> &mut String {
        &mut self.traffic_rule_id
    }

    fn of(application: &Application) -> &[Self] {
        &application.traffic_rules
    }

    fn of_mut(application: &mut Application) -> &mut [Self] {
        &mut application.traffic_rules
    }
}

impl Kind for DnsRule {
    const NAME: &'static str = "DnsRule";
    const MEMBER: &'static str = "dnsRules";

    fn id(&mut self) -> &mut String {
        &mut self.dns_rule_id
    }

    fn of(application: &Application) -> &[Self] {
        &application.dns_rules
    }

    fn of_mut(application: &mut Application) -> &mut [Self] {
        &mut application.dns_rules
    }
}

fn list<K: Kind>(context: &Context, app: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let snapshot = context.store.snapshot();
    let (_, entry) = find(&snapshot.applications, app)?;
    Ok(resource(headers, &K::of(&entry.application)))
}

fn one<K: Kind>(
    context: &Context,
    (app, rule): &(String, String),
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let snapshot = context.store.snapshot();
    let (_, entry) = find(&snapshot.applications, app)?;
    let index = position::<K>(&entry.application, rule)?;
    Ok(resource(headers, &K::of(&entry.application)[index]))
}

async fn put<K: Kind>(
    context: &Context,
    (app, id): (String, String),
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let precondition = Precondition::of(headers);
    let snapshot = context.store.snapshot();
    let (_, entry) = find(&snapshot.applications, &app)?;
    precondition.check(Some(
        &K::of(&entry.application)[position::<K>(&entry.application, &id)?],
    ))?;
    let mut rule: K = read(unwrap(body?.0, K::NAME))?;
    rule.id().clone_from(&id);
    let wanted = rule.clone();
    let edit = move |desired: &mut Desired| {
        let applications = &mut desired.applications;
        let (key, entry) = find(applications, &app)?;
        owned::<Entry>(applications, &key, Source::Mp2)?;
        let mut application = entry.application.clone();
        let index = position::<K>(&application, &id)?;
        precondition.check(Some(&K::of(&application)[index]))?;
        K::of_mut(&mut application)[index] = wanted;
        let (key, entry) = Entry::new(Source::Mp2, application).map_err(|mut refusal| {
            // The document that was sent is the rule alone.
            let prefix = format!("/{}/{index}", K::MEMBER);
            refusal.pointer = refusal
                .pointer
                .strip_prefix(&prefix)
                .unwrap_or(&refusal.pointer)
                .to_owned();
            refusal
        })?;
        applications.insert(key, Arc::new(entry));
        Ok(())
    };
    context.store.transact(Source::Mp2, edit).await?;
    Ok(resource(&HeaderMap::new(), &rule))
}

fn find(applications: &Applications, app: &str) -> Result<(AppInstanceId, Arc<Entry>), Problem> {
    let missing = || Problem::not_found(format!("there is no application `{app}`"));
    let id: AppInstanceId = app.parse().map_err(|_| missing())?;
    let entry = applications.get(&id).ok_or_else(missing)?;
    Ok((id, Arc::clone(entry)))
}

fn position<K: Kind>(application: &Application, id: &str) -> Result<usize, Problem> {
    let mut rules = K::of(application).iter().cloned();
    let missing = || {
        Problem::not_found(format!(
            "application `{}` has no {} `{id}`",
            application.app_instance_id,
            K::NAME
        ))
    };
    rules
        .position(|mut rule| rule.id() == id)
        .ok_or_else(missing)
}
