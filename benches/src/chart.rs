//! Charts as SVG, which any browser shows.

use std::fmt::Write as _;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
/// Around the area that values are drawn in.
const LEFT: f64 = 96.0;
const RIGHT: f64 = 180.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 56.0;
/// Told apart by people who do not see all colors as well (Okabe and Ito).
const COLORS: [&str; 8] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#7f7f7f",
];

/// What a chart is of, and what its axes are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Labels<'a> {
    pub(crate) title: &'a str,
    /// With its unit.
    pub(crate) x: &'a str,
    /// With its unit.
    pub(crate) y: &'a str,
}

/// A name, and points from left to right. No coordinate is below 1.
pub(crate) type Series = (String, Vec<(f64, f64)>);

/// Lines over axes that both are logarithmic.
pub(crate) fn lines(labels: Labels<'_>, series: &[Series]) -> String {
    let points = || series.iter().flat_map(|(_, points)| points);
    let across = Axis::over(points().map(|point| point.0), LEFT, WIDTH - RIGHT);
    let up = Axis::over(points().map(|point| point.1), HEIGHT - BOTTOM, TOP);
    let mut svg = frame(labels, HEIGHT);
    for (value, text) in across.ticks() {
        let x = across.place(value);
        svg += &line(x, TOP, x, HEIGHT - BOTTOM, "#e0e0e0", 1.0);
        svg += &text_at(x, HEIGHT - BOTTOM + 18.0, "middle", &text);
    }
    for (value, text) in up.ticks() {
        let y = up.place(value);
        svg += &line(LEFT, y, WIDTH - RIGHT, y, "#e0e0e0", 1.0);
        svg += &text_at(LEFT - 8.0, y + 4.0, "end", &text);
    }
    let mut legend: Vec<(f64, &str, &str)> = Vec::new();
    for ((name, points), color) in series.iter().zip(COLORS.iter().cycle()) {
        let mut places = points.iter().map(|(x, y)| (across.place(*x), up.place(*y)));
        let path: Vec<String> = places
            .clone()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        let path = path.join(" ");
        let _ = writeln!(
            svg,
            r#"<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>"#
        );
        for (x, y) in places.clone() {
            let _ = writeln!(
                svg,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{color}"/>"#
            );
        }
        legend.extend(places.next_back().map(|(_, y)| (y, name.as_str(), *color)));
    }
    svg += &names(legend);
    svg + "</svg>\n"
}

/// Bars from the left, each with its name and value, over an axis that begins at 0.
pub(crate) fn bars(labels: Labels<'_>, values: &[(String, f64)]) -> String {
    const STEP: f64 = 24.0;
    const NAMES: f64 = 190.0;
    let height = TOP + STEP * values.len() as f64 + BOTTOM;
    let most = values.iter().map(|value| value.1).fold(0.0, f64::max);
    let mut svg = frame(labels, height);
    for ((name, value), number) in values.iter().zip(0u8..) {
        let y = TOP + STEP * f64::from(number);
        let width = value / most.max(f64::MIN_POSITIVE) * (WIDTH - NAMES - 90.0);
        svg += &text_at(NAMES - 8.0, y + 15.0, "end", name);
        let color = COLORS[0];
        let _ = writeln!(
            svg,
            r#"<rect x="{NAMES}" y="{y:.1}" width="{width:.1}" height="18" fill="{color}"/>"#
        );
        svg += &text_at(NAMES + width + 6.0, y + 15.0, "start", &format!("{value}"));
    }
    svg + "</svg>\n"
}

/// The names of lines beside their ends, moved apart where they would overlap.
fn names(mut legend: Vec<(f64, &str, &str)>) -> String {
    const APART: f64 = 17.0;
    legend.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut svg = String::new();
    let mut free = TOP;
    for (end, name, color) in legend {
        let y = end.max(free);
        free = y + APART;
        let x = WIDTH - RIGHT;
        svg += &line(x, end, x + 14.0, y, color, 1.0);
        svg += &text_at(x + 18.0, y + 4.0, "start", name);
    }
    svg
}

/// A logarithmic axis.
struct Axis {
    /// Powers of ten at both ends.
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Self {
        let low = values.clone().fold(f64::MAX, f64::min).max(1.0).log10();
        let high = values.fold(1.0, f64::max).log10();
        Self {
            low: low.min(high),
            high: high.max(low + 0.1),
            from,
            to,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = (value.max(1.0).log10() - self.low) / (self.high - self.low);
        self.from + part * (self.to - self.from)
    }

    /// Powers of ten, with twos and fives between them where there is room, and how they are written.
    fn ticks(&self) -> Vec<(f64, String)> {
        let multiples: &[f64] = if self.high - self.low > 3.5 {
            &[1.0]
        } else {
            &[1.0, 2.0, 5.0]
        };
        let powers = 0..10u8;
        let values = powers.flat_map(|power| {
            let power = 10f64.powi(power.into());
            multiples.iter().map(move |multiple| multiple * power)
        });
        let within = |value: &f64| (self.low - 0.01..=self.high + 0.01).contains(&value.log10());
        values
            .filter(within)
            .map(|value| (value, thousands(value)))
            .collect()
    }
}

/// With commas between thousands.
fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn frame(labels: Labels<'_>, height: f64) -> String {
    let Labels { title, x, y } = labels;
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x}</text>\n\
         <text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{y}</text>\n",
        height - 14.0,
        height / 2.0
    )
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, color: &str, width: f64) -> String {
    format!(
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" stroke-width=\"{width}\"/>\n"
    )
}

fn text_at(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_is_logarithmic_and_written_with_commas() {
        let axis = Axis::over([10.0, 100_000.0].into_iter(), 0.0, 400.0);
        assert!((axis.place(1000.0) - 200.0).abs() < 1e-9);
        let ticks: Vec<String> = axis.ticks().into_iter().map(|it| it.1).collect();
        assert_eq!(ticks, ["10", "100", "1,000", "10,000", "100,000"]);
    }

    #[test]
    fn lines_end_beside_their_names_and_names_do_not_overlap() {
        let series = [
            ("one".to_owned(), vec![(1.0, 10.0), (100.0, 20.0)]),
            ("other".to_owned(), vec![(1.0, 10.0), (100.0, 20.1)]),
        ];
        let labels = Labels {
            title: "t",
            x: "x in m",
            y: "y in s",
        };
        let svg = lines(labels, &series);
        let y = |name: &str| {
            let end = svg.find(&format!(">{name}<")).unwrap();
            let start = svg[..end].rfind(" y=\"").unwrap() + 4;
            let number: String = svg[start..].chars().take_while(|c| *c != '"').collect();
            number.parse::<f64>().unwrap()
        };
        assert!((y("one") - y("other")).abs() >= 13.0, "{svg}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains("x in m") && svg.contains("y in s"));
    }
}
