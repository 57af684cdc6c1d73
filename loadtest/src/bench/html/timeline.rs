//! One run over time: rates, backlog and replay lag, above one another.

use std::fmt::Write;

use super::svg::{points, ticks};
use crate::bench::{
    report::{FlowSample, FlowTimeline},
    table::figure,
};

/// The picture, in its own units.
const WIDTH: f64 = 960.0;
const PANE: f64 = 130.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 14.0;
const GAP: f64 = 40.0;

/// A line of a pane: its name, its class, and its values by milliseconds.
type PlotLine = (&'static str, &'static str, Vec<(f64, f64)>);

/// The run; nothing where there are fewer than two moments.
pub(super) fn chart(timeline: &FlowTimeline) -> String {
    let samples = &timeline.samples;
    let Some(last) = samples.last().filter(|_| samples.len() > 1) else { return String::new() };
    let rates = |of: fn(&FlowSample) -> u64| -> Vec<(f64, f64)> {
        let rate = |pair: &[FlowSample]| {
            let seconds = pair[1].at_ms.saturating_sub(pair[0].at_ms) as f64 / 1e3;
            let count = of(&pair[1]).saturating_sub(of(&pair[0])) as f64;
            (pair[1].at_ms as f64, if seconds > 0.0 { count / seconds } else { f64::NAN })
        };
        samples.windows(2).map(rate).collect()
    };
    let at = |at_ms: u64, value: u64| (at_ms as f64, value as f64);
    let backlog = timeline.backlog().map(|(ms, commands)| at(ms, commands)).collect();
    let lag = samples.iter().map(|one| at(one.at_ms, one.replay_lag_bytes)).collect();
    let panes: [(&str, &str, Vec<PlotLine>); 3] = [
        (
            "Commands a second",
            "/s",
            vec![
                ("published", "k1", rates(|one| one.published)),
                ("applied", "k0", rates(|one| one.applied)),
            ],
        ),
        ("Published and not applied yet", "", vec![("backlog", "k0", backlog)]),
        ("Replay behind the primary, bytes of the log", "B", vec![("replay lag", "k0", lag)]),
    ];
    let height = panes.len() as f64 * (PANE + GAP) + 20.0;
    let end = last.at_ms.max(1) as f64;
    let x = |ms: f64| LEFT + ms / end * (WIDTH - LEFT - RIGHT);
    let mut text = format!(
        "<figure class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Rates, backlog and replay lag over time\">"
    );
    for (number, (title, unit, lines)) in panes.iter().enumerate() {
        pane(&mut text, number as f64 * (PANE + GAP) + 26.0, title, unit, lines, &x);
    }
    for second in ticks(end / 1e3) {
        if second * 1e3 <= end {
            let (at, below) = (x(second * 1e3), height - 4.0);
            let _ = write!(
                text,
                "<text x=\"{at:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{second:.1} s</text>"
            );
        }
    }
    text.push_str("</svg></figure>");
    text
}

fn pane(
    text: &mut String,
    top: f64,
    title: &str,
    unit: &str,
    lines: &[PlotLine],
    x: &impl Fn(f64) -> f64,
) {
    let values = lines.iter().flat_map(|(_, _, line)| line).map(|(_, value)| *value);
    let ticks = ticks(values.filter(|value| value.is_finite()).fold(0.0, f64::max));
    let most = ticks.last().copied().unwrap_or(1.0);
    let y = |value: f64| top + (1.0 - value / most) * PANE;
    let _ =
        write!(text, "<text class=\"title\" x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", top - 9.0);
    for tick in &ticks {
        let (at, end) = (y(*tick), WIDTH - RIGHT);
        let _ = write!(
            text,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{end}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            at + 4.0,
            figure(*tick, unit),
        );
    }
    for (place, (name, class, line)) in lines.iter().enumerate() {
        let drawn = points(line.iter().map(|(ms, value)| (x(*ms), y(*value))));
        let _ = write!(text, "<polyline class=\"line {class}\" points=\"{drawn}\"/>");
        if lines.len() > 1 {
            let from = WIDTH - RIGHT - 90.0 * (lines.len() - place) as f64;
            let _ = write!(
                text,
                "<path class=\"line {class}\" d=\"M{from:.1} {0:.1}h18\"/><text x=\"{1:.1}\" y=\"{2:.1}\">{name}</text>",
                top - 13.0,
                from + 23.0,
                top - 9.0,
            );
        }
    }
}
