//! Prometheus metrics, read from the data path when they are asked for.

mod families;
mod vips;

use std::sync::atomic::{AtomicU64, Ordering};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use dataplane_core::Reason;
use prometheus::{
    Registry, TEXT_FORMAT, TextEncoder,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use self::families::Families;
use crate::{
    api::{Context, rule_counts},
    dataplane::{Flow, FlowQuery, Observation},
    health,
    problem::Problem,
    store::Snapshot,
};

/// Everything that is bounded by configuration, as of one scrape.
struct Scrape {
    observation: Observation,
    snapshot: std::sync::Arc<Snapshot>,
    checks: watch::Receiver<health::State>,
}

pub(crate) async fn scrape(State(context): State<Context>) -> Result<Response, Problem> {
    let observation = context.store.dataplane().observe().await?;
    let store = &context.store;
    let scrape = Scrape {
        observation,
        snapshot: store.snapshot(),
        checks: context.checks.clone(),
    };
    let own = gather(vec![
        Box::new(scrape),
        Box::new(store.duration.clone()),
        Box::new(store.errors.clone()),
        Box::new(store.events.lost.clone()),
    ])?;
    text(&[own, context.sources.gather()].concat())
}

pub(crate) async fn scrape_flows(State(context): State<Context>) -> Result<Response, Problem> {
    let mut query = FlowQuery {
        limit: AT_ONCE,
        ..FlowQuery::default()
    };
    let mut top = Top::default();
    loop {
        let page = context.store.dataplane().flows(query.clone()).await?;
        top.add(page.flows, context.flows.top);
        match page.next {
            Some(next) => query.from = next,
            None => break,
        }
    }
    text(&gather(vec![Box::new(context.flows.sum(top))])?)
}

fn gather(collectors: Vec<Box<dyn Collector>>) -> Result<Vec<MetricFamily>, Problem> {
    let registry = Registry::new();
    for collector in collectors {
        registry.register(collector).map_err(failed)?;
    }
    Ok(registry.gather())
}

fn text(families: &[MetricFamily]) -> Result<Response, Problem> {
    let body = TextEncoder::new()
        .encode_to_string(families)
        .map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], body).into_response())
}

