//! From rules to words.

use std::fmt::{self, Display, Formatter};

use crate::rule::{
    Action, Affinity, Backend, Balance, Destination, Endpoint, EndpointAddress, Filter, Rule,
    Tunnel, filter::protocol_name, id::escape,
};

impl Display for Rule {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} prio {} {} ",
            self.id, self.priority, self.filter_type
        )?;
        for (index, filter) in self.filters.iter().enumerate() {
            let separator = if index > 0 { "or " } else { "" };
            write!(f, "{separator}{filter} ")?;
        }
        write!(f, "{}", self.action)
    }
}

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let protocols: Vec<_> = self
            .protocol
            .iter()
            .map(|number| protocol_name(*number))
            .collect();
        let parts = [
            ("from", join(&self.src)),
            ("to", join(&self.dst)),
            ("proto", join(&protocols)),
            ("sport", join(&self.src_port)),
            ("dport", join(&self.dst_port)),
            ("dscp", join(self.dscp.as_slice())),
            ("tc", join(self.traffic_class.as_slice())),
            ("zone", join(self.zone.as_slice())),
            ("tunnel-from", join(&self.tunnel_src)),
            ("tunnel-to", join(&self.tunnel_dst)),
            ("tunnel-sport", join(&self.tunnel_src_port)),
            ("tunnel-dport", join(&self.tunnel_dst_port)),
            ("qci", join(self.qci.as_slice())),
        ];
        let parts: Vec<_> = parts
            .iter()
            .filter_map(|(key, list)| list.as_ref().map(|l| format!("{key} {l}")))
            .collect();
        f.write_str(if parts.is_empty() { "any" } else { "" })?;
        f.write_str(&parts.join(" "))
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (verb, destination, tunnel) = match self {
            Self::Drop => return f.write_str("drop"),
            Self::Passthrough => return f.write_str("passthrough"),
            Self::Balance(balance) => return write!(f, "{balance}"),
            Self::Forward {
                destination,
                tunnel,
            } => ("forward", destination, tunnel),
            Self::Duplicate {
                destination,
                tunnel,
            } => ("duplicate", destination, tunnel),
        };
        let tunnel = if *tunnel == Tunnel::Encapsulated {
            "encapsulated "
        } else {
            ""
        };
        write!(f, "{verb} {tunnel}{destination}")
    }
}

impl Display for Balance {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("balance")?;
        if self.silent {
            f.write_str(" silent")?;
        }
        if let Affinity::Ue { timeout } = self.affinity {
            write!(f, " ue {timeout}")?;
        }
        for Backend {
            id,
            weight,
            state,
            endpoint,
        } in &self.backends
        {
            let id = escape(id.as_ref());
            write!(f, " backend {id} weight {weight} {state} {endpoint}")?;
        }
        let fallback = self.fallback.as_ref();
        fallback.map_or(Ok(()), |endpoint| write!(f, " else {endpoint}"))
    }
}

impl Display for Destination {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(endpoint) => write!(f, "{endpoint}"),
            Self::Inline { ue, core } => write!(f, "{ue} and {core}"),
        }
    }
}

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.address {
            EndpointAddress::Mac(mac) => write!(f, "mac {mac}")?,
            EndpointAddress::Ip {
                address,
                nat,
                nat_port,
            } => {
                write!(f, "ip {address}{}", if nat { " nat" } else { "" })?;
                nat_port.map_or(Ok(()), |port| write!(f, " {port}"))?;
            }
            EndpointAddress::Tunnel(target) => write!(f, "{target}")?,
        }
        self.port
            .as_ref()
            .map_or(Ok(()), |port| write!(f, " via {}", escape(port)))
    }
}

fn join<T: Display>(items: &[T]) -> Option<String> {
    let items: Vec<_> = items.iter().map(T::to_string).collect();
    (!items.is_empty()).then(|| items.join(","))
}
