//! The line of JSON that a verb prints. An app's own JSON stands in it as it came: a number keeps all
//! of its digits, and nesting may be of any depth.

use std::fmt;

use serde::Serialize;

/// One JSON object, or another value, on one line.
#[derive(Debug)]
pub(super) struct AnswerLine(String);

impl AnswerLine {
    /// A value that is the whole line.
    pub(super) fn of(value: &impl Serialize) -> Self {
        Self(text(value))
    }

    /// An object without members.
    pub(super) fn object() -> Self {
        Self("{}".to_owned())
    }

    /// An object with one member more.
    pub(super) fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        self.0.pop();
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push_str(&text(&name));
        self.0.push(':');
        self.0.push_str(&text(value));
        self.0.push('}');
        self
    }
}

/// Within a string of JSON a line's end is an escape, so that it stands between values only.
fn text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned()).replace(['\n', '\r'], " ")
}

impl fmt::Display for AnswerLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object, as `json!` writes it.
macro_rules! line {
    ({ $($name:literal: $value:expr),* $(,)? }) => {
        $crate::cli::verbs::line::AnswerLine::object()$(.with($name, &$value))*
    };
}
pub(super) use line;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    #[test]
    fn what_an_app_wrote_stands_in_the_line_as_it_came() {
        for output in ["1e400", "1.10", "123456789012345678901234", &"[".repeat(150)] {
            let output = format!("{output}{}", "]".repeat(output.matches('[').count()));
            let raw = RawValue::from_string(output.clone()).unwrap();
            let line = line!({ "known": "committed", "output": raw });
            assert_eq!(
                line.to_string(),
                format!("{{\"known\":\"committed\",\"output\":{output}}}")
            );
        }
        let raw = RawValue::from_string("[1,\n2]".to_owned()).unwrap();
        assert_eq!(line!({ "a": raw }).to_string(), "{\"a\":[1, 2]}");
        assert_eq!(super::AnswerLine::object().to_string(), "{}");
    }
}
