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
//! Every wait on the way ends at the deadline; what was learnt lives outside of what is timed
//! ([`Progress`]), so that a deadline never takes it away. No timer stands around all of it: the one
//! that most publishes need, for their acknowledgement, would be set twice.

use std::sync::Arc;

use async_nats::{StatusCode, client::PublishErrorKind, connection::State};
use farwrite_schemas::CommandId;
use tokio::time::{Instant, error::Elapsed, sleep, timeout_at};

use crate::{
    backoff::Backoff,
    journal::Kept,
    link::routes::Arrival,
    metrics,
    outbox::{
        answer::{Failure, Stored, read_answer},
        gather::{End, Way},
        message::Message,
        turns::Turn,
    },
    producer::Inner,
};

/// How far a message has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    pub(crate) stage: Stage,
    pub(crate) tries: Tries,
    /// Its hold on the journal, where there is one.
    pub(crate) kept: Option<Kept>,
}

impl Progress {
    /// Of a message that is in the journal already.
    pub(crate) fn of_kept(kept: Kept) -> Self {
        Self { stage: Stage::default(), tries: Tries::default(), kept: Some(kept) }
    }
}

impl Drop for Progress {
    /// Whoever drops a publish leaves what was sent in the journal, and nothing else.
    fn drop(&mut self) {
        if self.tries.in_doubt()
            && let Some(kept) = self.kept.take()
        {
            kept.in_doubt();
        }
    }
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

/// Whether a message may be in the stream already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Never,
    Before,
}

/// Why no acknowledgement came.
#[derive(Debug)]
pub(crate) enum Unsent {
    /// The time is up.
    OutOfTime,
    /// An attempt failed in a way that another one would repeat.
    Final(Failure),
}

