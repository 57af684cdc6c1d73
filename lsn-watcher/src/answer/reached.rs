//! The answer to a wait: the position was reached.

use std::time::Duration;

use farwrite_schemas::Lsn;

/// The server shows what was waited for: a new snapshot on it holds the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// How far the replica has replayed; at or past what was waited for. On a server that is no
    /// replica, up to where it shows its own commits.
    pub lsn: Lsn,
    /// Whether the server is a replica. False on a primary, whose own commits need no wait, and on
    /// a replica that was promoted.
    pub in_recovery: bool,
    /// When that server was started (`pg_postmaster_start_time()`), in microseconds since 1970.
    /// The answer holds for this start only: a server that crashed can come back behind it.
    pub server_start_us: i64,
    /// How long the caller waited.
    pub waited: Duration,
}

impl Reached {
    /// For tests of what is built on an answer.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(lsn: Lsn, in_recovery: bool, server_start_us: i64, waited: Duration) -> Self {
        Self { lsn, in_recovery, server_start_us, waited }
    }
}
