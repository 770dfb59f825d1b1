//! What `edgesteer doctor` is to examine.

use std::{thread, time::Duration};

use anyhow::Result;
use dataplane_core::Reason;
use serde_json::Value;

use crate::{
    config::{Config, Encapsulation, Role},
    doctor,
};

/// The ports and tunnels of a configuration.
pub(super) fn of(config: &Config) -> doctor::Plan {
    let port = |port: &crate::config::Port| doctor::Port {
        name: port.name.clone(),
        interface: port.interface.clone(),
        pair: port.pair.clone(),
        gtpu: port.encapsulation == Encapsulation::Gtpu,
        access: port.role == Role::Access,
        app: port.role == Role::App,
        routed: port.pair.is_none() && matches!(port.role, Role::Access | Role::Core),
        allow_generic: port.allow_generic,
        unconfigured: [0; 2],
    };
    doctor::Plan {
        ports: config.ports.iter().map(port).collect(),
        gtpu: config.gtpu.clone(),
        vip_interface: (config.vip.bgp.is_none()).then(|| config.vip.interface.clone()),
        pin_directory: config.node.pin_directory.clone(),
    }
}

/// Notes what a daemon counts at the ports, if one runs: counters outlive what they tell of, so it is asked again.
pub(super) fn note_unconfigured(plan: &mut doctor::Plan, ports: impl Fn() -> Result<Value>) {
    let Ok(before) = ports() else {
        return;
    };
    let count = |ports: &Value, name: &str| {
        let named = |value: &&Value, key: &str, name: &str| value[key] == name;
        let port = ports
            .as_array()?
            .iter()
            .find(|it| named(it, "name", name))?;
        let reason = Reason::GtpuUnconfigured.name();
        let counters = port["counters"].as_array()?;
        let counter = counters.iter().find(|it| named(it, "reason", reason))?;
        counter["packets"].as_u64()
    };
    let known = |plan: &doctor::Plan| {
        let mut names = plan.ports.iter().map(|port| &port.name);
        names.any(|name| count(&before, name).is_some())
    };
    if !known(plan) {
        return;
    }
    thread::sleep(Duration::from_secs(1));
    let now = ports().unwrap_or_default();
    for port in &mut plan.ports {
        let at = |ports: &Value| count(ports, &port.name).unwrap_or(0);
        port.unconfigured = [at(&before), at(&now)];
    }
}