fn failed(error: prometheus::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

impl Collector for Scrape {
    /// None: this collector lives for one scrape and shares its registry with nothing of the same names.
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Self {
            observation,
            snapshot,
            checks,
        } = self;
        let mut families = Families::default();
        families.gauge(
            "build_info",
            "The running version",
            &["version"],
            [(vec![env!("CARGO_PKG_VERSION").to_owned()], 1)],
        );
        let port = |c: &crate::dataplane::PortCounter| {
            vec![c.port.clone(), "in".to_owned(), c.reason.name().to_owned()]
        };
        let labels = ["port", "direction", "reason"];
        let ports = &observation.port_counters;
        families.counter(
            "packets_total",
            "Packets by port and by the reason why they ended as they did",
            &labels,
            ports.iter().map(|c| (port(c), c.packets)),
        );
        families.counter(
            "bytes_total",
            "Bytes of these packets",
            &labels,
            ports.iter().map(|c| (port(c), c.bytes)),
        );
        let rules = &observation.rule_counters;
        let rule =
            |id: &dataplane_user::rule::RuleId| vec![id.app.to_string(), id.rule.to_string()];
        families.counter(
            "rule_packets_total",
            "Packets that a rule took",
            &["app", "rule"],
            rules.iter().map(|(id, c)| (rule(id), c.hits.packets)),
        );
        families.counter(
            "rule_bytes_total",
            "Bytes that a rule took",
            &["app", "rule"],
            rules.iter().map(|(id, c)| (rule(id), c.hits.bytes)),
        );
        let of_rules = rules.iter().map(|(id, c)| (rule(id), c.flows_ended));
        let of_none = (vec![String::new(); 2], observation.flows_ended);
        families.counter(
            "flows_ended_total",
            "Flows that ended, by the rule that they came under; without one if that was not in force any more",
            &["app", "rule"],
            of_rules.chain([of_none]),
        );
        families.counter(
            "flows_ended_lost_total",
            "Flows that ended and that edgesteer_flows_ended_total has not, as too many ended at once",
            &[],
            [(vec![], observation.flows_ended_lost)],
        );
        let maps = &observation.status.pressure;
        families.gauge(
            "map_entries",
            "Entries in use of a table of the data path",
            &["map"],
            maps.iter().map(|m| (vec![m.name.clone()], m.used)),
        );
        families.gauge(
            "map_max_entries",
            "Entries that a table of the data path can have",
            &["map"],
            maps.iter().map(|m| (vec![m.name.clone()], m.max)),
        );
        for (name, table, what) in [
            ("flows", "flow", "Flows"),
            ("sessions", "session", "Sessions"),
        ] {
            let map = maps.iter().find(|map| map.name == name);
            families.gauge(
                &format!("{table}_table_entries"),
                &format!("{what} in the {table} table"),
                &[],
                map.map(|m| (vec![], m.used)),
            );
            families.gauge(
                &format!("{table}_table_max_entries"),
                &format!("{what} that the {table} table can have"),
                &[],
                map.map(|m| (vec![], m.max)),
            );
        }
        families.counter(
            "flow_table_evictions_total",
            "Flows that had only begun and were forgotten before their time, as the flow table was nearly full",
            &[],
            [(vec![], observation.flows_evicted)],
        );
        let cache = observation.status.flow_cache;
        families.counter(
            "flow_cache_lookups_total",
            "Packets of flows, which are looked for in the flow cache of their CPU",
            &[],
            [(vec![], cache.lookups)],
        );
        families.counter(
            "flow_cache_misses_total",
            "Packets of flows that the flow cache of their CPU did not have",
            &[],
            [(vec![], cache.misses)],
        );
        gtpu(&mut families, observation);
        vips::of(&mut families, snapshot, observation);
        vips::checks(&mut families, &checks.borrow());
        let modes = observation
            .ports
            .iter()
            .map(|p| (vec![p.name.clone(), p.interface.clone(), p.mode.clone()], 1));
        families.gauge(
            "xdp_mode",
            "How the program is attached to a port",
            &["port", "interface", "mode"],
            modes,
        );
        let hops = observation.next_hops.iter().map(|hop| {
            (
                vec![hop.address.to_string()],
                u64::from(hop.resolved_mac.is_none()),
            )
        });
        families.gauge(
            "neighbour_unresolved",
            "1 while nobody answers for the address of a destination",
            &["target"],
            hops,
        );
        let (desired, programmed) = rule_counts(snapshot);
        families.gauge(
            "rules_desired",
            "Active rules",
            &[],
            [(vec![], desired as u64)],
        );
        families.gauge(
            "rules_programmed",
            "Active rules that the data path has",
            &[],
            [(vec![], programmed as u64)],
        );
        families.gauge(
            "revision_desired",
            "Revision of the desired state",
            &[],
            [(vec![], snapshot.revision)],
        );
        families.gauge(
            "revision_programmed",
            "Revision that the data path has",
            &[],
            [(vec![], snapshot.programmed)],
        );
        families.0
    }
}

/// Messages of GTP-U by the reason that they end for, and their names.
const MESSAGES: [(Reason, &str); 5] = [
    (Reason::GtpuEcho, "echo"),
    (Reason::GtpuEndMarker, "end_marker"),
    (Reason::GtpuErrorIndication, "error_indication"),
    (
        Reason::GtpuSupportedExtensionHeaders,
        "supported_extension_headers",
    ),
    (Reason::GtpuOther, "other"),
];

