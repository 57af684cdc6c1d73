//! A message of the command stream, read once.

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_nats::{HeaderMap, HeaderName, HeaderValue, jetstream::stream::RawMessage};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use farwrite_schemas::{Envelope, EnvelopeError, decode_envelope, headers};

use crate::failpoint::Failpoint;

use super::position::{MessageProof, StreamPosition};

/// A message of the stream, read once.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// Its sequence in the stream.
    pub(crate) sequence: u64,
    /// The stream's time of it, in nanoseconds since 1970.
    pub(crate) at_ns: i64,
    /// The message as it came.
    pub(crate) message: async_nats::Message,
    /// What it says as a command, or why it is none.
    pub(crate) envelope: Result<Envelope, EnvelopeError>,
    /// Whether somebody waits for a reply.
    pub(crate) awaited: bool,
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
    pub(crate) fn read(message: async_nats::Message, sequence: u64, at_ns: i64) -> Self {
        let mut awaited = false;
        // Whatever a publisher stores is one command's affair.
        let envelope = catch_unwind(AssertUnwindSafe(|| {
            Failpoint::Reading.pass();
            let headers =
                headers_of(&message).inspect(|(name, _)| awaited |= *name == headers::REPLY);
            decode_envelope(message.subject.as_str(), headers, &message.payload)
        }));
        let envelope = envelope.unwrap_or(Err(EnvelopeError::Panicked));
        Self { sequence, at_ns, message, envelope, awaited }
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
    pub(crate) fn unread(raw: RawMessage) -> Self {
        let payload = BASE64_STANDARD.decode(raw.payload).unwrap_or_default();
        let at_ns = i64::try_from(raw.time.unix_timestamp_nanos()).unwrap_or(i64::MAX);
        let unread = Self::kept(raw.subject, Vec::new(), payload, raw.sequence, at_ns);
        Self { envelope: Err(EnvelopeError::NotText), ..unread }
    }

    /// Where it is.
    pub(crate) fn position(&self) -> StreamPosition {
        let message = match &self.envelope {
            Ok(envelope) => MessageProof { at_ns: self.at_ns, id: Some(envelope.id.uuid()) },
            Err(_) => MessageProof::of(self.at_ns, self.message_id()),
        };
        StreamPosition { sequence: self.sequence, message: Some(message) }
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

#[cfg(test)]
mod tests {
    use farwrite_schemas::CommandId;

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
        assert!(delivery.awaited);
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
