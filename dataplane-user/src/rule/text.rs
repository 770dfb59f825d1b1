//! The one-line text form of a rule.
//!
//! ```text
//! rule     = APP/RULE prio N (flow | packet) filter { or filter } action
//! filter   = any | [from A,..] [to A,..] [proto P,..] [sport R,..] [dport R,..] [dscp N] [tc N] [zone N] [tunnel]
//! tunnel   = [tunnel-from A,..] [tunnel-to A,..] [tunnel-sport R,..] [tunnel-dport R,..] [qci N]
//! action   = drop | passthrough | (forward | duplicate) [encapsulated] endpoint [and endpoint] | balance
//! balance  = balance [ue SECONDS] { backend ID weight N (up | draining | down) endpoint } [else endpoint]
//! endpoint = (mac M | ip A [nat [N]] | target) [via PORT]
//! target   = gtpu A [from A] teid N [qfi N] | gre A [from A] [key N] | vxlan A [from A] vni N mac M
//! ```

use std::{
    fmt::{self, Display, Formatter},
    iter::Peekable,
    str::{FromStr, SplitAsciiWhitespace},
};

use super::{
    Action, Affinity, Backend, Balance, Destination, Encapsulation, Endpoint, EndpointAddress,
    Filter, FilterType, ParseError, Rule, Target, Tunnel,
    filter::{protocol_name, protocol_number},
    id::{escape, unescape},
};

impl FromStr for Rule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let refuse = |why: String| ParseError::new("a rule", text, why);
        let rule = Words(text.split_ascii_whitespace().peekable())
            .rule()
            .map_err(refuse)?;
        rule.check()
            .map_err(|contradiction| refuse(contradiction.to_string()))?;
        Ok(rule)
    }
}

/// The words that are left. Errors are reasons in words; the caller knows the line.
struct Words<'a>(Peekable<SplitAsciiWhitespace<'a>>);

impl<'a> Words<'a> {
    fn rule(mut self) -> Result<Rule, String> {
        let id = self.value("a rule id")?;
        self.expect("prio")?;
        let priority = self.value("a priority from 0 to 255")?;
        let filter_type = match self.next("`flow` or `packet`")? {
            "flow" => FilterType::Flow,
            "packet" => FilterType::Packet,
            word => return Err(format!("`{word}` stands where `flow` or `packet` should")),
        };
        let mut filters = vec![self.filter()?];
        while self.take("or") {
            filters.push(self.filter()?);
        }
        let action = self.action()?;
        match self.0.next() {
            Some(word) => Err(format!("`{word}` follows its end")),
            None => Ok(Rule {
                id,
                priority,
                filter_type,
                filters,
                action,
            }),
        }
    }

    fn filter(&mut self) -> Result<Filter, String> {
        if self.take("any") {
            return Ok(Filter::default());
        }
        let mut filter = Filter::default();
        while let Some(word) = self.0.peek().copied() {
            match word {
                "from" => self.list(&mut filter.src, "addresses")?,
                "to" => self.list(&mut filter.dst, "addresses")?,
                "sport" => self.list(&mut filter.src_port, "ports")?,
                "dport" => self.list(&mut filter.dst_port, "ports")?,
                "proto" => {
                    let mut protocols: Vec<Protocol> = Vec::new();
                    self.list(&mut protocols, "protocols")?;
                    filter
                        .protocol
                        .extend(protocols.into_iter().map(|protocol| protocol.0));
                }
                "dscp" => self.number(&mut filter.dscp)?,
                "tc" => self.number(&mut filter.traffic_class)?,
                "zone" => self.number(&mut filter.zone)?,
                "tunnel-from" => self.list(&mut filter.tunnel_src, "addresses")?,
                "tunnel-to" => self.list(&mut filter.tunnel_dst, "addresses")?,
                "tunnel-sport" => self.list(&mut filter.tunnel_src_port, "ports")?,
                "tunnel-dport" => self.list(&mut filter.tunnel_dst_port, "ports")?,
                "qci" => self.number(&mut filter.qci)?,
                _ => break,
            }
        }
        if filter == Filter::default() {
            return Err("a filter is missing; write `any` to match everything".to_owned());
        }
        Ok(filter)
    }

