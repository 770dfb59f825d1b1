//! The data path as the rest of the daemon sees it: a queue in front of a thread, because its calls block.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use dataplane_user::rule::{BackendId, RuleId, RuleSet};
use serde::{Deserialize, Serialize, Serializer};
use tokio::sync::{mpsc, oneshot};

use crate::{
    frame::Tunnel,
    session::{QosFlow, Session as Said, SessionId},
    store::{SessionChanges, Sessions},
};

/// A question to the data path and where its answer goes.
#[derive(Debug)]
pub(crate) enum Request {
    Apply(Box<RuleSet>, oneshot::Sender<Result<Applied, String>>),
    /// Which of these backends take or keep flows, be it by what an earlier daemon left.
    Serving(Vec<BackendKey>, oneshot::Sender<Vec<BackendKey>>),
    Observe(oneshot::Sender<Observation>),
    Flows(FlowQuery, oneshot::Sender<FlowPage>),
    Sessions(SessionQuery, oneshot::Sender<SessionPage>),
    /// Says sessions, and takes back others.
    Provision(Vec<Arc<Said>>, Vec<SessionId>, Answer<()>),
    /// Says all sessions there are.
    Reprovision(Sessions, Answer<()>),
    Explain {
        port: String,
        frame: Vec<u8>,
        answer: oneshot::Sender<Result<Explanation, String>>,
    },
    /// Links or neighbors may have changed. The answer says what did.
    Refresh(oneshot::Sender<Result<Vec<String>, String>>),
    /// A second has passed, or what was to be forgotten then was too much for once.
    Expire(oneshot::Sender<Expired>),
}

/// A backend by the rule of its VIP.
pub(crate) type BackendKey = (RuleId, BackendId);

type Answer<T> = oneshot::Sender<Result<T, String>>;

/// A handle on the thread that owns the data path.
#[derive(Clone, Debug)]
pub(crate) struct Dataplane(mpsc::Sender<Request>);

/// The thread is gone: the daemon is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the data path is shutting down")]
pub(crate) struct Gone;

impl Dataplane {
    /// A handle and the queue that a thread has to serve.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Request>) {
        let (sender, receiver) = mpsc::channel(64);
        (Self(sender), receiver)
    }

    /// Puts a set of rules in force, whole or not at all.
    pub(crate) async fn apply(&self, rules: RuleSet) -> Result<Result<Applied, String>, Gone> {
        self.ask(|answer| Request::Apply(Box::new(rules), answer))
            .await
    }

    /// Which of these backends take or keep flows, be it by what an earlier daemon left.
    pub(crate) async fn serving(&self, of: Vec<BackendKey>) -> Result<Vec<BackendKey>, Gone> {
        self.ask(|answer| Request::Serving(of, answer)).await
    }

    pub(crate) async fn observe(&self) -> Result<Observation, Gone> {
        self.ask(Request::Observe).await
    }

    /// As many flows as are asked for, unless there are no more. Others may ask meanwhile.
    pub(crate) async fn flows(&self, mut query: FlowQuery) -> Result<FlowPage, Gone> {
        let mut flows = Vec::new();
        loop {
            let wanted = query.clone();
            let page = self.ask(|answer| Request::Flows(wanted, answer)).await?;
            query.limit -= page.flows.len();
            flows.extend(page.flows);
            match page.next {
                Some(next) if query.limit > 0 => query.from = next,
                next => return Ok(FlowPage { flows, next }),
            }
        }
    }

    pub(crate) async fn sessions(&self, query: SessionQuery) -> Result<SessionPage, Gone> {
        self.ask(|answer| Request::Sessions(query, answer)).await
    }

    /// Puts what is said of sessions in force, whole or not at all.
    pub(crate) async fn provision(
        &self,
        changes: &SessionChanges,
    ) -> Result<Result<(), String>, Gone> {
        let said = changes
            .said
            .iter()
            .map(|(_, new)| Arc::clone(new))
            .collect();
        let withdrawn = changes.withdrawn.iter().map(|it| it.id()).collect();
        self.ask(|answer| Request::Provision(said, withdrawn, answer))
            .await
    }

    /// Makes these sessions all that are provisioned.
    pub(crate) async fn reprovision(&self, sessions: Sessions) -> Result<Result<(), String>, Gone> {
        self.ask(|answer| Request::Reprovision(sessions, answer))
            .await
    }

    pub(crate) async fn explain(
        &self,
        port: String,
        frame: Vec<u8>,
    ) -> Result<Result<Explanation, String>, Gone> {
        self.ask(|answer| Request::Explain {
            port,
            frame,
            answer,
        })
        .await
    }

    /// Lets what is over be forgotten.
    pub(crate) async fn expire(&self) -> Result<Expired, Gone> {
        self.ask(Request::Expire).await
    }

    pub(crate) async fn refresh(&self) -> Result<Result<Vec<String>, String>, Gone> {
        self.ask(Request::Refresh).await
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(request(sender)).await.map_err(|_| Gone)?;
        receiver.await.map_err(|_| Gone)
    }
}

