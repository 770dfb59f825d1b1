//! The UEs behind tunnels that the oracle has seen, and which tunnels lead to them.

mod session;

use std::{collections::HashMap, net::IpAddr};

use dataplane_core::Reason;
use dataplane_user::Binding;

use super::{
    envelope::{Envelope, Tunnel, Way},
    flows::Flow,
    rules::InTunnel,
};
use crate::packet::{GTPU_PORT, Packet};
use session::{BEARERS, Bearer, Session, State, Status};

/// Who is behind tunnels: an IPv4 address in a zone, or a prefix of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ue {
    pub(super) zone: u16,
    address: IpAddr,
}

impl Ue {
    pub(super) fn new(zone: u16, address: IpAddr) -> Self {
        let address = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                [a, b, c, d, 0, 0, 0, 0].into()
            }
        };
        Self { zone, address }
    }

    /// Whether it is in the same zone, and of the same IP version.
    pub(super) const fn is_like(&self, other: Self) -> bool {
        self.zone == other.zone && self.address.is_ipv4() == other.address.is_ipv4()
    }
}

/// How the latest upstream packet of a flow came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// In no tunnel.
    Plainly,
    /// By one, of nobody that is known.
    Unknown,
    /// By that of a session.
    By(Bearing),
}

/// A session, by which of its bearers, and with which QFI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bearing {
    session: usize,
    place: usize,
    qfi: Option<u8>,
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    all: Vec<Session>,
    ues: HashMap<Ue, usize>,
    /// Of each number that an endpoint gave to a tunnel of UEs of a zone and of an IP version, whose it is.
    owners: HashMap<(u16, bool, IpAddr, u32), usize>,
}

impl Sessions {
    /// The session of a UE.
    fn of(&self, ue: Ue) -> Option<usize> {
        self.ues.get(&ue).copied()
    }

    fn begin(&mut self, ue: Ue, tunnel: &Tunnel) -> usize {
        let index = self.all.len();
        self.all.push(Session::new(tunnel.ran, tunnel.core));
        self.ues.insert(ue, index);
        index
    }

    /// A UE sent a packet by a port of the access side.
    ///
    /// # Errors
    ///
    /// Why nothing is learned.
    pub(super) fn uplink(
        &mut self,
        port: &'static str,
        zone: u16,
        packet: &Packet,
        envelope: &Envelope,
    ) -> Result<Bearing, Reason> {
        let (tunnel, qfi) = (envelope.tunnel(), envelope.qfi());
        let ue = Ue::new(zone, packet.source);
        let other = self.of(Ue::new(zone, packet.destination));
        let index = match (self.of(ue), other) {
            (Some(known), _) => known,
            // For a UE, not from one: a station forwards it at a handover.
            (None, Some(_)) => return Err(Reason::NoDownlinkTunnel),
            (None, None) => self.begin(ue, &tunnel),
        };
        let session = &self.all[index];
        let stranger =
            session.ran != tunnel.ran && session.place(|it| it.is_from(tunnel.teid)).is_none();
        if stranger && other.is_some_and(|it| self.all[it].ran == tunnel.ran) {
            return Err(Reason::NoDownlinkTunnel);
        }
        let session = &mut self.all[index];
        let known =
            session.core == tunnel.core && session.place(|it| it.is_from(tunnel.teid)).is_some();
        let place = session.uplink(&tunnel, qfi);
        let place = place.ok_or(Reason::SessionConflict)?;
        if !known {
            self.own(ue, index, tunnel.core, tunnel.teid);
        }
        let session = &mut self.all[index];
        session.latest = Some((port, packet.clone(), qfi));
        Ok(Bearing {
            session: index,
            place,
            qfi,
        })
    }

    /// Whether an uplink packet comes just as the one before of its flow.
    pub(super) fn is_usual(&self, bearing: Bearing, envelope: &Envelope) -> bool {
        let (session, tunnel) = (&self.all[bearing.session], envelope.tunnel());
        !session.gone
            && session.is_between(&tunnel)
            && bearing.qfi == envelope.qfi()
            && session.bearers[bearing.place].up == Some((tunnel.teid, false))
            && !(session.said && session.status == Status::Pending)
    }