    fn action(&mut self) -> Result<Action, String> {
        let expected = "`drop`, `passthrough`, `forward`, `duplicate` or `balance`";
        match self.next(expected)? {
            "drop" => Ok(Action::Drop),
            "passthrough" => Ok(Action::Passthrough),
            "forward" => {
                let tunnel = self.tunnel();
                Ok(Action::Forward {
                    destination: self.destination()?,
                    tunnel,
                })
            }
            "duplicate" => {
                let tunnel = self.tunnel();
                Ok(Action::Duplicate {
                    destination: self.destination()?,
                    tunnel,
                })
            }
            "balance" => self.balance().map(Action::Balance),
            word => Err(format!("`{word}` stands where {expected} should")),
        }
    }

    fn balance(&mut self) -> Result<Balance, String> {
        let timeout = self.after("ue", "a number of seconds")?;
        let mut backends = Vec::new();
        while self.take("backend") {
            let word = self.next("a backend id")?;
            let id = unescape(word).ok_or_else(|| format!("`{word}` is not a backend id"))?;
            backends.push(Backend {
                id: id.parse().map_err(|error: ParseError| error.to_string())?,
                weight: {
                    self.expect("weight")?;
                    self.value("a weight from 0 to 65535")?
                },
                state: self.value("a state: `up`, `draining` or `down`")?,
                endpoint: self.endpoint()?,
            });
        }
        let fallback = self.take("else").then(|| self.endpoint()).transpose()?;
        Ok(Balance {
            affinity: timeout.map_or(Affinity::Flow, |timeout| Affinity::Ue { timeout }),
            backends,
            fallback,
        })
    }

    fn tunnel(&mut self) -> Tunnel {
        if self.take("encapsulated") {
            Tunnel::Encapsulated
        } else {
            Tunnel::Decapsulated
        }
    }

    fn destination(&mut self) -> Result<Destination, String> {
        let first = self.endpoint()?;
        if self.take("and") {
            return Ok(Destination::Inline {
                ue: first,
                core: self.endpoint()?,
            });
        }
        Ok(Destination::One(first))
    }

    fn endpoint(&mut self) -> Result<Endpoint, String> {
        let expected = "`mac`, `ip`, `gtpu`, `gre` or `vxlan`";
        let address = match self.next(expected)? {
            "mac" => EndpointAddress::Mac(self.value("a MAC address")?),
            "ip" => {
                let address = self.value("an IP address")?;
                let nat = self.take("nat");
                let port = self.0.next_if(|word| nat && word.parse::<u16>().is_ok());
                EndpointAddress::Ip {
                    address,
                    nat,
                    nat_port: port.and_then(|word| word.parse().ok()),
                }
            }
            word @ ("gtpu" | "gre" | "vxlan") => EndpointAddress::Tunnel(self.target(word)?),
            word => return Err(format!("`{word}` stands where {expected} should")),
        };
        let port = if self.take("via") {
            let word = self.next("the name of a port")?;
            Some(
                unescape(word)
                    .ok_or_else(|| format!("`{word}` has a `%` without two hex digits"))?,
            )
        } else {
            None
        };
        Ok(Endpoint { address, port })
    }

    fn target(&mut self, kind: &str) -> Result<Target, String> {
        let destination = self.value("an IP address")?;
        let source = self.after("from", "an IP address")?;
        let encapsulation = match kind {
            "gtpu" => {
                self.expect("teid")?;
                Encapsulation::Gtpu {
                    teid: self.value("a TEID")?,
                    qfi: self.after("qfi", "a QFI")?,
                }
            }
            "gre" => Encapsulation::Gre {
                key: self.after("key", "a key")?,
            },
            _ => {
                self.expect("vni")?;
                let vni = self.value("a VNI")?;
                self.expect("mac")?;
                let mac = self.value("a MAC address")?;
                Encapsulation::Vxlan { vni, mac }
            }
        };
        Ok(Target {
            encapsulation,
            destination,
            source,
        })
    }

    /// The value that follows `keyword`, if that is there.
    fn after<T: FromStr>(&mut self, keyword: &str, what: &str) -> Result<Option<T>, String> {
        self.take(keyword).then(|| self.value(what)).transpose()
    }

