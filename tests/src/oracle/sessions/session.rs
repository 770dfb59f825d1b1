//! One UE behind tunnels: what its packets, and those to it, tell of them.

use std::net::IpAddr;

use dataplane_user::QosFlow;

use crate::{oracle::envelope::Tunnel, packet::Packet};

/// Whether packets reach a UE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Uplink,
    Active,
    Pending,
    Ended,
}

/// Whether a tunnel to a UE may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Live,
    Doubted,
    Ended,
}

pub(super) const BEARERS: usize = 4;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bearer {
    /// TEID towards the core, and whether it is in doubt.
    pub(super) up: Option<(u32, bool)>,
    /// TEID towards the UE.
    pub(super) down: Option<(u32, State)>,
    /// QCI, if it was said.
    pub(super) qci: Option<u8>,
}

impl Bearer {
    pub(super) fn live(&self) -> Option<u32> {
        self.down
            .filter(|(_, state)| *state == State::Live)
            .map(|(teid, _)| teid)
    }

    pub(super) fn is_from(&self, teid: u32) -> bool {
        self.up.is_some_and(|(known, _)| known == teid)
    }

    pub(super) fn is_to(&self, teid: u32) -> bool {
        self.down.is_some_and(|(known, _)| known == teid)
    }
}

#[derive(Clone, Debug)]
pub(super) struct Session {
    pub(super) said: bool,
    pub(super) gone: bool,
    pub(super) status: Status,
    pub(super) ran: IpAddr,
    pub(super) core: IpAddr,
    pub(super) bearers: [Bearer; BEARERS],
    /// What was said of QoS flows.
    pub(super) qos: Vec<QosFlow>,
    /// The latest uplink packet: where, its link layer, and its QFI.
    pub(super) latest: Option<(&'static str, Packet, Option<u8>)>,
}

impl Session {
    pub(super) fn new(ran: IpAddr, core: IpAddr) -> Self {
        Self {
            said: false,
            gone: false,
            status: Status::Uplink,
            ran,
            core,
            bearers: [Bearer::default(); BEARERS],
            qos: Vec::new(),
            latest: None,
        }
    }

    pub(super) fn is_between(&self, tunnel: &Tunnel) -> bool {
        (self.ran, self.core) == (tunnel.ran, tunnel.core)
    }

    pub(super) fn place(&self, is_it: impl Fn(&Bearer) -> bool) -> Option<usize> {
        self.bearers.iter().position(is_it)
    }

    /// Where a packet that came by a bearer is answered: by the same, or by another that is left.
    pub(super) fn leading(&self, place: usize) -> Option<u32> {
        let others = self.bearers.iter().find_map(Bearer::live);
        self.bearers[place].live().or(others)
    }

    /// The tunnels to the UE that were live are not sure any more.
    pub(super) fn doubt(&mut self) {
        for bearer in &mut self.bearers {
            if let Some((_, state @ State::Live)) = &mut bearer.down {
                *state = State::Doubted;
            }
        }
    }

    pub(super) fn move_to(&mut self, tunnel: &Tunnel) {
        for bearer in &mut self.bearers {
            bearer.down = None;
            if self.core != tunnel.core {
                bearer.up = None;
            }
        }
        (self.ran, self.core) = (tunnel.ran, tunnel.core);
    }

    /// An uplink packet came by this tunnel, of which `None` if it is not to be believed. Answers its place.
    pub(super) fn uplink(&mut self, tunnel: &Tunnel, qfi: Option<u8>) -> Option<usize> {
        let known = self.place(|it| it.is_from(tunnel.teid));
        let relocated = self.core != tunnel.core;
        if self.said {
            let place = known.filter(|_| !relocated)?;
            let here = self.ran == tunnel.ran;
            self.status = match self.status {
                Status::Pending if here && self.leading(0).is_some() => Status::Active,
                Status::Pending if here => Status::Ended,
                Status::Active | Status::Uplink if !here => Status::Pending,
                same @ (Status::Uplink | Status::Active | Status::Pending | Status::Ended) => same,
            };
            return Some(place);
        }
        if relocated && self.status == Status::Active {
            return None;
        }
        if !self.is_between(tunnel) {
            if self.status != Status::Uplink {
                self.status = Status::Pending;
            }
            self.move_to(tunnel);
        }
        let known = known.filter(|_| !relocated);
        Some(self.take_uplink(tunnel.teid, known, qfi))
    }

    pub(super) fn take_uplink(
        &mut self,
        teid: u32,
        known: Option<usize>,
        qfi: Option<u8>,
    ) -> usize {
        let sure = self.bearers.iter().any(|it| it.up.is_some())
            && !(self.bearers.iter()).any(|it| matches!(it.up, Some((_, true))));
        if known.is_none() && sure {
            // Somebody else's, or that of another bearer: what leads down may be over.
            self.doubt();
        }
        let place = known.unwrap_or_else(|| match qfi {
            Some(_) => 0,
            None => self.place(|it| it.up.is_none()).unwrap_or(BEARERS - 1),
        });
        self.bearers[place].up = Some((teid, false));
        for bearer in &mut self.bearers {
            if let Some((_, doubted)) = &mut bearer.up {
                *doubted = false;
            }
            if let Some((_, state @ State::Ended)) = &mut bearer.down {
                *state = State::Doubted;
            }
        }
        if self.status == Status::Active && self.leading(0).is_none() {
            self.status = Status::Pending;
        }
        place
    }

    /// Whether a downlink packet by this tunnel, which is not known to lead to the UE, is believed.
    pub(super) fn believes(&self, tunnel: &Tunnel) -> bool {
        // What goes where the UE is not, is forwarded.
        let elsewhere =
            self.ran != tunnel.ran && matches!(self.status, Status::Active | Status::Pending);
        let relocated = self.core != tunnel.core && self.status == Status::Active;
        !self.said && !elsewhere && !relocated
    }

    pub(super) fn take_downlink(&mut self, tunnel: &Tunnel, qfi: Option<u8>) -> usize {
        if !self.is_between(tunnel) {
            self.move_to(tunnel);
        }
        let place = match qfi {
            Some(_) => 0,
            None => self
                .place(|it| it.is_to(tunnel.teid))
                .or_else(|| self.place(|it| it.down.is_none()))
                .or_else(|| self.place(|it| it.live().is_none()))
                .unwrap_or(BEARERS - 1),
        };
        if !self.bearers[place].is_to(tunnel.teid) {
            self.doubt();
            for (_, doubted) in self.bearers.iter_mut().filter_map(|it| it.up.as_mut()) {
                *doubted = true;
            }
        }
        self.bearers[place].down = Some((tunnel.teid, State::Live));
        self.status = Status::Active;
        place
    }
}
