//! Throughput as bars, each measure with its baselines below it.

use std::fmt::Write;

use super::svg::escape;
use crate::bench::{
    report::{BenchReport, BenchRow},
    table::figure,
};

/// All measures that are rates and have a baseline.
pub(super) fn all(report: &BenchReport) -> String {
    let mut charts = String::new();
    let rates = report.rows.iter().filter(|row| row.unit == "/s" && row.baseline_value.is_some());
    let mut rates = rates.peekable();
    while let Some(first) = rates.next() {
        let mut group = vec![first];
        let is_same =
            |row: &&BenchRow| row.scenario == first.scenario && row.measure == first.measure;
        while let Some(row) = rates.next_if(is_same) {
            group.push(row);
        }
        charts.push_str(&chart(&group));
    }
    if charts.is_empty() { charts } else { format!("<div class=\"cards\">{charts}</div>") }
}

/// Bars are boxes of the page and no SVG, so that names wrap and text keeps its size.
fn chart(group: &[&BenchRow]) -> String {
    let Some(first) = group.first() else { return String::new() };
    let spreads = group.iter().flat_map(|row| [row.spread, row.baseline_spread]);
    let highs = spreads.flatten().map(|(_, high)| high);
    let values = group.iter().filter_map(|row| row.baseline_value).chain([first.value]);
    let most = values.chain(highs).filter(|value| value.is_finite()).fold(1.0, f64::max);
    let title = format!("{}: {}", first.scenario, first.measure);
    let mut text = format!("<figure class=\"bars\"><figcaption>{}</figcaption>", escape(&title));
    let mut bar = |who: &str, kind: &str, value: f64, spread: Option<(f64, f64)>, ratio: String| {
        let part = |value: f64| (value / most * 100.0).clamp(0.0, 100.0);
        let mark = spread.map_or_else(String::new, |(low, high)| {
            let (left, width) = (part(low), part(high) - part(low));
            format!("<i style=\"left:{left:.1}%;width:{width:.1}%\"></i>")
        });
        let _ = write!(
            text,
            "<div class=\"bar {kind}\"><span class=\"who\">{}</span><span class=\"track\"><b style=\"width:{:.1}%\"></b>{mark}</span>\
             <span class=\"value\">{}{ratio}</span></div>",
            escape(who),
            part(value),
            figure(value, "/s"),
        );
    };
    bar("farwrite", "ours", first.value, first.spread, String::new());
    for row in group {
        let (Some(who), Some(value)) = (&row.baseline, row.baseline_value) else { continue };
        let ratio =
            row.ratio.map_or_else(String::new, |ratio| format!("<small>{ratio:.2} ×</small>"));
        bar(who, "theirs", value, row.baseline_spread, ratio);
    }
    text.push_str("</figure>\n");
    text
}
