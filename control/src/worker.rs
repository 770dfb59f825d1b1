//! The thread that owns the data path, and its answers in the terms of the daemon.

mod ended;
mod sessions;

use std::{error::Error, fmt::Write as _, path::Path, thread, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use dataplane_user::{
    self as user,
    netlink::{self, Link},
};
use tokio::sync::{mpsc, oneshot};

use self::ended::Ended;
use crate::{
    config::{Config, Role},
    dataplane::{
        Applied, Count, Expired, Explanation, Flow, FlowCache, FlowPage, FlowQuery, Hits, NextHop,
        Observation, Port, PortCounter, Pressure, Request, RuleCounter, Status,
    },
    frame::Tunnel,
};

/// Opens the data path and serves requests until the last handle is gone. What is returned ends with the thread.
pub(crate) async fn start(
    config: &Config,
    requests: mpsc::Receiver<Request>,
) -> Result<oneshot::Receiver<()>> {
    let options = options(config);
    let (opened, open) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    thread::Builder::new()
        .name("dataplane".to_owned())
        .spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            match counted(options) {
                Ok((dataplane, ended)) => {
                    if opened.send(Ok(())).is_ok() {
                        serve(dataplane, &ended, requests);
                    }
                }
                // Nobody waiting for it any more is no reason to complain.
                Err(error) => _ = opened.send(Err(sentence(&*error))),
            }
        })?;
    let result = open.await.context("the thread of the data path died")?;
    result.map_err(|why| anyhow!("cannot open the data path: {why}"))?;
    Ok(ended)
}

/// Removes the programs and everything pinned; says what was there.
pub(crate) fn detach(pins: &Path) -> Result<Vec<String>> {
    user::Dataplane::detach(pins).map_err(|error| anyhow!("cannot detach: {}", sentence(&error)))
}

/// The same in terms of the data path.
pub(crate) fn options(config: &Config) -> user::Options {
    let mut limits = user::Limits::default();
    for (limit, wanted) in [
        (&mut limits.flows, config.limits.flows),
        (&mut limits.filters, config.limits.filters),
        (&mut limits.rules, config.limits.rules),
        (&mut limits.fragments, config.limits.fragments),
        (&mut limits.sessions, config.limits.sessions),
        (&mut limits.vips, config.limits.vips),
    ] {
        *limit = wanted.unwrap_or(*limit);
    }
    let mut timeouts = user::Timeouts::default();
    for (time, wanted) in [
        (
            &mut timeouts.tcp_established,
            config.timeouts.tcp_established,
        ),
        (&mut timeouts.tcp_transitory, config.timeouts.tcp_transitory),
        (&mut timeouts.tcp_closing, config.timeouts.tcp_closing),
        (&mut timeouts.udp, config.timeouts.udp),
        (&mut timeouts.icmp, config.timeouts.icmp),
        (&mut timeouts.other, config.timeouts.other),
        (&mut timeouts.session, config.timeouts.session),
    ] {
        *time = wanted.map_or(*time, Duration::from_secs);
    }
    user::Options {
        pin_directory: config.node.pin_directory.clone(),
        ports: ports(config),
        limits,
        timeouts,
        peers: config.site().peers.into_values().collect(),
        gtpu: user::Gtpu {
            ran: config.gtpu.ran.clone(),
            core: config.gtpu.core.clone(),
        },
    }
}

/// The ports in terms of the data path.
pub(crate) fn ports(config: &Config) -> Vec<user::PortConfig> {
    let ports = config.ports.iter().map(|port| user::PortConfig {
        name: port.name.clone(),
        interface: port.interface.clone(),
        role: match port.role {
            Role::Access => user::Role::Access,
            Role::Core => user::Role::Core,
            Role::App => user::Role::App,
            Role::Peer => user::Role::Peer,
        },
        pair: port.pair.clone(),
        zone: port.zone,
        gtpu: config.sees_gtpu(port),
        mss_clamp: config.gtpu.mss_clamp && config.sees_gtpu(port),
        allow_generic: port.allow_generic,
    });
    ports.collect()
}

