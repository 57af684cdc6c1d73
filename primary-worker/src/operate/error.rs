//! Why an operator's question or act did not succeed.

use crate::primary::PrimaryError;

use super::limits::{HOLD_TRIES, HOLD_WITHIN_S};

/// An operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// The server is not one to work on, or its schema is not this program's.
    #[error(transparent)]
    Primary(#[from] PrimaryError),
    /// The database failed.
    #[error("the primary: {0}")]
    Sql(sqlx::Error),
    /// A batch, or another operator, held the lanes the whole time.
    #[error(
        "a batch holds its lane for longer than {} s: nothing (more) was done; try again",
        HOLD_TRIES * HOLD_WITHIN_S
    )]
    Busy,
    /// The database knows no such stream.
    #[error("stream: this database knows no stream {0:?}")]
    UnknownStream(String),
}

impl From<sqlx::Error> for OperateError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl OperateError {
    /// Whether the configuration is to be changed, rather than the operation repeated.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Primary(error) => !error.may_pass(),
            Self::UnknownStream(_) => true,
            Self::Sql(_) | Self::Busy => false,
        }
    }
}
