//! Reading the command stream, in order and without acknowledgements.
//!
//! The position is PostgreSQL's, so the consumer is a mere cursor: ephemeral, in memory, without
//! acknowledgements, begun where the database says. It has a name of its own, because an unnamed
//! one is refused under tight permissions, and a new one each time, so that a former worker that
//! wakes up cannot disturb its successor's.
//!
//! Each consumer is made anew on whatever the broker holds by then, so the stream is compared once
//! more before anything is read from it: identity, extent, and the last message that was read. A
//! broker that came back with an older copy of its store re-uses sequences, and would go unnoticed.
//!
//! A full subscription drops messages with no more than an event, so every message's sequence is
//! compared with the one that was expected: a hole makes a new consumer. When the new one shows
//! the same hole, the stream itself has one, and that stops the worker. Or the message is there and
//! the client cannot read it: one whose subject or headers are not UTF-8, for one, ends the
//! connection every time. Such a one is asked for by its sequence.

use std::{pin::pin, sync::atomic::Ordering, time::Duration};

use async_nats::{
    HeaderMap, HeaderName, HeaderValue,
    jetstream::{
        Context, ErrorCode,
        consumer::{AckPolicy, DeliverPolicy, pull},
        message::StreamMessage,
        response::Response,
        stream::{RawMessage, Stream},
    },
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use farwrite_schemas::{CommandId, Envelope, EnvelopeError, decode_envelope, headers};
use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_stream::StreamExt;
use tracing::{info, warn};

use super::{Anchor, Identity, Position, StreamError, storable};

/// How often JetStream says that it is there while it has nothing to deliver.
const HEARTBEAT: Duration = Duration::from_secs(2);
/// How long one pull request stands.
const EXPIRES: Duration = Duration::from_secs(20);
/// Messages in one pull: what may wait in the client, beside the lanes' own queues.
const PULL_MAX_MESSAGES: usize = 1_000;
/// When JetStream forgets a consumer that nobody pulls from.
const INACTIVE: Duration = Duration::from_secs(60);
/// How often it is asked whether the client has connected again: what was on the way is lost, and a
/// quiet stream would not show it.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// First and longest pause before another consumer is made.
const PAUSE: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// A place in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The sequence of the message there.
    pub(crate) sequence: u64,
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
}

/// A message of the stream, read once.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Its place in the stream.
    pub(crate) sequence: u64,
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
    /// The message as it came.
    pub(crate) message: async_nats::Message,
    /// What it says as a command, or why it is none.
    pub(crate) envelope: Result<Envelope, EnvelopeError>,
}

/// All headers of a message, name and value.
fn headers_of(message: &async_nats::Message) -> impl Iterator<Item = (&str, &str)> {
    let headers = message.headers.iter().flat_map(|headers| headers.iter());
    headers.flat_map(|(name, values)| {
        values.iter().map(|value| (AsRef::<str>::as_ref(name), value.as_str()))
    })
}

impl Delivery {
    /// Reads a message of the stream.
    fn decode(message: async_nats::jetstream::Message, sequence: u64, at_ns: i64) -> Self {
        Self::read(message.message, sequence, at_ns)
    }

    fn read(message: async_nats::Message, sequence: u64, at_ns: i64) -> Self {
        let headers = headers_of(&message);
        let envelope = decode_envelope(message.subject.as_str(), headers, &message.payload);
        Self { sequence, at_ns, message, envelope }
    }