fn counted(options: user::Options) -> Result<(user::Dataplane, Ended), Box<dyn Error>> {
    let mut dataplane = user::Dataplane::open(options)?;
    let ended = Ended::of(&mut dataplane)?;
    Ok((dataplane, ended))
}

/// Answers until the last handle is gone. A question whose asker went away needs no answer.
fn serve(mut dataplane: user::Dataplane, ended: &Ended, mut requests: mpsc::Receiver<Request>) {
    while let Some(request) = requests.blocking_recv() {
        match request {
            Request::Apply(rules, answer) => {
                let applied = apply(&mut dataplane, &rules);
                if let Ok(applied) = &applied {
                    ended.follow(*rules, applied);
                }
                _ = answer.send(applied);
            }
            Request::Serving(mut backends, answer) => {
                backends.retain(|(rule, backend)| dataplane.serves(rule, backend));
                _ = answer.send(backends);
            }
            Request::Observe(answer) => _ = answer.send(observe(&dataplane, ended)),
            Request::Flows(query, answer) => _ = answer.send(flows(&dataplane, query)),
            Request::Explain {
                port,
                frame,
                answer,
            } => _ = answer.send(explain(&mut dataplane, &port, &frame)),
            Request::Refresh(answer) => _ = answer.send(refresh(&mut dataplane)),
            Request::Expire(answer) => _ = answer.send(expire(&mut dataplane)),
            Request::Sessions(query, answer) => {
                _ = answer.send(sessions::page(&dataplane, &query));
            }
            Request::Provision(said, withdrawn, answer) => {
                _ = answer.send(sessions::provision(&mut dataplane, &said, &withdrawn));
            }
            Request::Reprovision(wanted, answer) => {
                _ = answer.send(sessions::reprovision(&mut dataplane, &wanted));
            }
        }
    }
}

fn apply(dataplane: &mut user::Dataplane, rules: &user::rule::RuleSet) -> Result<Applied, String> {
    let user::Applied {
        epoch,
        added,
        changed,
        removed,
        not_installed,
        ..
    } = dataplane.apply(rules).map_err(|error| sentence(&error))?;
    Ok(Applied {
        epoch,
        added,
        changed,
        removed,
        not_installed,
    })
}

fn flows(dataplane: &user::Dataplane, query: FlowQuery) -> FlowPage {
    let filter = user::FlowFilter {
        ue: query.ue,
        app: query.app,
        rule: query.rule,
    };
    let (flows, next) = dataplane.find_flows(&filter, query.from, query.limit);
    FlowPage {
        flows: flows.into_iter().map(flow).collect(),
        next,
    }
}

fn expire(dataplane: &mut user::Dataplane) -> Expired {
    let expired = dataplane.expire();
    let lost = dataplane.lost_sessions().into_iter();
    Expired {
        lost: lost.map(sessions::session).collect(),
        more: expired.more,
        nearly_full: expired.nearly_full,
    }
}

fn refresh(dataplane: &mut user::Dataplane) -> Result<Vec<String>, String> {
    let changes = dataplane.refresh().map_err(|error| sentence(&error))?;
    Ok(changes.iter().map(ToString::to_string).collect())
}

