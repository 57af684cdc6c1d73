//! One subscription for everything that comes back to a producer.
//!
//! It listens to `farwrite.<database>.reply.<origin>.<instance>.*`, where the instance is random:
//! acknowledgements, replies of the worker and answers of its outcome service all come there, so
//! that a region's credentials need one prefix to listen to, and nothing is left in the client's
//! own table of requests when an answer never comes (nats.rs #1617).
//!
//! The last word of the subject says what it is: `t<number>` belongs to one publish or question,
//! `r<fingerprint>` is the outcome of a command. One task routes; it ends with the inbox.

use std::sync::Arc;

use async_nats::{Client, Message, Subject};
use farwrite_schemas::{Fingerprint, Origin, Reply, Subjects};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::{link::routes::Routes, metrics};

/// The inbox of one producer.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// Ends with a dot.
    prefix: String,
    router: JoinHandle<()>,
}

impl Inbox {
    /// Where the inbox of a new producer will be.
    pub(crate) fn new_subject(subjects: &Subjects, origin: &Origin) -> String {
        subjects.reply(origin, &Uuid::now_v7().simple().to_string())
    }

    /// Starts to listen under `subject`.
    pub(crate) async fn open(
        client: &Client,
        subject: &str,
        routes: Arc<Routes>,
    ) -> Result<Self, async_nats::SubscribeError> {
        let prefix = format!("{subject}.");
        let mut arriving = client.subscribe(Self::wildcard(subject)).await?;
        let start = prefix.len();
        let router = tokio::spawn(async move {
            while let Some(message) = arriving.next().await {
                route(&routes, start, message);
            }
            // Only a client that was closed for good ends a subscription; every call sees that too.
            tracing::warn!("the NATS client was closed: this producer is of no further use");
        });
        Ok(Self { prefix, router })
    }

    /// What the subscription under `subject` listens to.
    pub(crate) fn wildcard(subject: &str) -> String {
        format!("{subject}.*")
    }

    /// The reply subject of one publish or question.
    pub(crate) fn for_token(&self, token: u64) -> Subject {
        format!("{}t{token}", self.prefix).into()
    }

    /// Where the worker sends the outcome of the command with this fingerprint.
    pub(crate) fn for_reply(&self, fingerprint: Fingerprint) -> Box<str> {
        format!("{}r{}", self.prefix, fingerprint.as_uuid().simple()).into()
    }

    /// The inbox itself, for messages to people.
    pub(crate) fn subject(&self) -> Subject {
        format!("{}*", self.prefix).into()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.router.abort();
    }
}

/// Hands a message to its waiter. A message without a waiter is counted and forgotten.
fn route(routes: &Routes, start: usize, message: Message) {
    let word = message.subject.get(start..).unwrap_or_default();
    let was_waited_for = match (word.as_bytes().first(), word.get(1..).unwrap_or_default()) {
        (Some(b't'), token) => {
            token.parse().is_ok_and(|token| routes.deliver_answer(token, message))
        }
        (Some(b'r'), fingerprint) => {
            let Ok(fingerprint) = Uuid::try_parse(fingerprint) else {
                return metrics::unreadable_reply();
            };
            match Reply::decode(&message.payload) {
                Ok(reply) => routes.deliver_reply(fingerprint, &reply),
                Err(error) => {
                    // The error names a place and a type, never the reply's content.
                    tracing::warn!(%error, "a reply cannot be read; its outcome will be asked for");
                    return metrics::unreadable_reply();
                }
            }
        }
        _ => return metrics::unreadable_reply(),
    };
    if !was_waited_for {
        metrics::late_reply();
    }
}
