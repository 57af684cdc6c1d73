//! What a wait ends with: the position was reached, or a reason why not.
//!
//! Every reason that took time carries [`Seen`], because "it timed out" helps nobody: a caller
//! wants to know how far the replica had come, and whether it was heard at all.

use std::{fmt, sync::Arc, time::Duration};

use farwrite_schemas::{Lsn, Timeline};

/// The server shows what was waited for: a new snapshot on it holds the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// What was seen of the replica by the time that a wait ended in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The furthest position seen on the present start of the server; `None` when none was, or
    /// when the connection was lost since.
    pub reached: Option<Lsn>,
    /// Bytes of log from `reached` to what was waited for.
    pub missing_bytes: Option<u64>,
    /// How long the caller waited.
    pub waited: Duration,
    /// Answers of the replica (or of the region's watcher) during the wait.
    pub answers: u64,
    /// How long ago the last answer came, whenever that was; `None` when there never was one.
    pub heard_ago: Option<Duration>,
    /// The timeline that the server was on, where it tells.
    pub timeline: Option<Timeline>,
    /// Why the position, though it may be reached, could not be told to be on its branch.
    pub doubt: Option<Doubt>,
    /// Why the server's history could not be read.
    pub unreadable: Option<Arc<str>>,
}

/// Why a position that may be visible is not told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// The server is on another timeline than the bookmark, and no worker has taken over on it yet
    /// and written where the bookmark's timeline ended.
    #[error("the server is on timeline {}, where no worker has taken over yet", _0.0)]
    OtherTimeline(Timeline),
    /// The server does not tell its timeline: it receives no log at present, or its user may not
    /// see `pg_stat_wal_receiver` (grant `pg_read_all_stats`).
    #[error(
        "the server does not tell its timeline (it receives no log, or the user lacks pg_read_all_stats)"
    )]
    TimelineUnknown,
    /// The server's history was not read.
    #[error("the server's history was not read")]
    HistoryUnread,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reached, self.missing_bytes) {
            (Some(reached), Some(missing)) => write!(f, "seen {reached}, {missing} bytes short")?,
            _ => write!(f, "no position seen")?,
        }
        write!(f, "; waited {:?}, {} answers", self.waited, self.answers)?;
        match self.heard_ago {
            Some(ago) => write!(f, ", the last one {ago:?} ago")?,
            None => write!(f, ", never heard")?,
        }
        if let Some(timeline) = self.timeline {
            write!(f, ", on timeline {}", timeline.0)?;
        }
        if let Some(doubt) = self.doubt {
            write!(f, "; {doubt}")?;
        }
        match &self.unreadable {
            Some(why) => write!(f, "; its history cannot be read: {why}"),
            None => Ok(()),
        }
    }
}

/// Why the replica cannot be asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GoneReason {
    /// The connection was refused or broke, or the server said no.
    #[error("the connection failed: {0}")]
    Connection(#[source] Arc<sqlx::Error>),
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

/// Why a wait ended without its position being reached.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WaitError {
    /// The time is up; the replica answers, and is not there yet.
    #[error("the replica has not replayed {target} in time ({seen})")]
    TimedOut {
        /// What was waited for.
        target: Lsn,
        /// How far it had come.
        seen: Box<Seen>,
    },
    /// The time is up, and the replica could not be asked.
    #[error("the replica cannot be asked for {target}: {reason} ({seen})")]
    ReplicaGone {
        /// What was waited for.
        target: Lsn,
        /// What had been seen of it before.
        seen: Box<Seen>,
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
        seen: Box<Seen>,
    },
    /// A bookmark so far ahead that nobody can have written it. Told at once.
    #[error("{target} is further ahead than anybody can have written ({seen})")]
    Implausible {
        /// What was waited for.
        target: Lsn,
        /// What is known of the server.
        seen: Box<Seen>,
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
