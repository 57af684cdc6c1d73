//! Why a stream cannot be worked with.

use crate::verdict::Happened;

/// The stream cannot be worked with.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// NATS cannot be reached.
    #[error("NATS at {url}: {reason}")]
    Connect {
        /// Where, without credentials.
        url: String,
        /// What the client says.
        reason: String,
    },
    /// JetStream answered with an error, or not at all.
    #[error("JetStream, stream {stream}: {reason}")]
    JetStream {
        /// The stream's name.
        stream: String,
        /// What was asked and what was answered.
        reason: String,
    },
    /// A setting would lose commands that are not applied yet.
    #[error("stream {stream} breaks the contract: {}", broken.join("; "))]
    Contract {
        /// The stream's name.
        stream: String,
        /// Each setting, with what to change.
        broken: Vec<String>,
    },
    /// It is not the stream whose positions the database holds.
    #[error(
        "stream {stream} is not the one that this database knows: {reason}. \
             Nothing more is read from it. Find out what happened to the stream before anything else; \
             then `farwrite worker adopt-stream` says from where to go on"
    )]
    Unknown {
        /// The stream's name.
        stream: String,
        /// What differs.
        reason: String,
    },
    /// It is the stream that the database knows, and does not hold what was passed in it.
    #[error(
        "stream {stream} is not the one that this database knows: {reason}. \
             Nothing more is read from it. Find out what happened to the stream before anything else; \
             then `farwrite worker adopt-stream` says from where to go on"
    )]
    Changed {
        /// The stream's name.
        stream: String,
        /// What differs.
        reason: String,
    },
    /// It was found changed before, and no operator has decided since.
    #[error(
        "stream {stream} is not the one that this database knows: {reason}. \
             That was found {at}, and the stream stays refused until an operator decides, however it looks by now. \
             Find out what happened to it; then `farwrite worker adopt-stream` says from where to go on"
    )]
    Refused {
        /// The stream's name.
        stream: String,
        /// When, by the primary's clock.
        at: String,
        /// What differed then.
        reason: String,
    },
    /// The database was never told of it.
    #[error("stream {0} is not registered in this database: run `farwrite worker migrate`")]
    NotRegistered(String),
    /// The database failed while the stream was registered.
    #[error("the primary: {0}")]
    Sql(sqlx::Error),
}

impl From<sqlx::Error> for StreamError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl StreamError {
    /// Whether it may pass by itself, and waiting is right.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::JetStream { .. } => true,
            Self::Sql(error) => Happened::of(error).verdict().may_pass(),
            Self::Contract { .. }
            | Self::Unknown { .. }
            | Self::Changed { .. }
            | Self::Refused { .. }
            | Self::NotRegistered(_) => false,
        }
    }

    /// Whether it is another stream than the one that the database knows, or no longer the same.
    #[must_use]
    pub fn is_other_stream(&self) -> bool {
        matches!(self, Self::Unknown { .. } | Self::Changed { .. } | Self::Refused { .. })
    }

    pub(crate) fn jetstream(stream: &str, reason: impl std::fmt::Display) -> Self {
        Self::JetStream { stream: stream.to_owned(), reason: reason.to_string() }
    }
}
