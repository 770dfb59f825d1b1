//! The sessions that are said, in parts, so that a change copies little however many there are.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use dataplane_user::rule::Rule;

use crate::session::{Session, SessionId};

/// A power of two.
const PARTS: u64 = 1024;

type Part = BTreeMap<SessionId, Arc<Session>>;

/// The sessions by UE; cheap to copy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    parts: BTreeMap<u64, Arc<Part>>,
    /// How often a zone has a QCI or 5QI.
    qci: BTreeMap<(u16, u8), usize>,
}

/// What is different between two states.
#[derive(Debug, Default)]
pub(crate) struct SessionChanges {
    /// Those that were said, be it with the same words: before and after.
    pub(crate) said: Vec<(Option<Arc<Session>>, Arc<Session>)>,
    /// Those that are not said any more.
    pub(crate) withdrawn: Vec<Arc<Session>>,
}

impl Sessions {
    pub(crate) fn get(&self, id: &SessionId) -> Option<&Arc<Session>> {
        self.parts.get(&part(id))?.get(id)
    }

    pub(crate) fn insert(&mut self, session: Arc<Session>) {
        let id = session.id();
        for qci in session.qci() {
            *self.qci.entry((id.zone, qci)).or_default() += 1;
        }
        let part = self.parts.entry(part(&id)).or_default();
        let before = Arc::make_mut(part).insert(id, session);
        before.inspect(|it| self.forget_qci(it));
    }

    pub(crate) fn remove(&mut self, id: &SessionId) -> bool {
        let part = self.parts.get_mut(&part(id));
        let before = part.and_then(|part| Arc::make_mut(part).remove(id));
        before.inspect(|it| self.forget_qci(it)).is_some()
    }

    fn forget_qci(&mut self, session: &Session) {
        for qci in session.qci() {
            let Entry::Occupied(mut count) = self.qci.entry((session.zone, qci)) else {
                continue;
            };
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    /// Why no packet can match `rule`, if each of its filters wants a QCI that no session says.
    pub(crate) fn refuse(&self, rule: &Rule) -> Option<String> {
        let why = rule.filters.iter().map(|filter| {
            let wanted = filter.qci?;
            let in_zone = |zone: u16| filter.zone.is_none_or(|it| it == zone);
            let mut said = self.qci.keys();
            let unsaid = !said.any(|(zone, qci)| *qci == wanted && in_zone(*zone));
            let of_zone = filter
                .zone
                .map_or_else(String::new, |it| format!(" of zone {it}"));
            unsaid.then(|| format!("no session{of_zone} says QCI or 5QI {wanted}"))
        });
        let why: Option<BTreeSet<_>> = why.collect();
        Some(Vec::from_iter(why?).join("; "))
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.values().map(|part| part.len()).sum()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        self.parts.values().flat_map(|part| part.values())
    }

    /// What leads from `before` to this.
    pub(crate) fn changes(&self, before: &Self) -> SessionChanges {
        let touched = |mine: &BTreeMap<u64, Arc<Part>>, number: &u64, part: &Arc<Part>| {
            mine.get(number).is_none_or(|it| !Arc::ptr_eq(it, part))
        };
        let mut changes = SessionChanges::default();
        for (_, part) in self
            .parts
            .iter()
            .filter(|(n, part)| touched(&before.parts, n, part))
        {
            for (id, session) in &**part {
                let old = before.get(id);
                if old.is_none_or(|old| !Arc::ptr_eq(old, session)) {
                    changes.said.push((old.cloned(), Arc::clone(session)));
                }
            }
        }
        for (_, part) in before
            .parts
            .iter()
            .filter(|(n, part)| touched(&self.parts, n, part))
        {
            let gone = part.iter().filter(|(id, _)| self.get(id).is_none());
            changes.withdrawn.extend(gone.map(|(_, it)| Arc::clone(it)));
        }
        changes
    }
}

impl SessionChanges {
    /// Whether nothing has to be said to the data path.
    pub(crate) const fn is_empty(&self) -> bool {
        self.said.is_empty() && self.withdrawn.is_empty()
    }

    /// Those that are not what they were.
    pub(crate) fn different(&self) -> impl Iterator<Item = (Option<&Session>, &Session)> {
        let pairs = self.said.iter().map(|(old, new)| (old.as_deref(), &**new));
        pairs.filter(|(old, new)| *old != Some(*new))
    }
}

fn part(id: &SessionId) -> u64 {
    let low = match id.ue_address {
        IpAddr::V4(address) => address.to_bits().into(),
        // Of a prefix of its own, a UE may have any address.
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits >> 64) as u64 ^ bits as u64
        }
    };
    low % PARTS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(ue: &str, downlink: u32) -> Arc<Session> {
        let text = format!(
            r#"{{"ueAddress": "{ue}", "ranAddress": "192.0.2.1", "coreAddress": "198.51.100.1",
                "bearers": [{{"uplinkTeid": 1, "downlinkTeid": {downlink}}}]}}"#
        );
        Arc::new(serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn changes_are_found_in_the_parts_that_were_touched() {
        let mut before = Sessions::default();
        for ue in ["10.45.0.1", "10.45.0.2", "10.45.4.1", "2001:db8::1"] {
            before.insert(session(ue, 1));
        }
        assert!(before.changes(&before.clone()).is_empty());
        let mut after = before.clone();
        // Of one part, both.
        after.insert(session("10.45.0.1", 2));
        after.insert(session("10.45.4.1", 1));
        assert!(after.remove(&session("2001:db8::1", 1).id()));
        assert!(!after.remove(&session("2001:db8::2", 1).id()));
        after.insert(session("10.45.0.9", 1));
        let changes = after.changes(&before);
        let mut said: Vec<_> = changes.said.iter().map(|(_, it)| it.to_string()).collect();
        said.sort();
        assert_eq!(said.len(), 3, "{said:?}");
        let different: Vec<_> = changes
            .different()
            .map(|(_, it)| it.id().to_string())
            .collect();
        assert_eq!(different, ["0/10.45.0.1", "0/10.45.0.9"]);
        let withdrawn: Vec<_> = changes
            .withdrawn
            .iter()
            .map(|it| it.id().to_string())
            .collect();
        assert_eq!(withdrawn, ["0/2001:db8::1"]);
        assert_eq!((before.len(), after.len()), (4, 4));
    }
}
