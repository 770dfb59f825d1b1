//! What must never happen, told from what was seen alone: without sessions, flows or rules.
//!
//! A packet may be sent into a tunnel to a UE if, going back from now, what comes first is a packet of the
//! core's to this UE by this tunnel, or that it was said to be the UE's; and not if it is anything that
//! says otherwise.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use dataplane_core::Reason;
use dataplane_user::Binding;

use super::{
    Frame,
    envelope::{Tunnel, Way},
    sessions::Ue,
};
use crate::{
    packet::{Opened, open},
    scenario::{Exit, Seen},
    world::{Port, Role, World},
};

/// All that was seen of tunnels.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: Vec<Event>,
}

#[derive(Debug)]
enum Event {
    /// A packet from a UE, to another address, came by this tunnel and this port.
    Uplink(Ue, Ue, Tunnel, &'static str),
    /// The core sent a UE a packet by this tunnel.
    Downlink(Ue, Tunnel),
    /// A tunnel in a zone has ended.
    End(u16, Tunnel),
    /// These tunnels lead to a UE, and from it.
    Said(Ue, Vec<[Tunnel; 2]>),
    /// Nothing is said any more.
    Withdrawn(Ue),
}

impl Watch {
    pub(super) fn said(&mut self, binding: &Binding) {
        let tunnel = |teid| Tunnel {
            ran: binding.ran,
            core: binding.core,
            teid,
        };
        let tunnels = binding.bearers.iter();
        let tunnels = tunnels.map(|it| [tunnel(it.downlink), tunnel(it.uplink)]);
        let ue = Ue::new(binding.zone, binding.ue);
        self.seen.push(Event::Said(ue, tunnels.collect()));
    }

    pub(super) fn withdrawn(&mut self, zone: u16, ue: IpAddr) {
        self.seen.push(Event::Withdrawn(Ue::new(zone, ue)));
    }

    /// A frame came by `port`, and this became of it.
    pub(super) fn see(
        &mut self,
        world: &World,
        port: &Port,
        frame: &Frame,
        seen: &Seen,
    ) -> Result<()> {
        let untold = [Reason::SessionConflict, Reason::FragmentUnknown];
        let refused = seen.reasons.iter().any(|it| untold.contains(it));
        self.seen.extend(event(port, frame).filter(|_| !refused));
        let sent_to_ue = [Reason::Replied, Reason::AppInitiated];
        if frame.envelope.is_some() || !seen.reasons.iter().any(|it| sent_to_ue.contains(it)) {
            return Ok(());
        }
        for (exit, bytes) in &seen.out {
            // A tunnel that is no UE's goes on as it came.
            let is_outside = |opened: &Opened| {
                let outside = frame.outside.as_ref();
                outside.is_some_and(|it| it.is_between(opened.source, opened.destination))
            };
            if let Some(opened) = open(bytes).ok().filter(|it| !is_outside(it)) {
                self.check(world, exit, &opened)?;
            }
        }
        Ok(())
    }

    fn check(&self, world: &World, exit: &Exit, opened: &Opened) -> Result<()> {
        let crate::packet::Tunnel::Gtpu(gtpu) = &opened.tunnel else {
            return Ok(());
        };
        let tunnel = Tunnel {
            ran: opened.destination,
            core: opened.source,
            teid: gtpu.teid,
        };
        let zones = match exit {
            Exit::Port(Some(name)) => vec![world.port(name).zone],
            // The kernel's test run does not tell the port.
            Exit::Port(None) | Exit::Kernel => vec![0, 2],
        };
        let address = destination(&gtpu.content);
        ensure!(
            zones
                .iter()
                .any(|zone| self.leads_to(Ue::new(*zone, address), &tunnel, exit)),
            "sent by {tunnel:?} out of {exit:?}, which does not lead to {address}"
        );
        Ok(())
    }

