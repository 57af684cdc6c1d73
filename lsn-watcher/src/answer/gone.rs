//! Why the replica cannot be asked.

use std::{sync::Arc, time::Duration};

/// Why the replica cannot be asked. The text says all of it: there is no source.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GoneReason {
    /// The connection was refused or broke, or the server said no.
    #[error("the connection failed: {0}")]
    Connection(Arc<sqlx::Error>),
    /// The server accepted a connection or a query and was silent.
    #[error("no answer within {limit:?}")]
    Hung {
        /// The limit on one connection attempt or one query.
        limit: Duration,
    },
    /// A question is out and nobody answered it: over NATS, no watcher runs for the region.
    #[error("nobody answered for {silent:?}")]
    Unanswered {
        /// How long ago the first unanswered question was asked.
        silent: Duration,
    },
    /// The region's watcher answers, and says that it cannot ask the replica.
    #[error("the region's watcher cannot ask the replica")]
    ToldByWatcher,
    /// The connection to NATS is down, so that the region's watcher cannot be heard.
    #[error("NATS is not connected")]
    NatsDown,
}