/// How something ended, or that the time is up.
type Timed = Result<Result<Stored, Failure>, Elapsed>;

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
            let sent = self.journal_and_send(message, deadline, progress).await;
            return conclude(sent, message, None, progress);
        };
        let sent = self.send_in_turn(message, turn, deadline, progress).await;
        conclude(sent, message, Some(turn), progress)
    }

    /// Sends a message again that is in the journal, in its key's turn, which has come. Whatever
    /// else blocks the key was sent after it, and stays behind it.
    pub(crate) async fn send_again(
        &self,
        message: &Arc<Message>,
        turn: Option<&Turn>,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Result<Stored, Unsent> {
        progress.stage = Stage::Sending;
        let sent = self.attempts(message, deadline, &mut progress.tries, Sent::Before).await;
        conclude(sent, message, turn, progress)
    }

    async fn send_in_turn(
        &self,
        message: &Arc<Message>,
        turn: &mut Turn,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Timed {
        timeout_at(deadline, turn.come()).await?;
        // The same id again resolves itself.
        if let Some(before) = turn.unresolved().filter(|before| before.id != message.id) {
            progress.stage = Stage::Resolving(before.id);
            let mut tries = Tries::default();
            match self.attempts(&before, deadline, &mut tries, Sent::Before).await? {
                Ok(Stored { stream, sequence, .. }) => {
                    turn.resolve(before.id);
                    let journal = self.journal.as_ref();
                    if let Some(kept) = journal.and_then(|journal| journal.claim(before.id)) {
                        kept.stored(&stream, sequence);
                    }
                }
                Err(failure) if failure.verdict().settled => turn.resolve(before.id),
                Err(failure) => return Ok(Err(failure)),
            }
        }
        self.journal_and_send(message, deadline, progress).await
    }

    /// Writes a message down, where there is a journal, before it goes out. In its key's turn, so
    /// that the journal has a key's commands in the order of the stream.
    async fn journal_and_send(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
        progress: &mut Progress,
    ) -> Timed {
        progress.stage = Stage::Sending;
        if let Some(journal) = &self.journal {
            match timeout_at(deadline, journal.enter(message)).await? {
                Ok(kept) => progress.kept = Some(kept),
                Err(unjournaled) => return Ok(Err(Failure::Unjournaled(unjournaled))),
            }
        }
        self.attempts(message, deadline, &mut progress.tries, Sent::Never).await
    }

    /// Attempts until one is acknowledged or fails for good. Only what was never sent may leave in
    /// company: the others' answer must not depend on an id that the stream may hold.
    async fn attempts(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
        tries: &mut Tries,
        sent: Sent,
    ) -> Timed {
        let mut backoff = Backoff::publishing();
        let mut sent = sent;
        loop {
            // Out of time in the middle of one, it may be out.
            let result = self.attempt(message, deadline, tries, sent).await?;
            tries.is_out = false;
            sent = Sent::Before;
            let failure = match result {
                Ok(stored) => return Ok(Ok(stored)),
                Err(failure) => failure,
            };
            let verdict = failure.verdict();
            tries.maybe_stored |= verdict.maybe_stored;
            if !verdict.again {
                return Ok(Err(failure));
            }
            metrics::retried(failure.word());
            tracing::debug!(id = %message.id, reason = failure.word(), "publishing again");
            tries.last = Some(failure);
            timeout_at(deadline, sleep(backoff.next())).await?;
        }
    }

    /// One attempt: sent once, and its answer awaited. One that was refused in company goes on
    /// alone.
    async fn attempt(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
        tries: &mut Tries,
        sent: Sent,
    ) -> Timed {
        if let Err(closed) = self.check_open() {
            return Ok(Err(closed));
        }
        // The semaphore is never closed.
        let Ok(_slot) = timeout_at(deadline, self.in_flight.acquire()).await? else {
            return Ok(Err(Failure::Closed));
        };
        let way = match (&self.gatherer, sent) {
            (Some(gatherer), Sent::Never) => gatherer.enter(message),
            (Some(_) | None, _) => Way::Alone(None),
        };
        let place = match way {
            Way::Alone(place) => place,
            Way::Waiting(waiting) => {
                match timeout_at(deadline, waiting.end(&mut tries.is_out)).await? {
                    End::Alone(place) => match self.check_open() {
                        Ok(()) => place,
                        Err(closed) => return Ok(Err(closed)),
                    },
                    End::Stored(stored) => return Ok(Ok(stored)),
                    End::InDoubt(failure) => {
                        tries.maybe_stored = true;
                        return Ok(Err(failure));
                    }
                }
            }
        };
        let left = Instant::now();
        let end = self.attempt_alone(message, left, deadline, tries).await?;
        if end.is_ok()
            && let Some(gatherer) = &self.gatherer
        {
            message.target.answered();
            gatherer.acknowledged(place, left);
        }
        Ok(end)
    }

    /// Whether something can be sent, and answered.
    fn check_open(&self) -> Result<(), Failure> {
        // While disconnected the client would keep every attempt and send them all in the end.
        if self.client.connection_state() != State::Connected {
            return Err(Failure::NotConnected);
        }
        if self.routes.is_deaf() {
            return Err(Failure::Deaf { inbox: self.inbox.subject(), sent: false });
        }
        Ok(())
    }

    async fn attempt_alone(
        &self,
        message: &Message,
        left: Instant,
        deadline: Instant,
        tries: &mut Tries,
    ) -> Timed {
        // Silence until then is the attempt's end, or the call's.
        let until = |from: Instant| deadline.min(from + self.limits.ack_timeout);
        let silent = |until: Instant, elapsed: Elapsed, failure| match until < deadline {
            true => Ok(Err(failure)),
            false => Err(elapsed),
        };
        let answer = self.routes.expect_answer(message.target.subject.clone());
        let sending = self.client.publish_with_reply_and_headers(
            message.target.subject.clone(),
            self.inbox.for_token(answer.token),
            message.headers(),
            message.body.clone(),
        );
        let sent_until = until(left);
        match timeout_at(sent_until, sending).await {
            Err(elapsed) => return silent(sent_until, elapsed, Failure::NotSent),
            Ok(Err(error)) => return Ok(Err(self.not_sent(error.kind()))),
            Ok(Ok(())) => tries.is_out = true,
        }
        // Where the client's queue was full, it went out later.
        let answered_until = until(Instant::now());
        Ok(match timeout_at(answered_until, answer.arrival()).await {
            Err(elapsed) => return silent(answered_until, elapsed, Failure::Unanswered),
            Ok(Arrival::Denied) => Err(Failure::Denied),
            Ok(Arrival::Deaf) => Err(Failure::Deaf { inbox: self.inbox.subject(), sent: true }),
            Ok(Arrival::Message(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(Failure::NoStream)
            }
            Ok(Arrival::Message(answer)) => read_answer(&answer.payload),
        })
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

/// What the end of a publish means for its key and its journal entry.
fn conclude(
    sent: Timed,
    message: &Arc<Message>,
    turn: Option<&Turn>,
    progress: &mut Progress,
) -> Result<Stored, Unsent> {
    let in_doubt = progress.tries.in_doubt();
    let (result, is_settled) = match sent {
        Ok(Ok(stored)) => (Ok(stored), true),
        Ok(Err(failure)) => {
            let is_settled = failure.verdict().settled;
            (Err(Unsent::Final(failure)), is_settled)
        }
        Err(_) => (Err(Unsent::OutOfTime), false),
    };
    match turn {
        Some(turn) if is_settled => turn.resolve(message.id),
        Some(turn) if in_doubt => turn.block(message),
        Some(_) | None => {}
    }
    if let Ok(Stored { stream, sequence, .. }) = &result
        && let Some(kept) = progress.kept.take()
    {
        kept.stored(stream, *sequence);
    }
    result
}
