//! How long it takes to put rules in force: `cargo bench -p benches --bench apply`.

use std::time::{Duration, Instant};

use anyhow::Result;
use benches::{Host, LIMITS, rules};
use criterion::Criterion;
use dataplane_user::rule::{Rule, RuleSet};

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
                apply(&mut host, &none);
                apply(&mut host, &thousand)
            });
            time.sum()
        });
    });

    let mut many = rules(10_000);
    apply(&mut host, &many);
    let mut odd = false;
    criterion.bench_function("one of 10,000 rules", |bencher| {
        bencher.iter_custom(|times| {
            let time = (0..times).map(|_| {
                let mut rule = Rule::clone(many.iter().nth(5_000).expect("a rule"));
                odd = !odd;
                rule.priority = 100 + u8::from(odd);
                many.insert(rule);
                apply(&mut host, &many)
            });
            time.sum()
        });
    });
    Ok(())
}

fn apply(host: &mut Host, rules: &RuleSet) -> Duration {
    host.with(|dataplane| {
        let begun = Instant::now();
        let applied = dataplane.apply(rules).expect("rules that fit");
        let time = begun.elapsed();
        assert!(
            applied.not_installed.is_empty(),
            "{:?}",
            applied.not_installed
        );
        time
    })
}
