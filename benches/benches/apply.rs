//! How long it takes to put rules in force: `cargo bench -p benches --bench apply`.

use std::time::Duration;

use anyhow::Result;
use benches::{Host, LIMITS, changes::change, rules};
use criterion::Criterion;
use dataplane_user::rule::RuleSet;

fn main() -> Result<()> {
    let mut host = Host::new(LIMITS, false)?;
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3));

    let (none, thousand) = (RuleSet::default(), rules(1_000));
    criterion.bench_function("1,000 rules from nothing", |bencher| {
        bencher.iter_custom(|times| {
            let time = (0..times).map(|_| {
                host.apply(&none).expect("no rules");
                host.apply(&thousand).expect("rules that fit")
            });
            time.sum()
        });
    });

    let mut many = rules(10_000);
    host.apply(&many)?;
    criterion.bench_function("one of 10,000 rules", |bencher| {
        bencher.iter_custom(|times| {
            let time = (0..times).map(|_| {
                change(&mut many);
                host.apply(&many).expect("rules that fit")
            });
            time.sum()
        });
    });
    Ok(())
}