/// What a transaction changed.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Applied {
    pub(crate) epoch: u32,
    pub(crate) added: usize,
    pub(crate) changed: usize,
    pub(crate) removed: usize,
    /// Rules that were left out, each with the reason.
    #[serde(rename = "notInstalled", serialize_with = "left_out")]
    pub(crate) not_installed: BTreeMap<RuleId, String>,
}

/// What came of forgetting what is over.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expired {
    /// UEs behind tunnels that nothing can be sent to any more.
    pub(crate) lost: Vec<Session>,
    /// There is more to be forgotten.
    pub(crate) more: bool,
    /// Whether the flow table is nearly full.
    pub(crate) nearly_full: bool,
}

/// Everything but the flows, read at one time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Observation {
    pub(crate) status: Status,
    pub(crate) ports: Vec<Port>,
    pub(crate) port_counters: Vec<PortCounter>,
    pub(crate) rule_counters: BTreeMap<RuleId, RuleCounter>,
    pub(crate) backend_counters: BackendCounters,
    /// Flows that ended and came under no rule that was in force then.
    pub(crate) flows_ended: u64,
    /// Flows that ended and were not counted as such.
    pub(crate) flows_ended_lost: u64,
    /// Flows that were forgotten before their time.
    pub(crate) flows_evicted: u64,
    pub(crate) next_hops: Vec<NextHop>,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    pub(crate) epoch: u32,
    pub(crate) adopted: bool,
    pub(crate) pressure: Vec<Pressure>,
    pub(crate) sessions: Vec<SessionCount>,
    pub(crate) flow_cache: FlowCache,
    /// Flows of VIPs that had to be given another backend.
    pub(crate) flows_rechosen: u64,
    pub(crate) program_instructions: u32,
    pub(crate) program_bytes: u32,
}

/// Packets of flows that were looked for in the flow caches, and those whose flow was not there.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct FlowCache {
    pub(crate) lookups: u64,
    pub(crate) misses: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Pressure {
    pub(crate) name: String,
    pub(crate) used: u64,
    pub(crate) max: u64,
}

#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) interface: String,
    pub(crate) ifindex: Option<u32>,
    pub(crate) role: String,
    /// `native`, `generic` or `down`.
    pub(crate) mode: String,
    pub(crate) pair: Option<String>,
    /// Whether tunnels of UEs are looked into here.
    pub(crate) gtpu: bool,
    pub(crate) zone: u16,
    pub(crate) mac: Option<String>,
    pub(crate) mtu: u32,
    /// Why nothing is attached, or nothing passes.
    pub(crate) reason: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct PortCounter {
    pub(crate) port: String,
    pub(crate) reason: dataplane_core::Reason,
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

/// By the rules of VIPs and by backend; none is what is chosen while no backend takes flows.
pub(crate) type BackendCounters = BTreeMap<(RuleId, Option<BackendId>), Hits>;

/// What was taken.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hits {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "maybe_seconds"
    )]
    pub(crate) last_hit: Option<SystemTime>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct RuleCounter {
    pub(crate) hits: Hits,
    /// Flows that came under it and ended since the daemon began.
    pub(crate) flows_ended: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NextHop {
    pub(crate) address: IpAddr,
    pub(crate) port: Option<String>,
    /// The port and MAC address that frames to it go to; absent while nobody answers for the address.
    pub(crate) resolved_port: Option<String>,
    pub(crate) resolved_mac: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Flow {
    pub(crate) source: IpAddr,
    pub(crate) source_port: u16,
    pub(crate) destination: IpAddr,
    pub(crate) destination_port: u16,
    #[serde(serialize_with = "protocol")]
    pub(crate) protocol: u8,
    pub(crate) zone: u16,
    #[serde(serialize_with = "optional_text")]
    pub(crate) rule: Option<RuleId>,
    #[serde(serialize_with = "optional_text")]
    pub(crate) backend: Option<BackendId>,
    pub(crate) ingress: String,
    pub(crate) target: Option<String>,
    pub(crate) upstream: Count,
    pub(crate) downstream: Count,
    #[serde(serialize_with = "seconds")]
    pub(crate) first_seen: SystemTime,
    #[serde(serialize_with = "seconds")]
    pub(crate) last_seen: SystemTime,
    pub(crate) tcp_flags: [u8; 2],
}

/// Which flows to show.
#[derive(Clone, Debug, Default)]
pub(crate) struct FlowQuery {
    pub(crate) ue: Option<IpAddr>,
    pub(crate) app: Option<String>,
    pub(crate) rule: Option<String>,
    /// Where the page before ended.
    pub(crate) from: u32,
    pub(crate) limit: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct FlowPage {
    pub(crate) flows: Vec<Flow>,
    /// Where the next page begins.
    pub(crate) next: Option<u32>,
}

/// Whether answers reach a UE behind a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum SessionState {
    /// No downlink packet was seen yet.
    Uplink,
    Active,
    /// The UE has moved, and the way to where it is now is not known.
    Pending,
    Ended,
}

impl SessionState {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uplink => "uplink",
            Self::Active => "active",
            Self::Pending => "pending",
            Self::Ended => "ended",
        }
    }
}

