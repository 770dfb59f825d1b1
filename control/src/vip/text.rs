//! VIPs in words.

use std::fmt::{self, Formatter};

use serde::Serialize;
use serde_json::json;

use super::{Affinity, Vip};

/// On one line, as it is shown in a difference.
impl fmt::Display for Vip {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let protocol = word(&self.protocol);
        write!(f, "vip {} {} {protocol}", self.vip_id, self.address)?;
        let said = |name: &str, value: Option<u32>| {
            value.map_or_else(String::new, |value| format!(" {name} {value}"))
        };
        let port = said("port", self.port.map(u32::from));
        let zone = said("zone", self.zone.map(u32::from));
        write!(
            f,
            "{port}{zone} prio {} {}",
            self.priority,
            word(&self.mode)
        )?;
        if let Some(tunnel) = &self.tunnel {
            write!(f, " {}", json!(tunnel))?;
        }
        if self.affinity == Affinity::Ue {
            write!(f, " affinity UE {}", self.timeout())?;
        }
        for backend in &self.backends {
            let port = said("port", backend.port.map(u32::from));
            let (name, weight, state) = (backend.name(), backend.weight, word(&backend.state));
            write!(f, " backend {name}{port} weight {weight} {state}")?;
            if let Some(behind) = &backend.behind {
                write!(f, " via {behind}")?;
            }
        }
        if let Some(check) = &self.health_check {
            let port = said("port", check.port.map(u32::from));
            let path = check.path.as_ref();
            let path = path.map_or_else(String::new, |path| format!(" {path}"));
            write!(
                f,
                " check {}{port}{path} every {} timeout {} rise {} fall {}",
                word(&check.kind),
                check.interval_seconds,
                check.timeout_seconds,
                check.rise,
                check.fall
            )?;
        }
        write!(f, " minHealthy {}", self.min_healthy)?;
        if self.announce {
            f.write_str(" announce")?;
        }
        let peer = self.fallback.as_ref().and_then(|it| it.peer.as_ref());
        peer.map_or(Ok(()), |peer| write!(f, " else peer {peer}"))
    }
}

/// A value as it is on the wire.
fn word(value: &impl Serialize) -> String {
    let value = json!(value);
    value.as_str().unwrap_or_default().to_owned()
}
