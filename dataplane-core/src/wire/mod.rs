//! Protocol headers as they are on the wire, one file each.

pub mod ethernet;
pub mod gre;
pub mod gtpu;
pub mod icmp;
pub mod ipv4;
pub mod ipv6;
pub mod transport;
pub mod vxlan;
