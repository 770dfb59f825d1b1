//! The data plane on the MEC host of a lab.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use dataplane_user::{Dataplane, Gtpu, Limits, Options, PortConfig, Role, Timeouts, rule::RuleSet};

use super::{Mode, Namespace};

/// How long the kernel may take to find a neighbor.
const PATIENCE: Duration = Duration::from_secs(5);

/// The data plane on the ports `access0`, `core0`, `app0` and `app1`; it goes with the value.
#[derive(Debug)]
pub struct Steering {
    /// Its methods are to be called inside the host.
    pub dataplane: Dataplane,
    pins: PathBuf,
}

impl Steering {
    /// Loads and attaches the program, natively or not at all.
    pub fn open(host: &Namespace, mode: Mode) -> Result<Self> {
        Self::start(host, mode, true, Timeouts::default())
    }

    /// The same, where flows and sessions end when they were idle for this long.
    pub fn patient(host: &Namespace, mode: Mode, timeouts: Timeouts) -> Result<Self> {
        Self::start(host, mode, true, timeouts)
    }

    /// The same where no UE is behind a tunnel.
    pub fn plain(host: &Namespace, mode: Mode) -> Result<Self> {
        Self::start(host, mode, false, Timeouts::default())
    }

    fn start(host: &Namespace, mode: Mode, gtpu: bool, timeouts: Timeouts) -> Result<Self> {
        let pins = PathBuf::from(format!("/sys/fs/bpf/{}", host.name()));
        let port = |name: &str, role, pair: Option<&str>| PortConfig {
            name: name.to_owned(),
            interface: name.to_owned(),
            role,
            pair: pair.filter(|_| mode == Mode::Wire).map(str::to_owned),
            zone: 0,
            gtpu,
            mss_clamp: false,
            allow_generic: false,
        };
        let options = Options {
            pin_directory: pins.clone(),
            ports: vec![
                port("access0", Role::Access, Some("core0")),
                port("core0", Role::Core, Some("access0")),
                port("app0", Role::App, None),
                port("app1", Role::App, None),
            ],
            limits: Limits::default(),
            timeouts,
            peers: Vec::new(),
            gtpu: Gtpu {
                ran: vec!["192.0.2.0/29".parse()?, "2001:db8:2::1".parse()?],
                core: vec!["192.0.2.10".parse()?, "2001:db8:2::2".parse()?],
            },
        };
        let dataplane = host.enter(|| Dataplane::open(options))?;
        Ok(Self { dataplane, pins })
    }

    /// Puts rules in force, in their text form, and waits until the kernel knows their neighbors.
    pub fn apply(&mut self, host: &Namespace, rules: &[&str]) -> Result<()> {
        let rules = rules.iter().map(|rule| {
            let parsed = rule.parse();
            parsed.with_context(|| (*rule).to_owned())
        });
        let rules: RuleSet = rules.collect::<Result<_>>()?;
        let dataplane = &mut self.dataplane;
        let applied = host.enter(|| dataplane.apply(&rules))?;
        ensure!(applied.not_installed.is_empty(), "{applied:?}");
        let deadline = Instant::now() + PATIENCE;
        while dataplane
            .next_hops()
            .iter()
            .any(|hop| hop.resolved.is_none())
        {
            ensure!(Instant::now() < deadline, "{:?}", dataplane.next_hops());
            thread::sleep(Duration::from_millis(20));
            host.enter(|| dataplane.refresh())?;
        }
        Ok(())
    }
}

impl Drop for Steering {
    fn drop(&mut self) {
        // The namespaces go as well, and the next run looks for what is left.
        let _ = Dataplane::detach(&self.pins);
    }
}