    /// The core sent a packet to a UE. Answers by which bearer of whose, if that is believed.
    pub(super) fn downlink(
        &mut self,
        zone: u16,
        ue: IpAddr,
        envelope: &Envelope,
    ) -> Option<Bearing> {
        let (tunnel, qfi) = (envelope.tunnel(), envelope.qfi());
        let ue = Ue::new(zone, ue);
        let index = self.of(ue).unwrap_or_else(|| self.begin(ue, &tunnel));
        let session = &self.all[index];
        let settled = |it: &Bearer| {
            let down = it.down.filter(|(teid, _)| *teid == tunnel.teid);
            down.is_some_and(|(_, state)| state != State::Doubted)
        };
        let settled = session
            .place(settled)
            .filter(|_| session.is_between(&tunnel));
        let place = match settled {
            Some(place) => place,
            None if self.take_over(ue, index, &tunnel) && self.all[index].believes(&tunnel) => {
                self.own(ue, index, tunnel.ran, tunnel.teid);
                self.all[index].take_downlink(&tunnel, qfi)
            }
            None => return None,
        };
        Some(Bearing {
            session: index,
            place,
            qfi,
        })
    }

    /// The session that was the latest to learn that this tunnel is its own, if it still is.
    fn owner(&self, zone: u16, v4: bool, tunnel: &Tunnel, way: Way) -> Option<usize> {
        let endpoint = match way {
            Way::Uplink => tunnel.core,
            Way::Downlink => tunnel.ran,
        };
        let owner = *self.owners.get(&(zone, v4, endpoint, tunnel.teid))?;
        let session = &self.all[owner];
        let is_its = match way {
            Way::Uplink => {
                session.core == tunnel.core && session.place(|it| it.is_from(tunnel.teid)).is_some()
            }
            Way::Downlink => {
                session.ran == tunnel.ran && session.place(|it| it.is_to(tunnel.teid)).is_some()
            }
        };
        (!session.gone && is_its).then_some(owner)
    }

    /// Puts in doubt that a tunnel leads to another than `ue`. Both addresses of a UE, of one IP version each, may
    /// be at the end of it. `false`: it is said to be another's.
    fn take_over(&mut self, ue: Ue, index: usize, tunnel: &Tunnel) -> bool {
        let v4 = ue.address.is_ipv4();
        let owner = self.owner(ue.zone, v4, tunnel, Way::Downlink);
        if let Some(owner) = owner.filter(|owner| *owner != index) {
            let owner = &mut self.all[owner];
            if owner.said {
                return false;
            }
            for bearer in &mut owner.bearers {
                if bearer.is_to(tunnel.teid) {
                    bearer.down = Some((tunnel.teid, State::Doubted));
                }
            }
            if owner.status == Status::Active && owner.leading(0).is_none() {
                owner.status = Status::Pending;
            }
        }
        true
    }

    fn own(&mut self, ue: Ue, index: usize, endpoint: IpAddr, teid: u32) {
        let v4 = ue.address.is_ipv4();
        self.owners.insert((ue.zone, v4, endpoint, teid), index);
    }

    /// A tunnel of UEs of a zone, that leads this way, has ended: so have those to them.
    pub(super) fn end(&mut self, zone: u16, tunnel: &Tunnel, way: Way) {
        let owners = [true, false].map(|v4| self.owner(zone, v4, tunnel, way));
        for owner in owners.into_iter().flatten() {
            let session = &mut self.all[owner];
            if !session.is_between(tunnel) {
                continue;
            }
            for bearer in &mut session.bearers {
                if let Some((_, doubted)) = &mut bearer.up
                    && !session.said
                {
                    *doubted = true;
                }
                let ends = match way {
                    Way::Uplink => bearer.is_from(tunnel.teid),
                    Way::Downlink => bearer.is_to(tunnel.teid),
                };
                if let Some((_, state)) = bearer.down.as_mut().filter(|_| ends) {
                    *state = State::Ended;
                }
            }
            if session.status == Status::Active && session.leading(0).is_none() {
                session.status = Status::Ended;
            }
        }
    }

    /// These are the tunnels of a UE, whatever packets say.
    pub(super) fn provision(&mut self, binding: &Binding) {
        let ue = Ue::new(binding.zone, binding.ue);
        let tunnel = |teid| Tunnel {
            ran: binding.ran,
            core: binding.core,
            teid,
        };
        let index = self.of(ue).unwrap_or_else(|| self.begin(ue, &tunnel(0)));
        for bearer in &binding.bearers {
            self.take_over(ue, index, &tunnel(bearer.downlink));
            self.own(ue, index, binding.ran, bearer.downlink);
            self.own(ue, index, binding.core, bearer.uplink);
        }
        let session = &mut self.all[index];
        (session.ran, session.core) = (binding.ran, binding.core);
        (session.said, session.status) = (true, Status::Active);
        session.bearers = [Bearer::default(); BEARERS];
        session.qos.clone_from(&binding.qos_flows);
        for (known, said) in session.bearers.iter_mut().zip(&binding.bearers) {
            known.qci = said.qci;
            known.up = Some((said.uplink, false));
            known.down = Some((said.downlink, State::Live));
        }
    }

