//! Polling the Mp1 interface of a platform (MEC 011, 7.2.7): it has no notifications of traffic rules.
//!
//! What a platform last said stays in force whatever it answers later, with two exceptions: another list of rules,
//! and 404, which says that the application is gone.

mod client;
mod list;
mod pace;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use dataplane_user::rule::AppInstanceId;

use self::{
    client::{Answer, Client, Trouble},
    pace::Pace,
};
use super::{Alarm, Deliver, Delivery, Failure, Reason, Status, Wake, Worker};
use crate::{
    mec::{Application, Interface},
    store::Content,
};

/// The API roots of the editions, the newest first.
const ROOTS: [&str; 2] = ["mec_app_support/v2", "mec_app_support/v1"];

/// A platform and what to ask it for.
#[derive(Debug, Clone)]
pub(crate) struct Platform {
    /// Its address; with the API root of an edition only that one is tried.
    pub(crate) url: String,
    /// The applications, each with the interface it has on this host.
    pub(crate) applications: Vec<(AppInstanceId, Interface)>,
    /// The time between two polls when all is well.
    pub(crate) interval: Duration,
    /// The time for one answer.
    pub(crate) timeout: Duration,
    /// Certificates in PEM form to trust instead of the public ones.
    pub(crate) authority: Option<PathBuf>,
}

/// Polls a platform from now on. `before` is what it said when the daemon last ran.
pub(crate) fn poll(
    platform: Platform,
    before: Content,
    deliver: Deliver,
    status: Arc<Status>,
) -> Result<Worker> {
    let mut poller = Poller::new(platform, before, deliver, status)?;
    Ok(Worker::spawn("mep", move |alarm| poller.run(alarm))?)
}

struct Poller {
    client: Client,
    roots: Vec<String>,
    known: BTreeMap<AppInstanceId, Known>,
    pace: Pace,
    delivery: Delivery,
    status: Arc<Status>,
}

/// What is known of an application.
struct Known {
    /// What it last said; none if it is not there, or was not heard of yet.
    application: Option<Application>,
    interface: Interface,
    /// The API root that last answered.
    root: Option<usize>,
    /// The version that answer had.
    etag: Option<String>,
    /// What was wrong in it.
    refusals: Vec<Failure>,
}

impl Poller {
    fn new(
        platform: Platform,
        mut before: Content,
        deliver: Deliver,
        status: Arc<Status>,
    ) -> Result<Self> {
        let client = Client::new(platform.timeout, platform.authority.as_deref())?;
        let known = platform.applications.into_iter().map(|(id, interface)| {
            let known = Known {
                application: before.applications.remove(&id),
                interface,
                root: None,
                etag: None,
                refusals: Vec::new(),
            };
            (id, known)
        });
        Ok(Self {
            known: known.collect(),
            roots: roots(&platform.url),
            pace: Pace::new(platform.interval),
            client,
            delivery: Delivery::new(deliver),
            status,
        })
    }

    fn run(&mut self, alarm: &Alarm) {
        loop {
            let pause = self.round();
            if alarm.wait(pause) == Wake::Stop {
                return;
            }
        }
    }

    /// Asks for every application once; returns how long to wait until the next round.
    fn round(&mut self) -> Duration {
        let started = Instant::now();
        let mut failures = Vec::new();
        let mut healthy = true;
        let mut retry_after = None;
        for (id, known) in &mut self.known {
            let result = known.poll(&self.client, &self.roots, id);
            failures.extend(known.refusals.iter().cloned());
            let Err(trouble) = result else {
                continue;
            };
            healthy = false;
            retry_after = retry_after.max(trouble.retry_after);
            let unreachable = trouble.failure.reason == Reason::Unreachable;
            failures.push(trouble.failure);
            if unreachable {
                // The others would only wait for the same.
                break;
            }
        }
        let known = self.known.iter();
        let applications: BTreeMap<_, _> = known
            .filter_map(|(id, known)| Some((id.clone(), known.application.clone()?)))
            .collect();
        let content = applications.into();
        failures.extend(self.delivery.hand_over(&content));
        self.status.record(started, &content, failures);
        self.pace.next(healthy, retry_after)
    }
}

impl Known {
    /// Asks the root that answered last, then the others.
    fn poll(
        &mut self,
        client: &Client,
        roots: &[String],
        id: &AppInstanceId,
    ) -> Result<(), Trouble> {
        let order = self.root.into_iter().chain(0..roots.len());
        let mut trouble = None;
        for (turn, root) in order.enumerate() {
            if turn > 0 && self.root == Some(root) {
                continue;
            }
            let url = url(&roots[root], id);
            let etag = self.etag.as_deref().filter(|_| self.root == Some(root));
            match client.get(&url, etag) {
                Ok(Answer::Unchanged) => return Ok(()),
                Ok(Answer::Document { body, etag }) => {
                    match self.take(&url, id, &body) {
                        Ok(()) => {
                            self.root = Some(root);
                            self.etag = etag;
                            return Ok(());
                        }
                        Err(found) => trouble = Some(found),
                    };
                }
                Ok(Answer::Missing) => {}
                Err(found) => {
                    let stop = found.failure.reason != Reason::Status || self.root == Some(root);
                    trouble = trouble.or(Some(found));
                    if stop {
                        break;
                    }
                }
            }
        }
        if let Some(trouble) = trouble {
            return Err(trouble);
        }
        if self.application.take().is_some() {
            tracing::info!(application = %id, "the platform does not know the application (any more)");
        }
        self.etag = None;
        self.refusals.clear();
        Ok(())
    }

    /// Takes over what is good in an answer.
    fn take(&mut self, url: &str, id: &AppInstanceId, body: &[u8]) -> Result<(), Trouble> {
        let elements = list::elements(body).map_err(|what| Trouble {
            failure: Failure::new(Reason::Malformed, url, what),
            retry_after: None,
        })?;
        let before = self.application.as_ref();
        let before = before.map_or(&[][..], |application| &application.traffic_rules);
        let merged = list::merge(id, &self.interface, before, elements);
        let refusals = merged.refusals.into_iter();
        self.refusals = refusals
            .map(|refusal| Failure::new(Reason::Invalid, url, refusal))
            .collect();
        self.application = Some(Application {
            app_instance_id: id.to_string(),
            interface: self.interface.clone(),
            traffic_rules: merged.rules,
            ..Application::default()
        });
        Ok(())
    }
}

/// The API roots to try at an address.
fn roots(url: &str) -> Vec<String> {
    let url = url.trim_end_matches('/');
    if ROOTS.iter().any(|root| url.ends_with(root)) {
        return vec![url.to_owned()];
    }
    ROOTS.iter().map(|root| format!("{url}/{root}")).collect()
}

fn url(root: &str, id: &AppInstanceId) -> String {
    let mut url = format!("{root}/applications/");
    for byte in id.as_ref().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                url.push(char::from(byte));
            }
            _ => url.push_str(&format!("%{byte:02X}")),
        }
    }
    url + "/traffic_rules"
}

#[cfg(test)]
mod tests;
