//! Asking the worker's outcome service, by id.
//!
//! For a reply that does not come: the worker restarted between commit and reply, the connection
//! was down, the reply went to another producer. The service reads the ledger, so its answer is as
//! good as the reply. A question has a token in the producer's own inbox; one that is not answered
//! leaves nothing behind.

use std::{fmt, time::Duration};

use async_nats::{StatusCode, Subject, connection::State};
use bytes::Bytes;
use farwrite_schemas::{CommandId, Fingerprint, OutcomeAnswer, OutcomeRequest, Reply};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    backoff::Backoff,
    limits::TIMEOUT_MAX,
    metrics,
    producer::{Inner, Place, Producer},
    routes::Arrival,
};

/// What the outcome service said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastHeard {
    /// It was not asked yet, or has not answered.
    Nothing,
    /// No worker serves it.
    NoWorker,
    /// The command is not in the ledger yet.
    Pending,
    /// It may not be asked, or its answer cannot be read; the log says which.
    Unusable,
}

impl fmt::Display for LastHeard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "the outcome service has not answered",
            Self::NoWorker => "no worker answers questions for outcomes",
            Self::Pending => "the worker has not applied it yet",
            Self::Unusable => "the outcome service may not be asked, or cannot be understood",
        })
    }
}

/// Why an outcome could not be asked for. The command is what it was.
#[derive(Debug, thiserror::Error)]
pub enum OutcomeError {
    /// No worker serves outcomes for this database.
    #[error("no worker answered the question for the outcome of the command {id}")]
    NoWorker {
        /// The command id.
        id: CommandId,
    },
    /// NATS was not connected when the time was up.
    #[error("no connection to NATS to ask for the outcome of the command {id}")]
    NoConnection {
        /// The command id.
        id: CommandId,
    },
    /// The connection's credentials do not allow it.
    #[error("not permitted to use {subject:?} to ask for the outcome of the command {id}")]
    NotPermitted {
        /// The command id.
        id: CommandId,
        /// What is not permitted.
        subject: String,
    },
    /// The time was up.
    #[error("no answer in time to the question for the outcome of the command {id}")]
    TimedOut {
        /// The command id.
        id: CommandId,
    },
    /// As many calls are pending as may be.
    #[error("{limit} calls are pending, which is the limit: the outcome of {id} was not asked")]
    TooManyPending {
        /// The command id.
        id: CommandId,
        /// The limit.
        limit: usize,
    },
    /// The NATS client was closed for good.
    #[error("the NATS client was closed: the outcome of the command {id} was not asked")]
    Closed {
        /// The command id.
        id: CommandId,
    },
}

/// Why one question was not answered.
#[derive(Debug)]
enum Unanswered {
    NotConnected,
    Closed,
    NoWorker,
    NotPermitted(Subject),
    Unreadable,
    Silence,
}

impl Unanswered {
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

impl Producer {
    /// Asks how a command ended, within the default timeout.
    ///
    /// [`OutcomeAnswer::Pending`] says that the ledger does not know the id: it was not applied
    /// yet, or never accepted, or it is older than the ledger keeps.
    ///
    /// # Errors
    /// When nobody answers; the command is what it was.
    pub async fn outcome(&self, id: CommandId) -> Result<OutcomeAnswer, OutcomeError> {
        self.outcome_within(id, self.inner.limits.timeout).await
    }

