//! Why something cannot be a command.

use farwrite_schemas::{CONTEXT_MAX_BYTES, KeyError, NameError};

/// A command cannot be one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidCommand {
    /// Its name does not have a name's form.
    #[error("its {0}")]
    Name(NameError),
    /// Its key does not have a key's form.
    #[error("its key: {0}")]
    Key(KeyError),
    /// Its version is 0 or larger than PostgreSQL's `integer`.
    #[error("its version {0} is not between 1 and 2147483647")]
    Version(u32),
    /// A time lies before 1970 or behind the year 2262.
    #[error("the time for its header {header} does not lie between 1970 and the year 2262")]
    Time {
        /// The header that would carry it.
        header: &'static str,
    },
    /// It expired before it was sent, by this machine's clock. An earlier attempt under its id may
    /// have been accepted all the same: ask for its outcome.
    #[error("it expired at {expires_at_ms} (Unix milliseconds), before it was sent")]
    Expired {
        /// When, in Unix milliseconds.
        expires_at_ms: u64,
    },
    /// It would always have expired when its time comes.
    #[error(
        "it would expire at {expires_at_ms}, and not be applied before {not_before_ms} (Unix milliseconds)"
    )]
    ExpiresFirst {
        /// When it expires, in Unix milliseconds.
        expires_at_ms: u64,
        /// When it is to be applied at the earliest, in Unix milliseconds.
        not_before_ms: u64,
    },
    /// Its context is no JSON object, or too large.
    #[error("its context is not a JSON object of at most {CONTEXT_MAX_BYTES} bytes")]
    Context,
    /// Its type, or that of its context, could not be written as JSON.
    #[error("it cannot be written as JSON: {0}")]
    Json(serde_json::Error),
}

impl From<NameError> for InvalidCommand {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<KeyError> for InvalidCommand {
    fn from(error: KeyError) -> Self {
        Self::Key(error)
    }
}

impl From<serde_json::Error> for InvalidCommand {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(error)
    }
}
