//! What is printed: aligned for people, or one JSON object a line.

use std::io::Write;

use serde::Serialize;
use serde_json::value::RawValue;

use super::OperateError;

/// Writes to standard output, line by line.
pub(super) struct Printer {
    pub(super) json: bool,
}

impl Printer {
    pub(super) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// A line, or several, for people.
    pub(super) fn text(&mut self, text: &str) -> Result<(), OperateError> {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", text.trim_end_matches('\n'))?;
        Ok(out.flush()?)
    }

    /// A JSON object on a line of its own.
    pub(super) fn object(&mut self, object: &impl Serialize) -> Result<(), OperateError> {
        let text = serde_json::to_string(object)?;
        self.text(&text)
    }

    /// The object, or the text that says the same.
    pub(super) fn say(&mut self, object: &impl Serialize, text: &str) -> Result<(), OperateError> {
        if self.json { self.object(object) } else { self.text(text) }
    }
}

/// Columns under their heads; the last one is as wide as it is. Nothing of what others wrote
/// reaches the terminal as a control character.
pub(super) fn table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |text: &str| text.chars().count();
    let mut widths = head.map(width);
    for row in rows {
        for (max, cell) in widths.iter_mut().zip(row) {
            *max = width(&plain(cell)).max(*max);
        }
    }
    let mut text = String::new();
    let mut line = |cells: [String; N]| {
        let cells = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    };
    line(head.map(str::to_owned));
    for row in rows {
        line(row.each_ref().map(|cell| plain(cell)));
    }
    text
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

/// Bytes as JSON, where they are JSON, on one line: between its tokens a line break says nothing,
/// and within a string there is none. Numbers stay as they were written.
pub(super) fn json_of(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    serde_json::from_str::<&RawValue>(text).ok()?;
    RawValue::from_string(text.trim().replace(['\n', '\r'], " ")).ok()
}

/// Bytes in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_under_each_other_and_control_characters_do_not_pass() {
        let rows = [["a\u{1b}[2J".to_owned(), "x".to_owned()], ["ab".to_owned(), "y z".to_owned()]];
        assert_eq!(table(["KEY", "N"], &rows), "KEY    N\na\u{fffd}[2J  x\nab     y z\n");
    }

    #[test]
    fn an_age_has_two_units() {
        assert_eq!([0.0, 59.9, 61.0, 3_600.0].map(age), ["0s", "59s", "1m01s", "1h00m"]);
        assert_eq!(age(86_400.0 * 3.5), "3d12h");
        assert_eq!(age(-1.0), "0s");
    }

    #[test]
    fn a_body_is_one_line_of_json_or_none() {
        let body = b"{\n \"n\": 12345678901234567890.10,\r\n\"t\": \"a\\nb\" }\n";
        let json = json_of(body).map(|json| json.get().to_owned());
        assert_eq!(json.as_deref(), Some("{  \"n\": 12345678901234567890.10,  \"t\": \"a\\nb\" }"));
        assert!(json_of(b"{").is_none() && json_of(b"\"\xff\"").is_none());
        assert_eq!(hex(b"\x00\xffa"), "00ff61");
    }

    #[test]
    fn a_message_is_cut_to_its_first_line() {
        assert_eq!(first_line("one\ntwo"), "one");
        assert_eq!(first_line(&"é".repeat(200)).chars().count(), 161);
    }
}
