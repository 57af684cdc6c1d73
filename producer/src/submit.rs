//! The verb `submit`: the primary has committed the command's outcome.
//!
//! ```text
//! route laid ─▶ published ─▶ accepted ─▶ reply ───────────────▶ outcome
//!                  │            │                                 ▲
//!                  │            ├─ duplicate: ask at once ────────┤
//!                  │            └─ no reply for 1 s: ask by id ───┤   and again, until the deadline
//!                  └─ the reply may overtake the acknowledgement ─┘
//! ```
//!
//! Whoever answers first wins; both tell what the ledger holds. A duplicate is asked for at once,
//! because the reply went to the inbox of the copy that was stored, and because only the ledger can
//! tell whether that copy had the same body.

use std::fmt;

use farwrite_schemas::{Bookmark, CommandId, DeadLetter, Outcome, Rejection, Reply};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use crate::{
    call::{Awaiting, Entered},
    metrics,
    outbox::{publish::Accepted, publish_error::PublishError},
    producer::Inner,
    questions::{ask::LastHeard, ledger::OutputError},
};

/// The primary has committed the command's effects.
#[derive(Clone)]
pub struct Committed<O> {
    /// The command id.
    pub id: CommandId,
    /// What the command answered.
    pub output: O,
    /// A position at or behind the commit: whoever holds it can wait for it in any region.
    pub bookmark: Bookmark,
}

/// Without the output: what it holds is the app's, and has no place in a log.
impl<O> fmt::Debug for Committed<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, bookmark, .. } = self;
        write!(f, "Committed {{ id: {id}, bookmark: {bookmark}, .. }}")
    }
}

/// An output as it came, which its type could not be read from. Its debug form is its length.
#[derive(Clone)]
pub struct RawOutput(pub Box<RawValue>);

impl fmt::Debug for RawOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawOutput({} bytes)", self.0.get().len())
    }
}

/// Why a command is not known to be committed, or how it ended without effects.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// It was not, or not for certain, accepted.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// It had no effect, by its own fault: it would have none another time.
    #[error("the command {id} was {rejection}")]
    Rejected {
        /// The command id.
        id: CommandId,
        /// Why.
        #[source]
        rejection: Box<Rejection>,
        /// At or behind the commit of the rejection.
        bookmark: Bookmark,
    },
    /// Its time had passed before it could be applied.
    #[error("the command {id} expired before it could be applied")]
    Expired {
        /// The command id.
        id: CommandId,
        /// At or behind the commit of that.
        bookmark: Bookmark,
    },
    /// Nobody could apply it; an operator can look at it.
    #[error("the command {id} was {dead_letter}")]
    DeadLettered {
        /// The command id.
        id: CommandId,
        /// Why.
        #[source]
        dead_letter: DeadLetter,
        /// At or behind the commit of that.
        bookmark: Bookmark,
    },
    /// It was accepted and will end, and the time was up before that was heard. Ask for its
    /// outcome later by its id, or submit it again with the same id.
    #[error(
        "the outcome of the command {} was not heard in time; it is in the stream {} at {} ({last_heard})",
        accepted.id, accepted.stream, accepted.sequence
    )]
    TimedOut {
        /// Where it is.
        accepted: Accepted,
        /// What the outcome service said last.
        last_heard: LastHeard,
    },
    /// It was applied; its output is too large for a message, and could not be read from the
    /// database either. Whoever has a connection to the primary, or to a replica that has reached
    /// the bookmark, reads it with `SELECT answer FROM farwrite.outcome_of('<id>')`.
    #[error(
        "the command {id} was applied; its output of {output_bytes} bytes is too large for a message, and was not read from the database: {source}. \
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
        source: OutputError,
    },
    /// It was applied, and its output is not of the type that the command names.
    #[error("the command {id} was applied, and its output is not of the expected type: {source}")]
    Output {
        /// The command id.
        id: CommandId,
        /// The output as it came.
        raw: RawOutput,
        /// At or behind the commit.
        bookmark: Bookmark,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl SubmitError {
    /// The command id.
    #[must_use]
    pub const fn id(&self) -> CommandId {
        match self {
            Self::Publish(error) => error.id(),
            Self::TimedOut { accepted, .. } => accepted.id,
            Self::Rejected { id, .. }
            | Self::Expired { id, .. }
            | Self::DeadLettered { id, .. }
            | Self::OutputNotRead { id, .. }
            | Self::Output { id, .. } => *id,
        }
    }

    const fn word(&self) -> &'static str {
        match self {
            Self::Publish(error) => error.word(),
            Self::Rejected { .. } => "rejected",
            Self::Expired { .. } => "expired",
            Self::DeadLettered { .. } => "dead_lettered",
            Self::TimedOut { .. } => "outcome_timed_out",
            Self::OutputNotRead { .. } => "output_not_read",
            Self::Output { .. } => "output",
        }
    }
}

