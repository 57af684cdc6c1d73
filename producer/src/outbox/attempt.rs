//! Attempts at one message, alone or in company, until one is acknowledged.
//!
//! ```text
//! attempt ─▶ acknowledged
//!   ▲  │
//!   │  ├─▶ final: the answer would be the same
//!   │  │
//!   └──┘ backoff, until the deadline
//! ```
//!
//! No timer stands around all of it: the one that most publishes need, for their acknowledgement,
//! would be set twice.

use std::sync::Arc;

use async_nats::{StatusCode, client::PublishErrorKind};
use tokio::{
    sync::Semaphore,
    time::{Instant, error::Elapsed, sleep, timeout_at},
};

use crate::{
    backoff,
    link::{nats::NatsLink, routes::Arrival},
    metrics,
    outbox::{
        answer::{Acknowledgement, read_answer},
        failure::AttemptFailure,
        gather::{Departure, Gatherer, WaitEnd},
        message::Message,
        progress::{Attempted, Tries},
    },
};

/// How something ended, or that the time is up.
pub(super) type AttemptEnd = Result<Result<Acknowledgement, AttemptFailure>, Elapsed>;

/// What attempts are made with, and how many may be under way.
#[derive(Debug)]
pub(crate) struct Attempts {
    link: Arc<NatsLink>,
    in_flight: Semaphore,
    max_in_flight: usize,
    /// `None` where every command is published alone.
    gatherer: Option<Gatherer>,
}

impl Attempts {
    pub(crate) fn new(
        link: Arc<NatsLink>,
        max_in_flight: usize,
        gatherer: Option<Gatherer>,
    ) -> Self {
        Self { link, in_flight: Semaphore::new(max_in_flight), max_in_flight, gatherer }
    }

    /// Publishes that wait for their acknowledgement.
    pub(super) fn in_flight(&self) -> usize {
        self.max_in_flight - self.in_flight.available_permits()
    }

    /// Attempts until one is acknowledged or fails for good. Only what was never sent may leave in
    /// company: the others' answer must not depend on an id that the stream may hold.
    pub(super) async fn until_acknowledged(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
        tries: &mut Tries,
        sent: Attempted,
    ) -> AttemptEnd {
        let mut backoff = backoff::publishing();
        let mut sent = sent;
        loop {
            // Out of time in the middle of one, it may be out.
            let result = self.attempt(message, deadline, tries, sent).await?;
            tries.is_out = false;
            sent = Attempted::Before;
            let failure = match result {
                Ok(stored) => return Ok(Ok(stored)),
                Err(failure) => failure,
            };
            let verdict = failure.verdict();
            tries.maybe_stored |= verdict.maybe_stored;
            if !verdict.again {
                return Ok(Err(failure));
            }
            metrics::retried(failure.as_str());
            tracing::debug!(id = %message.id, reason = failure.as_str(), "publishing again");
            tries.last = Some(failure);
            timeout_at(deadline, sleep(backoff.next_pause())).await?;
        }
    }

    /// One attempt: sent once, and its answer awaited. One that was refused in company goes on
    /// alone.
    async fn attempt(
        &self,
        message: &Arc<Message>,
        deadline: Instant,
        tries: &mut Tries,
        sent: Attempted,
    ) -> AttemptEnd {
        if let Err(closed) = self.check_open() {
            return Ok(Err(closed));
        }
        // The semaphore is never closed.
        let Ok(_permit) = timeout_at(deadline, self.in_flight.acquire()).await? else {
            return Ok(Err(AttemptFailure::Closed));
        };
        let departure = match (&self.gatherer, sent) {
            (Some(gatherer), Attempted::Never) => gatherer.enter(message),
            (Some(_) | None, _) => Departure::Alone(None),
        };
        let slot = match departure {
            Departure::Alone(slot) => slot,
            Departure::Later(waiting) => {
                match timeout_at(deadline, waiting.end(&mut tries.is_out)).await? {
                    WaitEnd::Alone(slot) => match self.check_open() {
                        Ok(()) => slot,
                        Err(closed) => return Ok(Err(closed)),
                    },
                    WaitEnd::Stored(stored) => return Ok(Ok(stored)),
                    WaitEnd::InDoubt(failure) => {
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
            gatherer.acknowledged(slot, left);
        }
        Ok(end)
    }

    /// Whether something can be sent, and answered.
    fn check_open(&self) -> Result<(), AttemptFailure> {
        // While disconnected the client would keep every attempt and send them all in the end.
        if !self.link.is_connected() {
            return Err(AttemptFailure::NotConnected);
        }
        if self.link.is_deaf() {
            return Err(AttemptFailure::Deaf { inbox: self.link.inbox.subject(), sent: false });
        }
        Ok(())
    }

    async fn attempt_alone(
        &self,
        message: &Message,
        left: Instant,
        deadline: Instant,
        tries: &mut Tries,
    ) -> AttemptEnd {
        // Silence until then is the attempt's end, or the call's.
        let until = |from: Instant| deadline.min(from + self.link.ack_timeout);
        let silent = |until: Instant, elapsed: Elapsed, failure| match until < deadline {
            true => Ok(Err(failure)),
            false => Err(elapsed),
        };
        let answer = self.link.routes.expect_answer(message.target.subject.clone());
        let sending = self.link.client.publish_with_reply_and_headers(
            message.target.subject.clone(),
            self.link.inbox.for_token(answer.token),
            message.headers(),
            message.body.clone(),
        );
        let sent_until = until(left);
        match timeout_at(sent_until, sending).await {
            Err(elapsed) => return silent(sent_until, elapsed, AttemptFailure::NotSent),
            Ok(Err(error)) => return Ok(Err(self.not_sent(error.kind()))),
            Ok(Ok(())) => tries.is_out = true,
        }
        // Where the client's queue was full, it went out later.
        let answered_until = until(Instant::now());
        Ok(match timeout_at(answered_until, answer.arrival()).await {
            Err(elapsed) => return silent(answered_until, elapsed, AttemptFailure::Unanswered),
            Ok(Arrival::Denied) => Err(AttemptFailure::Denied),
            Ok(Arrival::Deaf) => {
                Err(AttemptFailure::Deaf { inbox: self.link.inbox.subject(), sent: true })
            }
            Ok(Arrival::Message(answer)) if answer.status == Some(StatusCode::NO_RESPONDERS) => {
                Err(AttemptFailure::NoStream)
            }
            Ok(Arrival::Message(answer)) => read_answer(&answer.payload),
        })
    }

    fn not_sent(&self, kind: PublishErrorKind) -> AttemptFailure {
        match kind {
            PublishErrorKind::MaxPayloadExceeded => {
                AttemptFailure::OverServerLimit { limit_bytes: self.link.client.max_payload() }
            }
            // Subjects are made of checked names, so that only the closed client is left.
            PublishErrorKind::InvalidSubject | PublishErrorKind::Send => AttemptFailure::Closed,
        }
    }
}
