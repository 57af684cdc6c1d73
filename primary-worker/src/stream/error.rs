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
            Self::Contract { .. } | Self::Unknown { .. } | Self::NotRegistered(_) => false,
        }
    }

    pub(crate) fn jetstream(stream: &str, reason: impl std::fmt::Display) -> Self {
        Self::JetStream { stream: stream.to_owned(), reason: reason.to_string() }
    }
}
