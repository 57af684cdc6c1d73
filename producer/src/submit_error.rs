//! Why a command is not known to be committed, and what is known all the same.

use std::fmt;

use farwrite_schemas::{Bookmark, CommandId, DeadLetter, Rejection};
use serde_json::value::RawValue;

use crate::{
    outbox::{accepted::Accepted, publish_error::PublishError},
    questions::{last_heard::LastHeard, ledger::OutputError},
};

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
#[non_exhaustive]
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
    /// It was applied, and its output is not of the type that the command names.
    #[error("the command {id} was applied, and its output is not of the expected type: {cause}")]
    Output {
        /// The command id.
        id: CommandId,
        /// The output as it came.
        raw: RawOutput,
        /// At or behind the commit.
        bookmark: Bookmark,
        /// What is wrong with it.
        cause: serde_json::Error,
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

    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Publish(error) => error.as_str(),
            Self::Rejected { .. } => "rejected",
            Self::Expired { .. } => "expired",
            Self::DeadLettered { .. } => "dead_lettered",
            Self::TimedOut { .. } => "outcome_timed_out",
            Self::OutputNotRead { .. } => "output_not_read",
            Self::Output { .. } => "output",
        }
    }
}
