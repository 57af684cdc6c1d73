//! Messages by their sequence, through JetStream's API, which wraps them up in JSON.

use async_nats::{
    HeaderName,
    jetstream::{Context, ErrorCode, response::Response, stream::RawMessage},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::json;

/// JetStream's answer to a question for a message.
#[derive(Deserialize)]
struct StoredMessage {
    message: RawMessage,
}

/// A message by its sequence; `None` where the stream has none there.
pub(crate) async fn stored(
    context: &Context,
    stream: &str,
    sequence: u64,
) -> Result<Option<RawMessage>, String> {
    let subject = format!("STREAM.MSG.GET.{stream}");
    match context.request(subject, &json!({ "seq": sequence })).await {
        Ok(Response::Ok(StoredMessage { message })) => Ok(Some(message)),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            Ok(None)
        }
        Ok(Response::Err { error }) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the client cannot read a message, or takes it for one of the server's own.
pub(crate) fn is_unreadable(raw: &RawMessage) -> bool {
    headers_of(raw).is_none()
}

/// A message's headers as the client reads them from its connection (async-nats 0.51, `connection.rs`),
/// which is not as it reads a [`RawMessage`]: there it trims what it has refused here. `None` where it
/// cannot read the message at all, or takes it for one of the server's own, which have a status in their
/// headers' first line.
pub(crate) fn headers_of(raw: &RawMessage) -> Option<Vec<(String, String)>> {
    // Of a subject that is not UTF-8 the API tells so much. What is white space to Unicode parts a subject
    // in two for the client, and not for the server.
    if raw.subject.contains(|c: char| c == '\u{fffd}' || c.is_whitespace()) {
        return None;
    }
    let Some(headers) = raw.headers.as_deref() else { return Some(Vec::new()) };
    let headers = BASE64_STANDARD.decode(headers).ok()?;
    let mut lines = std::str::from_utf8(&headers).ok()?.lines().peekable();
    if !lines.next()?.strip_prefix("NATS/1.0")?.trim().is_empty() {
        return None;
    }
    let mut read = Vec::new();
    while let Some(line) = lines.next() {
        if line.is_empty() {
            continue;
        }
        let (name, value) = line.split_once(':')?;
        let name: HeaderName = name.parse().ok()?;
        let mut value = value.trim_start().to_owned();
        while let Some(more) = lines.next_if(|line| line.starts_with(char::is_whitespace)) {
            value.push_str(more);
        }
        value.truncate(value.trim_end().len());
        if value.contains(['\r', '\n']) {
            return None;
        }
        read.push((AsRef::<str>::as_ref(&name).to_owned(), value));
    }
    Some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(subject: &str, headers: Option<&[u8]>) -> RawMessage {
        serde_json::from_value(json!({
            "subject": subject, "seq": 1, "data": "", "time": "2026-11-28T12:00:00Z",
            "hdrs": headers.map(|headers| BASE64_STANDARD.encode(headers)),
        }))
        .unwrap()
    }

    #[test]
    fn headers_are_read_as_the_connection_reads_them() {
        let read = |headers: &[u8]| headers_of(&raw("a.b", Some(headers)));
        let one = |value: &str| Some(vec![("X".to_owned(), value.to_owned())]);
        assert_eq!(headers_of(&raw("a.b", None)), Some(Vec::new()));
        assert_eq!(read(b"NATS/1.0\r\nX: a \r\n\r\n"), one("a"));
        assert_eq!(read(b"NATS/1.0 \r\nX:\r\n\r\n"), one(""));
        assert_eq!(read(b"NATS/1.0\r\nX: a\r\n b\r\n\r\n"), one("a b"));
        for headers in [
            &b""[..],
            b"NATS/1.0 409 Consumer Deleted\r\n\r\n",
            b"NATS/1.0\r\nX\r\n\r\n",
            b"NATS/1.0\r\nX: \xff\r\n\r\n",
            b"NATS/1.0\r\nX: a\rb\r\n\r\n",
            b"NATS/1.0\r\nX: a\r\n \rb\r\n\r\n",
            b"NATS/1.0\r\nX: a\r\r\n b\r\n\r\n",
        ] {
            assert_eq!(read(headers), None, "{}", String::from_utf8_lossy(headers));
        }
        for subject in ["a.\u{fffd}", "a.b\u{a0}c", "a.\u{3000}"] {
            assert_eq!(headers_of(&raw(subject, None)), None, "{subject}");
        }
    }
}
