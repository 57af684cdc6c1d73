//! A bookmark of what a connection has just read.
//!
//! Rows show a moment before the replayed position moves, so the position of a read is the furthest
//! one that the server has received, taken *after* the data. The branch is that of the last takeover
//! that began at or below it. Where the server is on another timeline than that takeover, which is
//! so for the moment between a promotion and the worker's takeover, the position is what rows prove
//! of the takeover's timeline: less than was read, and on the branch that the bookmark names.

use farwrite_schemas::{Bookmark, DatabaseName, Epoch, Lsn, Timeline};
use sqlx::{PgConnection, types::Uuid};

use crate::producer::Producer;

/// The server's role, position and timeline, and the branch of the position.
const POSITION: &str = "\
    SELECT p.in_recovery, h.epoch, h.timeline,
           (CASE WHEN coalesce(p.timeline, h.timeline) = h.timeline THEN p.lsn
                 ELSE (SELECT b.proven FROM farwrite.branches(ARRAY[h.epoch]) b) END)::text
    FROM (SELECT q.in_recovery, q.lsn,
                 CASE WHEN q.in_recovery
                      THEN (SELECT w.received_tli FROM pg_stat_get_wal_receiver() w WHERE q.lsn IS NOT NULL)
                      ELSE ('x' || left(pg_walfile_name(q.lsn), 8))::bit(32)::int END AS timeline
          FROM (SELECT r.in_recovery,
                       CASE WHEN r.in_recovery THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                            ELSE pg_current_wal_flush_lsn() END AS lsn
                FROM (SELECT pg_is_in_recovery() AS in_recovery OFFSET 0) r OFFSET 0) q OFFSET 0) p
    LEFT JOIN LATERAL (SELECT epoch, timeline FROM farwrite.history WHERE begin_lsn <= p.lsn
                       ORDER BY begin_lsn DESC, taken_at DESC LIMIT 1) h ON true";

/// Where a server stands.
pub(crate) struct Position {
    pub(crate) in_recovery: bool,
    /// `None` on a server where no worker has ever taken over.
    pub(crate) bookmark: Option<Bookmark>,
}

/// Asks where a server stands, after something was read on the same connection.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    database: &DatabaseName,
) -> Result<Position, sqlx::Error> {
    let (in_recovery, epoch, timeline, lsn): (bool, Option<Uuid>, Option<i32>, Option<String>) =
        sqlx::query_as(POSITION).fetch_one(connection).await?;
    let bookmark = match (epoch, timeline, lsn) {
        (Some(epoch), Some(timeline), Some(lsn)) => {
            let lsn: Lsn = lsn.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
            let timeline = Timeline(timeline.unsigned_abs());
            Some(Bookmark { database: database.clone(), timeline, epoch: Epoch(epoch), lsn })
        }
        _ => None,
    };
    Ok(Position { in_recovery, bookmark })
}

impl Producer {
    /// A bookmark of what was just read on a connection: whoever waits for it elsewhere sees at
    /// least that, so that an app which hops between regions never goes back in time.
    ///
    /// Ask after the read, on the same connection. `None` where no worker has ever taken over.
    ///
    /// # Errors
    /// The database's. The user needs `USAGE` on the schema `farwrite` and `SELECT` on its tables
    /// `history` and `owner`.
    pub async fn bookmark(
        &self,
        connection: &mut PgConnection,
    ) -> Result<Option<Bookmark>, sqlx::Error> {
        Ok(ask(connection, self.inner.subjects.database()).await?.bookmark)
    }
}