/// UEs behind tunnels.
fn gtpu(families: &mut Families, observation: &Observation) {
    let sessions = observation.status.sessions.iter().map(|count| {
        let origin = if count.provisioned {
            "provisioned"
        } else {
            "learned"
        };
        let labels = [count.state.name(), origin].map(str::to_owned);
        (labels.to_vec(), count.sessions)
    });
    families.gauge(
        "sessions",
        "UEs behind tunnels by state: nothing is sent to those that are pending or ended",
        &["state", "origin"],
        sessions,
    );
    let messages = observation.port_counters.iter().filter_map(|counter| {
        let (_, kind) = MESSAGES.iter().find(|(it, _)| *it == counter.reason)?;
        Some((
            vec![counter.port.clone(), (*kind).to_owned()],
            counter.packets,
        ))
    });
    families.counter(
        "gtpu_messages_total",
        "GTP-U messages that carry no packet, by the port that they came by and their type",
        &["port", "type"],
        messages,
    );
}

/// The flows that move most, and how many were left out.
#[derive(Debug)]
pub(crate) struct Flows {
    top: usize,
    left_out: AtomicU64,
}

impl Flows {
    pub(crate) fn new(top: usize) -> Self {
        Self {
            top,
            left_out: AtomicU64::new(0),
        }
    }

    /// With what was left out by scrapes before.
    fn sum(&self, top: Top) -> Top {
        let before = self.left_out.fetch_add(top.left_out, Ordering::Relaxed);
        Top {
            left_out: before + top.left_out,
            ..top
        }
    }
}

/// Flows that are looked at at once, at most.
const AT_ONCE: usize = 10_000;

#[derive(Default)]
struct Top {
    flows: Vec<Flow>,
    left_out: u64,
}

impl Top {
    /// Looks at more flows, and keeps as many as are shown.
    fn add(&mut self, flows: Vec<Flow>, shown: usize) {
        let all = &mut self.flows;
        all.extend(flows);
        all.sort_by_key(|flow| std::cmp::Reverse(flow.upstream.bytes + flow.downstream.bytes));
        self.left_out += all.len().saturating_sub(shown) as u64;
        all.truncate(shown);
    }
}

impl Collector for Top {
    fn desc(&self) -> Vec<&Desc> {
        Vec::new()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let names = [
            "source",
            "source_port",
            "destination",
            "destination_port",
            "protocol",
            "zone",
            "app",
            "rule",
            "direction",
        ];
        let labels = |flow: &Flow, direction: &str| {
            let (app, rule) = flow
                .rule
                .as_ref()
                .map(|id| (id.app.to_string(), id.rule.to_string()))
                .unwrap_or_default();
            let ends = [
                flow.source.to_string(),
                flow.source_port.to_string(),
                flow.destination.to_string(),
                flow.destination_port.to_string(),
            ];
            let rest = [
                dataplane_user::rule::protocol_name(flow.protocol),
                flow.zone.to_string(),
                app,
                rule,
                direction.to_owned(),
            ];
            ends.into_iter().chain(rest).collect::<Vec<_>>()
        };
        let series = |value: fn(&crate::dataplane::Count) -> u64| {
            let pairs = self.flows.iter().flat_map(move |flow| {
                [
                    (labels(flow, "upstream"), value(&flow.upstream)),
                    (labels(flow, "downstream"), value(&flow.downstream)),
                ]
            });
            pairs.collect::<Vec<_>>()
        };
        let mut families = Families::default();
        families.counter(
            "flow_packets_total",
            "Packets of a flow",
            &names,
            series(|count| count.packets),
        );
        families.counter(
            "flow_bytes_total",
            "Bytes of a flow, from the IP header on",
            &names,
            series(|count| count.bytes),
        );
        let help =
            "Flows that were not shown because only those that move most are, summed over scrapes";
        families.counter(
            "flows_dropped_from_export_total",
            help,
            &[],
            [(vec![], self.left_out)],
        );
        families.0
    }
}