/// A command that was applied, with its output as it came.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) id: CommandId,
    pub(crate) output: RawOutput,
    pub(crate) bookmark: Bookmark,
}

impl Applied {
    /// Reads the output as its type.
    pub(crate) fn committed<O: DeserializeOwned>(self) -> Result<Committed<O>, SubmitError> {
        let Self { id, output: raw, bookmark } = self;
        match serde_json::from_str(raw.0.get()) {
            Ok(output) => Ok(Committed { id, output, bookmark }),
            Err(source) => Err(SubmitError::Output { id, raw, bookmark, source }),
        }
    }
}

impl Inner {
    /// Submits a call that has its place, and counts how that ended. When it is accepted and its
    /// outcome is not there yet, that is told.
    pub(crate) async fn submit(
        &self,
        awaiting: Awaiting,
        tell_accepted: impl FnOnce(),
    ) -> Result<Applied, SubmitError> {
        let began = awaiting.entered.began;
        let deadline = awaiting.entered.deadline;
        let result = match self.outcome_of(awaiting, tell_accepted).await {
            Ok(reply) => {
                self.forget_ended(reply.id);
                self.applied(reply, deadline).await
            }
            Err(error) => Err(error),
        };
        let word = result.as_ref().map_or_else(SubmitError::word, |_| "applied");
        metrics::submitted(began.elapsed(), word);
        result
    }

    async fn outcome_of(
        &self,
        awaiting: Awaiting,
        tell_accepted: impl FnOnce(),
    ) -> Result<Reply, SubmitError> {
        let Awaiting { mut entered, fingerprint, mut reply } = awaiting;
        let id = entered.message.id;
        let accepted = tokio::select! {
            biased; // a reply is the better answer where both are there
            reply = reply.reply() => {
                overtaken(&entered);
                return Ok(reply);
            }
            published = self.publish(&mut entered) => published?,
        };
        tell_accepted();
        // The next call of the key need not wait for the outcome.
        entered.turn = None;
        let mut last_heard = LastHeard::Nothing;
        let asking = self.ask_until_known(id, fingerprint, accepted.duplicate, &mut last_heard);
        let answer = tokio::select! {
            biased; // the reply costs nobody anything more
            reply = reply.reply() => Some(reply),
            reply = asking => Some(reply),
            () = sleep_until(entered.deadline) => None,
        };
        answer.ok_or(SubmitError::TimedOut { accepted, last_heard })
    }

    /// What a reply says; an output that was left out of it is read from the ledger.
    async fn applied(&self, reply: Reply, deadline: Instant) -> Result<Applied, SubmitError> {
        let Reply { id, outcome, bookmark, .. } = reply;
        match outcome {
            Outcome::Applied { output } => Ok(Applied { id, output: RawOutput(output), bookmark }),
            Outcome::AppliedLarge { output_bytes } => {
                match self.read_output(id, &bookmark, deadline).await {
                    Ok(output) => Ok(Applied { id, output: RawOutput(output), bookmark }),
                    Err(source) => {
                        Err(SubmitError::OutputNotRead { id, output_bytes, bookmark, source })
                    }
                }
            }
            Outcome::Rejected(rejection) => {
                Err(SubmitError::Rejected { id, rejection: Box::new(rejection), bookmark })
            }
            Outcome::Expired => Err(SubmitError::Expired { id, bookmark }),
            Outcome::DeadLettered(dead_letter) => {
                Err(SubmitError::DeadLettered { id, dead_letter, bookmark })
            }
        }
    }
}

/// The reply came before the acknowledgement: it proves that the command was accepted.
fn overtaken(entered: &Entered) {
    if let Some(turn) = &entered.turn {
        turn.resolve(entered.message.id);
    }
    metrics::published(entered.began.elapsed(), false);
}
