//! Rules of the domain: what an operator means, validated, with nothing of JSON and nothing of map layouts.
//!
//! Every type has a text form (`FromStr` and `Display`, which round-trip); a whole [`Rule`] fits on a line:
//!
//! ```
//! # use dataplane_user::rule::Rule;
//! let line = "video/r1 prio 10 flow from 10.45.0.0/16 to 203.0.113.9 proto tcp dport 80,443 \
//!             forward ip 192.0.2.10 nat via app0";
//! let rule: Rule = line.parse()?;
//! assert_eq!(rule.to_string().parse::<Rule>()?, rule);
//! # Ok::<(), dataplane_user::rule::ParseError>(())
//! ```

mod action;
mod address;
mod balance;
mod check;
mod error;
mod filter;
mod id;
mod mac;
mod port;
mod set;
mod target;
mod text;

pub use action::{Action, Destination, Endpoint, EndpointAddress, Tunnel};
pub use address::AddressRange;
pub use balance::{Affinity, Backend, BackendId, BackendState, Balance};
pub use check::{Contradiction, Part, Place};
pub use error::ParseError;
pub use filter::{Filter, FilterType, protocol_name, protocol_number};
pub use id::{AppInstanceId, RuleId, TrafficRuleId};
pub use mac::Mac;
pub use port::PortRange;
pub use set::RuleSet;
pub use target::{Encapsulation, Target};

/// One traffic rule (MEC 011, 7.1.2.2) in the terms of the data path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// Which application's rule this is; also the order among rules of the same priority.
    pub id: RuleId,
    /// Lower values are looked at first.
    pub priority: u8,
    /// Whether the rule takes whole flows or single packets.
    pub filter_type: FilterType,
    /// The rule matches what any of these matches. Never empty in a rule that [`Rule::check`] accepts.
    pub filters: Vec<Filter>,
    /// What happens to the packets that match.
    pub action: Action,
}

impl Rule {
    /// Whether packets are put into a tunnel.
    pub(crate) fn sends_into_tunnel(&self) -> bool {
        let mut endpoints = self.action.endpoints();
        endpoints.any(|it| matches!(it.address, EndpointAddress::Tunnel(_)))
    }
}
