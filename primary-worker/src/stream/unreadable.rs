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
    Client,
    jetstream::{
        Context, ErrorCode, message::StreamMessage, response::Response, stream::RawMessage,
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tracing::warn;

/// Messages that are looked at once the client has ended: twice what one pull asks for, since the next
/// one is sent before the last one is used up.
const SUSPECTS: u64 = 2_000;
/// Of those, looked at together.
const TOGETHER: usize = 16;
/// Sequences that are kept in mind; beyond, the lowest are forgotten, and found anew should they come.
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

/// Whether the client cannot read a message, or takes it for one of the server's own: those have a
/// status in their headers' first line.
pub(super) fn is_unreadable(raw: &RawMessage) -> bool {
    let headers = BASE64_STANDARD.decode(raw.headers.as_deref().unwrap_or_default());
    let has_status = headers.is_ok_and(|headers| {
        headers.starts_with(b"NATS/1.0") && !headers.starts_with(b"NATS/1.0\r\n")
    });
    has_status || raw.subject.contains('\u{fffd}') || StreamMessage::try_from(raw.clone()).is_err()
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
            sequences.known.pop_first();
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
            let found: Vec<u64> = stream::iter((from..=to).map(|sequence| async move {
                let raw = stored(context, stream, sequence).await?;
                Ok::<_, String>(raw.is_some_and(|raw| is_unreadable(&raw)).then_some(sequence))
            }))
            .buffered(TOGETHER)
            .try_filter_map(|found| std::future::ready(Ok(found)))
            .try_collect()
            .await?;
            warn!(from, to, ?found, "the NATS client had ended: looked for what it cannot read");
            found.into_iter().for_each(|sequence| self.know(sequence));
            self.sequences().suspected.remove(&from);
        }
        Ok(())
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
        assert_eq!(unreadable.first(0), Some(4));
    }
}
