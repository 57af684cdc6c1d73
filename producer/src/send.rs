//! Bringing one message into the stream, however many attempts it takes, and saying honestly what
//! is known when it did not work.
//!
//! ```text
//! turn of the key ─▶ [the unresolved message before it] ─▶ attempt ─▶ acknowledged
//!                                                            ▲  │
//!                                                            │  ├─▶ final: the answer would be the same
//!                                                            │  │
//!                                                    backoff └──┘ until the deadline
//! ```
//!
//! The deadline is one timer around all of it; what was learnt on the way lives outside of the
//! timed future ([`Progress`]), so that a deadline never takes it away.

use std::sync::Arc;

use async_nats::{StatusCode, client::PublishErrorKind, connection::State};
use farwrite_schemas::CommandId;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    attempt::{Failure, Stored, read_answer},
    backoff::Backoff,
    message::Message,
    metrics,
    producer::Inner,
    routes::Arrival,
    turns::Turn,
};

/// How far a message has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    pub(crate) tries: Tries,
}

/// What a publish is doing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Stage {
    /// An earlier call of its key is not over.
    #[default]
    Queued,
    /// The message that blocks its key is being sent again.
    Resolving(CommandId),
    /// Its own attempts.
    Sending,
}

/// What the attempts at one message have taught.
#[derive(Debug, Default)]
pub(crate) struct Tries {
    /// An attempt is out and has not been answered.
    is_out: bool,
    /// An attempt may have stored the message.
    maybe_stored: bool,
    /// How the last attempt that is over failed.
    pub(crate) last: Option<Failure>,
}

impl Tries {
    /// Whether the message may have been stored.
    pub(crate) const fn in_doubt(&self) -> bool {
        self.is_out || self.maybe_stored
    }
}

/// Why no acknowledgement came.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The time is up.
    OutOfTime,
    /// An attempt failed in a way that another one would repeat.
    Final(Failure),
}

impl Inner {
    /// Sends a message in its turn, until it is acknowledged or the time is up. Whatever is not
    /// resolved by then blocks its key.
    pub(crate) async fn send(
        &self,
        message: &Arc<Message>,
        turn: Option<&mut Turn>,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Stored, Unsent> {
        let Some(turn) = turn else {
            progress.stage = Stage::Sending;
            let attempts = self.attempts(message, &mut progress.tries);
            return match timeout_at(deadline, attempts).await {
                Ok(sent) => sent.map_err(Unsent::Final),
                Err(_) => Err(Unsent::OutOfTime),
            };
        };
        let sent = timeout_at(deadline, self.send_in_turn(message, turn, progress)).await;
        match sent {
            Ok(Ok(stored)) => {
                turn.resolve(message.id);
                Ok(stored)
            }
            Ok(Err(failure)) => {
                if failure.verdict().settled {
                    turn.resolve(message.id);
                } else if progress.tries.in_doubt() {
                    turn.block(message);
                }
                Err(Unsent::Final(failure))
            }
            Err(_) => {
                if progress.tries.in_doubt() {
                    turn.block(message);
                }
                Err(Unsent::OutOfTime)
            }
        }
    }

    async fn send_in_turn(
        &self,
        message: &Message,
        turn: &mut Turn,
        progress: &mut Progress,
    ) -> Result<Stored, Failure> {
        turn.come().await;
        // The same id again resolves itself.
        if let Some(before) = turn.unresolved().filter(|before| before.id != message.id) {
            progress.stage = Stage::Resolving(before.id);
            match self.attempts(&before, &mut Tries::default()).await {
                Ok(_) => turn.resolve(before.id),
                Err(failure) if failure.verdict().settled => turn.resolve(before.id),
                Err(failure) => return Err(failure),
            }
        }
        progress.stage = Stage::Sending;
        self.attempts(message, &mut progress.tries).await
    }

    /// Attempts until one is acknowledged or fails for good.
    async fn attempts(&self, message: &Message, tries: &mut Tries) -> Result<Stored, Failure> {
        let mut backoff = Backoff::publishing();
        loop {
            let result = self.attempt(message, tries).await;
            tries.is_out = false;
            let failure = match result {
                Ok(stored) => return Ok(stored),
                Err(failure) => failure,
            };
            let verdict = failure.verdict();
            tries.maybe_stored |= verdict.maybe_stored;
            if !verdict.again {
                return Err(failure);
            }
            metrics::retried(failure.word());
            tracing::debug!(id = %message.id, reason = failure.word(), "publishing again");
            tries.last = Some(failure);
            sleep(backoff.next()).await;
        }
    }

    /// One attempt: sent once, and its answer awaited.
    async fn attempt(&self, message: &Message, tries: &mut Tries) -> Result<Stored, Failure> {
        // While disconnected the client would keep every attempt and send them all in the end.
        if self.client.connection_state() != State::Connected {
            return Err(Failure::NotConnected);
        }
        if self.routes.is_deaf() {
            return Err(Failure::Deaf { inbox: self.inbox.subject(), sent: false });
        }
        // The semaphore is never closed.
        let _slot = self.in_flight.acquire().await.map_err(|_| Failure::Closed)?;
        let answer = self.routes.expect_answer(message.target.subject.clone());
        let sending = self.client.publish_with_reply_and_headers(
            message.target.subject.clone(),
            self.inbox.for_token(answer.token),
            message.headers(),
            message.body.clone(),
        );
        match timeout(self.limits.ack_timeout, sending).await {
            Err(_) => return Err(Failure::NotSent),
            Ok(Err(error)) => return Err(self.not_sent(error.kind())),
            Ok(Ok(())) => tries.is_out = true,
        }
        match timeout(self.limits.ack_timeout, answer.arrival()).await {
            Err(_) => Err(Failure::Unanswered),
            Ok(Arrival::Denied) => Err(Failure::Denied),
            Ok(Arrival::Deaf) => Err(Failure::Deaf { inbox: self.inbox.subject(), sent: true }),
            Ok(Arrival::Message(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Failure::NoStream)
            }
            Ok(Arrival::Message(answer)) => read_answer(&answer.payload),
        }
    }

    fn not_sent(&self, kind: PublishErrorKind) -> Failure {
        match kind {
            PublishErrorKind::MaxPayloadExceeded => {
                Failure::OverServerLimit { limit_bytes: self.client.max_payload() }
            }
            // Subjects are made of checked names, so that only the closed client is left.
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => Failure::Closed,
        }
    }
}
