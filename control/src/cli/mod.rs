//! The command line. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.
#![expect(
    clippy::print_stdout,
    reason = "a command line answers on standard output"
)]

mod check;
mod client;
mod explain;
mod get;
mod pcap;
mod plan;
mod table;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Result, ensure};
use axum::http::Method;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use serde_json::json;

use self::{client::Client, explain::explain, get::get};
use crate::{
    api::percent,
    config::{Config, SOCKET},
    doctor, run,
    session::SessionId,
};

/// Steers traffic of mobile users to applications at the edge: an XDP data plane for ETSI MEC
#[derive(Debug, Parser)]
#[command(name = "edgesteer", version, max_term_width = 100)]
struct Cli {
    /// Where the daemon is: unix:PATH or http://HOST:PORT
    #[arg(long, global = true, value_name = "URL", default_value_t = format!("unix:{SOCKET}"))]
    server: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run(Configured),
    /// Check configurations (.toml), and rules and VIPs (.json, .yaml), without privileges and without a daemon. Rules are tried
    /// against the limits and ports of the configuration, if there is one among the files
    Check {
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Make the pushed rules, sessions and VIPs what files say; shows the difference first
    Apply {
        /// A file with applications, sessions or VIPs, or a directory of such files
        #[arg(short, long, value_name = "FILE|DIR")]
        file: PathBuf,
        /// Only show the difference
        #[arg(long)]
        dry_run: bool,
    },
    /// Show what there is
    Get {
        kind: Kind,
        /// Only this one; of flows, those of a UE's address, of an application, or of a rule (application/rule); of
        /// sessions, those of a UE's address, or of it in a zone (0/10.45.0.7)
        id: Option<String>,
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Remove an application and its rules, a VIP, or what was said of a session
    Delete {
        kind: Removable,
        /// The id of an application or VIP, or the zone and the address of a UE (0/10.45.0.7)
        id: String,
    },
    /// Say what would become of a packet, and why, by running the real program on it
    Explain(explain::Question),
    /// Find what would stop steering on this host, and its cure; exits with 1 if something does
    #[command(after_help = DOCTOR_JSON)]
    Doctor {
        #[command(flatten)]
        configured: Configured,
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Remove programs and pinned tables: steering stops
    Detach {
        #[command(flatten)]
        configured: Configured,
        /// Yes, stop steering
        #[arg(long)]
        yes: bool,
    },
    /// Print a script that completes commands in a shell
    Completions { shell: Shell },
    /// Print the manual page
    Man,
}

const DOCTOR_JSON: &str = r#"With -o json: {"level": LEVEL, "findings": [{"level": LEVEL, "check": NAME, "at": "host" or the port,
"what": TEXT, "cure": TEXT or absent}]}. LEVEL is ok, warning or error, and that of the whole is the worst.
Names of checks stay what they are; texts are for people."#;

#[derive(Debug, Args)]
struct Configured {
    /// The configuration
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "/etc/edgesteer/edgesteer.toml"
    )]
    config: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "application")]
    Applications,
    #[value(alias = "rule")]
    Rules,
    #[value(alias = "port")]
    Ports,
    #[value(alias = "flow")]
    Flows,
    #[value(alias = "session")]
    Sessions,
    #[value(alias = "vip")]
    Vips,
    #[value(alias = "reason")]
    Reasons,
    Status,
}

/// What can be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Removable {
    #[value(alias = "applications")]
    Application,
    #[value(alias = "sessions")]
    Session,
    #[value(alias = "vips")]
    Vip,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Wide,
    Json,
    Yaml,
}

/// Does what the arguments say.
pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // A closed pipe, as of `| head`, is nobody's mistake.
            let broken = error.chain().any(|cause| {
                cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            });
            if !broken {
                eprintln!("edgesteer: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn perform(cli: Cli) -> Result<bool> {
    let client = || Client::new(&cli.server);
    match cli.command {
        Command::Run(Configured { config }) => run::run(&Config::load(&config)?).map(|()| true),
        Command::Check { files } => Ok(check::check(&files)),
        Command::Apply { file, dry_run } => apply(&client()?, &file, dry_run),
        Command::Get { kind, id, output } => get(&client()?, kind, id.as_deref(), output),
        Command::Delete { kind, id } => delete(&client()?, kind, &id),
        Command::Explain(question) => explain(&client()?, &question),
        Command::Doctor { configured, output } => {
            let mut plan = plan::of(&Config::load(&configured.config)?);
            // It may not run yet.
            let ports = || client()?.get("/mp2/v1/ports");
            plan::note_unconfigured(&mut plan, ports);
            let report = doctor::examine(&plan);
            print(&match output {
                Output::Json => serde_json::to_string_pretty(&report)?,
                Output::Yaml => serde_yaml_ng::to_string(&report)?,
                Output::Table | Output::Wide => report.to_string(),
            })?;
            Ok(!report.failed())
        }
        Command::Detach { configured, yes } => detach(&configured.config, yes),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "edgesteer", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            print(&String::from_utf8_lossy(&page))
        }
    }
}

fn print(text: &str) -> Result<bool> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') && !text.is_empty() {
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(true)
}

fn apply(client: &Client, path: &Path, dry_run: bool) -> Result<bool> {
    let body = json!(check::wanted(path)?);
    let rehearsed = client.send(
        Method::PUT,
        "/mp2/v1/configuration?dryRun=true",
        Some(&body),
    )?;
    print(&table::changes(&rehearsed))?;
    if dry_run {
        return Ok(true);
    }
    let outline = client.send(Method::PUT, "/mp2/v1/configuration", Some(&body))?;
    print(&table::outcome(&outline))
}

fn delete(client: &Client, kind: Removable, id: &str) -> Result<bool> {
    let (name, path) = match kind {
        Removable::Application => ("application", format!("applications/{}", percent(id))),
        Removable::Session => {
            let id: SessionId = id.parse().map_err(anyhow::Error::msg)?;
            ("session", format!("sessions/{id}"))
        }
        Removable::Vip => ("VIP", format!("vips/{}", percent(id))),
    };
    let outline = client.send(Method::DELETE, &format!("/mp2/v1/{path}"), None)?;
    print(&table::changes(&outline))?;
    let revision = &outline["revision"];
    print(&format!("{name} `{id}` is removed, revision {revision}"))
}

fn detach(config: &Path, yes: bool) -> Result<bool> {
    let pins = Config::load(config)?.node.pin_directory;
    ensure!(
        yes,
        "this stops steering on every port and forgets all flows and counters under {}; add --yes if you mean it",
        pins.display()
    );
    let removed = run::detach(&pins)?;
    print(&if removed.is_empty() {
        "nothing was attached".to_owned()
    } else {
        removed.join("\n")
    })
}

#[cfg(test)]
mod tests;
