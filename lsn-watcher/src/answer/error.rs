//! Why a wait ended without its position being reached.

use farwrite_schemas::Lsn;

use super::{gone::GoneReason, report::WaitReport};

/// Why a wait ended without its position being reached. Every reason that took time says what was
/// seen meanwhile, and the text says all of it: there is no source.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// The time is up; the replica answers, and is not there yet.
    #[error("the replica has not replayed {target} in time ({seen})")]
    TimedOut {
        /// What was waited for.
        target: Lsn,
        /// How far it had come.
        seen: Box<WaitReport>,
    },
    /// The time is up, and the replica could not be asked.
    #[error("the replica cannot be asked for {target}: {reason} ({seen})")]
    ReplicaGone {
        /// What was waited for.
        target: Lsn,
        /// What had been seen of it before.
        seen: Box<WaitReport>,
        /// Why it cannot be asked.
        reason: GoneReason,
    },
    /// The commit is not in this server's history: it lies on a branch that a failover lost, or
    /// nobody made this bookmark. The outcome of its command says whether it was applied again, and
    /// has a bookmark of its own. Told at once, not at the deadline.
    #[error("{target} is not in the server's history: a failover may have lost it ({seen})")]
    Superseded {
        /// What was waited for.
        target: Lsn,
        /// What is known of the server.
        seen: Box<WaitReport>,
    },
    /// A bookmark so far ahead that nobody can have written it. Told at once.
    #[error("{target} is further ahead than anybody can have written ({seen})")]
    Implausible {
        /// What was waited for.
        target: Lsn,
        /// What is known of the server.
        seen: Box<WaitReport>,
    },
    /// A bare position on a server that is not in recovery: it was promoted, or is a primary, and
    /// the position does not say on which branch it lies. Told at once, not at the deadline.
    #[error("the server is not a replica: it may have been promoted; wait for a bookmark instead")]
    NotAReplica,
    /// As many callers wait as may. Told at once.
    #[error("{limit} callers wait already, which is the limit")]
    TooManyWaiters {
        /// The limit.
        limit: usize,
    },
    /// The watcher was shut down, or its NATS client was closed for good.
    #[error("the watcher was shut down")]
    Closed,
}
