//! Why a position that may be visible is not told so.

use farwrite_schemas::Timeline;

/// Why a position that may be visible is not told so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Doubt {
    /// The server is on another timeline than the bookmark, and no worker has taken over on it yet
    /// and written where the bookmark's timeline ended.
    #[error("the server is on timeline {}, where no worker has taken over yet", _0.0)]
    OtherTimeline(Timeline),
    /// The bookmark is of a later timeline than all takeovers that the server holds, and the server has replayed
    /// past it. So the server may be on a branch that a failover lost, and not know of the one that survived.
    #[error(
        "the server holds no takeover of the bookmark's timeline {}: a failover may have lost the server's own branch, and then the server must be made anew",
        _0.0
    )]
    LaterTimeline(Timeline),
    /// The server does not tell its timeline: it receives no log at present, or its user may not
    /// see `pg_stat_wal_receiver` (grant `pg_read_all_stats`).
    #[error(
        "the server does not tell its timeline (it receives no log, or the user lacks pg_read_all_stats)"
    )]
    TimelineUnknown,
    /// The bookmark is of a takeover so long ago that the server's history may have deleted it. The
    /// outcome of its command says what became of it.
    #[error(
        "the server's history no longer goes back to the bookmark's takeover: ask for the command's outcome"
    )]
    HistoryForgotten,
    /// The server's history was not read.
    #[error("the server's history was not read")]
    HistoryUnread,
}
