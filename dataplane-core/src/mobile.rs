//! Packets of UEs behind tunnels: sessions are learned from them, and answers go back by them.

use crate::{
    classify::InTunnel,
    flow::{Found, Record},
    parse::Facts,
    session::{self, Lesson, Session, SessionRef, Status},
    steer::{Duplicate, Plan, Send, Steering},
    table::{Direction, RuleAction, Tables, flag, verb},
    tunnel::{self, Tunnel, Way},
    verdict::{Reason, Verdict},
    wire::gtpu::PORT,
};

impl<T: Tables> Steering<'_, T> {
    const fn lesson(&self) -> Lesson<'_> {
        Lesson {
            facts: self.facts,
            port: self.port,
        }
    }

    /// Learns what a packet in a tunnel tells, and remembers it with its flow, if that is known. An ICMP error
    /// may be from anybody: the flow of what is `quoted` stays as it is. Answers whether the packet is of
    /// another UE than the flow.
    #[inline(always)]
    pub(crate) fn learn(&self, found: Option<&Found<'_>>, quoted: bool) -> bool {
        self.notes.session.set(0);
        let upstream = found.filter(|it| it.flow.direction() == Direction::Upstream);
        let upstream = upstream.map(|it| it.record);
        if self.is_from_target() {
            if self.is_from_peer() {
                let cell = self.facts.tunnel.target - 1;
                self.notes.session.set(SessionRef::of_peer(cell).into());
                self.follow_peer(upstream, quoted);
            }
            return false;
        }
        match self.facts.tunnel.way {
            Way::Uplink if self.port.is_upstream() => {
                return self.learn_uplink(upstream, quoted);
            }
            Way::Downlink if self.port.is_core() => {
                self.learn_downlink(found.map(|it| it.record));
            }
            Way::None if self.port.is_upstream() => self.follow_peer(upstream, quoted),
            Way::None | Way::Uplink | Way::Downlink | Way::Target => {}
        }
        false
    }

    /// Remembers with the flow of an upstream packet whether that came from a peer.
    #[inline(never)]
    fn follow_peer(&self, record: Option<&Record>, quoted: bool) {
        let Some(record) = record else {
            return;
        };
        let now = self.notes.session.get();
        let known = SessionRef::from(record.session.get());
        let before = if known.peer().is_some() {
            known.into()
        } else {
            0
        };
        if before != now && !quoted && !self.tables.read_only() {
            record.set_session(self.tables, now);
        }
    }

    #[inline(never)]
    fn learn_uplink(&self, record: Option<&Record>, quoted: bool) -> bool {
        // As on the short way, such a packet teaches nothing. (Asked before what is quoted: Linux 6.1 does not see that
        // there is a record when both are asked at once.)
        let usual = match record {
            Some(record)
                if session::is_usual(
                    self.tables,
                    record.session.get().into(),
                    &self.facts.tunnel,
                ) && record.came_by(&self.facts.link, self.port.slot) =>
            {
                record.session.get()
            }
            _ => 0,
        };
        if usual != 0 && !quoted {
            self.notes.session.set(usual);
            return false;
        }
        let session = match session::uplink(self.tables, &self.notes.key, &self.lesson()) {
            Ok(session) => session.into(),
            Err(reason) => {
                self.notes.refusal.set(reason);
                SessionRef::UNKNOWN.into()
            }
        };
        self.notes.session.set(session);
        let Some(record) = record else {
            return false;
        };
        let unknown = session == u64::from(SessionRef::UNKNOWN);
        // A flow keeps the session that it had.
        if !quoted && !self.tables.read_only() && (!unknown || record.session.get() == 0) {
            self.note_tunnel(record);
        }
        unknown && self.notes.refusal.get() as u8 == Reason::SessionConflict as u8
    }

    /// Notes with a flow the tunnel that its packet, this one, came by.
    fn note_tunnel(&self, record: &Record) {
        self.note_tunnel_ports(record);
        record.set_session(self.tables, self.notes.session.get());
    }

    /// Notes with a flow the ports of the tunnel that its packet, this one, came by.
    pub(crate) fn note_tunnel_ports(&self, record: &Record) {
        let tunnel = &self.facts.tunnel;
        if tunnel.way != Way::None {
            let class = record.tos.get() as u16;
            record
                .tos
                .set(u64::from(tunnel.ports) << 32 | u64::from(class));
        }
    }

    #[inline(never)]
    fn learn_downlink(&self, record: Option<&Record>) {
        let Some(found) = session::downlink(self.tables, &self.notes.key, &self.lesson()) else {
            return;
        };
        let qfi = self.facts.tunnel.qfi;
        self.notes.session.set(found.by(found.bearer(), qfi).into());
        if let Some(record) = record {
            let known = SessionRef::from(record.session.get());
            if known.id() == found.id() && known.generation() == found.generation() {
                let bearer = found.bearer();
                record.set_session(self.tables, known.by(bearer, known.qfi()).into());
            }
        }
    }

    /// Notes the session of a packet that something was learned from before.
    #[inline(never)]
    pub(crate) fn recognize(&self) {
        let (notes, tunnel) = (self.notes, &self.facts.tunnel);
        notes.session.set(0);
        let ue = match tunnel.way {
            Way::None | Way::Target => return,
            Way::Uplink => self.facts.key.source,
            Way::Downlink => self.facts.key.destination,
        };
        notes.key.set(&session::key(ue, self.port.zone));
        if let Some(known) = session::of(self.tables, &notes.key)
            && let Some(session) = session::get(self.tables, known)
            && let Some(place) = session.place(tunnel.way, tunnel.teid)
        {
            notes.session.set(known.by(place, tunnel.qfi).into());
        }
    }

    /// Notes what filters see of the packet's tunnel.
    #[inline(never)]
    pub(crate) fn see_tunnel(&self) {
        let Tunnel {
            ran,
            core,
            ports,
            qfi,
            way,
            target: opened,
            ..
        } = self.facts.tunnel;
        let outside = InTunnel {
            opened,
            ..InTunnel::NONE
        };
        let (source, target) = match way {
            Way::None => return self.notes.tunnel.set(InTunnel::NONE),
            Way::Target => return self.notes.tunnel.set(outside),
            Way::Uplink => (ran, core),
            Way::Downlink => (core, ran),
        };
        let known = SessionRef::from(self.notes.session.get());
        let session = session::get(self.tables, known);
        let qci = session.map_or(0, |session| session.qci(known.bearer(), qfi));
        let tunnel = InTunnel::new(source, target, ports, qci);
        self.notes.tunnel.set(InTunnel { opened, ..tunnel });
    }

    /// Notes what filters see of the tunnel by which upstream packets of a flow come, wherever this packet
    /// is from: endpoints and QCI as they are in the session now.
    #[inline(never)]
    pub(crate) fn see_tunnel_of_flow(&self, record: &Record) {
        let ports = (record.tos.get() >> 32) as u32;
        self.see_session(record.session.get().into(), ports);
    }

    /// Notes what filters see of the tunnel by which packets come of the UE in a zone that this one is for.
    #[inline(never)]
    pub(crate) fn see_tunnel_of_ue(&self, zone: u16) {
        self.notes
            .key
            .set(&session::key(self.facts.key.destination, zone));
        let known = session::of(self.tables, &self.notes.key);
        let known = known.unwrap_or_else(|| SessionRef::from(0));
        let qfi = session::get(self.tables, known).map_or(0, |session| session.qfi.get() as u8);
        let ports = u32::from(PORT) << 16 | u32::from(PORT);
        self.see_session(known.by(0, qfi), ports);
    }

    fn see_session(&self, known: SessionRef, ports: u32) {
        let tunnel = match session::get(self.tables, known) {
            Some(session) => {
                let (ran, core) = session.endpoints();
                InTunnel::new(ran, core, ports, session.qci(known.bearer(), known.qfi()))
            }
            None => InTunnel {
                opened: known.peer().map_or(0, |cell| cell + 1),
                ..InTunnel::NONE
            },
        };
        self.notes.tunnel.set(tunnel);
    }

    /// Whether what answers the packet, which is of no known flow, finds the UE.
    pub(crate) fn answers_arrive(&self) -> Result<(), Reason> {
        if self.facts.tunnel.way != Way::Uplink {
            return Ok(());
        }
        let known = self.notes.session.get();
        if known == u64::from(SessionRef::UNKNOWN) {
            return Err(self.notes.refusal.get());
        }
        match session::get(self.tables, known.into()).map(Session::status) {
            Some(Status::Active) => Ok(()),
            _ => Err(Reason::NoDownlinkTunnel),
        }
    }

    /// Whether what answers packets of a known flow finds the UE.
    pub(crate) fn reaches_ue(&self, record: &Record) -> bool {
        let session = record.session.get();
        let status = || session::get(self.tables, session.into()).map(Session::status);
        let of_peer = SessionRef::from(session).peer().is_some();
        session == 0 || of_peer || status() == Some(Status::Active)
    }

    /// Notes the tunnel of a packet to or from a UE that is behind one. Answers how many octets that
    /// adds, or `None` when there is no such tunnel now.
    pub(crate) fn tunnel(&self, record: &Record, way: Way) -> Option<u32> {
        let session = record.session.get();
        if !T::TUNNELS || session == 0 || self.facts.tunnel.is_of_ue() {
            return Some(0);
        }
        self.enter(session.into(), way)
    }

    /// Notes the tunnel by which an answer goes to who sent a packet in a tunnel. `false`: there is none now.
    #[inline(never)]
    pub(crate) fn tunnel_back(&self) -> bool {
        let Facts { key, tunnel, .. } = self.facts;
        if self.is_from_target() {
            return tunnel.way == Way::Target && self.note_target(tunnel.target - 1);
        }
        let (ue, way) = if tunnel.way == Way::Uplink {
            (key.source, Way::Downlink)
        } else {
            (key.destination, Way::Uplink)
        };
        self.notes.key.set(&session::key(ue, self.port.zone));
        let Some(known) = session::of(self.tables, &self.notes.key) else {
            return false;
        };
        session::exit(self.tables, known.by(0, tunnel.qfi), way, &self.notes.exit)
    }

    #[inline(never)]
    fn enter(&self, session: SessionRef, way: Way) -> Option<u32> {
        if let Some(cell) = session.peer() {
            // What goes on to the core is what the UE has sent.
            let back = way == Way::Downlink;
            return match back && self.note_target(cell) {
                true => Some(self.notes.exit.overhead() as u32),
                false if back => None,
                false => Some(0),
            };
        }
        session::exit(self.tables, session, way, &self.notes.exit)
            .then(|| self.notes.exit.overhead() as u32)
    }

    /// A packet that comes under no rule: an application may have sent it to a UE on its own.
    pub(crate) fn of_no_rule(&self) -> Plan {
        if !T::TUNNELS || !self.port.sees_gtpu() || self.facts.tunnel.way != Way::None {
            self.leave(Reason::NoRule)
        } else if self.port.is_app() {
            self.initiated()
        } else if tunnel::is_gtpu(self.facts) && self.facts.tunnel.unconfigured {
            self.leave(Reason::GtpuUnconfigured)
        } else {
            self.leave(Reason::NoRule)
        }
    }

    #[inline(never)]
    fn initiated(&self) -> Plan {
        self.notes
            .key
            .set(&session::key(self.facts.key.destination, self.port.zone));
        let Some(known) = session::of(self.tables, &self.notes.key) else {
            return self.leave(Reason::NoRule);
        };
        let lost = self.leave(Reason::NoDownlinkTunnel);
        let Some(session) = session::get(self.tables, known) else {
            return lost;
        };
        let ue = session.path.ue.get();
        let Some(access) = self.tables.port_in(ue as u16).filter(|_| ue != 0) else {
            return lost;
        };
        let known = known.by(0, session.qfi.get() as u8);
        let Some(overhead) = self.enter(known, Way::Downlink) else {
            return lost;
        };
        let send = Send {
            verdict: Verdict::redirect(access.slot, Reason::AppInitiated),
            flags: flag::ROUTE.into(),
            address: [0; 2],
            port: 0,
            destination: ue >> 16,
            source: session.path.core.get(),
            tags: session.path.tags.get(),
            mtu: access.mtu,
        };
        self.plan(send.into_tunnel(overhead))
    }

    /// Whether `action` asks what is not done to a packet in a tunnel: a copy without more octets of headers
    /// than are taken off, or another address inside of it.
    #[inline(always)]
    pub(crate) fn is_beyond(&self, action: &RuleAction) -> bool {
        let kept = action.flags & flag::ENCAPSULATED != 0;
        self.facts.tunnel.is_of_ue()
            && match action.verb {
                verb::DUPLICATE => !kept && self.facts.outside() > Duplicate::OUTSIDE,
                verb::FORWARD => kept && action.flags & flag::NAT != 0,
                _ => false,
            }
    }
}
