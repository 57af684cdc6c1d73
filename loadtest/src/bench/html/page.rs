//! The report as one page that needs nothing else: pictures first, then the table.
//!
//! The page has no script and loads nothing. Colours follow the reader's light or dark mode. Every
//! colour has a word beside it.

use std::fmt::Write;

use super::{bars, percentiles, svg::escape, timeline};
use crate::bench::{report::BenchReport, table};

/// The page.
pub(in crate::bench) fn page(report: &BenchReport) -> String {
    let judged: Vec<bool> = report.rows.iter().filter_map(|row| row.met).collect();
    let met = judged.iter().filter(|met| **met).count();
    let mut page = String::with_capacity(64 << 10);
    page.push_str(concat!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">",
        "<title>Farwrite: benchmark</title><style>\n",
        include_str!("style.css"),
        "</style></head><body><main>\n<header><p class=\"kind\">Farwrite benchmark</p>\n",
    ));
    // Writing to a string does not fail, here and below.
    let _ = writeln!(page, "<h1>{met} of {} targets met</h1>", judged.len());
    let machine = &report.machine;
    let _ = writeln!(
        page,
        "<p>{} cores of {}, {:.0} GiB, Linux {}; 8 kB and an fdatasync take {:.0} µs. \
         Figures of this run compare with each other and with no other run's.</p></header>",
        machine.cores,
        escape(if machine.cpu.is_empty() { "an unknown processor" } else { &machine.cpu }),
        machine.memory_bytes as f64 / f64::from(1 << 30),
        escape(&machine.kernel),
        machine.fdatasync_us,
    );
    section(
        &mut page,
        "Throughput",
        "Median of all rounds; the thin line is their spread.",
        &bars::all(report),
    );
    section(
        &mut page,
        "Latency",
        "How long the slowest took: from the median on the left to one in a thousand.",
        &percentiles::all(report),
    );
    let timeline = report.timeline.as_ref().map(timeline::chart).unwrap_or_default();
    section(
        &mut page,
        "One run under load",
        "Publishing as fast as it is acknowledged.",
        &timeline,
    );
    section(&mut page, "All figures", "", &rows(report));
    let settings = [("Versions", &report.versions), ("Settings", &report.settings)];
    for (title, facts) in settings {
        let mut list = String::from("<dl>");
        for (name, value) in facts {
            let _ = write!(list, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
        }
        list.push_str("</dl>");
        section(&mut page, title, "", &list);
    }
    page.push_str("</main></body></html>\n");
    page
}

/// A section of the page; an empty section is left out.
fn section(page: &mut String, title: &str, about: &str, content: &str) {
    if content.is_empty() || content == "<dl></dl>" {
        return;
    }
    let _ = write!(page, "<section><h2>{title}</h2>");
    if !about.is_empty() {
        let _ = write!(page, "<p class=\"about\">{about}</p>");
    }
    let _ = writeln!(page, "{content}</section>");
}

fn rows(report: &BenchReport) -> String {
    if report.rows.is_empty() {
        return String::new();
    }
    let mut text = String::from("<div class=\"table\"><table><thead><tr>");
    for title in ["Scenario", "Measure", "Farwrite", "Baseline", "", "Ratio", "Target", "Met"] {
        let _ = write!(text, "<th>{title}</th>");
    }
    text.push_str("</tr></thead><tbody>\n");
    for row in &report.rows {
        let range = |spread: Option<(f64, f64)>| match spread {
            Some((low, high)) => {
                format!("<small>{} – {}</small>", table::figure(low, ""), table::figure(high, ""))
            }
            None => String::new(),
        };
        let (mark, word) = match (&row.target, row.met) {
            (None, _) => ("", "–"),
            (Some(_), Some(true)) => ("met", "✓ met"),
            (Some(_), Some(false)) => ("missed", "✗ missed"),
            (Some(_), None) => ("", "not judged"),
        };
        let theirs = row.baseline_value.map(|value| table::figure(value, &row.unit));
        let _ = writeln!(
            text,
            "<tr><td>{}</td><td>{}</td><td class=\"n\"><b>{}</b>{}</td><td>{}</td><td class=\"n\">{}{}</td>\
             <td class=\"n\">{}</td><td>{}</td><td class=\"{mark}\">{word}</td></tr>",
            escape(&row.scenario),
            escape(&row.measure),
            escape(&table::figure(row.value, &row.unit)),
            range(row.spread),
            escape(row.baseline.as_deref().unwrap_or("–")),
            escape(theirs.as_deref().unwrap_or("")),
            range(row.baseline_spread),
            row.ratio.map_or_else(|| "–".to_owned(), |ratio| format!("{ratio:.2}")),
            escape(row.target.as_deref().unwrap_or("–")),
        );
    }
    text.push_str("</tbody></table></div>");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::BenchRow;

    #[test]
    fn an_empty_report_is_a_page_and_text_is_escaped() {
        let page = page(&BenchReport::default());
        assert!(page.contains("0 of 0 targets met") && page.ends_with("</html>\n"));
        let row = BenchRow {
            scenario: "<script>".to_owned(),
            measure: "a & b".to_owned(),
            value: f64::NAN,
            unit: "/s".to_owned(),
            spread: None,
            baseline: Some("\"x\"".to_owned()),
            baseline_value: Some(0.0),
            baseline_spread: None,
            ratio: None,
            target: None,
            met: None,
        };
        let page = super::page(&BenchReport { rows: vec![row], ..BenchReport::default() });
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"));
        assert!(page.contains("a &amp; b") && !page.contains("\"x\""));
    }
}
