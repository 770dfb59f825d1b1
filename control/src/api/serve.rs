use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    net::{TcpListener, UnixListener},
    sync::watch,
};

use super::{Context, metrics_router, router};
use crate::config::Config;

/// Opens every listener, so that a failure is known at once, and serves until `stop` changes.
pub(crate) async fn serve(
    config: &Config,
    context: Context,
    stop: watch::Receiver<bool>,
) -> Result<tokio::task::JoinSet<()>> {
    let mut servers = tokio::task::JoinSet::new();
    let stopped = move |mut stop: watch::Receiver<bool>| async move {
        // The sender gone means the same.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let listener = unix(&config.api.socket)?;
    let server = axum::serve(listener, router(context.clone()))
        .with_graceful_shutdown(stopped(stop.clone()));
    servers.spawn(async move { report(server.await) });
    let tcp = [
        (config.api.listen, router(context.clone())),
        (config.metrics.listen, metrics_router(context)),
    ];
    for (address, router) in tcp {
        let Some(address) = address else { continue };
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let server = axum::serve(listener, router).with_graceful_shutdown(stopped(stop.clone()));
        servers.spawn(async move { report(server.await) });
    }
    Ok(servers)
}

fn report(result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a listener ended");
    }
}

/// Refuses to start beside another daemon.
pub(crate) fn alone(socket: &Path) -> Result<()> {
    if UnixStream::connect(socket).is_ok() {
        bail!(
            "another edgesteer serves {}: stop it first",
            socket.display()
        );
    }
    Ok(())
}

/// Takes over a socket that nobody serves any more.
fn unix(path: &Path) -> Result<UnixListener> {
    alone(path)?;
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    if path.exists() {
        fs::remove_file(path)
            .with_context(|| format!("cannot remove the stale socket {}", path.display()))?;
    }
    let listener =
        UnixListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(listener)
}