    /// A message that was parked, with what was kept of it.
    pub(crate) fn kept(
        subject: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        sequence: u64,
        at_ns: i64,
    ) -> Self {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            // They were headers once: what does not parse now was never there.
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
            {
                map.append(name, value);
            }
        }
        let length = body.len();
        let message = async_nats::Message {
            subject: subject.into(),
            reply: None,
            payload: body.into(),
            headers: Some(map),
            status: None,
            description: None,
            length,
        };
        Self::read(message, sequence, at_ns)
    }

    /// A message that the client cannot read, as JetStream's API tells it: the subject with what is
    /// no text replaced, and without the headers.
    fn unread(raw: RawMessage) -> Self {
        let payload = BASE64_STANDARD.decode(raw.payload).unwrap_or_default();
        let at_ns = i64::try_from(raw.time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let unread = Self::kept(raw.subject, Vec::new(), payload, raw.sequence, at_ns);
        Self { envelope: Err(EnvelopeError::NotText), ..unread }
    }

    /// Where it is.
    pub(crate) const fn place(&self) -> Place {
        Place { sequence: self.sequence, at_ns: self.at_ns }
    }

    /// The command's body.
    pub(crate) fn body(&self) -> &Bytes {
        &self.message.payload
    }

    /// A header of the message. Looking through the few that are there costs less than the map's
    /// own look-up, which makes an owned name of each that it is asked for.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        headers_of(&self.message).find_map(|(known, value)| (known == name).then_some(value))
    }

    /// When the command is no longer to be applied, in Unix nanoseconds.
    pub(crate) fn expires_ns(&self) -> Option<i64> {
        let expires_ms = self.envelope.as_ref().ok()?.expires_at_ms?;
        Some(expires_ms.saturating_mul(1_000_000))
    }

    /// The message id, whether or not it is a command id.
    pub(crate) fn message_id(&self) -> Option<&str> {
        self.header(headers::COMMAND_ID)
    }

    /// All headers for a column of type `json`: `jsonb` holds no character of code zero.
    pub(crate) fn headers_json(&self) -> String {
        serde_json::to_string(&self.all_headers()).unwrap_or_else(|_| "[]".to_owned())
    }

    /// All headers, as they came: name and value, in their order.
    pub(crate) fn all_headers(&self) -> Vec<(&str, &str)> {
        headers_of(&self.message).collect()
    }

    /// Bytes that it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.message.length
    }
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReaderEnd {
    /// Whoever takes the messages has gone: the worker is stopping.
    #[error("nobody takes what is read")]
    Closed,
    /// The stream is not one to go on with.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// Takes what the reader reads.
pub(crate) trait Sink {
    /// Takes a message; waits while there is no room for it. False when nobody takes any more.
    async fn take(&mut self, delivery: Delivery) -> bool;
    /// Is told how many messages of the stream are still to come.
    fn remaining(&mut self, messages: u64);
}

/// What JetStream answers to who asks for a message.
#[derive(Deserialize)]
struct Stored {
    message: RawMessage,
}

/// Whether the client cannot read a message, or takes it for one of the server's own: those have a
/// status in their headers' first line.
fn is_unreadable(raw: &RawMessage) -> bool {
    let headers = BASE64_STANDARD.decode(raw.headers.as_deref().unwrap_or_default());
    let has_status = headers.is_ok_and(|headers| {
        headers.starts_with(b"NATS/1.0") && !headers.starts_with(b"NATS/1.0\r\n")
    });
    has_status || raw.subject.contains('\u{fffd}') || StreamMessage::try_from(raw.clone()).is_err()
}

/// A stream that was verified, to be read from.
#[derive(Clone)]
pub(crate) struct Verified {
    pub(crate) context: Context,
    pub(crate) stream: Stream,
    pub(crate) identity: Identity,
}

/// Reads a stream from a position on.
pub(crate) struct Reader {
    context: Context,
    stream: Stream,
    identity: Identity,
    name: String,
    next: u64,
    consumers: u32,
    last: Option<Last>,
}

/// The last message that was read, or applied before this reader began.
struct Last {
    sequence: u64,
    at_ns: i64,
    id: LastId,
}

/// A message's id, without a copy where it is a command's.
enum LastId {
    Command(CommandId),
    Text(Option<String>),
}

impl Last {
    fn of(delivery: &Delivery) -> Self {
        let id = match &delivery.envelope {
            Ok(envelope) => LastId::Command(envelope.id),
            Err(_) => LastId::Text(delivery.message_id().map(storable)),
        };
        Self { sequence: delivery.sequence, at_ns: delivery.at_ns, id }
    }

    fn anchor(&self) -> Anchor {
        let id = match &self.id {
            LastId::Command(id) => Some(id.to_string()),
            LastId::Text(id) => id.clone(),
        };
        Anchor { sequence: self.sequence, at_ns: self.at_ns, id }
    }
}

impl From<Anchor> for Last {
    fn from(Anchor { sequence, at_ns, id }: Anchor) -> Self {
        Self { sequence, at_ns, id: LastId::Text(id) }
    }
}

/// How one consumer ended.
enum ConsumerEnd {
    /// It failed or fell silent: another one may do.
    Broken(String),
    /// The sequence after the expected one came first.
    Gap { found: u64 },
    /// Nobody takes what is read.
    Closed,
    /// The stream is not the one that was read before.
    Other(StreamError),
}

impl Reader {
    /// Reads from `next` on, of a stream that holds `last`, if that is given; `name` begins the names
    /// of its consumers.
    pub(crate) fn new(
        Verified { context, stream, identity }: Verified,
        name: String,
        next: u64,
        last: Option<Anchor>,
    ) -> Self {
        let last = last.map(Last::from);
        Self { context, stream, identity, name, next, consumers: 0, last }
    }

    /// Reads until nobody takes what is read, or the stream turns out to be another one.
    pub(crate) async fn run(mut self, sink: &mut impl Sink) -> ReaderEnd {
        let mut pause = PAUSE.0;
        let mut ended_at = None;
        loop {
            let before = self.next;
            let gap = match self.read_one_consumer(sink).await {
                ConsumerEnd::Closed => return ReaderEnd::Closed,
                ConsumerEnd::Other(error) => return ReaderEnd::Stream(error),
                ConsumerEnd::Broken(reason) => {
                    warn!(next = self.next, reason, "reading is interrupted");
                    None
                }
                ConsumerEnd::Gap { found } => {
                    warn!(next = self.next, found, "messages were skipped: reading again");
                    Some(found)
                }
            };
            crate::metrics::reader_restarted();
            if ended_at.replace(self.next) == Some(self.next) {
                match (self.stored().await, gap) {
                    (Ok(Some(raw)), _) if is_unreadable(&raw) => {
                        warn!(next = self.next, "a message cannot be read, and is no command");
                        if !sink.take(Delivery::unread(raw)).await {
                            return ReaderEnd::Closed;
                        }
                        self.next += 1;
                    }
                    (Ok(None), Some(found)) => return ReaderEnd::Stream(self.hole(found)),
                    (Ok(_), _) => {}
                    (Err(reason), _) => warn!(next = self.next, reason, "asking for the message"),
                }
            }
            pause = if self.next > before { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
            tokio::time::sleep(pause).await;
        }
    }

    /// The next message by its sequence; `None` where the stream has none there.
    async fn stored(&self) -> Result<Option<RawMessage>, String> {
        let subject = format!("STREAM.MSG.GET.{}", self.stream.cached_info().config.name);
        match self.context.request(subject, &json!({ "seq": self.next })).await {
            Ok(Response::Ok(Stored { message })) => Ok(Some(message)),
            Ok(Response::Err { error }) if error.error_code() == ErrorCode::NO_MESSAGE_FOUND => {
                Ok(None)
            }
            Ok(Response::Err { error }) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn hole(&self, found: u64) -> StreamError {
        StreamError::Unknown {
            stream: self.stream.cached_info().config.name.clone(),
            reason: format!(
                "sequences {} to {} are missing from it, and their commands were not applied",
                self.next,
                found - 1
            ),
        }
    }

    async fn read_one_consumer(&mut self, sink: &mut impl Sink) -> ConsumerEnd {
        self.consumers += 1;
        let name = format!("{}-{}", self.name, self.consumers);
        let config = pull::Config {
            name: Some(name.clone()),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: self.next },
            ack_policy: AckPolicy::None,
            inactive_threshold: INACTIVE,
            memory_storage: true,
            num_replicas: 1,
            ..pull::Config::default()
        };
        let consumer = match self.stream.create_consumer(config).await {
            Ok(consumer) => consumer,
            Err(error) => return ConsumerEnd::Broken(format!("creating a consumer: {error}")),
        };
        match self.identity.verify(&self.stream, &self.position()).await {
            Ok(()) => {}
            Err(error) if error.may_pass() => return ConsumerEnd::Broken(error.to_string()),
            Err(error) => return ConsumerEnd::Other(error),
        }
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL_MAX_MESSAGES)
            .heartbeat(HEARTBEAT)
            .expires(EXPIRES)
            .messages()
            .await;
        let end = match messages {
            Ok(messages) => self.forward(messages, sink).await,
            Err(error) => ConsumerEnd::Broken(format!("pulling: {error}")),
        };
        // Best effort: JetStream forgets it by itself.
        let _ =
            tokio::time::timeout(Duration::from_secs(1), self.stream.delete_consumer(&name)).await;
        end
    }

    /// How far was read.
    fn position(&self) -> Position {
        let read = self.next - 1;
        Position { low_water: read, high_water: read, anchor: self.last.as_ref().map(Last::anchor) }
    }

    async fn forward(&mut self, messages: pull::Stream, sink: &mut impl Sink) -> ConsumerEnd {
        info!(next = self.next, "reading");
        let mut messages = pin!(messages);
        let statistics = self.context.client().statistics();
        let connects = || statistics.connects.load(Ordering::Relaxed);
        let connected = connects();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // A message that is there already is taken without a look at the clock.
            let next = tokio::select! {
                biased;
                next = messages.next() => Some(next),
                _ = looks.tick() => None,
            };
            if connects() != connected {
                return ConsumerEnd::Broken("connected again: something may be lost".to_owned());
            }
            let message = match next {
                Some(Some(message)) => message,
                Some(None) => return ConsumerEnd::Broken("the subscription ended".to_owned()),
                None => continue,
            };
            let message = match message {
                Ok(message) => message,
                Err(error) => return ConsumerEnd::Broken(error.to_string()),
            };
            let (sequence, at_ns, pending) = match message.info() {
                Ok(info) => {
                    let at_ns = i64::try_from(info.published.unix_timestamp_nanos());
                    (info.stream_sequence, at_ns.unwrap_or(i64::MAX), info.pending)
                }
                Err(error) => {
                    return ConsumerEnd::Broken(format!("a message without its place: {error}"));
                }
            };
            if sequence != self.next {
                return ConsumerEnd::Gap { found: sequence };
            }
            sink.remaining(pending);
            let delivery = Delivery::decode(message, sequence, at_ns);
            let last = Last::of(&delivery);
            if !sink.take(delivery).await {
                return ConsumerEnd::Closed;
            }
            self.next = sequence + 1;
            self.last = Some(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> async_nats::Message {
        let headers = [
            (headers::COMMAND_ID, CommandId::now().to_string()),
            (headers::KEY, "k1".to_owned()),
            (headers::REPLY, "farwrite.shop.reply.jfk.x".to_owned()),
            (headers::VERSION, "2".to_owned()),
        ];
        let headers = headers.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let subject = "farwrite.shop.cmd.jfk.order.place".to_owned();
        Delivery::kept(subject, headers, b"{}".to_vec(), 1, 0).message
    }

    #[test]
    fn a_message_is_read_as_it_came() {
        let delivery = Delivery::read(message(), 7, 9);
        let envelope = delivery.envelope.as_ref().unwrap();
        assert_eq!((envelope.version, delivery.sequence, delivery.at_ns), (2, 7, 9));
        assert_eq!(delivery.header(headers::REPLY), Some("farwrite.shop.reply.jfk.x"));
        assert_eq!(delivery.header("Farwrite-Reply-To"), None);
        assert_eq!(delivery.message_id(), Some(envelope.id.to_string()).as_deref());
        assert_eq!(delivery.all_headers().len(), 4);
    }

    #[inline(never)]
    fn hot_read_a_message(message: async_nats::Message) -> Delivery {
        Delivery::read(message, 1, 0)
    }

    /// For `loadtest/counts.sh`.
    #[test]
    fn reading_a_message() {
        let messages: Vec<_> = (0..1_000).map(|_| message()).collect();
        let all: Vec<_> = messages.into_iter().map(hot_read_a_message).collect();
        assert!(all.iter().all(|delivery| delivery.envelope.is_ok()));
    }
}
