//! What is done to rules before a kernel hears of them: `cargo bench -p benches --bench host`. It needs no root.

use std::time::Duration;

use benches::work;
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    for mut work in work::all() {
        criterion.bench_function(work.id, |bencher| bencher.iter(&mut work.run));
    }
}