fn observe(dataplane: &user::Dataplane, ended: &Ended) -> Observation {
    let status = dataplane.status();
    let pressure = status.pressure.into_iter().map(|map| Pressure {
        name: map.name.to_string(),
        used: map.used,
        max: map.max,
    });
    let port_counters = dataplane
        .port_counters()
        .into_iter()
        .map(|counter| PortCounter {
            port: counter.port,
            reason: counter.reason,
            packets: counter.packets,
            bytes: counter.bytes,
        });
    let rule_counters = dataplane.rule_counters().into_iter().map(|counter| {
        let value = RuleCounter {
            hits: Hits {
                packets: counter.packets,
                bytes: counter.bytes,
                last_hit: counter.last_hit,
            },
            flows_ended: ended.of_rule(&counter.id),
        };
        (counter.id, value)
    });
    let backend_counters = dataplane.backend_counters().into_iter().map(|counter| {
        let hits = Hits {
            packets: counter.packets,
            bytes: counter.bytes,
            last_hit: counter.last_hit,
        };
        ((counter.rule, counter.backend), hits)
    });
    let next_hops = dataplane.next_hops().into_iter().map(|hop| {
        let (resolved_port, resolved_mac) = hop
            .resolved
            .map(|(port, mac)| (port, mac.to_string()))
            .unzip();
        NextHop {
            address: hop.address,
            port: hop.port,
            resolved_port,
            resolved_mac,
        }
    });
    Observation {
        status: Status {
            epoch: status.epoch,
            adopted: status.adopted,
            pressure: pressure.collect(),
            sessions: status.sessions.into_iter().map(sessions::count).collect(),
            flow_cache: FlowCache {
                lookups: status.flow_cache.lookups,
                misses: status.flow_cache.misses,
            },
            flows_rechosen: status.rechosen,
            program_instructions: status.verified_instructions,
            program_bytes: status.program_bytes,
        },
        ports: seen_ports(dataplane),
        port_counters: port_counters.collect(),
        rule_counters: rule_counters.collect(),
        backend_counters: backend_counters.collect(),
        flows_ended: ended.of_none(),
        flows_ended_lost: status.ended_lost,
        flows_evicted: status.evicted,
        next_hops: next_hops.collect(),
    }
}

fn seen_ports(dataplane: &user::Dataplane) -> Vec<Port> {
    // What cannot be read is not worth an answer without the rest: the program is where it is.
    let links = netlink::links().unwrap_or_default();
    let ports = dataplane.ports().into_iter();
    ports
        .map(|status| {
            let link = links
                .iter()
                .find(|link| link.name == status.config.interface);
            let trouble = link.and_then(|link| match link {
                Link { up: false, .. } => Some("the interface is switched off"),
                Link { carrier: false, .. } => Some("the interface has no carrier"),
                Link { .. } => None,
            });
            port(status, trouble)
        })
        .collect()
}

fn port(status: user::PortStatus, trouble: Option<&str>) -> Port {
    Port {
        name: status.config.name,
        interface: status.config.interface,
        ifindex: status.ifindex,
        role: match status.config.role {
            user::Role::Access => "access",
            user::Role::Core => "core",
            user::Role::App => "app",
            user::Role::Peer => "peer",
        }
        .to_owned(),
        mode: match status.mode {
            user::Mode::Native => "native",
            user::Mode::Generic => "generic",
            user::Mode::Down => "down",
        }
        .to_owned(),
        pair: status.config.pair,
        gtpu: status.config.gtpu,
        zone: status.config.zone,
        mac: status.mac.map(|mac| mac.to_string()),
        mtu: status.mtu,
        reason: status.reason.or_else(|| trouble.map(str::to_owned)),
    }
}

fn flow(flow: user::Flow) -> Flow {
    let count = |count: user::Count| Count {
        packets: count.packets,
        bytes: count.bytes,
        wire_bytes: count.wire_bytes,
    };
    Flow {
        source: flow.source,
        source_port: flow.source_port,
        destination: flow.destination,
        destination_port: flow.destination_port,
        protocol: flow.protocol,
        zone: flow.zone,
        rule: flow.rule,
        backend: flow.backend,
        ingress: flow.ingress,
        target: flow.target,
        upstream: count(flow.upstream),
        downstream: count(flow.downstream),
        first_seen: flow.first_seen,
        last_seen: flow.last_seen,
        tcp_flags: flow.tcp_flags,
    }
}

fn explain(
    dataplane: &mut user::Dataplane,
    port: &str,
    frame: &[u8],
) -> Result<Explanation, String> {
    let explanation = dataplane
        .explain(port, frame)
        .map_err(|error| sentence(&error))?;
    Ok(Explanation {
        reason: explanation.reason.name(),
        meaning: explanation.reason.doc(),
        rule: explanation.rule,
        backend: explanation.backend,
        flow: explanation.flow.map(flow),
        action: explanation.action.to_owned(),
        target_port: explanation.target_port,
        tunnel_in: Tunnel::of(frame),
        tunnel_out: Tunnel::of(&explanation.frame_out),
        frame: explanation.frame_out,
    })
}

/// An error with its causes, on one line.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