    fn list<T: FromStr<Err: Display>>(
        &mut self,
        into: &mut Vec<T>,
        what: &str,
    ) -> Result<(), String> {
        let keyword = self.next(what)?;
        if !into.is_empty() {
            return Err(format!(
                "`{keyword}` stands twice; separate {what} by commas"
            ));
        }
        for item in self.next(what)?.split(',') {
            into.push(item.parse().map_err(|error: T::Err| error.to_string())?);
        }
        Ok(())
    }

    fn number<T: FromStr>(&mut self, into: &mut Option<T>) -> Result<(), String> {
        let keyword = self.next("a number")?;
        if into.is_some() {
            return Err(format!("`{keyword}` stands twice"));
        }
        let word = self.next("a number")?;
        *into = Some(
            word.parse()
                .map_err(|_| format!("`{word}` is not a number that `{keyword}` can have"))?,
        );
        Ok(())
    }

    fn value<T: FromStr>(&mut self, what: &str) -> Result<T, String> {
        let word = self.next(what)?;
        word.parse().map_err(|_| format!("`{word}` is not {what}"))
    }

    fn expect(&mut self, keyword: &str) -> Result<(), String> {
        match self.next(keyword)? {
            word if word == keyword => Ok(()),
            word => Err(format!("`{word}` stands where `{keyword}` should")),
        }
    }

    fn take(&mut self, keyword: &str) -> bool {
        self.0.next_if(|word| *word == keyword).is_some()
    }

    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0
            .next()
            .ok_or_else(|| format!("it ends where {what} should follow"))
    }
}

