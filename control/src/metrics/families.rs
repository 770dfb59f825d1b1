use std::{collections::HashMap, time::Duration};

use prometheus::{CounterVec, GaugeVec, Opts, core::Collector, proto::MetricFamily};

/// Families of metrics whose values are known already.
#[derive(Default)]
pub(super) struct Families(pub(super) Vec<MetricFamily>);

impl Families {
    pub(super) fn counter(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<String>, u64)>,
    ) {
        let Ok(family) = CounterVec::new(options(name, help), labels) else {
            return;
        };
        for (values, value) in sum(series) {
            family.with_label_values(&values).inc_by(value);
        }
        self.add(&family);
    }

    pub(super) fn gauge(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<String>, u64)>,
    ) {
        let Ok(family) = GaugeVec::new(options(name, help), labels) else {
            return;
        };
        for (values, value) in sum(series) {
            family.with_label_values(&values).set(value);
        }
        self.add(&family);
    }

    /// A gauge of times, each of which is of other labels.
    pub(super) fn seconds(
        &mut self,
        name: &str,
        help: &str,
        labels: &[&str],
        series: impl IntoIterator<Item = (Vec<String>, Duration)>,
    ) {
        let Ok(family) = GaugeVec::new(options(name, help), labels) else {
            return;
        };
        for (values, value) in series {
            family.with_label_values(&values).set(value.as_secs_f64());
        }
        self.add(&family);
    }

    /// A family without series would be a HELP line about nothing.
    fn add(&mut self, family: &impl Collector) {
        self.0.extend(
            family
                .collect()
                .into_iter()
                .filter(|family| !family.get_metric().is_empty()),
        );
    }
}

fn options(name: &str, help: &str) -> Opts {
    Opts::new(format!("edgesteer_{name}"), help)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus has no other numbers"
)]
fn sum(
    series: impl IntoIterator<Item = (Vec<String>, u64)>,
) -> impl Iterator<Item = (Vec<String>, f64)> {
    let mut sums: HashMap<Vec<String>, u64> = HashMap::new();
    for (labels, value) in series {
        *sums.entry(labels).or_default() += value;
    }
    sums.into_iter()
        .map(|(labels, value)| (labels, value as f64))
}
