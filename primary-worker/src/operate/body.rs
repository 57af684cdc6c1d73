//! A command's body as JSON members: `body` where it is JSON, `body_hex` where it is not.

use serde_json::value::RawValue;

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
    fn a_body_is_one_line_of_json_or_none() {
        let body = b"{\n \"n\": 12345678901234567890.10,\r\n\"t\": \"a\\nb\" }\n";
        let json = json_of(body).map(|json| json.get().to_owned());
        assert_eq!(json.as_deref(), Some("{  \"n\": 12345678901234567890.10,  \"t\": \"a\\nb\" }"));
        assert!(json_of(b"{").is_none() && json_of(b"\"\xff\"").is_none());
        assert_eq!(hex(b"\x00\xffa"), "00ff61");
    }
}
