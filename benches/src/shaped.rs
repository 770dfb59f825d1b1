//! Rule sets of the shapes that ClassBench found in use, and packets that are the first of their flow under them.

use std::{collections::HashSet, net::IpAddr};

use anyhow::{Context as _, Result};
use dataplane_core::wire::transport::{TCP, UDP};
use dataplane_user::rule::{Rule, RuleSet};
use tests::{
    packet::{Packet, SYN, Transport},
    shapes::{self, Header, Shape},
};

use crate::{NEW_FLOWS, text::short};

/// Rules of a shape, of one IP version.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shaped {
    shape: Shape,
    v6: bool,
    /// How many.
    pub(crate) rules: u32,
}

/// Sets of all shapes and of these sizes.
pub(crate) fn all(sizes: &[u32]) -> impl Iterator<Item = Shaped> {
    let shapes = [Shape::Acl, Shape::Fw, Shape::Ipc].into_iter();
    shapes.flat_map(move |shape| {
        [false, true].into_iter().flat_map(move |v6| {
            let sized = move |rules: &u32| Shaped {
                shape,
                v6,
                rules: *rules,
            };
            sizes.iter().map(sized)
        })
    })
}

impl Shaped {
    /// Its name.
    pub(crate) fn id(&self) -> String {
        let version = if self.v6 { "6" } else { "" };
        format!("{}{version}-miss-{}", self.shape.name(), short(self.rules))
    }

    /// The rules, and [`NEW_FLOWS`] packets that they match, each of a flow of its own.
    pub(crate) fn make(&self) -> Result<(RuleSet, Vec<Vec<u8>>)> {
        let hop = if self.v6 {
            "2001:db8:a1::2"
        } else {
            "198.18.1.2"
        };
        let forward: Rule = format!("a/1 prio 1 flow any forward ip {hop} via app0").parse()?;
        let rules = shapes::rules(self.shape, self.rules as usize, self.v6, &forward.action);
        let headers = shapes::packets(&rules, 8 * NEW_FLOWS as usize, self.v6);
        let mut seen = HashSet::new();
        let usable = headers.iter().filter(|header| {
            let back = Header {
                source: header.destination,
                destination: header.source,
                source_port: header.destination_port,
                destination_port: header.source_port,
                ..**header
            };
            is_usable(header) && !seen.contains(&back) && seen.insert(**header)
        });
        let packets: Vec<_> = usable.map(packet).take(NEW_FLOWS as usize).collect();
        (packets.len() == NEW_FLOWS as usize)
            .then_some((rules, packets))
            .context("too few packets of flows of their own")
    }
}

/// Whether it is one that a network forwards, and has ports.
fn is_usable(header: &Header) -> bool {
    let forwarded = |address: IpAddr| match address {
        IpAddr::V4(address) => matches!(address.octets()[0], 1..=126 | 128..=223),
        IpAddr::V6(_) => true,
    };
    forwarded(header.source)
        && forwarded(header.destination)
        && matches!(header.protocol, TCP | UDP)
}

fn packet(header: &Header) -> Vec<u8> {
    let (source, destination) = (header.source_port, header.destination_port);
    // As long as the shortest frame, where the headers leave room.
    let (transport, length) = if header.protocol == TCP {
        let segment = Transport::Tcp {
            source,
            destination,
            flags: SYN,
        };
        (segment, 10)
    } else {
        let datagram = Transport::Udp {
            source,
            destination,
            checksum: true,
        };
        (datagram, 22)
    };
    let packet = Packet::new(header.source, header.destination, transport);
    packet
        .payload(if header.source.is_ipv4() { length } else { 2 })
        .bytes()
}
