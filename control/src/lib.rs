//! The edgesteer daemon and its command line: what a MEC platform says becomes rules, and what the data path does becomes
//! answers and metrics.

mod api;
mod cli;
mod config;
mod dataplane;
mod doctor;
mod frame;
mod mec;
mod metrics;
mod problem;
mod run;
mod source;
mod store;
#[cfg(any())]
mod worker;
#[cfg(not(any()))]
mod worker {
    //! In the place of the data path until it is there.
    use std::path::Path;

    use tokio::sync::{mpsc, oneshot};

    use crate::{config::Config, dataplane::Request};

    pub(crate) async fn start(_: &Config, _: mpsc::Receiver<Request>) -> anyhow::Result<oneshot::Receiver<()>> {
        anyhow::bail!("this build has no data path")
    }

    pub(crate) fn detach(_: &Path) -> anyhow::Result<Vec<String>> {
        anyhow::bail!("this build has no data path")
    }
}

use std::process::ExitCode;

/// The whole program; the result is its exit code.
pub fn main() -> ExitCode {
    cli::main()
}
