//! UEs behind tunnels, in the terms of the daemon and of the data path.

use std::sync::Arc;

use dataplane_user as user;

use super::sentence;
use crate::{
    dataplane::{Session, SessionCount, SessionPage, SessionQuery, SessionState, Tunnels},
    session::{QosFlow, Session as Said, SessionId},
    store::Sessions,
};

pub(super) fn page(dataplane: &user::Dataplane, query: &SessionQuery) -> SessionPage {
    let filter = user::SessionFilter {
        zone: query.zone,
        ue: query.ue,
        status: query.state.map(status),
    };
    let (sessions, next) = dataplane.find_sessions(&filter, query.from, query.limit);
    SessionPage {
        sessions: sessions.into_iter().map(session).collect(),
        next,
    }
}

pub(super) fn provision(
    dataplane: &mut user::Dataplane,
    said: &[Arc<Said>],
    withdrawn: &[SessionId],
) -> Result<(), String> {
    let bindings: Vec<_> = said.iter().map(|said| binding(said)).collect();
    let provisioned = dataplane.provision(&bindings);
    provisioned.map_err(|error| sentence(&error))?;
    let ues: Vec<_> = withdrawn
        .iter()
        .map(|id| (id.zone, id.ue_address))
        .collect();
    dataplane.withdraw(&ues);
    Ok(())
}

pub(super) fn reprovision(
    dataplane: &mut user::Dataplane,
    sessions: &Sessions,
) -> Result<(), String> {
    let bindings: Vec<_> = sessions.iter().map(|said| binding(said)).collect();
    let provisioned = dataplane.reprovision(&bindings);
    provisioned.map_err(|error| sentence(&error))
}

fn binding(said: &Said) -> user::Binding {
    let bearers = said.bearers.iter().map(|bearer| user::Bearer {
        uplink: bearer.uplink_teid,
        downlink: bearer.downlink_teid,
        qci: bearer.qci,
    });
    let qos_flows = said.qos_flows.iter().map(|flow| user::QosFlow {
        qfi: flow.qfi,
        five_qi: flow.five_qi,
    });
    user::Binding {
        zone: said.zone,
        ue: said.ue_address,
        ran: said.ran_address,
        core: said.core_address,
        bearers: bearers.collect(),
        qos_flows: qos_flows.collect(),
    }
}

pub(super) fn session(session: user::Session) -> Session {
    let bearers = session.bearers.iter().map(|tunnels| Tunnels {
        uplink_teid: tunnels.uplink,
        downlink_teid: tunnels.downlink,
        qci: tunnels.qci,
    });
    let qos_flows = session.qos_flows.iter().map(|flow| QosFlow {
        qfi: flow.qfi,
        five_qi: flow.five_qi,
    });
    Session {
        zone: session.zone,
        ue_address: session.ue,
        ran_address: session.ran,
        core_address: session.core,
        bearers: bearers.collect(),
        qos_flows: qos_flows.collect(),
        provisioned: session.provisioned,
        state: state(session.status),
        qfi: session.qfi,
        last_seen: session.last_seen,
    }
}

pub(super) fn count(count: user::SessionCount) -> SessionCount {
    SessionCount {
        state: state(count.status),
        provisioned: count.provisioned,
        sessions: count.sessions,
    }
}

const fn state(status: user::SessionStatus) -> SessionState {
    match status {
        user::SessionStatus::Uplink => SessionState::Uplink,
        user::SessionStatus::Active => SessionState::Active,
        user::SessionStatus::Pending => SessionState::Pending,
        user::SessionStatus::Ended => SessionState::Ended,
    }
}

const fn status(state: SessionState) -> user::SessionStatus {
    match state {
        SessionState::Uplink => user::SessionStatus::Uplink,
        SessionState::Active => user::SessionStatus::Active,
        SessionState::Pending => user::SessionStatus::Pending,
        SessionState::Ended => user::SessionStatus::Ended,
    }
}
