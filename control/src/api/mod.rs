//! The HTTP interface: Mp1 for applications, Mp2 for the platform, metrics for Prometheus.

mod mp1;
mod mp2;
mod node;
mod representation;
mod serve;
mod sessions;
mod vips;

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, Uri, header},
    response::IntoResponse,
    routing::{get, post},
};
use tokio::sync::watch;

use crate::{
    config::{FlowMetrics, Gtpu},
    health, metrics,
    problem::Problem,
    source,
    store::{Entry, Store, VipEntry},
};

pub(crate) use mp2::percent;
pub(crate) use node::rule_counts;
pub(crate) use serve::{alone, serve};

/// What handlers work with.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) node: Arc<str>,
    pub(crate) store: Arc<Store>,
    /// Whose tunnels are looked into.
    pub(crate) gtpu: Arc<Gtpu>,
    pub(crate) flows: Arc<metrics::Flows>,
    /// What checks of backends of VIPs have found.
    pub(crate) checks: watch::Receiver<health::State>,
    /// The metrics of the sources of rules.
    pub(crate) sources: prometheus::Registry,
    /// How the sources of rules are doing, once they run.
    pub(crate) status: Arc<OnceLock<Vec<Arc<source::Status>>>>,
}

impl Context {
    pub(crate) fn new(node: &str, store: Arc<Store>, flows: &FlowMetrics) -> Self {
        Self {
            node: node.into(),
            store,
            gtpu: Arc::default(),
            flows: Arc::new(metrics::Flows::new(flows.top)),
            checks: watch::Sender::default().subscribe(),
            sources: prometheus::Registry::new(),
            status: Arc::default(),
        }
    }
}

const MEBIBYTE: usize = 1 << 20;

/// The whole interface.
pub(crate) fn router(context: Context) -> Router {
    let mp1 = Router::new()
        .route("/applications/{app}/traffic_rules", get(mp1::traffic_rules))
        .route(
            "/applications/{app}/traffic_rules/{rule}",
            get(mp1::traffic_rule).put(mp1::put_traffic_rule),
        )
        .route("/applications/{app}/dns_rules", get(mp1::dns_rules))
        .route(
            "/applications/{app}/dns_rules/{rule}",
            get(mp1::dns_rule).put(mp1::put_dns_rule),
        );
    let configuration = get(mp2::configuration).put(mp2::put_configuration);
    let mp2 = Router::new()
        .route("/applications", get(mp2::applications))
        .route(
            "/applications/{app}",
            get(mp2::application)
                .put(mp2::put::<Entry>)
                .delete(mp2::delete::<Entry>),
        )
        .route("/vips", get(vips::vips))
        .route(
            "/vips/{vip}",
            get(vips::vip)
                .put(mp2::put::<VipEntry>)
                .delete(mp2::delete::<VipEntry>),
        )
        .route("/sessions", get(sessions::sessions))
        .route(
            "/sessions/{zone}/{ue}",
            get(sessions::session)
                .put(sessions::put_session)
                .delete(sessions::delete_session),
        )
        .route(
            "/configuration",
            configuration.layer(DefaultBodyLimit::max(16 * MEBIBYTE)),
        )
        .route("/rules", get(node::rules))
        .route("/flows", get(node::flows))
        .route("/ports", get(node::ports))
        .route("/reasons", get(node::reasons))
        .route("/status", get(node::status))
        .route("/explain", post(node::explain))
        .route("/events", get(node::events));
    let router = Router::new()
        .nest("/mec_app_support/v1", mp1.clone())
        .nest("/mec_app_support/v2", mp1)
        .nest("/mp2/v1", mp2)
        .route("/openapi.json", get(openapi))
        .merge(metrics_routes())
        .layer(DefaultBodyLimit::max(MEBIBYTE));
    finish(router, context)
}

/// Metrics alone.
pub(crate) fn metrics_router(context: Context) -> Router {
    finish(metrics_routes(), context)
}

fn metrics_routes() -> Router<Context> {
    Router::new()
        .route("/metrics", get(metrics::scrape))
        .route("/metrics/flows", get(metrics::scrape_flows))
}

fn finish(router: Router<Context>, context: Context) -> Router {
    let missing = async |uri: Uri| {
        Problem::not_found(format!(
            "there is nothing at {}; see /openapi.json",
            uri.path()
        ))
    };
    let wrong = async |method: Method, uri: Uri| {
        let detail = format!("{} cannot be {method}", uri.path());
        Problem::new(axum::http::StatusCode::METHOD_NOT_ALLOWED, detail)
    };
    router
        .method_not_allowed_fallback(wrong)
        .fallback(missing)
        .with_state(context)
}

async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
}

#[cfg(test)]
mod tests;
