//! Asking how a command ended, by its id: the worker's service first, and where that does not
//! answer the database that this producer reads.
//!
//! ```text
//! first connection ─▶ asked ─▶ answered: ended, or not
//!                      │ ▲
//!                      │ └──────────────────────────── pause ◀┐
//!                      └▶ not answered ─▶ read here: ended    │
//!                                           └─ unknown here ──┘   until the deadline
//! ```

use std::time::Duration;

use farwrite_schemas::{
    Bookmark, CommandId, NotEnded, Outcome, OutcomeAnswer, ParkedCommand, Reply,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::{
    backoff,
    limits::TIMEOUT_MAX,
    link::question::Unanswered,
    questions::{
        ask::Questions,
        last_heard::LastHeard,
        ledger::{LedgerAnswer, OutputError},
    },
};

/// Why an outcome could not be told. The command is what it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
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
    /// No worker answered, and the replica that this producer reads does not show that the command
    /// ended. It may have: a replica shows what it has replayed.
    #[error(
        "nobody knows how the command {id} ended: {last_heard}, and the replica does not show it; \
         it may have ended at the primary"
    )]
    UnknownHere {
        /// The command id.
        id: CommandId,
        /// How it was parked, where the replica shows that.
        parked: Option<ParkedCommand>,
        /// What the outcome service said last.
        last_heard: LastHeard,
    },
    /// No worker answered, and the database that this producer reads failed, or does not let this
    /// user read the ledger.
    #[error(
        "nobody knows how the command {id} ended: {last_heard}, and reading it here failed: {cause}"
    )]
    Reads {
        /// The command id.
        id: CommandId,
        /// What the outcome service said last.
        last_heard: LastHeard,
        /// What the database said.
        cause: sqlx::Error,
    },
    /// It was applied; its output is too large for a message, and could not be read from the
    /// database either. A connection to the primary, or to a replica that has
    /// reached the bookmark, reads it with `SELECT answer FROM farwrite.outcome_of('<id>')`.
    #[error(
        "the command {id} was applied; its output of {output_bytes} bytes is too large for a message, and was not read from the database: {cause}. \
         Read it at the bookmark {bookmark} with SELECT answer FROM farwrite.outcome_of('{id}')"
    )]
    OutputNotRead {
        /// The command id.
        id: CommandId,
        /// The output's length.
        output_bytes: u64,
        /// At or behind the commit.
        bookmark: Bookmark,
        /// Why it was not read.
        cause: OutputError,
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

/// What was learnt while nobody knew.
#[derive(Default)]
struct Learnt {
    service: Option<Unanswered>,
    here: Option<Result<Option<ParkedCommand>, sqlx::Error>>,
}

impl Questions {
    /// Asks how a command ended, for at most `timeout`. The answer has its whole output.
    pub(crate) async fn outcome(
        &self,
        id: CommandId,
        timeout: Duration,
    ) -> Result<OutcomeAnswer, OutcomeError> {
        let timeout = timeout.min(TIMEOUT_MAX);
        let deadline = Instant::now() + timeout;
        let limit = self.calls.limit();
        let _call = self.calls.enter().ok_or(OutcomeError::TooManyPending { id, limit })?;
        let mut learnt = Learnt::default();
        let asking = self.ask_everywhere(id, timeout, &mut learnt);
        match timeout_at(deadline, asking).await {
            Ok(answered) => self.whole(answered?, deadline).await,
            Err(_) => Err(learnt.error(id, self.link.is_connected())),
        }
    }

    /// Asks until somebody knows, be it that the command has not ended.
    async fn ask_everywhere(
        &self,
        id: CommandId,
        time: Duration,
        learnt: &mut Learnt,
    ) -> Result<OutcomeAnswer, OutcomeError> {
        let mut backoff = backoff::publishing();
        // A silent service leaves time to read.
        let patience = if self.reads.pool().is_ok() { time / 2 } else { time };
        // A client that was made just now is not away. What is read here may be less than the worker
        // knows.
        let first = patience.min(self.link.ack_timeout);
        drop(timeout(first, self.link.first_connected()).await);
        loop {
            let asked = timeout(patience, self.ask(id, None)).await;
            let unanswered = match asked.unwrap_or(Err(Unanswered::Silence)) {
                Ok(answer) => return Ok(answer),
                Err(unanswered) => unanswered,
            };
            let last_heard = LastHeard::from(&unanswered);
            // Before reading, which may take what is left of the time.
            learnt.service = Some(unanswered);
            // A database may be silent, and the worker be there meanwhile.
            let read = timeout(patience, self.read_outcome(id)).await;
            match read.unwrap_or(None) {
                None => {}
                Some(Ok(LedgerAnswer::Ended(reply))) => return Ok(OutcomeAnswer::Known(reply)),
                Some(Ok(LedgerAnswer::NotEnded { parked, is_fact: true })) => {
                    return Ok(OutcomeAnswer::Pending(NotEnded { id, parked }));
                }
                Some(Ok(LedgerAnswer::NotEnded { parked, is_fact: false })) => {
                    learnt.here = Some(Ok(parked));
                }
                Some(Err(error)) => {
                    tracing::warn!(%id, %error, %last_heard, "an outcome could not be read here");
                    learnt.here = Some(Err(error));
                }
            }
            match &learnt.service {
                Some(Unanswered::NotPermitted(subject)) => {
                    return Err(OutcomeError::NotPermitted { id, subject: subject.to_string() });
                }
                Some(Unanswered::Closed) => return Err(OutcomeError::Closed { id }),
                Some(
                    Unanswered::NotConnected
                    | Unanswered::NoService
                    | Unanswered::Unreadable
                    | Unanswered::Silence,
                )
                | None => {}
            }
            sleep(backoff.next_pause()).await;
        }
    }

    /// The answer with its whole output.
    async fn whole(
        &self,
        answer: OutcomeAnswer,
        deadline: Instant,
    ) -> Result<OutcomeAnswer, OutcomeError> {
        let OutcomeAnswer::Known(Reply {
            id,
            outcome: Outcome::AppliedLarge { output_bytes },
            bookmark,
            record,
        }) = answer
        else {
            return Ok(answer);
        };
        match self.read_output(id, &bookmark, deadline).await {
            Ok(output) => {
                let outcome = Outcome::Applied { output };
                Ok(OutcomeAnswer::Known(Reply { id, outcome, bookmark, record }))
            }
            Err(cause) => Err(OutcomeError::OutputNotRead { id, output_bytes, bookmark, cause }),
        }
    }
}

impl Learnt {
    /// What is so when the time is up.
    fn error(self, id: CommandId, is_connected: bool) -> OutcomeError {
        let Self { service, here } = self;
        let last_heard = service.as_ref().map_or(LastHeard::Nothing, LastHeard::from);
        match (here, service) {
            (Some(Ok(parked)), _) => OutcomeError::UnknownHere { id, parked, last_heard },
            (Some(Err(cause)), _) => OutcomeError::Reads { id, last_heard, cause },
            (None, Some(Unanswered::NoService)) => OutcomeError::NoWorker { id },
            (None, _) if !is_connected => OutcomeError::NoConnection { id },
            (None, _) => OutcomeError::TimedOut { id },
        }
    }
}
