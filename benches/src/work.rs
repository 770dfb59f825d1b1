//! What is done to rules before a kernel hears of them.

use std::{fmt, time::Instant};

use dataplane_core::table::Hop;
use dataplane_user::{HostTables, compile, rule::Rule};

use crate::{Row, changes::change, limits, rules};

/// A rule with lists, which becomes sixteen filters.
const RULE: &str = "video/live prio 10 flow from 10.45.0.0/16,10.46.0.0/16 to 203.0.113.9,203.0.113.17 proto tcp,udp \
     dport 443,8000-8999 forward ip 198.18.1.2 via app0";

/// A piece of work that can be done again and again.
pub struct Work {
    /// Its name.
    pub id: &'static str,
    /// Does it once.
    pub run: Box<dyn FnMut()>,
}

impl fmt::Debug for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Work").field(&self.id).finish()
    }
}

/// All of them, done `times` times.
pub fn measure(times: usize) -> Vec<Row> {
    let rows = all().into_iter().map(|Work { id, mut run }| {
        let time = |_| {
            let begun = Instant::now();
            run();
            begun.elapsed()
        };
        Row::times(id, None, (0..times).map(time).collect())
    });
    rows.collect()
}

/// All of them.
pub fn all() -> Vec<Work> {
    const MANY: u32 = 10_000;
    let work = |id, run| Work { id, run };
    let rule: Rule = RULE.parse().expect("a rule");
    let tables = || {
        let (mut tables, wanted) = (HostTables::new(limits(MANY, 1)), rules(MANY));
        tables.apply(&wanted, &|_, _| hop()).expect("they fit");
        (tables, wanted)
    };
    let (mut same, same_rules) = tables();
    let (mut other, mut other_rules) = tables();
    vec![
        work(
            "parse-rule",
            Box::new(|| {
                RULE.parse::<Rule>().expect("a rule");
            }),
        ),
        work(
            "compile-rule",
            Box::new(move || {
                compile(&rule).expect("few filters");
            }),
        ),
        work(
            "diff-10k",
            Box::new(move || {
                let applied = same.apply(&same_rules, &|_, _| hop());
                applied.expect("nothing to do");
            }),
        ),
        work(
            "change-one-of-10k",
            Box::new(move || {
                change(&mut other_rules);
                let applied = other.apply(&other_rules, &|_, _| hop());
                applied.expect("one changed");
            }),
        ),
    ]
}

/// Where every next hop is.
fn hop() -> Option<Hop> {
    Some(Hop {
        mac: 0x0200_0000_0a01,
        slot: 0,
    })
}
