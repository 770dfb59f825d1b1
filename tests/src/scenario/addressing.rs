//! The same scenario in IPv4 and in IPv6.

use std::net::IpAddr;

use crate::packet::Packet;

/// The addresses of a family.
#[derive(Debug)]
pub struct Family {
    /// Its name.
    pub name: &'static str,
    /// A UE.
    pub ue: &'static str,
    /// Another one.
    pub other_ue: &'static str,
    /// The prefix of all UEs.
    pub ues: &'static str,
    /// A service in the data network.
    pub service: &'static str,
    /// The application behind `app0`.
    pub app0: &'static str,
    /// The application behind `app1`.
    pub app1: &'static str,
    /// An address that nobody has.
    pub nobody: &'static str,
    /// A router between application and host.
    pub router: &'static str,
    /// `icmp` or `icmpv6`, as a number.
    pub icmp: &'static str,
}

/// IPv4.
pub const V4: Family = Family {
    name: "IPv4",
    ue: "10.45.0.7",
    other_ue: "10.45.0.8",
    ues: "10.45.0.0/16",
    service: "203.0.113.9",
    app0: "198.18.1.2",
    app1: "198.18.2.2",
    nobody: "198.18.1.9",
    router: "198.18.1.77",
    icmp: "1",
};

/// IPv6.
pub const V6: Family = Family {
    name: "IPv6",
    ue: "2001:db8:45::7",
    other_ue: "2001:db8:45::8",
    ues: "2001:db8:45::/48",
    service: "2001:db8:203::9",
    app0: "2001:db8:a1::2",
    app1: "2001:db8:a2::2",
    nobody: "2001:db8:a1::9",
    router: "2001:db8:a1::77",
    icmp: "58",
};

impl Family {
    /// Replaces the names of addresses in a rule by the addresses.
    pub fn fill_in(&self, rule: &str) -> String {
        let names = [
            ("OTHER-UE", self.other_ue),
            ("UES", self.ues),
            ("UE", self.ue),
            ("SERVICE", self.service),
            ("APP0", self.app0),
            ("APP1", self.app1),
            ("NOBODY", self.nobody),
            ("ICMP", self.icmp),
        ];
        let fill = |rule: String, (name, address): (&str, &str)| rule.replace(name, address);
        names.into_iter().fold(rule.to_owned(), fill)
    }

    /// A UDP datagram from the UE's port 5000 to this port of the service.
    pub fn udp(&self, port: u16) -> Packet {
        Packet::udp(&at(self.ue, 5000), &at(self.service, port))
    }

    /// The same packet of another UE.
    pub fn other(&self, packet: &Packet) -> Packet {
        packet.clone().from(self.other_ue)
    }

    /// A TCP segment from the UE's port 5000 to this port of the service.
    pub fn tcp(&self, port: u16) -> Packet {
        Packet::tcp(&at(self.ue, 5000), &at(self.service, port))
    }

    /// An SCTP packet from the UE's port 5000 to this port of the service.
    pub fn sctp(&self, port: u16) -> Packet {
        Packet::sctp(&at(self.ue, 5000), &at(self.service, port))
    }

    /// An echo request from the UE to the service.
    pub fn echo(&self) -> Packet {
        Packet::echo(self.ue, self.service, 7)
    }

    /// One packet of every kind that a UE sends to the service.
    pub fn each(&self) -> Vec<Packet> {
        let mut all = vec![
            self.tcp(443),
            self.udp(443),
            self.sctp(443),
            self.echo(),
            Packet::other(self.ue, self.service, 47),
        ];
        if self.is_v4() {
            all.push(self.udp(444).without_checksum());
        }
        all
    }

    /// Whether this is IPv4.
    pub fn is_v4(&self) -> bool {
        self.name == V4.name
    }
}

/// `address:port`, with brackets where they belong.
pub(super) fn at(address: &str, port: u16) -> String {
    match address.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        _ => format!("{address}:{port}"),
    }
}
