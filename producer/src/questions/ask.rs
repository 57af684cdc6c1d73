//! One question to the worker's service, and asking for an outcome until it is known.
//!
//! For a reply that does not come: the worker restarted between commit and reply, the connection
//! was down, the reply went to another producer. The service reads the ledger, so its answer is as
//! good as the reply. A question has a token in the producer's own inbox; one that is not answered
//! leaves nothing behind.

use std::fmt;

use async_nats::{Message, StatusCode, Subject, connection::State};
use bytes::Bytes;
use farwrite_schemas::{CommandId, Fingerprint, NotEnded, OutcomeAnswer, OutcomeRequest, Reply};
use tokio::time::{sleep, timeout};

use crate::{backoff::Backoff, link::routes::Arrival, metrics, producer::Inner};

/// What the outcome service said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastHeard {
    /// It was not asked yet, or has not answered.
    Nothing,
    /// No worker serves it.
    NoWorker,
    /// The command is not in the ledger yet.
    Pending,
    /// The command is parked: it is scheduled, waits for another try, or stands behind one of its
    /// key that does.
    Parked,
    /// It may not be asked, or its answer cannot be read; the log says which.
    Unusable,
}

impl fmt::Display for LastHeard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "the outcome service has not answered",
            Self::NoWorker => "no worker answers questions for outcomes",
            Self::Pending => "the worker has not applied it yet",
            Self::Parked => "it is parked: the worker applies it when it is due",
            Self::Unusable => "the outcome service may not be asked, or cannot be understood",
        })
    }
}

/// Why one question was not answered.
#[derive(Debug)]
pub(crate) enum Unanswered {
    NotConnected,
    Closed,
    NoWorker,
    NotPermitted(Subject),
    Unreadable,
    Silence,
}

impl Unanswered {
    /// The same for whoever waits for an outcome.
    pub(crate) const fn last_heard(&self) -> LastHeard {
        match self {
            Self::NoWorker => LastHeard::NoWorker,
            Self::NotPermitted(_) | Self::Unreadable => LastHeard::Unusable,
            Self::NotConnected | Self::Closed | Self::Silence => LastHeard::Nothing,
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Closed => "closed",
            Self::NoWorker => "no_worker",
            Self::NotPermitted(_) => "not_permitted",
            Self::Unreadable => "unreadable",
            Self::Silence => "silence",
        }
    }
}

impl Inner {
    /// Asks until the outcome is known: after a pause, in which the reply should come, or at once.
    pub(crate) async fn ask_until_known(
        &self,
        id: CommandId,
        fingerprint: Fingerprint,
        at_once: bool,
        last_heard: &mut LastHeard,
    ) -> Reply {
        let mut backoff = Backoff::asking();
        if !at_once {
            // No jitter here: a reply of a healthy worker has its full second.
            sleep(Backoff::FIRST_QUESTION).await;
        }
        loop {
            *last_heard = match self.ask(id, Some(fingerprint)).await {
                Ok(OutcomeAnswer::Known(reply)) => return reply,
                Ok(OutcomeAnswer::Pending(NotEnded { parked: None, .. })) => LastHeard::Pending,
                Ok(OutcomeAnswer::Pending(NotEnded { parked: Some(_), .. })) => LastHeard::Parked,
                Err(unanswered) => unanswered.last_heard(),
            };
            sleep(backoff.next()).await;
        }
    }

    /// One question for an outcome.
    pub(crate) async fn ask(
        &self,
        id: CommandId,
        fingerprint: Option<Fingerprint>,
    ) -> Result<OutcomeAnswer, Unanswered> {
        let result = self.outcome_question(&OutcomeRequest { id, fingerprint }).await;
        metrics::asked(match &result {
            Ok(OutcomeAnswer::Known(_)) => "known",
            Ok(OutcomeAnswer::Pending(_)) => "pending",
            Err(unanswered) => unanswered.word(),
        });
        result
    }

    async fn outcome_question(
        &self,
        request: &OutcomeRequest,
    ) -> Result<OutcomeAnswer, Unanswered> {
        let question = serde_json::to_vec(request).map_err(|_| Unanswered::Unreadable)?;
        let message = self.question(&self.outcome_subject, question).await?;
        match OutcomeAnswer::decode(&message.payload) {
            Ok(answer) if answer.id() == request.id => Ok(answer),
            Ok(_) => {
                metrics::unreadable_reply();
                Err(Unanswered::Unreadable)
            }
            Err(error) => {
                metrics::unreadable_reply();
                tracing::warn!(id = %request.id, %error, "an outcome's answer cannot be read");
                Err(Unanswered::Unreadable)
            }
        }
    }

    /// One question to the worker's service.
    pub(crate) async fn question(
        &self,
        subject: &Subject,
        question: Vec<u8>,
    ) -> Result<Message, Unanswered> {
        if self.client.connection_state() != State::Connected {
            return Err(Unanswered::NotConnected);
        }
        if self.routes.is_deaf() {
            return Err(Unanswered::NotPermitted(self.inbox.subject()));
        }
        let route = self.routes.expect_answer(subject.clone());
        let inbox = self.inbox.for_token(route.token);
        let sending = self.client.publish_with_reply(subject.clone(), inbox, Bytes::from(question));
        let limit = self.limits.ack_timeout;
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
            return Err(Unanswered::NoWorker);
        }
        Ok(message)
    }
}
