//! Latencies by percentile, a chart for each scenario.

use std::fmt::Write;

use super::svg::{escape, points};
use crate::bench::{
    report::{BenchReport, Latencies},
    table::figure,
};

/// Where the axis has its lines: parts of all, and their names.
const PARTS: [(f64, &str); 4] = [(0.5, "50 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %")];
/// The picture, in its own units.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 230.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;
/// Kinds of line, told apart by dashes as well.
const KINDS: usize = 5;

/// All scenarios that have distributions.
pub(super) fn all(report: &BenchReport) -> String {
    let mut scenarios: Vec<&str> = Vec::new();
    for latencies in &report.latencies {
        if !scenarios.contains(&latencies.scenario.as_str()) {
            scenarios.push(&latencies.scenario);
        }
    }
    let charts: String = scenarios
        .iter()
        .map(|scenario| {
            let of = report.latencies.iter().filter(|one| one.scenario == *scenario);
            chart(scenario, &of.collect::<Vec<_>>())
        })
        .collect();
    if charts.is_empty() { charts } else { format!("<div class=\"cards\">{charts}</div>") }
}

/// From the median to one in a thousand, by how many are slower.
fn x(part: f64) -> f64 {
    let place = |part: f64| -(1.0 - part).log10();
    let (first, last) = (place(PARTS[0].0), place(PARTS[3].0));
    LEFT + (place(part) - first) / (last - first) * (WIDTH - LEFT - RIGHT)
}

fn chart(scenario: &str, all: &[&Latencies]) -> String {
    let shown = |latencies: &Latencies| -> Vec<(f64, f64)> {
        let within = |part: f64| (PARTS[0].0..=PARTS[3].0).contains(&part);
        latencies.points.iter().copied().filter(|(part, ms)| within(*part) && *ms > 0.0).collect()
    };
    let values = || all.iter().flat_map(|one| shown(one)).map(|(_, ms)| ms);
    let (low, high) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    if high <= 0.0 {
        return String::new();
    }
    // The axis goes from one power of ten to another: the picture is for large differences.
    let (low, high) = (low.log10().floor(), high.log10().ceil().max(low.log10().floor() + 1.0));
    let y = |ms: f64| TOP + (high - ms.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut text = format!(
        "<figure><figcaption>{0}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Latency percentiles of {0}\">",
        escape(scenario)
    );
    for (part, name) in PARTS {
        let _ = write!(
            text,
            "<path class=\"grid\" d=\"M{0:.1} {TOP}V{1:.1}\"/><text x=\"{0:.1}\" y=\"{2}\" text-anchor=\"{3}\">{name}</text>",
            x(part),
            HEIGHT - BOTTOM,
            HEIGHT - 8.0,
            if part > 0.99 { "end" } else { "middle" },
        );
    }
    let mut power = low;
    while power <= high {
        let ms = 10_f64.powf(power);
        let _ = write!(
            text,
            "<path class=\"grid\" d=\"M{LEFT} {0:.1}H{1}\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{ms} ms</text>",
            y(ms),
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(ms) + 4.0,
        );
        power += 1.0;
    }
    let mut legend = String::new();
    for (number, one) in all.iter().enumerate() {
        let kind = number % KINDS;
        let line = points(shown(one).into_iter().map(|(part, ms)| (x(part), y(ms))));
        let _ = write!(text, "<polyline class=\"line k{kind}\" points=\"{line}\"/>");
        let at = |wanted: f64| {
            let found = one.points.iter().find(|(part, _)| (*part - wanted).abs() < 1e-9);
            found.map_or_else(|| "–".to_owned(), |(_, ms)| figure(*ms, "ms"))
        };
        let _ = write!(
            legend,
            "<li><svg class=\"key\" viewBox=\"0 0 24 8\" aria-hidden=\"true\"><path class=\"line k{kind}\" d=\"M0 4H24\"/></svg>{} <small>p50 {}, p99 {}</small></li>",
            escape(&one.of),
            at(0.5),
            at(0.99),
        );
    }
    let _ = writeln!(text, "</svg><ul class=\"legend\">{legend}</ul></figure>");
    text
}
