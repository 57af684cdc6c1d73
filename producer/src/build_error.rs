//! Why a producer could not be built.

use farwrite_lsn_watcher::WatcherConfigError;
use farwrite_schemas::NameError;

use crate::{journal::JournalError, limits::LimitError};

/// Why a producer could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Nothing says where NATS is.
    #[error("no NATS: give a URL or a client (FARWRITE_NATS_URL)")]
    NoNats,
    /// A variable of the environment is missing.
    #[error("the variable {0} is not set")]
    Missing(&'static str),
    /// A variable of the environment has none of the values that it may have.
    #[error("the variable {name} must be {rule}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// The database's or the origin's name does not have a name's form.
    #[error("the {0}")]
    Name(NameError),
    /// A limit breaks its rule.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// The journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A database URL cannot be read.
    #[error("the {what} URL: {cause}")]
    Url {
        /// Which one.
        what: &'static str,
        /// What is wrong with it.
        cause: sqlx::Error,
    },
    /// The watcher's configuration breaks a rule.
    #[error("the watcher: {0}")]
    Watcher(WatcherConfigError),
    /// The URL of NATS cannot be read.
    #[error("the URL of NATS: {0}")]
    NatsUrl(std::io::Error),
    /// NATS cannot be connected to.
    #[error("cannot connect to NATS: {0}")]
    Nats(async_nats::ConnectError),
    /// The inbox could not be opened.
    #[error("cannot listen to the inbox: {0}")]
    Inbox(async_nats::SubscribeError),
}

impl From<NameError> for BuildError {
    fn from(error: NameError) -> Self {
        Self::Name(error)
    }
}

impl From<WatcherConfigError> for BuildError {
    fn from(error: WatcherConfigError) -> Self {
        Self::Watcher(error)
    }
}

/// A variable of the environment, where it is set to something.
pub(crate) fn variable(name: &'static str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