    /// [`Producer::outcome`] with another timeout, at most [`TIMEOUT_MAX`].
    ///
    /// # Errors
    /// When nobody answers; the command is what it was.
    pub async fn outcome_within(
        &self,
        id: CommandId,
        timeout: Duration,
    ) -> Result<OutcomeAnswer, OutcomeError> {
        let deadline = Instant::now() + timeout.min(TIMEOUT_MAX);
        let limit = self.inner.limits.max_pending;
        let _place = Place::take(&self.inner).ok_or(OutcomeError::TooManyPending { id, limit })?;
        let mut last = None;
        let asking = self.inner.ask_until_answered(id, &mut last);
        if let Ok(answered) = timeout_at(deadline, asking).await {
            return answered;
        }
        Err(match last {
            Some(Unanswered::NoWorker) => OutcomeError::NoWorker { id },
            _ if !self.inner.is_connected() => OutcomeError::NoConnection { id },
            _ => OutcomeError::TimedOut { id },
        })
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
                Ok(OutcomeAnswer::Pending(_)) => LastHeard::Pending,
                Err(Unanswered::NoWorker) => LastHeard::NoWorker,
                Err(Unanswered::NotPermitted(_) | Unanswered::Unreadable) => LastHeard::Unusable,
                Err(Unanswered::NotConnected | Unanswered::Closed | Unanswered::Silence) => {
                    LastHeard::Nothing
                }
            };
            sleep(backoff.next()).await;
        }
    }

    /// Asks until there is an answer, be it that the outcome is not known.
    async fn ask_until_answered(
        &self,
        id: CommandId,
        last: &mut Option<Unanswered>,
    ) -> Result<OutcomeAnswer, OutcomeError> {
        let mut backoff = Backoff::publishing();
        loop {
            match self.ask(id, None).await {
                Ok(answer) => return Ok(answer),
                Err(Unanswered::NotPermitted(subject)) => {
                    return Err(OutcomeError::NotPermitted { id, subject: subject.to_string() });
                }
                Err(Unanswered::Closed) => return Err(OutcomeError::Closed { id }),
                Err(unanswered) => *last = Some(unanswered),
            }
            sleep(backoff.next()).await;
        }
    }

    /// One question.
    async fn ask(
        &self,
        id: CommandId,
        fingerprint: Option<Fingerprint>,
    ) -> Result<OutcomeAnswer, Unanswered> {
        let result = self.question(&OutcomeRequest { id, fingerprint }).await;
        metrics::asked(match &result {
            Ok(OutcomeAnswer::Known(_)) => "known",
            Ok(OutcomeAnswer::Pending(_)) => "pending",
            Err(unanswered) => unanswered.word(),
        });
        result
    }

    async fn question(&self, request: &OutcomeRequest) -> Result<OutcomeAnswer, Unanswered> {
        if self.client.connection_state() != State::Connected {
            return Err(Unanswered::NotConnected);
        }
        if self.routes.is_deaf() {
            return Err(Unanswered::NotPermitted(self.inbox.subject()));
        }
        let question = serde_json::to_vec(request).map_err(|_| Unanswered::Unreadable)?;
        let route = self.routes.expect_answer(self.outcome_subject.clone());
        let inbox = self.inbox.for_token(route.token);
        let sending = self.client.publish_with_reply(
            self.outcome_subject.clone(),
            inbox,
            Bytes::from(question),
        );
        let limit = self.limits.ack_timeout;
        match timeout(limit, sending).await {
            Err(_) => return Err(Unanswered::Silence),
            Ok(Err(_)) => return Err(Unanswered::Closed),
            Ok(Ok(())) => {}
        }
        let message = match timeout(limit, route.arrival()).await {
            Err(_) => return Err(Unanswered::Silence),
            Ok(Arrival::Denied) => {
                return Err(Unanswered::NotPermitted(self.outcome_subject.clone()));
            }
            Ok(Arrival::Deaf) => return Err(Unanswered::NotPermitted(self.inbox.subject())),
            Ok(Arrival::Message(message)) => message,
        };
        if message.status == Some(StatusCode::NO_RESPONDERS) {
            return Err(Unanswered::NoWorker);
        }
        match OutcomeAnswer::decode(&message.payload) {
            Ok(OutcomeAnswer::Known(reply)) if reply.id != request.id => {
                metrics::unreadable_reply();
                Err(Unanswered::Unreadable)
            }
            Ok(answer) => Ok(answer),
            Err(error) => {
                metrics::unreadable_reply();
                tracing::warn!(id = %request.id, %error, "an outcome's answer cannot be read");
                Err(Unanswered::Unreadable)
            }
        }
    }
}
