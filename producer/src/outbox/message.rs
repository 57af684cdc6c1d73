//! A command made ready for the wire: serialised once, sent as often as it takes.
//!
//! Everything that an attempt needs is here and does not change between attempts: the id, the bytes,
//! the subject. So a retry is harmless. The body is [`Bytes`], so an
//! attempt copies nothing; headers are made for each attempt, because the client consumes them.

use std::sync::{Arc, atomic::AtomicBool};

use async_nats::{HeaderMap, HeaderName};
use bytes::Bytes;
use farwrite_schemas::{CommandId, Fingerprint, Key, headers};

use crate::outbox::{target::Destination, terms::Terms};

// Names that are made when the program is compiled cost no allocation when a header is set.
const COMMAND_ID: HeaderName = HeaderName::from_static(headers::COMMAND_ID);
const KEY: HeaderName = HeaderName::from_static(headers::KEY);
const VERSION: HeaderName = HeaderName::from_static(headers::VERSION);
const EXPIRES_AT: HeaderName = HeaderName::from_static(headers::EXPIRES_AT);
const NOT_BEFORE: HeaderName = HeaderName::from_static(headers::NOT_BEFORE);
const CONTEXT: HeaderName = HeaderName::from_static(headers::CONTEXT);
const REPLY: HeaderName = HeaderName::from_static(headers::REPLY);

/// A command with its id, ready to be sent.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) id: CommandId,
    pub(crate) target: Arc<Destination>,
    pub(crate) version: u32,
    pub(crate) key: Option<Key>,
    pub(crate) body: Bytes,
    pub(crate) terms: Terms,
    /// Where the outcome is to be sent; `None` when nobody waits for it.
    pub(crate) reply: Option<Box<str>>,
    /// Its outcome was heard, perhaps before its acknowledgement: the stream has stored it.
    pub(crate) has_ended: AtomicBool,
}

impl Message {
    /// The headers of one attempt.
    pub(crate) fn headers(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(COMMAND_ID, self.id.to_string());
        if let Some(key) = &self.key {
            map.insert(KEY, key.as_str());
        }
        if self.version != 1 {
            map.insert(VERSION, self.version.to_string());
        }
        let Terms { expires_at_ms, not_before_ms, context } = &self.terms;
        if let Some(ms) = expires_at_ms {
            map.insert(EXPIRES_AT, ms.to_string());
        }
        if let Some(ms) = not_before_ms {
            map.insert(NOT_BEFORE, ms.to_string());
        }
        if let Some(context) = context {
            map.insert(CONTEXT, context.as_ref());
        }
        if let Some(reply) = &self.reply {
            map.insert(REPLY, reply.as_ref());
        }
        map
    }

    /// Bytes that keeping it costs, about.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len() + self.terms.context.as_ref().map_or(0, |context| context.len())
    }
}

/// What tells this command from another under the same id.
pub(crate) fn fingerprint(
    target: &Destination,
    version: u32,
    key: Option<&Key>,
    body: &[u8],
) -> Fingerprint {
    Fingerprint::of(&target.name, version, key, body)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::outbox::target::tests::targets;

    const LARGE: &str =
        concat!("{\"note\":\"", "a body of more than a few bytes, ", "so that a copy shows\"}");

    pub(crate) fn message(key: Option<&str>, body: &'static str) -> Arc<Message> {
        Arc::new(Message {
            id: CommandId::now(),
            target: targets().of("order.place").unwrap(),
            version: 1,
            key: key.map(|key| Key::new(key).unwrap()),
            body: Bytes::from_static(body.as_bytes()),
            terms: Terms::default(),
            reply: None,
            has_ended: AtomicBool::default(),
        })
    }

    #[test]
    fn headers_say_what_is_not_the_default_and_nothing_else() {
        let plain = message(None, "{}");
        assert_eq!(plain.target.subject.as_str(), "farwrite.shop.cmd.jfk.order.place");
        let map = plain.headers();
        assert_eq!(map.get(headers::COMMAND_ID).unwrap().as_str(), plain.id.to_string());
        assert_eq!(map.iter().count(), 1);
        let full = Message {
            version: 2,
            key: Some(Key::new("alice").unwrap()),
            reply: Some("farwrite.shop.reply.jfk.x".into()),
            has_ended: AtomicBool::default(),
            id: plain.id,
            target: Arc::clone(&plain.target),
            body: plain.body.clone(),
            terms: Terms {
                expires_at_ms: Some(1_764_000_000_000),
                not_before_ms: Some(0),
                context: Some("{\"tenant\":\"acme\"}".into()),
            },
        };
        let map = full.headers();
        assert_eq!(map.get(headers::EXPIRES_AT).unwrap().as_str(), "1764000000000");
        assert_eq!(map.get(headers::NOT_BEFORE).unwrap().as_str(), "0");
        assert_eq!(map.get(headers::CONTEXT).unwrap().as_str(), "{\"tenant\":\"acme\"}");
        assert_eq!(map.get(headers::KEY).unwrap().as_str(), "alice");
        assert_eq!(map.get(headers::VERSION).unwrap().as_str(), "2");
        assert_eq!(map.get(headers::REPLY).unwrap().as_str(), "farwrite.shop.reply.jfk.x");
    }

    #[test]
    fn an_attempt_asks_for_memory_for_its_headers_and_never_for_its_body() {
        let (small, large) = (message(Some("alice"), "{}"), message(Some("alice"), LARGE));
        let attempt = |message: &Message| {
            allocation_counter::measure(|| drop((message.headers(), message.body.clone())))
        };
        let cost = attempt(&small);
        assert_eq!(cost, attempt(&large), "the body was copied");
        assert!(cost.count_total <= 5, "{} allocations for two headers", cost.count_total);
        let answer = br#"{"stream":"FARWRITE_shop","seq":7}"#;
        let cost = allocation_counter::measure(|| drop(crate::outbox::answer::read_answer(answer)));
        assert_eq!(cost.count_total, 1, "the stream's name");
    }

    #[inline(never)]
    fn hot_make_an_attempt(message: &Message) {
        std::hint::black_box((message.headers(), message.body.clone()));
    }

    #[inline(never)]
    fn hot_read_an_acknowledgement(answer: &[u8]) {
        assert!(crate::outbox::answer::read_answer(answer).is_ok());
    }

    /// For `loadtest/counts.sh`.
    #[test]
    fn making_an_attempt() {
        let message = message(Some("alice"), LARGE);
        (0..1_000).for_each(|_| hot_make_an_attempt(&message));
    }

    /// For `loadtest/counts.sh`.
    #[test]
    fn reading_an_acknowledgement() {
        let answer = br#"{"stream":"FARWRITE_shop","seq":4711,"duplicate":false}"#;
        (0..1_000).for_each(|_| hot_read_an_acknowledgement(answer));
    }
}