/// Sessions of a kind.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SessionCount {
    pub(crate) state: SessionState,
    pub(crate) provisioned: bool,
    pub(crate) sessions: u64,
}

/// Which sessions to show.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SessionQuery {
    pub(crate) ue: Option<IpAddr>,
    pub(crate) zone: Option<u16>,
    pub(crate) state: Option<SessionState>,
    /// Where the page before ended.
    pub(crate) from: u32,
    pub(crate) limit: usize,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct SessionPage {
    pub(crate) sessions: Vec<Session>,
    /// Where the next page begins.
    pub(crate) next: Option<u32>,
}

/// The session of a UE as the data path has it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Session {
    pub(crate) zone: u16,
    pub(crate) ue_address: IpAddr,
    pub(crate) ran_address: IpAddr,
    pub(crate) core_address: IpAddr,
    pub(crate) bearers: Vec<Tunnels>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) qos_flows: Vec<QosFlow>,
    pub(crate) provisioned: bool,
    pub(crate) state: SessionState,
    /// Of the latest uplink packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) qfi: Option<u8>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "maybe_seconds"
    )]
    pub(crate) last_seen: Option<SystemTime>,
}

/// The tunnels of a bearer, as far as they are known and have not ended.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tunnels {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) uplink_teid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) downlink_teid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) qci: Option<u8>,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Count {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) wire_bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub(crate) reason: &'static str,
    pub(crate) meaning: &'static str,
    #[serde(serialize_with = "optional_text")]
    pub(crate) rule: Option<RuleId>,
    #[serde(serialize_with = "optional_text")]
    pub(crate) backend: Option<BackendId>,
    pub(crate) flow: Option<Flow>,
    pub(crate) action: String,
    pub(crate) target_port: Option<String>,
    /// The tunnel that the packet came in, where tunnels are looked into.
    pub(crate) tunnel_in: Option<Tunnel>,
    /// The tunnel that it leaves in.
    pub(crate) tunnel_out: Option<Tunnel>,
    /// The frame as it leaves, in hex.
    #[serde(serialize_with = "hex_text")]
    pub(crate) frame: Vec<u8>,
}

/// Seconds since 1970, to the millisecond.
pub(crate) fn milliseconds(time: SystemTime) -> f64 {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (seconds.as_secs_f64() * 1000.0).round() / 1000.0
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes fields by reference"
)]
fn protocol<S: Serializer>(number: &u8, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&dataplane_user::rule::protocol_name(*number))
}

fn optional_text<T: ToString, S: Serializer>(
    id: &Option<T>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    id.as_ref().map(ToString::to_string).serialize(serializer)
}

fn left_out<S: Serializer>(
    rules: &BTreeMap<RuleId, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(rules.iter().map(|(rule, why)| (rule.to_string(), why)))
}

fn seconds<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(milliseconds(*time))
}

fn maybe_seconds<S: Serializer>(
    time: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    time.map(milliseconds).serialize(serializer)
}

fn hex_text<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex(bytes))
}

/// Bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Hex digits, with spaces and colons anywhere, as bytes.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .chars()
        .filter(|c| !c.is_whitespace() && *c != ':')
        .map(|c| c.to_digit(16));
    let digits = digits.collect::<Option<Vec<_>>>()?;
    let pairs = digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair.get(1)?).ok());
    pairs.collect()
}
