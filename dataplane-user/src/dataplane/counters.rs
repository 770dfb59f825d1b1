//! What was counted, and how full the tables are.

use std::time::SystemTime;

use aya::programs::ProgramInfo;
use dataplane_core::Reason;

use super::Dataplane;
use crate::{
    PortStatus, SessionCount, memory,
    rule::{BackendId, RuleId},
};

/// The state of the data path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The number of the rule set in force.
    pub epoch: u32,
    /// Whether this process found the data path running.
    pub adopted: bool,
    /// How full each table is.
    pub pressure: Vec<Pressure>,
    /// UEs behind tunnels, by kind.
    pub sessions: Vec<SessionCount>,
    /// Packets of flows that were looked for in the flow caches.
    pub flow_cache: FlowCache,
    /// Flows whose backend was gone, so that another was chosen.
    pub rechosen: u64,
    /// Flows that were forgotten before their time since this process began, as the table was nearly full.
    pub evicted: u64,
    /// Flows that ended and that [`Dataplane::ended`] had no room for.
    pub ended_lost: u64,
    /// Instructions that the kernel's verifier looked at.
    pub verified_instructions: u32,
    /// Bytes of the program, as loaded.
    pub program_bytes: u32,
}

/// Packets of flows that were looked for in the flow cache of the CPU that they came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCache {
    /// All packets of flows.
    pub lookups: u64,
    /// Those whose flow it did not have.
    pub misses: u64,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pressure {
    /// The table.
    pub name: &'static str,
    /// Entries in use.
    pub used: u64,
    /// Entries there is room for.
    pub max: u64,
}

/// What was counted of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortCounter {
    /// The port that packets came by.
    pub port: String,
    /// Why they ended as they did.
    pub reason: Reason,
    /// Packets.
    pub packets: u64,
    /// Bytes, link-layer header included.
    pub bytes: u64,
}

/// What a port sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentCounter {
    /// The port that packets left by.
    pub port: String,
    /// Packets.
    pub packets: u64,
    /// Bytes, as they came in.
    pub bytes: u64,
}

/// What was counted of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCounter {
    /// The rule.
    pub id: RuleId,
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
    /// When the last one came.
    pub last_hit: Option<SystemTime>,
}

/// What was counted of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendCounter {
    /// The rule of its VIP.
    pub rule: RuleId,
    /// Which it is; none is what is chosen while no backend takes flows.
    pub backend: Option<BackendId>,
    /// Packets.
    pub packets: u64,
    /// Bytes of the IP packets.
    pub bytes: u64,
    /// When the last one came.
    pub last_hit: Option<SystemTime>,
}

impl Dataplane {
    /// The state of the data path.
    pub fn status(&self) -> Status {
        let info = self
            .steer
            .program(self.names.steer)
            .and_then(|program| program.info().ok());
        let mut pressure: Vec<_> = self.rules.pressure();
        // Before the packets: each that was missed is among them.
        let misses = self.memory.counts.iter().map(|it| it.missed.get()).sum();
        let (used, packets) = self.flows.count();
        let ended = self.memory.state.get(0).map_or(0, |it| it.ended.get());
        pressure.push(("flows", used, self.limits.flows as usize));
        let (sessions, keys) = self.sessions.count();
        let used = sessions.iter().map(|it| it.sessions as usize).sum();
        pressure.push(("sessions", used, self.limits.sessions as usize));
        let room = memory::session_keys(&self.limits) as usize;
        pressure.push(("session keys", keys, room));
        let pressure = pressure.into_iter().map(|(name, used, max)| Pressure {
            name,
            used: used as u64,
            max: max as u64,
        });
        Status {
            epoch: self.memory.image().epoch,
            adopted: self.adopted,
            pressure: pressure.collect(),
            sessions,
            flow_cache: FlowCache {
                lookups: ended + packets,
                misses,
            },
            rechosen: self.memory.counts.iter().map(|it| it.rechosen.get()).sum(),
            evicted: self.evicted,
            ended_lost: self.ended.lost(),
            verified_instructions: info
                .as_ref()
                .and_then(ProgramInfo::verified_instruction_count)
                .unwrap_or(0),
            program_bytes: info
                .as_ref()
                .and_then(ProgramInfo::size_translated)
                .unwrap_or(0),
        }
    }

    /// Packets by the port they came by and the reason they ended for.
    pub fn port_counters(&self) -> Vec<PortCounter> {
        let reasons = Reason::ALL.len();
        let mut counters = Vec::with_capacity(self.ports.len() * reasons);
        for port in &self.ports {
            for reason in Reason::ALL {
                let slot = usize::from(port.slot);
                let (packets, bytes) = self
                    .memory
                    .sum(|counts| counts.ended.get(slot)?.get(*reason as usize));
                counters.push(PortCounter {
                    port: port.config.name.clone(),
                    reason: *reason,
                    packets,
                    bytes,
                });
            }
        }
        counters
    }

    /// Packets by the port they left by.
    pub fn sent_counters(&self) -> Vec<SentCounter> {
        let counter = |port: &PortStatus| {
            let slot = usize::from(port.slot);
            let (packets, bytes) = self.memory.sum(|counts| counts.sent.get(slot));
            SentCounter {
                port: port.config.name.clone(),
                packets,
                bytes,
            }
        };
        self.ports.iter().map(counter).collect()
    }

    /// Packets by backend. They are those of their rules as well.
    pub fn backend_counters(&self) -> Vec<BackendCounter> {
        let backends = self.rules.backend_counters(&self.memory);
        let counters = backends.map(|(rule, backend, (packets, bytes, last))| BackendCounter {
            rule: rule.clone(),
            backend: backend.map(|it| it.id.clone()),
            packets,
            bytes,
            last_hit: (last != 0).then(|| self.clock.time(last)),
        });
        counters.collect()
    }

    /// Whether a backend of a VIP takes or keeps flows, be it by the rules of an earlier process until others are in force.
    pub fn serves(&self, rule: &RuleId, backend: &BackendId) -> bool {
        self.rules.serves(&self.memory, rule, backend)
    }

    /// Packets by rule.
    pub fn rule_counters(&self) -> Vec<RuleCounter> {
        let counter = |(id, packets, bytes, last): (&RuleId, u64, u64, u64)| RuleCounter {
            id: id.clone(),
            packets,
            bytes,
            last_hit: (last != 0).then(|| self.clock.time(last)),
        };
        self.rules.counters(&self.memory).map(counter).collect()
    }
}
