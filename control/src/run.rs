//! The daemon: opens the data path, brings back the state, starts the sources, serves, and leaves the traffic steered
//! when it ends.

use std::{io::IsTerminal as _, path::Path, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};
use dataplane_user::netlink::Monitor;
use serde_json::json;
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    api::{self, Context},
    config::{Config, Mep, MepApplication},
    dataplane::Dataplane,
    health::Checker,
    notify, source,
    store::{Source, Store},
    vip, worker,
};

/// How often links and neighbors are read again without an event.
const REFRESH: Duration = Duration::from_secs(5);
/// How long it may take until routers are told that the daemon ends: hundreds of commands where each address takes one.
const FAREWELL: Duration = Duration::from_secs(30);
/// How long answers under way may take when the daemon ends.
const GRACE: Duration = Duration::from_secs(2);

/// Runs until SIGTERM or SIGINT. On SIGHUP the sources look at once.
pub(crate) fn run(config: &Config) -> Result<()> {
    let filter =
        tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(daemon(config));
    // A source may be in the middle of a request; nobody has to wait for it.
    runtime.shutdown_background();
    result
}

/// Removes the programs and everything pinned; says what was there.
pub(crate) fn detach(pins: &Path) -> Result<Vec<String>> {
    worker::detach(pins)
}

async fn daemon(config: &Config) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Two daemons must not have one data path.
    api::alone(&config.api.socket)?;
    let (dataplane, requests) = Dataplane::new();
    let mut worker = worker::start(config, requests).await?;
    let store = Store::open(&config.node.state_directory, dataplane, config.site())?;
    if let Err(error) = store.forget(&config.source.asked()).await {
        tracing::error!(
            reason = %format_args!("{error:#}"),
            "cannot write the state; what was removed comes back with the next start"
        );
    }
    store.presume().await?;
    if let Err(problem) = store.reconcile().await {
        tracing::error!(
            reason = problem.detail,
            "the rules of the last run are not in force"
        );
    }
    let checker = Checker::start();
    let context = Context {
        checks: checker.state(),
        gtpu: Arc::new(config.gtpu.clone()),
        ..Context::new(&config.node.id, Arc::clone(&store), &config.metrics.flows)
    };
    let sources = sources(config, &store, &context).await?;
    let (stop, stopped) = watch::channel(false);
    let mut servers = api::serve(config, context, stopped).await?;
    let upkeep = tokio::spawn(upkeep(Arc::clone(&store), events()?));
    let checks = tokio::spawn(vip::check(Arc::clone(&store), checker));
    let announcer = vip::announcer(&config.vip).await?;
    let (withdraw, ending) = oneshot::channel();
    let announcing = tokio::spawn(vip::announce(Arc::clone(&store), announcer, ending));
    let notices = tokio::spawn(notify::follow(store.follow()));
    let (rules, in_force) = api::rule_counts(&store.snapshot());
    tracing::info!(node = config.node.id, socket = %config.api.socket.display(), rules, in_force, "serving");
    let ended = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = hangup.recv() => sources.iter().for_each(source::Worker::look),
            _ = &mut worker => break Err(anyhow::anyhow!("the thread of the data path ended; see the log above")),
        }
    };
    notices.abort();
    notify::stopping();
    tracing::info!("stopping; traffic stays steered");
    upkeep.abort();
    checks.abort();
    // Before anything else ends: what comes until routers know is served.
    drop(withdraw);
    if timeout(FAREWELL, announcing).await.is_err() {
        tracing::error!(
            "VIPs may not be withdrawn: who announces them has not answered in {FAREWELL:?}"
        );
    }
    drop(sources);
    stop.send_replace(true);
    // Whoever listens to events would listen for ever.
    let _ = timeout(GRACE, async {
        while servers.join_next().await.is_some() {}
    })
    .await;
    if config.api.socket.exists() {
        std::fs::remove_file(&config.api.socket)?;
    }
    ended
}

