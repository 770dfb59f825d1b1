//! Packets of UEs behind tunnels.

use std::net::IpAddr;

use dataplane_core::Reason;
use dataplane_user::rule::{Action, Endpoint, EndpointAddress, RuleId, Tunnel};

use super::{
    Bearing, Came, Direction, Fate, Frame, Oracle, Outcome, envelope::Way, flows::Flow,
    is_upstream, original, rules::InTunnel, sessions::Sessions,
};
use crate::{
    packet::{G_PDU, GTPU_PORT, Gtpu, Packet},
    world::{self, Port, Role},
};

/// What a packet taught of a UE.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lesson {
    /// Nothing: it is in no tunnel, or comes from where no tunnel begins.
    None,
    /// Nothing, and why not.
    Refused(Reason),
    /// By which bearer a UE sends.
    Learned(Bearing),
    /// By which bearer the core sends to a UE.
    Sent(Bearing),
}

impl Lesson {
    /// Whether the packet is of another UE than those with this address before.
    pub(super) const fn is_conflict(self) -> bool {
        matches!(self, Self::Refused(Reason::SessionConflict))
    }

    /// How the packet came.
    pub(super) const fn came(self) -> Came {
        match self {
            Self::None | Self::Sent(_) => Came::Plainly,
            Self::Refused(_) => Came::Unknown,
            Self::Learned(bearing) => Came::By(bearing),
        }
    }
}

impl Oracle<'_> {
    /// What a message between the ends of tunnels, if this is one, is counted as.
    pub(super) fn message(&mut self, port: &Port, frame: &Frame) -> Option<Reason> {
        let message = frame.message()?;
        let envelope = frame.envelope.as_ref()?;
        let mut tunnel = envelope.tunnel();
        Some(match message {
            254 => {
                if port.role == Role::Core && envelope.way == Way::Downlink {
                    self.sessions.end(port.zone, &tunnel, Way::Downlink);
                }
                Reason::GtpuEndMarker
            }
            26 => {
                // The first element is the TEID that is not there.
                let [16, teid @ ..] = *envelope.gtpu.content.first_chunk::<5>()? else {
                    return None;
                };
                tunnel.teid = u32::from_be_bytes(teid);
                // It is about a tunnel to who sends it.
                match (port.role, envelope.way) {
                    (Role::Access, Way::Uplink) => {
                        self.sessions.end(port.zone, &tunnel, Way::Downlink);
                    }
                    (Role::Core, Way::Downlink) => {
                        self.sessions.end(port.zone, &tunnel, Way::Uplink);
                    }
                    _ => {}
                }
                Reason::GtpuErrorIndication
            }
            1 | 2 => Reason::GtpuEcho,
            31 => Reason::GtpuSupportedExtensionHeaders,
            _ => Reason::GtpuOther,
        })
    }

    /// Takes over what a packet, of this flow if it is known, or an error that has `quoted` it,
    /// says of tunnels.
    pub(super) fn learn(
        &mut self,
        port: &Port,
        frame: &Frame,
        found: Option<(usize, Direction)>,
        quoted: bool,
    ) -> Lesson {
        let Some(envelope) = frame.envelope.as_ref().filter(|_| frame.outside.is_none()) else {
            if !quoted
                && is_upstream(port, frame)
                && let Some((flow, Direction::Upstream)) = found
                && let Some(flow) = self.flows.all.get_mut(flow)
                && (flow.peer.is_some() || frame.of_peer().is_some())
            {
                flow.follow(frame, Lesson::None);
            }
            return Lesson::None;
        };
        match (envelope.way, port.role) {
            (Way::Uplink, Role::Access) => {}
            (Way::Downlink, Role::Core) => {
                let address = frame.packet.destination;
                let seen = self.sessions.downlink(port.zone, address, envelope);
                let flow = found.and_then(|(flow, _)| self.flows.all.get_mut(flow));
                if let (Some(seen), Some(Flow { came, .. })) = (seen, flow)
                    && let Came::By(known) = came
                {
                    *known = Sessions::by_bearer_of(*known, seen);
                }
                return seen.map_or(Lesson::None, Lesson::Sent);
            }
            _ => return Lesson::None,
        }
        let upstream = found.filter(|(_, direction)| *direction == Direction::Upstream);
        // An error about a flow may be from anybody.
        let upstream = upstream.filter(|_| !quoted);
        let flow = upstream.and_then(|(flow, _)| self.flows.all.get_mut(flow));
        if let Some(flow) = flow
            && let Came::By(known) = flow.came
            && self.sessions.is_usual(known, envelope)
            && flow.came_by(port, &frame.packet)
        {
            return Lesson::Learned(known);
        }
        let learned = self
            .sessions
            .uplink(port.name, port.zone, &frame.packet, envelope);
        let lesson = learned.map_or_else(Lesson::Refused, Lesson::Learned);
        if let Some((flow, _)) = upstream
            && let Some(flow) = self.flows.all.get_mut(flow)
            && (flow.came == Came::Plainly && flow.peer.is_none() || learned.is_ok())
        {
            flow.follow(frame, lesson);
        }
        lesson
    }

    /// What filters see of the tunnel of a packet that taught this.
    pub(super) fn tunnel(&self, frame: &Frame, lesson: Lesson) -> Option<InTunnel> {
        let outer = &frame.envelope.as_ref()?.outer;
        Some(InTunnel {
            addresses: (outer.source, outer.destination),
            ports: outer.ports()?,
            qci: match lesson {
                Lesson::Learned(bearing) | Lesson::Sent(bearing) => self.sessions.qci(bearing),
                Lesson::None | Lesson::Refused(_) => None,
            },
        })
    }

    /// Whether what answers a packet of no known flow finds the UE.
    pub(super) fn answers_arrive(&self, lesson: Lesson) -> Result<(), Reason> {
        match lesson {
            Lesson::None | Lesson::Sent(_) => Ok(()),
            Lesson::Refused(reason) => Err(reason),
            Lesson::Learned(bearing) if self.sessions.is_active(bearing) => Ok(()),
            Lesson::Learned(_) => Err(Reason::NoDownlinkTunnel),
        }
    }

    /// Whether what answers the packets of a flow finds the UE.
    pub(super) fn reaches_ue(&self, flow: &Flow) -> bool {
        match flow.came {
            Came::Plainly => true,
            Came::Unknown => false,
            Came::By(bearing) => self.sessions.is_active(bearing),
        }
    }

    /// The packet as it goes through the tunnels of its flow, if there are any. `None`: there is none now.
    pub(super) fn through_tunnel(&self, frame: &Frame, flow: &Flow, way: Way) -> Option<Frame> {
        if frame.envelope.is_some() {
            return Some(frame.clone());
        }
        let envelope = match flow.came {
            Came::Plainly => None,
            Came::Unknown => return None,
            Came::By(bearing) => {
                let class = frame.packet.class;
                Some(self.sessions.envelope(bearing, way, class)?)
            }
        };
        Some(frame.clone().within(envelope))
    }

    /// An answer on the way that the flow came in; `routed` to the UE by the host if it was to `endpoint`.
    pub(super) fn to_ue(
        &self,
        frame: &Frame,
        flow: &Flow,
        rule: Option<RuleId>,
        endpoint: Option<&Endpoint>,
    ) -> Outcome {
        let Some(mut sent) = self.through_tunnel(frame, flow, Way::Downlink) else {
            return pending(rule);
        };
        sent.outside = None;
        let address = endpoint.map(|endpoint| endpoint.address);
        if address.is_some_and(|address| !matches!(address, EndpointAddress::Mac(_))) {
            let built = frame.envelope.is_none().then(|| sent.envelope.take());
            if !sent.hop() {
                return original(Reason::TtlExpired);
            }
            if let Some(envelope) = built {
                sent.envelope = envelope;
            }
        }
        if let Some(EndpointAddress::Ip {
            address,
            nat: true,
            nat_port,
        }) = address
        {
            let asked = nat_port
                .and_then(|_| flow.first.ports())
                .map(|(_, asked)| asked);
            sent.translate_source(address, flow.first.destination, asked);
        }
        turn_to(&mut sent, &flow.latest);
        if frame.envelope.is_none() {
            let own = sent.packet.source_mac;
            sent.outside = flow.peer.as_ref().map(|peer| peer.back(&sent, own));
        }
        Outcome {
            rule,
            reason: Reason::Replied,
            fate: Fate::Sent(flow.port, sent),
        }
    }

    /// What becomes of a packet of no flow and no rule: an application may send to a UE first.
    pub(super) fn initiated(&self, port: &Port, frame: &Frame) -> Outcome {
        if port.role != Role::App || frame.envelope.is_some() || frame.outside.is_some() {
            let unconfigured = port.role != Role::App && is_unconfigured(frame);
            return original(if unconfigured {
                Reason::GtpuUnconfigured
            } else {
                Reason::NoRule
            });
        }
        match self.sessions.way_to(port.zone, &frame.packet) {
            Err(reason) => original(reason),
            Ok((envelope, access, latest)) => {
                let mut sent = frame.clone();
                if !sent.hop() {
                    return original(Reason::TtlExpired);
                }
                sent.envelope = Some(envelope);
                turn_to(&mut sent, &latest);
                Outcome {
                    rule: None,
                    reason: Reason::AppInitiated,
                    fate: Fate::Sent(access, sent),
                }
            }
        }
    }
}

