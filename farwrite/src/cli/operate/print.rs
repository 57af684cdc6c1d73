//! What is printed: aligned for people, or one JSON object a line.

use std::io::{Result, Write};

use serde::Serialize;

/// Writes to standard output, line by line.
#[derive(Clone, Copy)]
pub(super) struct Printer {
    pub(super) json: bool,
}

impl Printer {
    /// A line, or several, for people.
    pub(super) fn text(self, text: &str) -> Result<()> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        out.flush()
    }

    /// A JSON object on a line of its own.
    pub(super) fn object(self, object: &impl Serialize) -> Result<()> {
        self.text(&serde_json::to_string(object)?)
    }

    /// The object, or the text that says the same.
    pub(super) fn say(self, object: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        if self.json { self.object(object) } else { self.text(&text()) }
    }
}

/// Columns under their heads; the last one is as wide as it is. Nothing of what others wrote
/// reaches the terminal as a control character.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let head: Vec<String> = head.iter().map(|head| (*head).to_owned()).collect();
    let plain_row = |row: &Vec<String>| row.iter().map(|cell| plain(cell)).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = std::iter::once(&head).chain(rows).map(plain_row).collect();
    let width = |column: usize| rows.iter().map(move |row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..head.len()).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Without control characters.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The first line of a text, and not too much of it.
pub(super) fn first_line(text: &str) -> String {
    const CHARS: usize = 160;
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    short
}

/// How long, in two units at most.
pub(super) fn age(seconds: f64) -> String {
    // Far below a u64's range, and never negative.
    let seconds = seconds.clamp(0.0, 1e12) as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{:02}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{:02}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

/// The value, or a dash.
pub(super) fn or_dash(value: Option<&impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_control_characters_do_not_pass() {
        let rows = [["a\u{1b}[2J", "x"], ["ab", "y z"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["KEY", "N"], &rows), "KEY    N\na\u{fffd}[2J  x\nab     y z\n");
    }

    #[test]
    fn an_age_has_two_units() {
        assert_eq!([0.0, 59.9, 61.0, 3_600.0].map(age), ["0s", "59s", "1m01s", "1h00m"]);
        assert_eq!(age(86_400.0 * 3.5), "3d12h");
        assert_eq!(age(-1.0), "0s");
    }

    #[test]
    fn a_message_is_cut_to_its_first_line() {
        assert_eq!(first_line("one\ntwo"), "one");
        assert_eq!(first_line(&"é".repeat(200)).chars().count(), 161);
    }
}
