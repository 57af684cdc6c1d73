//! The rows as a table, for a terminal and for documents: Markdown.

use std::fmt::Write;

use super::report::{BenchReport, BenchRow};

/// All rows.
pub(super) fn table(report: &BenchReport) -> String {
    let mut text = String::from(
        "| scenario | measure | Farwrite | baseline | ratio | target | met |\n|---|---|---|---|---|---|---|\n",
    );
    for row in &report.rows {
        text.push_str(&line(row));
    }
    text
}

/// One row, with its line's end.
pub(super) fn line(row: &BenchRow) -> String {
    let value = |value: f64, spread: Option<(f64, f64)>| match spread {
        Some((low, high)) => {
            let (low, high) = (figure(low, ""), figure(high, ""));
            format!("{} ({low} to {high})", figure(value, &row.unit))
        }
        None => figure(value, &row.unit),
    };
    let mut text =
        format!("| {} | {} | {} |", row.scenario, row.measure, value(row.value, row.spread));
    // Writing to a string does not fail.
    let _ = match (&row.baseline, row.baseline_value) {
        (Some(name), Some(theirs)) => {
            write!(text, " {name}: {} |", value(theirs, row.baseline_spread))
        }
        _ => write!(text, " – |"),
    };
    let ratio = row.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"));
    let target = row.target.as_deref().unwrap_or("–");
    let met = match (&row.target, row.met) {
        (None, _) => "–",
        (Some(_), Some(true)) => "yes",
        (Some(_), Some(false)) => "**no**",
        (Some(_), None) => "not judged",
    };
    let _ = writeln!(text, " {ratio} | {target} | {met} |");
    text
}

/// A number as people read it, with its unit.
pub(super) fn figure(value: f64, unit: &str) -> String {
    let number = if value >= 10_000.0 {
        format!("{:.1}k", value / 1e3)
    } else if value >= 100.0 || value == 0.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    };
    if unit.is_empty() || unit.starts_with('/') {
        format!("{number}{unit}")
    } else {
        format!("{number} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_was_not_judged() {
        let mut row = BenchRow {
            scenario: "drain".to_owned(),
            measure: "applied".to_owned(),
            value: 43_210.0,
            unit: "/s".to_owned(),
            spread: Some((41_000.0, 44_000.0)),
            baseline: Some("direct, 32".to_owned()),
            baseline_value: Some(17_000.0),
            baseline_spread: None,
            ratio: Some(2.54),
            target: Some("≥ 2 × baseline".to_owned()),
            met: None,
        };
        assert_eq!(
            line(&row),
            "| drain | applied | 43.2k/s (41.0k to 44.0k) | direct, 32: 17.0k/s | 2.54 | ≥ 2 × baseline | not judged |\n"
        );
        row.met = Some(false);
        assert!(line(&row).ends_with("| **no** |\n"));
        (row.baseline, row.target, row.value, row.unit) = (None, None, 0.77, "ms".to_owned());
        row.spread = None;
        assert!(line(&row).starts_with("| drain | applied | 0.77 ms | – |"));
    }
}