/// Starts the sources of rules. They block, so they start outside of the runtime.
async fn sources(
    config: &Config,
    store: &Arc<Store>,
    context: &Context,
) -> Result<Vec<source::Worker>> {
    let metrics = source::Metrics::register(&context.sources)?;
    let (sources, store, runtime) = (config.source.clone(), Arc::clone(store), Handle::current());
    let shown = Arc::clone(&context.status);
    tokio::task::spawn_blocking(move || {
        let mut workers = Vec::new();
        let mut records = Vec::new();
        let mut parts = |source| {
            let deliver = source::into_store(Arc::clone(&store), source, runtime.clone());
            let status = Arc::new(source::Status::new(source, metrics.clone()));
            records.push(Arc::clone(&status));
            (source::held(&store, source), deliver, status)
        };
        if let Some(files) = sources.files {
            let (before, deliver, status) = parts(Source::Files);
            workers.push(
                source::watch(files.directory, before, deliver, status)
                    .context("cannot watch rule files")?,
            );
        }
        if let Some(mep) = sources.mep {
            let (before, deliver, status) = parts(Source::Mep);
            workers.push(source::poll(platform(mep)?, before, deliver, status)?);
        }
        // It is empty until now: this is the only place that sets it.
        let _ = shown.set(records);
        Ok(workers)
    })
    .await?
}

fn platform(mep: Mep) -> Result<source::Platform> {
    let applications = mep.applications.into_iter().map(|application| {
        let (id, interface) = match application {
            MepApplication::Id(id) => (id, crate::mec::Interface::default()),
            MepApplication::Located { id, interface } => (id, interface),
        };
        Ok((
            id.parse()
                .with_context(|| format!("[source.mep] applications: `{id}`"))?,
            interface,
        ))
    });
    Ok(source::Platform {
        url: mep.url,
        applications: applications.collect::<Result<_>>()?,
        interval: Duration::from_secs(mep.interval),
        timeout: Duration::from_secs(mep.timeout),
        authority: mep.authority,
    })
}

/// Rings when links, neighbors or routes change. Events that are not taken in time are one.
fn events() -> Result<mpsc::Receiver<()>> {
    let monitor = Monitor::open().context("cannot listen to the kernel's events")?;
    let (sender, receiver) = mpsc::channel(1);
    thread::Builder::new().name("netlink".to_owned()).spawn(move || {
        while !sender.is_closed() {
            match monitor.wait(REFRESH) {
                Ok(changes) if changes.any() => _ = sender.try_send(()),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot listen to the kernel's events; links and neighbors are read now and then");
                    return;
                }
            }
        }
    })?;
    Ok(receiver)
}

/// What has to be done again and again.
async fn upkeep(store: Arc<Store>, mut events: mpsc::Receiver<()>) {
    let mut second = interval(Duration::from_secs(1));
    let mut refresh = interval(REFRESH);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nearly_full = false;
    loop {
        tokio::select! {
            _ = second.tick() => {
                let Ok(expired) = store.dataplane().expire().await else {
                    return;
                };
                for session in &expired.lost {
                    store.events.publish("sessions", &json!({"lost": session}));
                }
                if nearly_full != expired.nearly_full {
                    nearly_full = expired.nearly_full;
                    tell_of_pressure(&store, nearly_full);
                }
                if expired.more {
                    second.reset_immediately();
                }
                continue;
            }
            _ = refresh.tick() => {}
            Some(()) = events.recv() => {}
        }
        match store.dataplane().refresh().await {
            Ok(Ok(changes)) => {
                for change in &changes {
                    tracing::info!(change, "ports or neighbors changed");
                }
                if !changes.is_empty() {
                    store.events.publish("ports", &json!({"changes": changes}));
                }
            }
            Ok(Err(reason)) => tracing::warn!(reason, "cannot follow links and neighbors"),
            Err(_) => return,
        }
        mend(&store).await;
    }
}

/// Says that the flow table has become nearly full, or has room again.
fn tell_of_pressure(store: &Store, nearly_full: bool) {
    if nearly_full {
        tracing::warn!(
            "the flow table is nearly full: what has only begun is forgotten early; if this is no attack, raise [limits] flows"
        );
    } else {
        tracing::info!("the flow table has room again");
    }
    let event = json!({"table": "flows", "nearlyFull": nearly_full});
    store.events.publish("pressure", &event);
}

/// Offers the data path again what it did not take.
async fn mend(store: &Store) {
    let now = store.snapshot();
    if now.programmed == now.revision && now.not_installed.is_empty() {
        return;
    }
    if let Err(problem) = store.reconcile().await {
        tracing::debug!(reason = problem.detail, "the rules are not in force");
    }
}
