//! What applications of a zone, and the IP versions, keep apart and what not.

use dataplane_core::Reason::{Replied, Steered};

use super::{Family, Scenario, V4, V6, answer, to_app, to_ue};
use crate::world::World;

pub(super) fn scenarios(family: &Family, all: &mut Vec<Scenario>) {
    let world = World::new();
    let up = family.udp(443);
    let there = to_app(&world, "app0", &up);
    let elsewhere = answer(&to_app(&world, "app1", &up));
    all.push(
        Scenario::new(
            "behind any port of a zone, applications may answer for one another",
            family,
            &["a/1 prio 1 flow to SERVICE forward mac 02:00:00:00:0a:01 via app0"],
        )
        .sent("access0", &up, Steered, "app0", &there)
        .sent(
            "app1",
            &elsewhere,
            Replied,
            "access0",
            &to_ue(&elsewhere, &up),
        )
        .flow(&up, 1, &up.reversed(), 1),
    );
    let other = if family.is_v4() { &V6 } else { &V4 };
    for filter in ["any", &format!("from {},UES", other.ues)] {
        let of_other = format!(
            "a/1 prio 1 flow {filter} forward ip {} nat via app1",
            other.app1
        );
        let of_own = format!("a/2 prio 2 flow {filter} forward ip APP0 nat via app0");
        let translated = there.clone().ttl(63).to(family.app0);
        let back = answer(&translated);
        all.push(
            Scenario::new(
                &format!("addresses are translated within an IP version, {filter}"),
                family,
                &[&of_other, &of_own],
            )
            .sent("access0", &up, Steered, "app0", &translated)
            .sent(
                "app0",
                &back,
                Replied,
                "access0",
                &to_ue(&back, &up).ttl(63),
            ),
        );
    }
}
