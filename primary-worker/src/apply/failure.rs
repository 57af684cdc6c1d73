//! Why an attempt did not commit: what the driver or a handler said, as a decision.
//!
//! The decision is [`Happened::verdict`]; this file only carries it, with what is recorded of the
//! error. A lane acts on it.

use std::borrow::Cow;

use farwrite_schemas::Rejection;
use sqlx::postgres::PgDatabaseError;

use crate::verdict::{Blame, Happened, Verdict};

use super::handler::HandlerError;

/// Why an attempt did not commit. Nothing of it stays.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Somebody else has taken over.
    Fenced,
    /// The primary, or the way to it, failed; or it looks so. `blame` tells how far a command that ran
    /// alone may be the cause, and `own` what its verdict is if the connection lives on; `None` where the
    /// connection answers no more.
    Unavailable { reason: Rejection, blame: Blame, own: Option<Verdict> },
    /// A handler ended the batch's transaction: what it committed is not in the ledger.
    TransactionEnded(String),
    /// As much waits as may.
    Full,
    /// A command of it; which one is known only when it was alone.
    Command(FailedCommand),
}

/// A command failed, or one of a batch did.
#[derive(Debug)]
pub(crate) struct FailedCommand {
    pub(crate) verdict: Verdict,
    pub(crate) rejection: Rejection,
    /// Which member of an atomic batch it was.
    pub(crate) member: Option<usize>,
}

impl FailedCommand {
    /// A batch of which more would have to wait than may.
    pub(crate) fn full() -> Self {
        let rejection = Rejection::new("full", "as many commands are parked as may be");
        Self { verdict: Verdict::Retry, rejection, member: None }
    }
}

impl Failure {
    pub(crate) fn of(happened: Happened, rejection: Rejection) -> Self {
        match happened.verdict() {
            Verdict::Fenced => Self::Fenced,
            Verdict::Broken => Self::TransactionEnded(rejection.message),
            Verdict::Wait => Self::unavailable(rejection, Blame::None, Verdict::Retry),
            Verdict::Ended => Self::unavailable(rejection, Blame::Half, Verdict::Retry),
            Verdict::Blame => Self::unavailable(rejection, Blame::Full, Verdict::Retry),
            Verdict::Overdraw => Self::unavailable(rejection, Blame::Full, Verdict::Overdraw),
            verdict @ (Verdict::Reject
            | Verdict::Again
            | Verdict::Retry
            | Verdict::Park
            | Verdict::Refresh
            | Verdict::Later(_)
            | Verdict::DeadLetter) => {
                Self::Command(FailedCommand { verdict, rejection, member: None })
            }
        }
    }

    /// A command is refused.
    pub(crate) fn refused(rejection: Rejection) -> Self {
        Self::of(Happened::Refused, rejection)
    }

    /// A fault of this program.
    pub(crate) fn internal(message: &str) -> Self {
        let rejection = Rejection::new("internal", message);
        Self::Command(FailedCommand { verdict: Verdict::DeadLetter, rejection, member: None })
    }

    /// Says which member of an atomic batch failed.
    pub(crate) fn of_member(self, member: usize) -> Self {
        match self {
            Self::Command(failed) => {
                Self::Command(FailedCommand { member: Some(member), ..failed })
            }
            other => other,
        }
    }

    /// What PostgreSQL answered is not of the form that it must have.
    pub(crate) fn unreadable(error: impl std::fmt::Display) -> Self {
        let reason = Rejection::new("unreadable", error.to_string());
        Self::unavailable(reason, Blame::None, Verdict::Retry)
    }

    fn unavailable(reason: Rejection, blame: Blame, own: Verdict) -> Self {
        Self::Unavailable { reason, blame, own: Some(own) }
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::of(Happened::in_session(&error), rejection_of(&error))
    }
}

impl From<HandlerError> for Failure {
    fn from(error: HandlerError) -> Self {
        match error {
            HandlerError::Rejected(rejection) => Self::refused(rejection),
            HandlerError::Later(wait) => {
                let message = format!("asked to be tried again after {} ms", wait.as_millis());
                Self::of(Happened::AskedLater(wait), Rejection::new("later", message))
            }
            HandlerError::Database(error) => error.into(),
        }
    }
}

/// What is recorded of an error: its code, its message and its constraint; never its detail, which
/// may hold another row's data. `farwrite.reject` brings a code of the app's own.
fn rejection_of(error: &sqlx::Error) -> Rejection {
    match error {
        sqlx::Error::Database(error) => {
            let postgres = error.try_downcast_ref::<PgDatabaseError>();
            let code = error.code().unwrap_or(Cow::Borrowed("XX000"));
            let own = postgres.and_then(PgDatabaseError::data_type).filter(|_| code == "P0001");
            Rejection {
                code: own.map_or_else(|| code.into_owned(), ToOwned::to_owned),
                message: error.message().to_owned(),
                constraint: error.constraint().map(ToOwned::to_owned),
            }
        }
        other => Rejection::new("driver", other.to_string()),
    }
}
