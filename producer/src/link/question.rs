//! One question to a service: sent once, and its answer awaited.
//!
//! A question has a token in the producer's own inbox; one that is not answered leaves nothing
//! behind.

use async_nats::{Message, StatusCode, Subject};
use bytes::Bytes;
use tokio::time::timeout;

use crate::link::{nats::NatsLink, routes::Arrival};

/// Why one question was not answered.
#[derive(Debug)]
pub(crate) enum Unanswered {
    NotConnected,
    Closed,
    /// No service listens to the subject.
    NoService,
    NotPermitted(Subject),
    Unreadable,
    Silence,
}

impl Unanswered {
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Closed => "closed",
            Self::NoService => "no_worker",
            Self::NotPermitted(_) => "not_permitted",
            Self::Unreadable => "unreadable",
            Self::Silence => "silence",
        }
    }
}

impl NatsLink {
    /// Asks once.
    pub(crate) async fn question(
        &self,
        subject: &Subject,
        question: Vec<u8>,
    ) -> Result<Message, Unanswered> {
        if !self.is_connected() {
            return Err(Unanswered::NotConnected);
        }
        if self.is_deaf() {
            return Err(Unanswered::NotPermitted(self.inbox.subject()));
        }
        let route = self.routes.expect_answer(subject.clone());
        let inbox = self.inbox.for_token(route.token);
        let sending = self.client.publish_with_reply(subject.clone(), inbox, Bytes::from(question));
        let limit = self.ack_timeout;
        match timeout(limit, sending).await {
            Err(_) => return Err(Unanswered::Silence),
            Ok(Err(_)) => return Err(Unanswered::Closed),
            Ok(Ok(())) => {}
        }
        let message = match timeout(limit, route.arrival()).await {
            Err(_) => return Err(Unanswered::Silence),
            Ok(Arrival::Denied) => return Err(Unanswered::NotPermitted(subject.clone())),
            Ok(Arrival::Deaf) => return Err(Unanswered::NotPermitted(self.inbox.subject())),
            Ok(Arrival::Message(message)) => message,
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Unanswered::NoService);
        }
        Ok(message)
    }
}
