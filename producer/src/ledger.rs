//! Reading outcomes in the database that this producer reads: its region's replica, or the primary.
//!
//! An outcome that is found on a replica is visible there. Its bookmark, which may travel on, needs
//! a position behind the commit: the furthest one that the replica has received, read after the
//! row (a row shows a moment before the replayed position moves). The epoch and the timeline are
//! those of the last takeover that began below that position, in the same session. All of it errs
//! on one side only: a takeover that was received and is not replayed makes the bookmark one that a
//! wait calls unknown, never one that is said to be visible where it is not.
//!
//! What is not found on a replica is unknown *here*. Only the primary knows that a command has not
//! ended.

use farwrite_lsn_watcher::WaitError;
use farwrite_schemas::{
    Bookmark, CommandId, Epoch, Lsn, OUTCOMES_QUERY, Outcome, OutcomeRow, Parked, Recorded, Reply,
    Standing, Timeline,
};
use serde_json::value::RawValue;
use sqlx::{PgConnection, types::Uuid};
use tokio::time::{Instant, timeout_at};

use crate::{
    metrics,
    producer::Inner,
    reads::{NoReads, Reads},
};

/// How far this server has come, and whether it is a replica. A replica that has just begun has no
/// position.
const REACHED: &str = "\
    SELECT pg_is_in_recovery(),
           (CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                 ELSE pg_current_wal_flush_lsn() END)::text";

/// The branch of history that a position lies on.
const BRANCH: &str = "\
    SELECT epoch, timeline FROM farwrite.history WHERE begin_lsn <= $1::pg_lsn
    ORDER BY begin_lsn DESC, taken_at DESC LIMIT 1";

/// Why an output that is too large for a message could not be read from the database.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The producer has no pool to read with.
    #[error(transparent)]
    NoReads(#[from] NoReads),
    /// The replica was not seen to reach the bookmark.
    #[error("the replica has not reached it: {0}")]
    NotVisible(Box<WaitError>),
    /// The database failed, or does not let this user read the ledger.
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    /// The time was up.
    #[error("the time was up")]
    TimedOut,
    /// The ledger does not hold it any more, or what it holds is not an output.
    #[error("the ledger does not hold it")]
    NotFound,
}

/// What the database that is read says of a command.
#[derive(Debug)]
pub(crate) enum Seen {
    /// It ended.
    Ended(Reply),
    /// It has not, at this position of this server. On the primary that is a fact.
    NotEnded { parked: Option<Parked>, is_fact: bool },
}

impl Inner {
    /// Looks for an outcome; `None` where the producer has nothing to read with.
    pub(crate) async fn read_outcome(&self, id: CommandId) -> Option<Result<Seen, sqlx::Error>> {
        let pool = self.reads.pool().ok()?;
        let looking = async {
            let mut connection = pool.acquire().await?;
            self.look(&mut connection, id).await
        };
        let seen = looking.await;
        metrics::outcome_read(match &seen {
            Ok(Seen::Ended(_)) => "found",
            Ok(Seen::NotEnded { .. }) => "not_found",
            Err(_) => "failed",
        });
        Some(seen)
    }

    async fn look(
        &self,
        connection: &mut PgConnection,
        id: CommandId,
    ) -> Result<Seen, sqlx::Error> {
        let recorded = recorded(connection, id).await?;
        // After the row: see the head of this file.
        let (is_replica, reached): (bool, Option<String>) =
            sqlx::query_as(REACHED).fetch_one(&mut *connection).await?;
        let is_fact = !is_replica && matches!(self.reads, Reads::Primary(_));
        let (outcome, record) = match recorded.map(|recorded| recorded.standing) {
            Some(Standing::Ended { outcome, record }) => (outcome, record),
            Some(Standing::Parked(parked)) => {
                return Ok(Seen::NotEnded { parked: Some(parked), is_fact });
            }
            None => return Ok(Seen::NotEnded { parked: None, is_fact }),
        };
        let reached = reached.ok_or(sqlx::Error::RowNotFound)?;
        let (epoch, timeline): (Uuid, i32) =
            sqlx::query_as(BRANCH).bind(&reached).fetch_one(connection).await?;
        let lsn: Lsn = reached.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
        let bookmark = Bookmark {
            database: self.subjects.database().clone(),
            timeline: Timeline(timeline.unsigned_abs()),
            epoch: Epoch(epoch),
            lsn,
        };
        Ok(Seen::Ended(Reply { id, outcome, bookmark, record }))
    }

    /// Reads the output of a command that was applied, once its bookmark is visible here.
    pub(crate) async fn read_output(
        &self,
        id: CommandId,
        bookmark: &Bookmark,
        deadline: Instant,
    ) -> Result<Box<RawValue>, OutputError> {
        let reading = async {
            let pool = self.reads.pool()?;
            let left = deadline.saturating_duration_since(Instant::now());
            let visible = self.reads.wait(bookmark, left).await;
            visible.map_err(|error| OutputError::NotVisible(Box::new(error)))?;
            let mut connection = pool.acquire().await?;
            match recorded(&mut connection, id).await?.map(|recorded| recorded.standing) {
                Some(Standing::Ended { outcome: Outcome::Applied { output }, .. }) => Ok(output),
                Some(_) | None => Err(OutputError::NotFound),
            }
        };
        let read = timeout_at(deadline, reading).await.unwrap_or(Err(OutputError::TimedOut));
        metrics::outcome_read(match &read {
            Ok(_) => "found",
            Err(OutputError::NotFound) => "not_found",
            Err(_) => "failed",
        });
        read
    }
}

async fn recorded(
    connection: &mut PgConnection,
    id: CommandId,
) -> Result<Option<Recorded>, sqlx::Error> {
    let row: Option<OutcomeRow> =
        sqlx::query_as(OUTCOMES_QUERY).bind(vec![id.uuid()]).fetch_optional(connection).await?;
    let recorded = row.map(Recorded::from_row).transpose();
    recorded.map_err(|error| sqlx::Error::Decode(Box::new(error)))
}
