//! The charts of a report.

use crate::{
    Row,
    chart::{self, Labels, Series},
};

/// All of them, by their names.
pub(crate) fn all(rows: &[Row]) -> [(&'static str, String); 5] {
    const NET: &str = "net nanoseconds for a packet";
    let labels = |title, x, y| Labels { title, x, y };
    let flows = labels("Packets of known flows", "flows that take turns", NET);
    let rules = labels("Packets under many rules", "rules in force", NET);
    let veth = labels(
        "Through a pair of veths, on one CPU",
        "million packets in a second",
        "",
    );
    let latency = labels(
        "On the way, at half the load that a bare redirect takes",
        "nanoseconds",
        "",
    );
    let apply = labels("Until rules are in force", "rules", "microseconds (median)");
    [
        ("flows", chart::lines(flows, &lines(rows, FLOWS, by_flows))),
        ("rules", chart::lines(rules, &lines(rows, RULES, by_rules))),
        ("veth", chart::bars(veth, &rates(rows))),
        ("latency", chart::bars(latency, &delays(rows))),
        ("apply", chart::lines(apply, &lines(rows, TIMES, times))),
    ]
}

/// Starts of ids, and how the lines are called.
type Lines = &'static [(&'static str, &'static str)];

const FLOWS: Lines = &[
    ("ref-cache", "ref-cache"),
    ("ref-hash", "ref-hash"),
    ("steer-v4-hit", "steer-v4-hit"),
    ("steer-v6-hit", "steer-v6-hit"),
    ("nat-hit", "nat-hit"),
    ("gtpu-ul-hit", "gtpu-ul-hit"),
    ("gtpu-dl-hit", "gtpu-dl-hit"),
    ("not-ours", "not-ours"),
];
const RULES: Lines = &[
    ("miss-", "first packet of a flow"),
    ("hit-", "1,024 known flows"),
];
const TIMES: Lines = &[
    ("apply-all-", "all, from nothing"),
    ("apply-one-", "one of them changed"),
];

/// The id of a row and its point in a chart, if it belongs there.
type Place = fn(&Row) -> Option<(&String, f64, f64)>;

fn lines(rows: &[Row], lines: Lines, place: Place) -> Vec<Series> {
    let series = |(start, name): &(&str, &str)| {
        let points = rows.iter().filter_map(place);
        let points = points.filter(|(id, ..)| id.starts_with(start));
        ((*name).to_owned(), points.map(|(_, x, y)| (x, y)).collect())
    };
    lines.iter().map(series).collect()
}

fn by_flows(row: &Row) -> Option<(&String, f64, f64)> {
    let Row::Cost {
        id,
        flows,
        rules: None,
        net_ns,
        ..
    } = row
    else {
        return None;
    };
    Some((id, (*flows).into(), *net_ns as f64))
}

fn by_rules(row: &Row) -> Option<(&String, f64, f64)> {
    let Row::Cost {
        id,
        rules: Some(rules),
        net_ns,
        ..
    } = row
    else {
        return None;
    };
    Some((id, (*rules).into(), *net_ns as f64))
}

fn times(row: &Row) -> Option<(&String, f64, f64)> {
    let Row::Time {
        id,
        rules: Some(rules),
        median_us,
        ..
    } = row
    else {
        return None;
    };
    Some((id, (*rules).into(), *median_us))
}

fn rates(rows: &[Row]) -> Vec<(String, f64)> {
    let rate = |row: &Row| {
        let Row::Rate { id, mpps, .. } = row else {
            return None;
        };
        Some((id.replace("veth-", ""), *mpps))
    };
    rows.iter().filter_map(rate).collect()
}

fn delays(rows: &[Row]) -> Vec<(String, f64)> {
    let delays = |row: &Row| {
        let Row::Delay {
            id,
            p50_ns,
            p99_ns,
            p999_ns,
            ..
        } = row
        else {
            return None;
        };
        let name = id.replace("latency-", "");
        let parts = [("50", p50_ns), ("99", p99_ns), ("99.9", p999_ns)];
        Some(parts.map(|(part, ns)| (format!("{name}, {part} %"), f64::from(*ns))))
    };
    rows.iter().filter_map(delays).flatten().collect()
}
