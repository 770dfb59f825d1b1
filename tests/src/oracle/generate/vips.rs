//! Random VIPs, and what may be changed in them.

use dataplane_user::rule::{
    Action, Affinity, Backend, BackendState, Balance, Endpoint, EndpointAddress, Filter,
    FilterType, Place, Rule,
};
use proptest::{
    option,
    prelude::*,
    sample::{select, subsequence},
};

use super::{
    Arrival, SERVICES, SERVICES6,
    rules::{Change, UE_RANGES, Ues, endpoint, far_endpoint, id, parse, some},
};

/// VIPs at most.
pub(super) const MOST: usize = 2;

/// Seconds that a UE keeps its backend, unless it is for longer than a case.
const TIMEOUT: u32 = 10;

/// Ids of backends, in order.
const IDS: [&str; 4] = ["B", "a", "ab", "b"];

/// What changes in a VIP. Backends are counted around.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The state of a backend.
    State(usize, BackendState),
    /// The weight of a backend.
    Weight(usize, u16),
    /// The states of all backends.
    States(BackendState),
    /// A backend comes, or is another.
    Come(Backend),
    /// A backend goes.
    Go(usize),
    /// What keeps a backend.
    Affinity(Affinity),
    /// Where flows go without one.
    Fallback(Option<Endpoint>),
    /// What the VIP is.
    Filters(Vec<Filter>),
}

impl Edit {
    /// Changes the rule for the VIP at this place.
    pub(super) fn apply(&self, at: usize, rules: &mut [Rule]) {
        let balances = |rule: &&mut Rule| matches!(rule.action, Action::Balance(_));
        let mut vips: Vec<_> = rules.iter_mut().filter(balances).collect();
        let Some(at) = at.checked_rem(vips.len()) else {
            return;
        };
        let vip = &mut *vips[at];
        if let Self::Filters(filters) = self {
            vip.filters.clone_from(filters);
        }
        if let Action::Balance(balance) = &mut vip.action {
            self.change(balance);
        }
        make_sound(vip);
    }

    fn change(&self, balance: &mut Balance) {
        let backends = &mut balance.backends;
        let count = backends.len();
        let place = |at: &usize| at.checked_rem(count);
        match self {
            Self::State(at, state) => {
                if let Some(at) = place(at) {
                    backends[at].state = *state;
                }
            }
            Self::Weight(at, weight) => {
                if let Some(at) = place(at) {
                    backends[at].weight = *weight;
                }
            }
            Self::States(state) => backends.iter_mut().for_each(|it| it.state = *state),
            Self::Come(backend) => {
                backends.retain(|it| it.id != backend.id);
                backends.push(backend.clone());
                backends.sort_by(|one, other| one.id.cmp(&other.id));
            }
            Self::Go(at) => {
                if let Some(at) = place(at) {
                    backends.remove(at);
                }
            }
            Self::Affinity(affinity) => balance.affinity = *affinity,
            Self::Fallback(fallback) => balance.fallback.clone_from(fallback),
            Self::Filters(_) => {}
        }
    }
}

/// Time passes: twice until a UE is forgotten, or once.
pub(super) fn wait() -> impl Strategy<Value = Arrival> {
    select(vec![TIMEOUT / 2 + 1, TIMEOUT + 1]).prop_map(Arrival::Wait)
}

/// A change of a VIP.
pub(super) fn change(ues: Ues) -> impl Strategy<Value = Change> {
    let place = || 0..IDS.len();
    let edit = prop_oneof![
        6 => (place(), state()).prop_map(|(at, state)| Edit::State(at, state)),
        3 => (place(), weight()).prop_map(|(at, weight)| Edit::Weight(at, weight)),
        2 => state().prop_map(Edit::States),
        3 => (select(&IDS[..]), backend(ues)).prop_map(|(id, backend)| Edit::Come(named(backend, id))),
        2 => place().prop_map(Edit::Go),
        1 => affinity().prop_map(Edit::Affinity),
        1 => fallback(ues).prop_map(Edit::Fallback),
        1 => filters().prop_map(Edit::Filters),
    ];
    (0..MOST, edit).prop_map(|(at, edit)| Change::Vip(at, edit))
}