    /// Nothing is said of a UE any more. `false`: nothing was.
    pub(super) fn withdraw(&mut self, zone: u16, ue: IpAddr) -> bool {
        let ue = Ue::new(zone, ue);
        let Some(index) = self.of(ue).filter(|index| self.all[*index].said) else {
            return false;
        };
        self.ues.remove(&ue);
        self.all[index].gone = true;
        true
    }

    /// Whether answers reach a UE.
    pub(super) fn is_active(&self, bearing: Bearing) -> bool {
        let session = &self.all[bearing.session];
        !session.gone && session.status == Status::Active
    }

    /// The 5QI or QCI of packets by a bearer, if it was said.
    pub(super) fn qci(&self, bearing: Bearing) -> Option<u8> {
        let session = &self.all[bearing.session];
        let mut flows = session.qos.iter();
        let flow = flows.find(|it| Some(it.qfi) == bearing.qfi);
        let said = flow.map(|it| it.five_qi);
        said.or(session.bearers[bearing.place].qci)
            .filter(|_| !session.gone)
    }

    /// What filters see of the tunnel that a flow came by last, as it is now.
    pub(super) fn tunnel_of(&self, flow: &Flow) -> Option<InTunnel> {
        match flow.came {
            Came::Plainly | Came::Unknown => None,
            Came::By(bearing) => self.tunnel_by(bearing, flow.ports),
        }
    }

    /// What they would see of the tunnel of a packet from a UE.
    pub(super) fn tunnel_to(&self, zone: u16, ue: IpAddr) -> Option<InTunnel> {
        let session = self.of(Ue::new(zone, ue))?;
        let latest = self.all[session].latest.as_ref();
        let bearing = Bearing {
            session,
            place: 0,
            qfi: latest.and_then(|(_, _, qfi)| *qfi),
        };
        self.tunnel_by(bearing, (GTPU_PORT, GTPU_PORT))
    }

    fn tunnel_by(&self, bearing: Bearing, ports: (u16, u16)) -> Option<InTunnel> {
        let session = &self.all[bearing.session];
        (!session.gone).then(|| InTunnel {
            addresses: (session.ran, session.core),
            ports,
            qci: self.qci(bearing),
        })
    }

    /// The envelope for a packet with this traffic class to or from a UE, if there is one now.
    pub(super) fn envelope(&self, bearing: Bearing, way: Way, class: u8) -> Option<Envelope> {
        let session = &self.all[bearing.session];
        let teid = match way {
            Way::Uplink => {
                let others = session.bearers.iter().find_map(|it| it.up);
                let up = session.bearers[bearing.place].up.or(others);
                up.map(|(teid, _)| teid)
            }
            Way::Downlink if self.is_active(bearing) => session.leading(bearing.place),
            Way::Downlink => None,
        };
        let tunnel = Tunnel {
            ran: session.ran,
            core: session.core,
            teid: teid.filter(|_| !session.gone)?,
        };
        Some(Envelope::built(way, tunnel, bearing.qfi, class))
    }

    /// The envelope for what answers a packet of a UE at once, if there is one now.
    pub(super) fn envelope_back(
        &self,
        zone: u16,
        packet: &Packet,
        qfi: Option<u8>,
    ) -> Option<Envelope> {
        let bearing = Bearing {
            session: self.of(Ue::new(zone, packet.source))?,
            place: 0,
            qfi,
        };
        self.envelope(bearing, Way::Downlink, packet.class)
    }

    /// The same as `known`, but by the bearer of `seen`, if that is of the same session.
    pub(super) fn by_bearer_of(known: Bearing, seen: Bearing) -> Bearing {
        if known.session == seen.session {
            Bearing {
                place: seen.place,
                ..known
            }
        } else {
            known
        }
    }

    /// How what is sent to a UE first gets there: by which port, and the uplink packet whose link layer
    /// leads back.
    ///
    /// # Errors
    ///
    /// Why it does not.
    pub(super) fn way_to(
        &self,
        zone: u16,
        packet: &Packet,
    ) -> Result<(Envelope, &'static str, Packet), Reason> {
        let found = self.of(Ue::new(zone, packet.destination));
        let index = found.ok_or(Reason::NoRule)?;
        let latest = self.all[index].latest.clone();
        let (port, latest, qfi) = latest.ok_or(Reason::NoDownlinkTunnel)?;
        let bearing = Bearing {
            session: index,
            place: 0,
            qfi,
        };
        let envelope = self.envelope(bearing, Way::Downlink, packet.class);
        Ok((envelope.ok_or(Reason::NoDownlinkTunnel)?, port, latest))
    }
}
