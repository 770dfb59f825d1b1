//! A MEC host of which only the ports matter.

use anyhow::Result;

use super::{Namespace, RawSocket, unique_name};

/// Ports of a MEC host in one namespace, all their far ends in another, and nobody who talks
/// unasked: what is received is what was sent and steered.
#[derive(Debug)]
pub struct Bench {
    /// Where the ports are.
    pub host: Namespace,
    /// Where the far ends are: the far end of port `access0` is `far-access0`.
    pub far: Namespace,
}

impl Bench {
    /// A bench with these ports.
    pub fn new(ports: &[&str]) -> Result<Self> {
        let prefix = unique_name()?;
        let bench = Self {
            host: Namespace::create(&format!("{prefix}-host"))?,
            far: Namespace::create(&format!("{prefix}-far"))?,
        };
        bench
            .far
            .sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        // Neighbors can be entered, but without an address of its own the host stays silent.
        bench
            .host
            .sysctl("net/ipv6/conf/default/addr_gen_mode", "1")?;
        for port in ports {
            let far = format!("far-{port}");
            bench.host.link(port, (&bench.far, &far))?;
            bench.far.prepare_far_end(&far)?;
        }
        Ok(bench)
    }

    /// A socket on the far end of a port.
    pub fn socket(&self, port: &str) -> Result<RawSocket> {
        RawSocket::open(&self.far, &format!("far-{port}"))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::packet::{Packet, difference};

    #[test]
    fn frames_cross_a_veth_with_their_tags() {
        let bench = Bench::new(&["access0"]).unwrap();
        let near = RawSocket::open(&bench.host, "access0").unwrap();
        let far = bench.socket("access0").unwrap();
        let packet = Packet::udp("10.0.0.1:1", "10.0.0.2:2");
        for packet in [
            packet.clone(),
            packet.clone().tag(0x8100, 5),
            packet.clone().tag(0x88a8, 100).tag(0x8100, 5),
            packet.tag(0x9100, 7),
        ] {
            far.send(&packet.bytes()).unwrap();
            let frame = near.receive(Duration::from_secs(1)).unwrap().unwrap();
            assert_eq!(difference(&packet.bytes(), &frame), None);
        }
        assert_eq!(
            near.drain(Duration::from_millis(10)).unwrap(),
            [[0u8; 0]; 0]
        );
    }
}