/// Whether this is a G-PDU that nobody looks into, of which an endpoint is not configured.
fn is_unconfigured(frame: &Frame) -> bool {
    let packet = &frame.packet;
    let gtpu = world::gtpu();
    let is_configured = |address: IpAddr| {
        let mut ranges = gtpu.ran.iter().chain(&gtpu.core);
        ranges.any(|range| range.contains(address))
    };
    let to_gtpu = packet.protocol() == 17 && packet.flow_ports().1 == GTPU_PORT;
    let message = Gtpu::parse(&packet.payload).map(|it| it.message);
    to_gtpu
        && frame.envelope.is_none()
        && frame.piece.is_none()
        && message == Ok(G_PDU)
        && !(is_configured(packet.source) && is_configured(packet.destination))
}

/// Addresses a frame as the answer to `question` on the link that this came by.
pub(super) fn turn_to(sent: &mut Frame, question: &Packet) {
    sent.packet.tags = question.tags.clone();
    sent.packet.source_mac = question.destination_mac;
    sent.packet.destination_mac = question.source_mac;
}

/// Whether packets go to the application with their tunnel.
pub(super) fn keeps_tunnel(action: &Action) -> bool {
    match action {
        Action::Forward { tunnel, .. } | Action::Duplicate { tunnel, .. } => {
            *tunnel == Tunnel::Encapsulated
        }
        Action::Drop | Action::Passthrough | Action::Balance(_) => false,
    }
}

/// Whether an action asks what is not done to packets in tunnels.
pub(super) fn is_beyond(action: &Action) -> bool {
    match action {
        Action::Forward { .. } => keeps_tunnel(action) && action.translates_to().is_some(),
        Action::Drop | Action::Passthrough | Action::Duplicate { .. } | Action::Balance(_) => false,
    }
}

pub(super) fn pending(rule: Option<RuleId>) -> Outcome {
    Outcome {
        rule,
        reason: Reason::DownlinkPending,
        fate: Fate::Discarded,
    }
}