struct Protocol(u8);

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        protocol_number(text)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is neither an IP protocol's name nor a number"))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_lines_round_trip() {
        for line in [
            "video/r1 prio 10 flow from 10.45.0.0/16 to 203.0.113.9 proto tcp dport 80,443 forward ip 192.0.2.10 nat via app0",
            "a/b prio 0 packet any drop",
            "a/b prio 255 flow dscp 46 tc 184 zone 3 passthrough",
            "a%2F1/b%20c prio 1 flow proto udp,132,7 sport 1-2,9 or to 2001:db8::/32 or any duplicate mac 02:00:00:00:00:01",
            "a/b prio 1 flow any forward encapsulated mac 02:00:00:00:00:01 via ue0 and mac 02:00:00:00:00:02 via core%200",
            "a/b prio 1 flow from 10.0.0.1-10.0.0.9,::1 duplicate encapsulated ip 2001:db8::1",
            "a/b prio 1 flow to 203.0.113.9 tunnel-from 192.0.2.0/24,2001:db8::1 tunnel-to 198.51.100.1 tunnel-sport 2152 \
             tunnel-dport 2000-2152 qci 5 or qci 255 drop",
            "a/b prio 1 flow any forward gtpu 192.0.2.7 from 192.0.2.1 teid 4660 qfi 9 via n9",
            "a/b prio 1 flow any forward gtpu 2001:db8::7 teid 1",
            "a/b prio 1 flow any forward encapsulated gre 192.0.2.7 key 0",
            "a/b prio 1 packet any forward gre 192.0.2.7",
            "a/b prio 1 flow proto tcp forward ip 192.0.2.10 nat 8080 via app0",
            "a/b prio 128 flow to 203.0.113.9 proto tcp,udp balance ue 3600 backend a%20b weight 1 up ip 192.0.2.10 nat 80 via app0 \
             backend c weight 0 draining mac 02:00:00:00:00:01 backend d weight 65535 down ip 192.0.2.11 else gre 192.0.2.7 key 0",
            "a/b prio 128 flow to 203.0.113.9 balance",
            "a/b prio 1 flow any forward vxlan 192.0.2.7 vni 16777215 mac 02:00:00:00:00:01 via app0",
        ] {
            let line = line.replace("132,7", "sctp,7");
            let rule: Rule = line.parse().unwrap();
            assert_eq!(rule.to_string(), line);
        }
    }

    #[test]
    fn a_refusal_names_the_word() {
        for (line, word) in [
            ("", "rule id"),
            ("a/b", "prio"),
            ("a/b prio 256 flow any drop", "256"),
            ("a/b prio 1 flows any drop", "flows"),
            ("a/b prio 1 flow drop", "any"),
            ("a/b prio 1 flow from x drop", "x"),
            ("a/b prio 1 flow from 10.0.0.1 from 10.0.0.2 drop", "from"),
            ("a/b prio 1 flow proto http drop", "http"),
            ("a/b prio 1 flow dscp 64 drop", "DSCP"),
            ("a/b prio 1 flow qci 0 drop", "QCI"),
            ("a/b prio 1 flow qci 256 drop", "256"),
            (
                "a/b prio 1 flow tunnel-from 192.0.2.1 tunnel-to ::1 drop",
                "of the tunnel",
            ),
            ("a/b prio 1 flow tunnel-from gnb drop", "gnb"),
            ("a/b prio 1 flow any", "drop"),
            ("a/b prio 1 flow any forward", "mac"),
            ("a/b prio 1 flow any forward ip 10.0.0.300", "10.0.0.300"),
            ("a/b prio 1 flow any forward gtpu 192.0.2.7", "teid"),
            ("a/b prio 1 flow any forward gtpu 192.0.2.7 teid 0", "TEID"),
            (
                "a/b prio 1 flow any forward gtpu 192.0.2.7 teid 1 qfi 64",
                "QFI",
            ),
            ("a/b prio 1 flow any forward gre 224.0.0.1", "host"),
            ("a/b prio 1 flow any forward gre 192.0.2.7 from ::1", "host"),
            (
                "a/b prio 1 flow any forward gre 192.0.2.7 from 2001:db8::1",
                "one IP version",
            ),
            ("a/b prio 1 flow any forward gre 192.0.2.7 key x", "`x`"),
            (
                "a/b prio 1 flow any forward vxlan 192.0.2.7 vni 16777216 mac 02:00:00:00:00:01",
                "VNI",
            ),
            (
                "a/b prio 1 flow any forward vxlan 192.0.2.7 vni 1 mac ff:ff:ff:ff:ff:ff",
                "unicast",
            ),
            (
                "a/b prio 1 flow any forward gre 192.0.2.7 and gre 192.0.2.8",
                "in line",
            ),
            (
                "a/b prio 1 packet to 203.0.113.9 balance",
                "filterType FLOW",
            ),
            ("a/b prio 1 flow any balance", "destination addresses"),
            ("a/b prio 1 flow to 203.0.113.9 balance ue 0", "86400"),
            (
                "a/b prio 1 flow to 203.0.113.9 balance backend b weight 1 up ip 192.0.2.1 \
                 backend a weight 1 up ip 192.0.2.2",
                "order of the names",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 balance backend a weight 1 sleeping ip 192.0.2.1",
                "`draining`",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 balance backend a weight 1 up ip 2001:db8::1 nat",
                "other IP version",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 proto sctp balance backend a weight 1 up ip 192.0.2.1 nat 80",
                "TCP and UDP",
            ),
            (
                "a/b prio 1 flow to 203.0.113.9 proto tcp balance else ip 192.0.2.1 nat",
                "peer",
            ),
            (
                "a/b prio 1 flow proto tcp forward ip 192.0.2.1 nat 0",
                "65535",
            ),
            ("a/b prio 1 flow any drop now", "now"),
            ("a/b prio 1 flow from 10.0.0.1 to ::1 drop", "no packet"),
            ("a/b prio 1 flow from 10.0.0.1 tc 3 drop", "no packet"),
            (
                "a/b prio 1 flow any forward mac 01:00:5e:00:00:01",
                "unicast",
            ),
            ("a/b prio 1 flow any forward ip 224.0.0.1", "host"),
            (
                "a/b prio 1 flow to 2001:db8::1 forward ip 10.0.0.1 nat",
                "other IP version",
            ),
            (
                "a/b prio 1 flow any forward ip 10.0.0.1 nat and ip 10.0.0.2",
                "in line",
            ),
            ("a/b prio 1 flow any duplicate ip 10.0.0.1 nat", "a copy"),
            (
                "a/b prio 1 packet any forward ip 10.0.0.1 nat",
                "filterType FLOW",
            ),
        ] {
            let error = line.parse::<Rule>().unwrap_err();
            assert!(error.reason().contains(word), "{line}: {error}");
        }
    }
}
