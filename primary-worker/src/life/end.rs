//! How a takeover's service ends, and why a worker does: data, and its conversions.
//!
//! A [`ServingEnd`] says what the worker does next. Whether an error may pass is decided where the
//! error is defined, by the table in `verdict`.

use crate::{
    config::SettingError, primary::PrimaryError, stream::error::StreamError, verdict::Blame,
};

/// Why a worker ended, other than being asked to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// A setting breaks its rule.
    #[error(transparent)]
    Config(#[from] SettingError),
    /// The primary is not one to work on.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The stream is not one to work with, or not the one that the database knows.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// A handler committed or rolled back the batch's transaction.
    #[error(
        "a handler broke its promise, and the worker stops before more is lost: {0}. \
             Look for the commands of the last batch in farwrite.ledger, and mend the handler"
    )]
    Broken(String),
    /// A task of the worker ended unexpectedly.
    #[error("{0} ended unexpectedly")]
    Task(&'static str),
}

/// How the service of a takeover ended, or one task of it.
#[derive(Debug)]
pub(crate) enum ServingEnd {
    /// It was asked to stop, or nothing is read any more.
    Stopped,
    /// Something that may pass: begin again.
    Again {
        /// What happened.
        reason: String,
        /// How far the command that ran, if it ran alone, may be the cause.
        blame: Blame,
    },
    /// Another worker has taken over.
    Taken,
    /// Something that will not pass.
    Fatal(WorkerError),
}

impl ServingEnd {
    /// Something that may pass, and that no command is to blame for.
    pub(crate) fn again(reason: impl ToString) -> Self {
        Self::Again { reason: reason.to_string(), blame: Blame::None }
    }

    /// The same, said of one task.
    pub(crate) fn again_of(task: &str, reason: impl std::fmt::Display) -> Self {
        Self::again(format!("{task}: {reason}"))
    }
}

impl From<PrimaryError> for ServingEnd {
    fn from(error: PrimaryError) -> Self {
        if error.may_pass() { Self::again(error) } else { Self::Fatal(error.into()) }
    }
}

impl From<sqlx::Error> for ServingEnd {
    fn from(error: sqlx::Error) -> Self {
        PrimaryError::from(error).into()
    }
}

impl From<StreamError> for ServingEnd {
    fn from(error: StreamError) -> Self {
        if error.may_pass() { Self::again(error) } else { Self::Fatal(error.into()) }
    }
}