/// A rule for a VIP; its id is to be given.
pub(super) fn vip(ues: Ues) -> impl Strategy<Value = Rule> {
    let ids = subsequence(&IDS[..], 0..IDS.len());
    let backends = ids.prop_flat_map(move |ids| {
        let count = ids.len();
        let named = move |backends: Vec<Backend>| {
            let pairs = backends.into_iter().zip(ids.clone());
            pairs.map(|(backend, id)| named(backend, id)).collect()
        };
        prop::collection::vec(backend(ues), count).prop_map(named)
    });
    let priority = prop_oneof![2 => Just(0), 1 => 1..4u8];
    let silent = prop::bool::weighted(0.2);
    let parts = (
        priority,
        filters(),
        affinity(),
        backends,
        fallback(ues),
        silent,
    );
    parts.prop_map(
        |(priority, filters, affinity, backends, fallback, silent)| {
            let mut rule = Rule {
                id: id(0),
                priority,
                filter_type: FilterType::Flow,
                filters,
                action: Action::Balance(Balance {
                    affinity,
                    backends,
                    fallback,
                    silent,
                }),
            };
            make_sound(&mut rule);
            rule
        },
    )
}

/// What a VIP is: one or two addresses of an IP version, with ports or protocols or without.
fn filters() -> impl Strategy<Value = Vec<Filter>> {
    let addresses = prop_oneof![
        3 => Just(vec![SERVICES[0]]),
        2 => some(&SERVICES, 2),
        1 => Just(vec![SERVICES6[0]]),
        1 => some(&SERVICES6, 2),
    ];
    let protocols = prop_oneof![
        1 => Just(vec![]),
        3 => Just(vec![6, 17]),
        1 => select(vec![vec![6], vec![17], vec![6, 132]]),
    ];
    let ports = prop_oneof![3 => Just(vec![]), 1 => select(vec![vec!["80"], vec!["79-443"]])];
    let sources = option::weighted(0.1, select(&UE_RANGES[..]));
    let zone = option::weighted(0.1, prop_oneof![Just(0), Just(2)]);
    let parts = (addresses, protocols, ports, sources, zone);
    parts.prop_map(|(to, protocol, dst_port, from, zone)| {
        let filter = Filter {
            dst: parse(&to),
            dst_port: parse(&dst_port),
            protocol,
            zone,
            ..Filter::default()
        };
        let narrow = Filter {
            src: parse(from.as_slice()),
            ..filter.clone()
        };
        let v4 = filter.dst[0].is_ipv4();
        let fits = narrow.src.iter().all(|range| range.is_ipv4() == v4);
        vec![if fits { narrow } else { filter }]
    })
}

fn backend(ues: Ues) -> impl Strategy<Value = Backend> {
    let far = u32::from(ues == Ues::Mobile);
    let endpoint = prop_oneof![5 => translating(), far => far_endpoint().boxed()];
    (weight(), state(), endpoint).prop_map(|(weight, state, endpoint)| Backend {
        id: IDS[0].parse().expect("a short id"),
        weight,
        state,
        endpoint,
    })
}

fn named(backend: Backend, id: &str) -> Backend {
    Backend {
        id: id.parse().expect("a short id"),
        ..backend
    }
}

/// An endpoint with an address, and sometimes a port, of its own.
fn translating() -> BoxedStrategy<Endpoint> {
    let port = option::weighted(0.5, select(vec![8443, 80]));
    let own = (endpoint(), prop::bool::weighted(0.7), port);
    let own = own.prop_map(|(mut endpoint, own, port)| {
        if let EndpointAddress::Ip { nat, nat_port, .. } = &mut endpoint.address {
            (*nat, *nat_port) = (own, port.filter(|_| own));
        }
        endpoint
    });
    own.boxed()
}

fn weight() -> impl Strategy<Value = u16> {
    prop_oneof![3 => Just(1), 1 => Just(0), 1 => Just(3)]
}

fn state() -> impl Strategy<Value = BackendState> {
    prop_oneof![
        3 => Just(BackendState::Up),
        1 => Just(BackendState::Draining),
        1 => Just(BackendState::Down),
    ]
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let ue = |timeout| Just(Affinity::Ue { timeout });
    prop_oneof![2 => Just(Affinity::Flow), 1 => ue(TIMEOUT), 1 => ue(3600)]
}

fn fallback(ues: Ues) -> BoxedStrategy<Option<Endpoint>> {
    let some = match ues {
        Ues::Plain => endpoint().boxed(),
        Ues::Mobile => prop_oneof![endpoint(), far_endpoint()].boxed(),
    };
    option::weighted(0.4, some).boxed()
}

/// Has only those addresses and ports translated that can be.
fn make_sound(rule: &mut Rule) {
    while let Err(error) = rule.check() {
        let (Action::Balance(balance), Place::Nat(at)) = (&mut rule.action, error.place) else {
            panic!("{rule}: {error}");
        };
        if let EndpointAddress::Ip { nat, nat_port, .. } =
            &mut balance.backends[at].endpoint.address
        {
            *nat &= nat_port.take().is_some();
        }
    }
}
