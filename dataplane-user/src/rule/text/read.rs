//! From words to rules.

use std::{
    fmt::Display,
    iter::Peekable,
    str::{FromStr, SplitAsciiWhitespace},
};

use crate::rule::{
    Action, Affinity, Backend, Balance, Destination, Encapsulation, Endpoint, EndpointAddress,
    Filter, FilterType, ParseError, Rule, Target, Tunnel, filter::protocol_number, id::unescape,
};

/// The words that are left. Errors are reasons in words; the caller knows the line.
pub(super) struct Words<'a>(Peekable<SplitAsciiWhitespace<'a>>);

impl<'a> Words<'a> {
    pub(super) fn of(line: &'a str) -> Self {
        Self(line.split_ascii_whitespace().peekable())
    }

    pub(super) fn rule(mut self) -> Result<Rule, String> {
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
        let silent = self.take("silent");
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
            silent,
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
