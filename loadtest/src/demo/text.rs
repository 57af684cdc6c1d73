//! How numbers and lines are said.

use std::io::Write;

/// Prints a line. A reader that has closed its pipe is no error.
pub(super) fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// An error with its causes, without those that the error before has said already.
pub(super) fn told(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            // A cause belongs before the lines that follow the summary.
            let end = text.find('\n').unwrap_or(text.len());
            text.insert_str(end, &format!(": {cause}"));
        }
    }
    text
}

/// `27,004`.
pub(super) fn grouped(number: impl TryInto<u64>) -> String {
    let digits = number.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`; "more" has no plural.
pub(super) fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    let number = number.try_into().unwrap_or(u64::MAX);
    let plural = if number == 1 || noun == "more" { "" } else { "s" };
    format!("{} {noun}{plural}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let io = || std::io::Error::other("no such file");
        let error = anyhow::Error::new(io()).context("f.csv: no such file").context("reading");
        assert_eq!(told(&error), "reading: f.csv: no such file");
        assert_eq!(told(&anyhow::Error::new(io()).context("a\nb")), "a: no such file\nb");
    }

    #[test]
    fn numbers_are_grouped_and_nouns_agree() {
        assert_eq!(grouped(0_u64), "0");
        assert_eq!(grouped(999_u64), "999");
        assert_eq!(grouped(27_004_usize), "27,004");
        assert_eq!(grouped(1_000_000_i64), "1,000,000");
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(2_000, "row"), "2,000 rows");
    }
}
