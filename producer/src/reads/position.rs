//! A bookmark of what a connection has just read.
//!
//! Rows show a moment before the replayed position moves. So the position of a read is the furthest
//! one that the server has received, taken *after* the data. A replica that was restarted replays
//! what lies on its own disk before it receives anything. Until then the read waits for the replayed
//! position to move, which ends the moment.
//!
//! The branch is that of the last takeover that began at or below the position. Between a promotion
//! and the worker's takeover the server is on another timeline than that takeover. There the
//! position is what rows prove of the takeover's timeline: less than was read, and on the branch
//! that the bookmark names.

use std::time::Duration;

use farwrite_schemas::{Bookmark, DatabaseName, Epoch, Lsn, Timeline};
use sqlx::{PgConnection, types::Uuid};
use tokio::time::sleep;

/// How often the replayed position is looked at where nothing is received. With the pauses 250 ms:
/// longer than the replay of any commit but one that drops thousands of tables. Looks are counted
/// instead of time, since a process that is held for so long would look once. Where the primary is
/// away as well, nothing moves, and every bookmark of a read takes this long.
const LOOKS: u32 = 50;
/// The pause before each. Only after a restart of the replica.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The server's role, position and timeline, and the branch of the position. Where nothing was
/// received beyond what is replayed already, the replayed position, else null.
const POSITION: &str = "\
    SELECT p.in_recovery, p.replayed::text, h.epoch, h.timeline,
           (CASE WHEN h.epoch IS NULL THEN NULL
                 WHEN coalesce(p.timeline, h.timeline) = h.timeline THEN p.lsn
                 ELSE (SELECT b.proven FROM farwrite.branches(ARRAY[h.epoch]) b) END)::text
    FROM (SELECT q.in_recovery, q.lsn, q.replayed,
                 CASE WHEN q.in_recovery
                      THEN (SELECT w.received_tli FROM pg_stat_get_wal_receiver() w WHERE q.lsn IS NOT NULL)
                      ELSE ('x' || left(pg_walfile_name(q.lsn), 8))::bit(32)::int END AS timeline
          FROM (SELECT r.in_recovery,
                       CASE WHEN r.in_recovery THEN greatest(r.received, r.replayed)
                            ELSE pg_current_wal_flush_lsn() END AS lsn,
                       CASE WHEN r.in_recovery AND (r.received >= r.replayed) IS NOT TRUE THEN r.replayed END AS replayed
                FROM (SELECT pg_is_in_recovery() AS in_recovery, pg_last_wal_replay_lsn() AS replayed,
                             pg_last_wal_receive_lsn() AS received OFFSET 0) r OFFSET 0) q OFFSET 0) p
    LEFT JOIN LATERAL (SELECT epoch, timeline FROM farwrite.history WHERE identity = (SELECT farwrite.identity()) AND begin_lsn <= p.lsn
                       ORDER BY begin_lsn DESC, taken_at DESC LIMIT 1) h ON true";

/// Where a server stands.
pub(crate) struct ServerPosition {
    pub(crate) in_recovery: bool,
    /// `None` on a server where no worker has ever taken over, or whose rows are another database's.
    pub(crate) bookmark: Option<Bookmark>,
}

/// What a server said once.
struct PositionReading {
    position: ServerPosition,
    /// How far it has replayed, if it has received nothing beyond.
    replayed: Option<Lsn>,
}

/// Asks where a server stands, after something was read on the same connection.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    database: &DatabaseName,
) -> Result<ServerPosition, sqlx::Error> {
    let mut said = ask_once(connection, database).await?;
    let Some(replayed) = said.replayed else { return Ok(said.position) };
    for _ in 0..LOOKS {
        sleep(LOOK_EVERY).await;
        said = ask_once(connection, database).await?;
        if said.replayed.is_none_or(|now| now > replayed) {
            break;
        }
    }
    Ok(said.position)
}

async fn ask_once(
    connection: &mut PgConnection,
    database: &DatabaseName,
) -> Result<PositionReading, sqlx::Error> {
    type PositionRow = (bool, Option<String>, Option<Uuid>, Option<i32>, Option<String>);
    let row: PositionRow = sqlx::query_as(POSITION).fetch_one(connection).await?;
    let (in_recovery, replayed, epoch, timeline, lsn) = row;
    let parse = |lsn: String| lsn.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)));
    let replayed: Option<Lsn> = replayed.map(parse).transpose()?;
    let bookmark = match (epoch, timeline, lsn.map(parse).transpose()?) {
        (Some(epoch), Some(timeline), Some(lsn)) => {
            let timeline = Timeline(timeline.unsigned_abs());
            Some(Bookmark { database: database.clone(), timeline, epoch: Epoch(epoch), lsn })
        }
        _ => None,
    };
    Ok(PositionReading { position: ServerPosition { in_recovery, bookmark }, replayed })
}
