//! What a service says instead of an answer.

use async_nats::service::error::Error;

/// Longest text, in characters.
const TEXT_MAX: usize = 300;

/// An error for who asked. Its text is a header: the client library panics at a line break in one, and
/// some of the text may be the asker's.
pub(super) fn service_error(code: usize, text: &str) -> Error {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    Error { code, status: text.chars().take(TEXT_MAX).map(plain).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_control_character_reaches_a_header() {
        let error = service_error(400, "not \r\n\u{0}Nats-Status: 200");
        assert_eq!(error.status, "not    Nats-Status: 200");
        assert_eq!(service_error(400, &"x".repeat(1_000)).status.len(), TEXT_MAX);
    }
}