    /// Whether a tunnel leads to a UE now, by this port if it can be told.
    fn leads_to(&self, ue: Ue, tunnel: &Tunnel, exit: &Exit) -> bool {
        let from_there = |event: &&Event| match event {
            Event::Uplink(of, _, _, port) => {
                *of == ue && [Exit::Port(None), Exit::Port(Some((*port).into()))].contains(exit)
            }
            Event::Downlink(..) | Event::End(..) | Event::Said(..) | Event::Withdrawn(_) => false,
        };
        let said = self.said_of(ue);
        let is_uplink =
            |it: &Tunnel| said.is_none_or(|said| said.iter().any(|[_, up]| up.teid == it.teid));
        let same_number = |it: &Tunnel| (it.ran, it.teid) == (tunnel.ran, tunnel.teid);
        let mut here = false;
        let leads = self.seen.iter().rev().find_map(|event| match event {
            Event::Downlink(of, by) if by == tunnel && *of == ue && said.is_none() => Some(true),
            // The station numbers its tunnels, which may lead to an address of each IP version.
            Event::Downlink(of, by)
                if *of != ue && of.is_like(ue) && same_number(by) && said.is_none() =>
            {
                Some(false)
            }
            Event::Said(of, tunnels) if *of == ue => {
                Some(tunnels.iter().any(|[down, _]| down == tunnel))
            }
            Event::Said(of, tunnels) if of.is_like(ue) && said.is_none() => {
                (tunnels.iter().any(|[down, _]| same_number(down))).then_some(false)
            }
            Event::Withdrawn(of) if *of == ue => Some(false),
            Event::End(zone, ended) if (*zone, ended) == (ue.zone, tunnel) => Some(false),
            // What is for a UE may be forwarded, and says nothing of where it is from.
            Event::Uplink(_, to, ..) if self.is_known(*to) => None,
            Event::Uplink(of, _, by, _) if *of == ue && by.core == tunnel.core && is_uplink(by) => {
                // What was said holds again when the UE is back.
                here |= by.ran == tunnel.ran && said.is_some();
                (by.ran != tunnel.ran && !here).then_some(false)
            }
            Event::Uplink(..)
            | Event::Downlink(..)
            | Event::End(..)
            | Event::Said(..)
            | Event::Withdrawn(_) => None,
        });
        leads == Some(true) && self.seen.iter().any(|it| from_there(&it))
    }

    /// Whether anything was seen of a UE.
    fn is_known(&self, ue: Ue) -> bool {
        self.seen.iter().any(|event| match event {
            Event::Uplink(of, ..)
            | Event::Downlink(of, _)
            | Event::Said(of, _)
            | Event::Withdrawn(of) => *of == ue,
            Event::End(..) => false,
        })
    }

    /// What is said of a UE now.
    fn said_of(&self, ue: Ue) -> Option<&[[Tunnel; 2]]> {
        self.seen.iter().rev().find_map(|event| match event {
            Event::Said(of, tunnels) if *of == ue => Some(Some(&tunnels[..])),
            Event::Withdrawn(of) if *of == ue => Some(None),
            Event::Uplink(..)
            | Event::Downlink(..)
            | Event::End(..)
            | Event::Said(..)
            | Event::Withdrawn(_) => None,
        })?
    }
}

/// What a frame says of tunnels.
fn event(port: &Port, frame: &Frame) -> Option<Event> {
    let envelope = frame
        .envelope
        .as_ref()
        .filter(|_| frame.outside.is_none())?;
    let mut tunnel = envelope.tunnel();
    match (frame.message(), envelope.way, port.role) {
        (None, Way::Uplink, Role::Access) => {
            let [from, to] = [frame.packet.source, frame.packet.destination];
            let [from, to] = [from, to].map(|it| Ue::new(port.zone, it));
            Some(Event::Uplink(from, to, tunnel, port.name))
        }
        (None, Way::Downlink, Role::Core) => {
            let ue = Ue::new(port.zone, frame.packet.destination);
            Some(Event::Downlink(ue, tunnel))
        }
        (Some(254), Way::Downlink, Role::Core) => Some(Event::End(port.zone, tunnel)),
        (Some(26), Way::Uplink, Role::Access) => {
            let [16, teid @ ..] = *envelope.gtpu.content.first_chunk::<5>()? else {
                return None;
            };
            tunnel.teid = u32::from_be_bytes(teid);
            Some(Event::End(port.zone, tunnel))
        }
        _ => None,
    }
}

/// The destination of an IP packet.
fn destination(packet: &[u8]) -> IpAddr {
    if packet[0] >> 4 == 4 {
        let octets: [u8; 4] = packet[16..20].try_into().expect("four octets");
        octets.into()
    } else {
        let octets: [u8; 16] = packet[24..40].try_into().expect("sixteen octets");
        octets.into()
    }
}
