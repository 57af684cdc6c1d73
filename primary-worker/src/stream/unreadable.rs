//! Messages that the client cannot read.
//!
//! A publisher may store what it likes, and some of it no client of this library gets past: a subject
//! or headers that are not UTF-8 end the connection each time, and a header with a carriage return in it
//! ends the client itself, for good
//! ([nats.rs #1612](https://github.com/nats-io/nats.rs/pull/1612)). Neither says which message it was. So
//! they are looked for by sequence, through JetStream's API, which wraps messages up in JSON; and what was
//! found is kept in mind, so that it is never pulled again.
//!
//! ```text
//! the client ended ─▶ suspect what may have been pulled ─▶ next takeover, another client: look at each
//! connection ended twice at one place ─▶ look at the next ─▶ unreadable: kept in mind, handed on as no command
//! ```

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_nats::{
    Client, HeaderName,
    jetstream::{Context, ErrorCode, response::Response, stream::RawMessage},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{FutureExt, StreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tracing::warn;

use super::reader::PULL_MAX_MESSAGES;

/// Messages that are looked at once the client has ended: twice what one pull asks for, since the next
/// one is sent before the last one is used up.
const SUSPECTS: u64 = 2 * PULL_MAX_MESSAGES as u64;
/// Of those, looked at together.
const TOGETHER: usize = 16;
/// Sequences that are kept in mind; beyond, the highest are forgotten, and found anew when they come.
const KEPT_MAX: usize = 65_536;

/// Whether a client has ended for good: then it takes no more commands. One that lives is made to
/// flush.
pub(crate) fn has_ended(client: &Client) -> bool {
    matches!(client.flush().now_or_never(), Some(Err(_)))
}

/// What JetStream answers to who asks for a message.
#[derive(Deserialize)]
struct Stored {
    message: RawMessage,
}

/// A message by its sequence; `None` where the stream has none there.
pub(super) async fn stored(
    context: &Context,
    stream: &str,
    sequence: u64,
) -> Result<Option<RawMessage>, String> {
    let subject = format!("STREAM.MSG.GET.{stream}");
    match context.request(subject, &json!({ "seq": sequence })).await {
        Ok(Response::Ok(Stored { message })) => Ok(Some(message)),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
            Ok(None)
        }
        Ok(Response::Err { error }) => Err(error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether the client cannot read a message, or takes it for one of the server's own.
pub(super) fn is_unreadable(raw: &RawMessage) -> bool {
    headers_of(raw).is_none()
}

/// A message's headers as the client reads them from its connection (async-nats 0.51, `connection.rs`),
/// which is not as it reads a [`RawMessage`]: there it trims what it has refused here. `None` where it
/// cannot read the message at all, or takes it for one of the server's own, which have a status in their
/// headers' first line.
pub(super) fn headers_of(raw: &RawMessage) -> Option<Vec<(String, String)>> {
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

/// The messages that are known, or suspected, to be unreadable: of one worker, whatever it is connected
/// with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unreadable(Arc<Mutex<Sequences>>);

#[derive(Debug, Default)]
struct Sequences {
    known: BTreeSet<u64>,
    /// From each of these on something may have ended the client.
    suspected: BTreeSet<u64>,
}

impl Unreadable {
    fn sequences(&self) -> MutexGuard<'_, Sequences> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first one that is known, from `next` on.
    pub(super) fn first(&self, next: u64) -> Option<u64> {
        self.sequences().known.range(next..).next().copied()
    }

    /// A message cannot be read.
    pub(super) fn know(&self, sequence: u64) {
        let mut sequences = self.sequences();
        sequences.known.insert(sequence);
        if sequences.known.len() > KEPT_MAX {
            sequences.known.pop_last();
        }
    }

    /// It can, or is gone.
    pub(super) fn acquit(&self, sequence: u64) {
        self.sequences().known.remove(&sequence);
    }

    /// The client ended while it read from `next` on.
    pub(super) fn suspect(&self, next: u64) {
        self.sequences().suspected.insert(next);
    }

    /// Looks at what is suspected, and keeps in mind what cannot be read.
    ///
    /// # Errors
    /// When JetStream does not answer: it is still suspected.
    pub(super) async fn look(
        &self,
        context: &Context,
        stream: &str,
        last: u64,
    ) -> Result<(), String> {
        let suspected = self.sequences().suspected.clone();
        for from in suspected {
            let to = last.min(from.saturating_add(SUSPECTS));
            warn!(from, to, "the NATS client had ended: looking for what it cannot read");
            let looks = (from..=to)
                .map(|sequence| async move { (sequence, stored(context, stream, sequence).await) });
            let mut looks = stream::iter(looks).buffered(TOGETHER);
            while let Some((sequence, raw)) = looks.next().await {
                let is_unreadable = raw?.is_some_and(|raw| is_unreadable(&raw));
                if is_unreadable {
                    warn!(sequence, "a message that the NATS client cannot read");
                    self.know(sequence);
                }
                // Should the next one not be told, the search goes on there.
                let mut sequences = self.sequences();
                sequences.suspected.remove(&sequence);
                if sequence < to {
                    sequences.suspected.insert(sequence + 1);
                }
            }
            self.sequences().suspected.remove(&from);
        }
        Ok(())
    }

    /// Everything up to here is settled: no reader comes by again.
    pub(crate) fn settled(&self, sequence: u64) {
        let mut sequences = self.sequences();
        sequences.known = sequences.known.split_off(&sequence.saturating_add(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_found_from_a_place_on() {
        let unreadable = Unreadable::default();
        assert_eq!(unreadable.first(0), None);
        [7, 3].into_iter().for_each(|sequence| unreadable.know(sequence));
        assert_eq!(
            [0, 3, 4, 8].map(|next| unreadable.first(next)),
            [Some(3), Some(3), Some(7), None]
        );
        unreadable.acquit(3);
        assert_eq!(unreadable.first(0), Some(7));
    }

    #[test]
    fn no_more_than_so_many_are_kept_in_mind() {
        let unreadable = Unreadable::default();
        let count = KEPT_MAX as u64 + 3;
        (1..=count).for_each(|sequence| unreadable.know(sequence));
        assert_eq!(unreadable.first(0), Some(1), "the next ones are needed first");
        unreadable.settled(3);
        assert_eq!(unreadable.first(0), Some(4));
        assert_eq!(unreadable.sequences().known.len(), KEPT_MAX - 3);
    }

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
